"""Where the files of a dataset lie, and where they can be had."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from robviz.files.archives import require_sha1, unpack
from robviz.files.download import fetch
from robviz.files.paths import cache_folder
from robviz.types import InputError


def data_home() -> Path:
    """The folder that datasets are looked for and put in: `$ROBVIZ_DATA`, else one in robviz's cache."""
    return Path(os.environ.get("ROBVIZ_DATA") or cache_folder() / "data")


@dataclass(frozen=True)
class Source:
    """A folder of published files."""

    name: str  # of its folder in `data_home()`
    places: tuple[str, ...]  # folders within the root that it may be, in turn
    marks: tuple[str, ...]  # any of these paths in a folder tells that it is the one
    url: str
    about: str  # size and terms
    sha1: str | None = None  # of the archive, where its address serves one for good

    def find(self, root: Path | None = None) -> Path | None:
        """The folder, within `root` or else within `data_home()`; None where it is not."""
        base = root if root is not None else data_home()
        for place in (*self.places, *(f"{self.name}/{place}" for place in self.places)):
            if any((base / place / mark).exists() for mark in self.marks):
                return base / place
        return None

    def locate(self, root: Path | None = None) -> Path:
        """The folder; raises InputError where it is not."""
        found = self.find(root)
        if found is None:
            raise InputError(
                f"{self.name} is not in {root if root is not None else data_home()}: expected a folder with "
                f"{' or '.join(self.marks)} there, or in {', '.join(self.places[1:])} below; give the root it lies in, "
                f"set ROBVIZ_DATA, or download it with `robviz data get`"
            )
        return found

    def get(self, root: Path | None = None) -> Path:
        """Download and unpack it into `root` or `data_home()` unless it is there; returns its folder.

        Raises InputError when it cannot be had.
        """
        base = root if root is not None else data_home()
        if self.find(base) is None:
            archive = base / self.url.rsplit("/", 1)[-1]
            fetch(self.url, archive)
            try:
                if self.sha1 is not None:
                    require_sha1(archive, self.sha1)
                unpack(archive, base / self.name)
            finally:
                archive.unlink(missing_ok=True)
        return self.locate(base)
