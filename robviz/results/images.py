"""Store the masks and attacked pictures of an evaluation as PNG files beside its records."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from robviz.files.atomic import replacing
from robviz.files.images import DAMAGED
from robviz.results.plan import CLEAN
from robviz.types import InputError, Palette

MAX_BYTE_CLASSES = 255  # beyond that, a class takes two bytes
KINDS = ("masks", "pictures")


class ImageStore:
    """Store masks and pictures of an evaluation in the folders `masks` and `pictures`, one file per key.

    Masks are index PNGs: their values are class numbers, with the dataset's colours for up to 255 classes and with 16
    bits for more. Pictures are 8-bit RGB.

    Args:
        folder: The folder of the evaluation.
        kinds: The kinds to keep: `masks`, `pictures` or both.
        resume: Keep the files in the folder; False deletes them.
    """

    def __init__(self, folder: Path, kinds: tuple[str, ...] = (), resume: bool = True) -> None:
        self.folder, self.kinds = folder, kinds
        for kind in () if resume else KINDS:
            shutil.rmtree(folder / kind, ignore_errors=True)
        for kind in kinds:
            (folder / kind).mkdir(parents=True, exist_ok=True)

    def path(self, kind: str, key: str) -> Path:
        """Return the path of a kept image."""
        return self.folder / kind / f"{key}.png"

    def has(self, kind: str, key: str) -> bool:
        """Return True if an image of this kind is kept."""
        return self.path(kind, key).is_file()

    def write_mask(self, key: str, predictions: Tensor, palette: Palette) -> None:
        """Write predictions (H, W) in the palette's classes."""
        labels = predictions.cpu().numpy()
        if len(palette) > MAX_BYTE_CLASSES:
            self.write("masks", key, Image.fromarray(labels.astype(np.uint16)))
            return
        image = Image.fromarray(labels.astype(np.uint8)).convert("P")
        image.putpalette([value for colour in palette for value in colour])
        self.write("masks", key, image)

    def write(self, kind: str, key: str, image: Image.Image) -> None:
        """Write an image of this kind, as a whole or not at all."""
        with replacing(self.path(kind, key)) as file:
            image.save(file, "PNG", optimize=True)

    def read(self, kind: str, key: str) -> np.ndarray:
        """Read a mask (H, W) int64 or a picture (H, W, 3) uint8; raises InputError if it is missing or damaged."""
        path = self.path(kind, key)
        try:
            with Image.open(path) as image:
                array = np.array(image)
        except DAMAGED as error:
            raise InputError(f"{path} is missing or damaged; delete it and run the same evaluation again") from error
        return array if kind == "pictures" else array.astype(np.int64)


def stored_kinds(run: str) -> tuple[str, ...]:
    """Return the kinds of files that a run has; the unattacked picture is not stored."""
    return ("masks",) if run == CLEAN else KINDS
