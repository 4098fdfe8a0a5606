"""Labelled pictures by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robviz.datasets import ade20k, camvid, photos, voc
from robviz.datasets import custom as folder
from robviz.datasets.augment import augmented as augmented
from robviz.datasets.sources import Source
from robviz.datasets.validation import validate as validate
from robviz.datasets.weights import class_weights as class_weights
from robviz.types import Dataset, InputError

__all__ = [
    "DATASETS",
    "Entry",
    "augmented",
    "available",
    "class_weights",
    "get",
    "inventory",
    "load_dataset",
    "validate",
]


check = validate  # its earlier name


@dataclass(frozen=True)
class Entry:
    """Describe one row of `DATASETS`: its splits, how to open a split given its root, and the files that it reads.

    A dataset that is read by two protocols has two rows, so that its name says which.
    """

    splits: Sequence[str]
    load: Callable[[str, Path | None], Dataset]
    sources: Sequence[Source] = ()


#: To add a dataset, write its file and add its row.
DATASETS: dict[str, Entry] = {
    "photos": Entry(("train", "val", "val-128", "photographs"), lambda split, root: photos.load(split)),
    "photos-objects": Entry(("train", "val"), lambda split, root: photos.load_objects(split)),
    "camvid": Entry(("train", "val", "test", "test-16"), camvid.load, (camvid.SOURCE,)),
    "voc": Entry(("train", "val"), voc.load, (voc.SOURCE,)),
    "voc-full": Entry(("train", "val"), voc.load_full, (voc.SOURCE,)),
    "voc-aug": Entry(("train",), voc.load_augmented, (voc.SOURCE, voc.SBD)),
    "ade20k": Entry(("train", "val"), ade20k.load, (ade20k.SOURCE,)),
    "ade20k-full": Entry(("train", "val"), ade20k.load_full, (ade20k.SOURCE,)),
}


def available() -> list[str]:
    """Return the names that `load_dataset` knows.

    Returns:
        The names of the published datasets and of `photos`.
    """
    return list(DATASETS)


def entry_of(name: str) -> Entry:
    """Return the row of a name; raises InputError for an unknown name."""
    if name not in DATASETS:
        raise InputError(
            f"unknown dataset {name!r}; choose from: {', '.join(DATASETS)}, "
            f"or give the path of your own folder with its {folder.FOLDER_CARD}"
        )
    return DATASETS[name]


def load_dataset(name: str | Path, split: str = "val", root: str | Path | None = None) -> Dataset:
    """Open a dataset: `len()`, `[i]` -> `Sample`, `.classes`, `.palette`, `.class_weights`.

    Args:
        name: One of `available()`, or the path of a folder with a `dataset.yaml`, or of such a file (see
            `robviz.datasets.custom`).
        split: One of its splits.
        root: The folder that holds it; by default `data_home()` for a name, and the working directory for a path.

    Returns:
        The split; pictures are read when they are asked for.

    Raises:
        InputError: For an unknown name or split, for missing files, and for mistakes in a `dataset.yaml`.
    """
    root = Path(root) if root is not None else None
    if name not in DATASETS and (path := Path(root or ".", name)).exists():
        own = folder.load(path, split)
        if own.name in DATASETS:
            raise InputError(f"{own.card.path}: the name {own.name!r} is that of a published dataset; give it another")
        return own
    entry = entry_of(str(name))
    if split not in entry.splits:
        raise InputError(f"{name} has no split {split!r}; choose from: {', '.join(entry.splits)}")
    return entry.load(split, root)


def inventory(root: Path | None = None) -> list[tuple[str, str, str]]:
    """List the datasets and whether their files are on this machine.

    Args:
        root: the folder to look in; by default `data_home()`.

    Returns:
        Name, `found` or `missing`, and where the files lie or how to get them, for each dataset.
    """
    rows = []
    for name, entry in DATASETS.items():
        folders = {source: source.find(root) for source in entry.sources}
        missing = [source for source, path in folders.items() if path is None]
        if missing:
            about = "; ".join(f"{source.name} ({' or '.join(source.marks)}): {source.about}" for source in missing)
            rows.append((name, "missing", f"robviz data get {name}    # {about}"))
        else:
            rows.append((name, "found", ", ".join(map(str, folders.values())) or "part of robviz"))
    return rows


def get(name: str, root: Path | None = None) -> list[Path]:
    """Download the missing files of a dataset.

    Args:
        name: One of `available()`.
        root: The folder to put them in; by default `data_home()`.

    Returns:
        The folders of the dataset.

    Raises:
        InputError: For an unknown name, and if a download fails.
    """
    return [source.get(root) for source in entry_of(name).sources]
