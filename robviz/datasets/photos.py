"""Photographs that the installed packages carry."""
from __future__ import annotations
from importlib import util
from pathlib import Path
import numpy as np
from PIL import Image

CLASSES = ("background", "person", "cat", "big cat", "motorbike", "cup", "rocket", "coin", "tower")
# Okabe-Ito hues, told apart without colour vision by their lightness.
PALETTE = ((40, 40, 40), (230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (240, 228, 66), (204, 121, 167), (190, 190, 190), (0, 114, 178))
_PLACES = {
    "astronaut": "skimage/data/astronaut.png", "camera": "skimage/data/camera.png", "chelsea": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png", "coins": "skimage/data/coins.png", "rocket": "skimage/data/rocket.jpg",
    "motorcycle_left": "skimage/data/motorcycle_left.png", "motorcycle_right": "skimage/data/motorcycle_right.png",
    "grace_hopper": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "cheetah": "gradio/media_assets/images/cheetah.jpg", "cheetah1": "gradio/media_assets/images/cheetah1.jpg",
    "cheetah2": "gradio/test_data/cheetah2.jpg", "lion": "gradio/media_assets/images/lion.jpg", "tower": "gradio/media_assets/images/tower.jpg",
}


def read_photo(name: str) -> np.ndarray:
    package, _, inside = _PLACES[name].partition("/")
    root = Path(util.find_spec(package).origin).parent
    return np.asarray(Image.open(root / inside).convert("RGB"))
