"""Open the notebooks in Colab: a cell that installs robviz there, and a badge that leads there.

Colab gets one notebook file and nothing else. So every notebook contains the same small cell, tagged `install`, and it
is written from one repository's name: `robviz course badges OWNER/NAME`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from robviz.types import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: The repository in the notebooks until a maintainer who publishes them gives another one.
UNKNOWN = "OWNER/NAME"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
CELL = """\
# @title On Colab, run this cell first: it installs robviz
import subprocess
import sys

REPOSITORY = "{repository}"  # on GitHub; `robviz course badges` writes it
if "google.colab" in sys.modules:  # elsewhere, this cell does nothing
    wanted = f"robviz[notebooks] @ git+https://github.com/{{REPOSITORY}}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wanted], check=True)"""
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE = re.compile(r"\[!\[(Open in Colab)\]\([^)]*\)\](\([^)]*\))\n\n")


def install_cell(repository: str = UNKNOWN) -> str:
    """Return the source of the cell that installs robviz from a repository on Colab."""
    return CELL.format(repository=repository)


def badge(repository: str, name: str) -> str:
    """Return the badge that opens a notebook of a repository in Colab, in Markdown."""
    return (
        f"[![Open in Colab]({PICTURE})]"
        f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)\n\n"
    )


def without_picture(text: str) -> str:
    """Replace the badge by a plain link, as a rendered page loads nothing from elsewhere."""
    return BADGE.sub(r"[\1]\2\n\n", text)


def is_install(cell: NotebookNode) -> bool:
    """Return True for the cell that installs robviz on Colab."""
    return "install" in cell.metadata.get("tags", [])


def add_badges(folder: Path, repository: str) -> list[Path]:
    """Write a repository's name into every notebook of a folder: its badge below the title, and its install cell.

    Args:
        folder: With the notebooks.
        repository: `OWNER/NAME` on GitHub.

    Returns:
        The paths of the notebooks.

    Raises:
        InputError: If the name is not of this form, or if there is no notebook.
    """
    import nbformat

    if not NAME.fullmatch(repository):
        raise InputError(f"a repository on GitHub is written OWNER/NAME, got {repository!r}")
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise InputError(f"{folder} contains no notebook; give the folder of the course")
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        title, _, rest = BADGE.sub("", notebook.cells[0].source).partition("\n\n")
        notebook.cells[0].source = f"{title}\n\n{badge(repository, path.stem)}{rest}"
        for cell in filter(is_install, notebook.cells):
            cell.source = install_cell(repository)
        nbformat.write(notebook, path)
    return paths
