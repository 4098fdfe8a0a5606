"""PASCAL VOC 2012 segmentation: 21 classes, 1464 training and 1449 validation images.

- `voc`: the paper's evaluation. Shorter side 473, centre crop of 473 x 473, and what VOC leaves unlabelled (the
  outlines of objects and what is too difficult) counts as background, as in the official code. Training images stay
  whole, for `augmented` to crop.
- `voc-full`: whole images, unlabelled pixels are void.
- `voc-aug`: the usual augmented training set, whole images: the training images of VOC with its masks, and those that
  the Semantic Boundaries Dataset labels. Its lists hold validation images of VOC, which are left out; 10 582 remain.

arXiv:2306.12941, section 5; Everingham et al., IJCV 2015; Hariharan et al., ICCV 2011.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robviz.datasets.labels import read_table
from robviz.datasets.pairs import Pair, Pairs, names_in, read_indices
from robviz.datasets.sources import Source
from robviz.types import VOID, InputError

SOURCE = Source(
    "voc",
    (".", "VOC2012", "VOCdevkit/VOC2012"),
    ("SegmentationClass",),
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "2 GB; for research, images under the terms of Flickr",
    "4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
)
SBD = Source(
    "sbd",
    (".", "dataset", "benchmark_RELEASE/dataset"),
    ("cls",),
    "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "1.4 GB; for research, images under the terms of Flickr",
    "7129e0a480c2d6afb02b517bb18ac54283bfaa35",
)
SIZE = 473
UNLABELLED = 255


def read_void(path: Path) -> np.ndarray:
    """Read a mask of VOC with unlabelled pixels as void."""
    labels = read_indices(path)
    return np.where(labels == UNLABELLED, VOID, labels)


def read_background(path: Path) -> np.ndarray:
    """Read a mask of VOC with unlabelled pixels as background."""
    labels = read_indices(path)
    return np.where(labels == UNLABELLED, 0, labels)


def read_either(path: Path) -> np.ndarray:
    """Read a mask of VOC, or a `.mat` file of SBD, which has no unlabelled pixels."""
    if path.suffix != ".mat":
        return read_void(path)
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        result: np.ndarray = loadmat(path)["GTcls"]["Segmentation"][0, 0].astype(np.int64)
        return result
    except Exception as error:  # loadmat raises many kinds of exceptions for damaged files
        raise InputError(f"{path} is not a mask of SBD: {error!r}") from error


def pair_of(folder: Path, name: str) -> Pair:
    """Name an image of VOC and its mask."""
    return Pair(name, folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png")


def load(split: str, root: Path | None) -> Pairs:
    """Open a split of `voc`, the paper's evaluation."""
    folder = SOURCE.locate(root)
    pairs = [pair_of(folder, name) for name in names_in(folder / f"ImageSets/Segmentation/{split}.txt")]
    size = SIZE if split == "val" else None
    return Pairs("voc", split, pairs, read_background, size=size, **read_table("voc"))


def load_full(split: str, root: Path | None) -> Pairs:
    """Open a split of `voc-full`, which leaves the images whole."""
    return Pairs("voc-full", split, load(split, root).pairs, read_void, **read_table("voc"))


def load_augmented(split: str, root: Path | None) -> Pairs:
    """Open `voc-aug`, which has one split."""
    folder, sbd = SOURCE.locate(root), SBD.locate(root)
    train, val = (names_in(folder / f"ImageSets/Segmentation/{part}.txt") for part in ("train", "val"))
    more = {name for part in ("train", "val") for name in names_in(sbd / f"{part}.txt")} - {*train, *val}
    pairs = [pair_of(folder, name) for name in train]
    pairs += [Pair(name, sbd / "img" / f"{name}.jpg", sbd / "cls" / f"{name}.mat") for name in sorted(more)]
    return Pairs("voc-aug", split, pairs, read_either, **read_table("voc"))
