"""Find the files of a dataset, or download them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from robviz.files.archives import extract_archive, require_sha1
from robviz.files.download import fetch
from robviz.files.paths import cache_folder
from robviz.types import InputError


def data_home() -> Path:
    """Return the folder that holds the datasets: `$ROBVIZ_DATA`, or else one in robviz's cache."""
    return Path(os.environ.get("ROBVIZ_DATA") or cache_folder() / "data")


@dataclass(frozen=True)
class Source:
    """Describe a folder of published files."""

    name: str  # of its folder in `data_home()`
    places: tuple[str, ...]  # where it may lie within the root, in order of preference
    marks: tuple[str, ...]  # any of these paths identifies the folder
    url: str
    about: str  # size and terms
    sha1: str | None = None  # of the archive, if its address serves a fixed one

    def find(self, root: Path | None = None) -> Path | None:
        """Return the folder, within `root` or else within `data_home()`, or None if it is not there."""
        base = root if root is not None else data_home()
        for place in (*self.places, *(f"{self.name}/{place}" for place in self.places)):
            if any((base / place / mark).exists() for mark in self.marks):
                return base / place
        return None

    def locate(self, root: Path | None = None) -> Path:
        """Return the folder; raises InputError if it is not there."""
        found = self.find(root)
        if found is None:
            raise InputError(
                f"{self.name} is not in {root if root is not None else data_home()}: expected a folder with "
                f"{' or '.join(self.marks)} there, or in {', '.join(self.places[1:])} below; give its root, "
                f"set ROBVIZ_DATA, or download it with `robviz data get`"
            )
        return found

    def get(self, root: Path | None = None) -> Path:
        """Download and unpack the files into `root` or `data_home()` unless they are there, and return their folder.

        Raises InputError if the download fails.
        """
        base = root if root is not None else data_home()
        if self.find(base) is None:
            archive = base / self.url.rsplit("/", 1)[-1]
            fetch(self.url, archive)
            try:
                if self.sha1 is not None:
                    require_sha1(archive, self.sha1)
                extract_archive(archive, base / self.name)
            finally:
                archive.unlink(missing_ok=True)
        return self.locate(base)
