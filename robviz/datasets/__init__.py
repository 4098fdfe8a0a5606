"""Labelled pictures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robviz.datasets import photos
from robviz.types import Dataset


@dataclass(frozen=True)
class Entry:
    """One row of `DATASETS`: its splits, and how to open one of them, given the folder it lies in if it needs one."""

    splits: Sequence[str]
    load: Callable[[str, Path | None], Dataset]


#: To add a dataset, write its file and add its row.
DATASETS: dict[str, Entry] = {
    "photos": Entry(("train", "val", "val-128", "photographs"), lambda split, root: photos.load(split)),
}


def available() -> list[str]:
    """Names that `load_dataset` knows."""
    return list(DATASETS)


def load_dataset(name: str, split: str = "val", root: str | Path | None = None) -> Dataset:
    """A dataset: `len()`, `[i]` -> `Sample`, `.classes`, `.palette`.

    name: one of `available()`. split: one of its splits. root: the folder it lies in; `photos` needs none.
    Raises ValueError for an unknown name or split.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; choose from: {', '.join(DATASETS)}")
    entry = DATASETS[name]
    if split not in entry.splits:
        raise ValueError(f"{name} has no split {split!r}; choose from: {', '.join(entry.splits)}")
    return entry.load(split, Path(root) if root is not None else None)
