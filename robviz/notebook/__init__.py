"""What the course needs: lessons, checks of exercises, still charts, the widget, the runner."""
