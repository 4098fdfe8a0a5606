"""Support the course: lessons, checks of exercises, still charts, the widget, the runner."""
