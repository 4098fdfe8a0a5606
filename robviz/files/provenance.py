"""Record the versions of every package that can change a figure."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can change a figure."""
    packages = ("robviz", "torch", "timm", "numpy", "pillow", "scikit-image")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
