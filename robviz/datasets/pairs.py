"""Pictures in files with their masks in other files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from robviz.files.images import DAMAGED, to_rgb, to_tensor
from robviz.types import VOID, Dataset, InputError, Sample

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; the name is unique within the dataset."""

    name: str
    image: Path
    mask: Path


def decoded(path: Path, convert: Callable[[Image.Image], T]) -> T:
    """What `convert` makes of a picture file. Raises InputError, naming the file, where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with Image.open(path) as opened:
            return convert(opened)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no picture that can be read: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """8-bit RGB, turned as the EXIF orientation says, as every viewer shows it."""
    return to_rgb(ImageOps.exif_transpose(image))


def read_indices(path: Path) -> np.ndarray:
    """(H, W) int64: the numbers in a mask of one channel, palette or grey, 8 or 16 bits.

    Raises InputError for a file that is none.
    """

    def indices(image: Image.Image) -> np.ndarray:
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise InputError(
                f"{path} is a mask in {image.mode}: expected one channel of class numbers, palette or grey"
            )
        return np.asarray(image).astype(np.int64)

    return decoded(path, indices)


def names_in(path: Path) -> list[str]:
    """The lines of a list of images, blank ones left out. Raises InputError where it is missing."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it lists the images of a split")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def fit(image: Image.Image, labels: np.ndarray, size: int) -> tuple[Image.Image, np.ndarray]:
    """Shorter side resized to `size`, centre cropped to a square: the paper's protocol, to the pixel.

    As the official code: Pillow's bilinear filter, which widens where it shrinks, and nearest neighbours for labels.
    """
    width, height = image.size
    shape = (width * size // height, size) if width > height else (size, height * size // width)
    left, top = (round((side - size) / 2) for side in shape)
    box = (left, top, left + size, top + size)
    mask = Image.fromarray(labels.astype(np.int32)).resize(shape, Image.Resampling.NEAREST).crop(box)
    return image.resize(shape, Image.Resampling.BILINEAR).crop(box), np.asarray(mask).astype(np.int64)


@dataclass(eq=False, repr=False)
class Pairs(Dataset):
    """Samples read from pairs of files when they are asked for.

    read_labels: a mask file to (H, W) int64 of class indices and `VOID`. size: of the paper's squares (`fit`); None
    keeps the pictures whole. orient: a picture to RGB; `to_rgb` leaves the pixels as stored, as the masks of the
    published datasets are drawn, `upright` turns them. `[i]` raises InputError, naming the file, for what is missing or
    damaged, for a mask of another size than its picture's, and for labels outside the classes.
    """

    name: str
    split: str
    pairs: Sequence[Pair]
    read_labels: Callable[[Path], np.ndarray]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    weights: Tensor | None = None
    size: int | None = None
    orient: Callable[[Image.Image], Image.Image] = to_rgb

    @property
    def class_weights(self) -> Tensor | None:
        return self.weights

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, labels = decoded(pair.image, self.orient), self.read_labels(pair.mask)
        if image.size != labels.shape[::-1]:
            raise InputError(
                f"{pair.mask} has {labels.shape[1]} x {labels.shape[0]} pixels, "
                f"but its picture {pair.image.name} has {image.width} x {image.height}"
            )
        outside = np.unique(labels[(labels != VOID) & ((labels < 0) | (labels >= len(self.classes)))])
        if len(outside):
            raise InputError(
                f"{pair.mask} holds {', '.join(map(str, outside[:5]))}{', ...' if len(outside) > 5 else ''}: expected "
                f"class numbers 0 .. {len(self.classes) - 1} or void"
            )
        if self.size is not None:
            image, labels = fit(image, labels, self.size)
        return Sample(pair.name, to_tensor(image), torch.from_numpy(labels))
