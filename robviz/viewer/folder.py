"""The page of a folder: an evaluation, or attacked pictures."""

from __future__ import annotations

from pathlib import Path

from robviz.types import InputError
from robviz.viewer.attacked import attacked_page
from robviz.viewer.page import MOST_BYTES
from robviz.viewer.report import evaluation_page
from robviz.viewer.worst import Shared


def folder_page(
    folder: Path, *, limit: int | None = None, title: str | None = None, most_bytes: int = MOST_BYTES
) -> Shared:
    """Write the page of an evaluation or of attacked pictures.

    Args:
        folder: What `robviz evaluate --out` or `robviz attack --out` wrote.
        limit: Show at most this many pictures, the worst; by default as many as fit.
        title: The title, instead of the folder's own.
        most_bytes: Roughly the size that the pictures may fill; one picture is always shown.

    Returns:
        The page, with the number of pictures on it.

    Raises:
        InputError: If the folder holds neither.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    if (folder / "report.json").is_file():
        return evaluation_page(folder, limit, title, most_bytes)
    if (folder / "numbers.json").is_file():
        return attacked_page(folder, limit, title, most_bytes)
    raise InputError(
        f"{folder} holds neither an evaluation nor attacked pictures; expected a folder that `robviz evaluate --out` "
        "or `robviz attack --out` wrote"
    )
