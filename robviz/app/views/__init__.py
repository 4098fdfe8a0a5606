"""The app's views, one file each: layout and short handlers. Alone in robviz, these files know gradio."""
