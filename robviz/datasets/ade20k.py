"""ADE20K scene parsing: 150 classes and a background, 20 210 training and 2000 validation images.

- `ade20k`: the paper's evaluation. Shorter side 512, centre crop of 512 x 512; label 0, everything outside the 150
  classes, is a class of its own, the background, and counts. Training images stay whole, for `augmented` to crop.
- `ade20k-full`: whole images, label 0 is void. The background stays in the list of classes, so that the same models
  fit; no pixel is labelled with it.

arXiv:2306.12941, section 5; Zhou et al., CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robviz.datasets.labels import read_table
from robviz.datasets.pairs import Pair, Pairs, read_indices
from robviz.datasets.sources import Source
from robviz.files.decoding import is_system_file
from robviz.types import VOID, InputError

SOURCE = Source(
    "ade20k",
    (".", "ADEChallengeData2016"),
    ("annotations/validation", "annotations/training"),
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "1 GB; for research and education, see its terms of use",
    "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
SIZE = 512
FOLDERS = {"train": "training", "val": "validation"}


def read_void(path: Path) -> np.ndarray:
    """Read a mask with the background as void."""
    labels = read_indices(path)
    return np.where(labels == 0, VOID, labels)


def pairs_of(split: str, root: Path | None) -> list[Pair]:
    """Pair the images of a split with their masks; raises InputError if there are none."""
    folder = SOURCE.locate(root)
    images = folder / "images" / FOLDERS[split]
    pairs = [
        Pair(image.stem, image, folder / "annotations" / FOLDERS[split] / f"{image.stem}.png")
        for image in sorted(images.glob("*.jpg"))
        if not is_system_file(image.name)
    ]
    if not pairs:
        raise InputError(f"{images} contains no .jpg: expected the {split} images of ADE20K there")
    return pairs


def load(split: str, root: Path | None) -> Pairs:
    """Open a split of `ade20k`, the paper's evaluation."""
    size = SIZE if split == "val" else None
    return Pairs("ade20k", split, pairs_of(split, root), read_indices, size=size, **read_table("ade20k"))


def load_full(split: str, root: Path | None) -> Pairs:
    """Open a split of `ade20k-full`, which leaves the images whole."""
    return Pairs("ade20k-full", split, pairs_of(split, root), read_void, **read_table("ade20k"))
