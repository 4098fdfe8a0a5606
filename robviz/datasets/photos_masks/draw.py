"""Draw the label masks of `photos`: hand-set outlines, refined on the picture by a random walker.

    python -m robviz.datasets.photos_masks.draw astronaut chelsea     # or no name: all of them

Each `<name>.json` lists regions, later ones painted over earlier ones:

    {"class": "person",            # a class of `photos`, "background", or "void" where the class is unclear
     "polygon": [[x, y], ...],     # in pixels of the original photograph
     "band": 6,                    # pixels on either side of the outline that the walker decides; 0 keeps the outline
     "beta": 300}                  # how sharply the walker stops at colour edges
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import scipy
from PIL import Image
from skimage.color import rgb2lab
from skimage.draw import polygon2mask
from skimage.filters import gaussian
from skimage.morphology import disk
from skimage.segmentation import random_walker

from robviz.datasets.photos import CLASSES, PALETTE, read_photo
from robviz.types import InputError

HERE = Path(__file__).parent
VOID_INDEX = 255


def refine(image: np.ndarray, outline: np.ndarray, band: int, beta: float) -> np.ndarray:
    """Decide the pixels within `band` of the outline by a random walk seeded on both sides of it.

    image: (H, W, 3) uint8. outline: (H, W) bool. Returns (H, W) bool.
    """
    if band == 0:
        return outline
    seeds = np.zeros(outline.shape, int)
    # The picture's border is not an outline: an object that it cuts keeps its pixels there.
    seeds[scipy.ndimage.binary_erosion(outline, disk(band), border_value=1)] = 1
    seeds[~scipy.ndimage.binary_dilation(outline, disk(band))] = 2
    if not (seeds == 1).any() or not (seeds == 2).any():
        raise InputError(f"band {band} leaves no seed; use a smaller one for this outline")
    colour = rgb2lab(gaussian(image, 0.7, channel_axis=-1)) / 100
    inside = random_walker(colour, seeds, beta=beta, mode="cg_j", prob_tol=0.1, channel_axis=-1) == 1
    result: np.ndarray = scipy.ndimage.binary_opening(scipy.ndimage.binary_fill_holes(inside), disk(1)) | (seeds == 1)
    return result


def draw(name: str) -> np.ndarray:
    """Draw the label mask of one photograph: (H, W) uint8 class indices, 255 for void."""
    image = read_photo(name)
    labels = np.zeros(image.shape[:2], np.uint8)
    for region in json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")):
        corners = np.array(region["polygon"], float)[:, ::-1]
        outline = polygon2mask(labels.shape, corners)
        index = VOID_INDEX if region["class"] == "void" else CLASSES.index(region["class"])
        labels[refine(image, outline, region.get("band", 5), region.get("beta", 300))] = index
    return labels


def save(labels: np.ndarray, path: Path) -> None:
    """Write an index PNG with the palette of `photos`; void is white."""
    picture = Image.fromarray(labels, mode="P")
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(PALETTE)] = PALETTE
    picture.putpalette(palette.tobytes())
    picture.save(path, optimize=True)


if __name__ == "__main__":
    for photo in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.json")):
        save(draw(photo), HERE / f"{photo}.png")
        print(photo)
