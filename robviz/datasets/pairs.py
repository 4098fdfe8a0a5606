"""Pictures in files with their masks in other files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robviz.files.decoding import PACKED, decoded, samples
from robviz.files.images import to_rgb, to_tensor
from robviz.types import VOID, Dataset, InputError, Sample


@dataclass(frozen=True)
class Pair:
    """Name a picture and its mask; the name is unique within the dataset."""

    name: str
    image: Path
    mask: Path


def read_indices(path: Path, void: tuple[int, ...] = ()) -> np.ndarray:
    """Read the numbers in a mask of one channel, palette or grey, of 1 to 16 bits.

    Greys of 1, 2 and 4 bits give the numbers in the file, which viewers stretch to 0 .. 255.

    Args:
        path: The file of the mask.
        void: The numbers that are declared void; they stay in the result.

    Returns:
        (H, W) int64.

    Raises:
        InputError: The file is missing, damaged or has several channels, or it is unclear whether its white is a class
            or void (`white_as_void`).
    """

    def indices(image: Image.Image) -> tuple[np.ndarray, int]:
        if image.format == "JPEG":
            raise InputError(
                f"{path} is a JPEG, which stores numbers near those of the classes; save masks as PNG, from before "
                "they became JPEG"
            )
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise InputError(
                f"{path} is a mask in {image.mode}: expected one channel of class numbers, palette or grey"
            )
        labels, highest = samples(image)
        is_packed = highest in PACKED.values() and image.format != "PPM"
        return labels, int(highest or 0) if is_packed else 0

    labels, white = decoded(path, indices)
    return white_as_void(path, labels, white) if white and 255 in void and (labels == white).any() else labels


def white_as_void(path: Path, labels: np.ndarray, white: int) -> np.ndarray:
    """Decide what white is in a packed mask where void is 255.

    An 8-bit mask of 0 and 255 that an optimiser packed into 1 bit is the same file as one of the classes 0 and 1: white
    is taken as void, and a warning says so. With 2 and 4 bits, neither is likely, and the mask is refused.
    """
    bits = white.bit_length()
    if bits > 1:
        raise InputError(
            f"{path} is a grey mask of {bits} bits a pixel, in which white may be class {white} or void 255; save it "
            "with 8 bits a pixel"
        )
    warnings.warn(
        f"{path} is a mask of black and white, and void is 255: white is taken as void; if it is class 1, save it "
        "with 8 bits a pixel",
        stacklevel=2,
    )
    return np.where(labels == white, 255, labels)


def names_in(path: Path) -> list[str]:
    """Read the lines of a list of images, without blank ones; raises InputError if it is missing or not UTF-8."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it lists the images of a split")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it in that encoding") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def fit(image: Image.Image, labels: np.ndarray, size: int) -> tuple[Image.Image, np.ndarray]:
    """Resize the shorter side to `size` and crop a centred square: the paper's protocol, to the pixel.

    Like the official code, use Pillow's bilinear filter, which widens when it shrinks, and nearest neighbours for
    labels.
    """
    width, height = image.size
    shape = (width * size // height, size) if width > height else (size, height * size // width)
    left, top = (round((side - size) / 2) for side in shape)
    box = (left, top, left + size, top + size)
    mask = Image.fromarray(labels.astype(np.int32)).resize(shape, Image.Resampling.NEAREST).crop(box)
    return image.resize(shape, Image.Resampling.BILINEAR).crop(box), np.asarray(mask).astype(np.int64)


@dataclass(eq=False, repr=False)
class Pairs(Dataset):
    """Read samples from pairs of files when they are asked for.

    `[i]` raises InputError, naming the file, for missing or damaged files, for a mask whose size differs from its
    picture's, and for labels outside the classes.

    Attributes:
        read_labels: Reads a mask file as (H, W) int64 class indices and `VOID`.
        size: Side of the paper's squares (`fit`); None keeps the pictures whole.
        orient: Converts a picture and its name to RGB; `to_rgb` keeps the pixels as stored, which fits the masks of the
            published datasets.
    """

    name: str
    split: str
    pairs: Sequence[Pair]
    read_labels: Callable[[Path], np.ndarray]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    weights: Tensor | None = None
    size: int | None = None
    orient: Callable[[Image.Image, str], Image.Image] = to_rgb

    @property
    def class_weights(self) -> Tensor | None:
        """Return the class weights (K,) float32 that the dataset was opened with, if any."""
        return self.weights

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = decoded(pair.image, lambda opened: self.orient(opened, str(pair.image)))
        labels = self.read_labels(pair.mask)
        if image.size != labels.shape[::-1]:
            raise InputError(
                f"{pair.mask} has {labels.shape[1]} x {labels.shape[0]} pixels, "
                f"but its picture {pair.image.name} has {image.width} x {image.height}"
            )
        outside = np.unique(labels[(labels != VOID) & ((labels < 0) | (labels >= len(self.classes)))])
        if len(outside):
            raise InputError(
                f"{pair.mask} contains {', '.join(map(str, outside[:5]))}{', ...' if len(outside) > 5 else ''}: "
                f"expected class numbers 0 .. {len(self.classes) - 1} or void"
            )
        if self.size is not None:
            image, labels = fit(image, labels, self.size)
        return Sample(pair.name, to_tensor(image), torch.from_numpy(labels))
