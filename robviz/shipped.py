"""Where what ships with robviz lies: beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Path of a shipped file or folder: `checkpoints` or `app.py`."""
    inside = PACKAGE / name
    return inside if inside.exists() else PACKAGE.parent / name
