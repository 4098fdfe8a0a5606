"""Find the files bundled with robviz, and those that it keeps for the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def bundled_path(name: str) -> Path:
    """Return the path of a shipped file or folder, such as `checkpoints` or `notebooks`."""
    inside = PACKAGE / name
    return inside if inside.exists() else PACKAGE.parent / name


def cache_folder() -> Path:
    """Return the folder for downloads: `$ROBVIZ_CACHE`, or robviz's folder in the user's cache on this system."""
    if chosen := os.environ.get("ROBVIZ_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "robviz"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "robviz"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robviz"
