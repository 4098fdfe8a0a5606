"""The evaluations that a server shows; the browser names them by their number alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from robviz.files.paths import bundled_path
from robviz.results.failures import Failures, failures
from robviz.types import Dataset, InputError


@lru_cache(maxsize=4)
def opened_as_of(folder: Path, written: float) -> tuple[Failures, Dataset | None]:
    """Open an evaluation as it was written at some time."""
    found = failures(folder)
    return found, found.dataset


class Evaluations:
    """List the evaluations in a folder, or the shipped ones, and those that are made while the server runs.

    Args:
        root: A folder to look through, or of several; None for the shipped ones.

    Raises:
        InputError: Where there is none.
    """

    def __init__(self, root: Path | None = None) -> None:
        root = (root or bundled_path("checkpoints") / "failures").resolve()
        folders = [root, *sorted(path for path in root.glob("*") if path.resolve().is_relative_to(root))]
        self.folders = [folder for folder in folders if (folder / "report.json").is_file()]
        if not self.folders:
            raise InputError(
                f"{root} holds no finished evaluation; expected a folder that `robviz evaluate --out` wrote"
            )

    def names(self) -> list[tuple[str, int]]:
        """Return name and number of each, for a menu."""
        return [(folder.name, number) for number, folder in enumerate(self.folders)]

    def add(self, folder: Path) -> int:
        """Show one more evaluation; return its number."""
        if folder not in self.folders:
            self.folders.append(folder)
        return self.folders.index(folder)

    def opened(self, evaluation: int) -> tuple[Failures, Dataset | None]:
        """Open an evaluation by its number, with its dataset if that is here. Raises InputError for another number."""
        if evaluation not in range(len(self.folders)):
            raise InputError(f"there is no evaluation number {evaluation}; choose one of the list")
        folder = self.folders[evaluation]
        return opened_as_of(folder, (folder / "report.json").stat().st_mtime)
