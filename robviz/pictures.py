"""Between files, 8-bit pictures and tensors, without surprises."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

#: A picture of more pixels than this is refused from its header, before it is decoded.
MOST_PIXELS = 50_000_000
#: The longer side that uploads are shrunk to, and the shorter side that models can take.
LONGER_SIDE, SHORTEST_SIDE = 256, 32
#: What Pillow raises for files that are empty, cut short or damaged.
DAMAGED = (OSError, SyntaxError, EOFError, IndexError, TypeError, OverflowError)


def read_picture(path: str | Path, longer_side: int = LONGER_SIDE) -> Image.Image:
    """Any picture file as 8-bit RGB, upright, its longer side at most `longer_side` pixels.

    16-bit greys are scaled, transparency is laid on white, CMYK is converted, EXIF rotation is applied, and of an
    animation the first frame is taken. Raises ValueError, in one sentence, for what is not a picture, is broken,
    or is too large or too small.
    """
    try:
        # Pillow's own guard warns or raises by a size of its choosing; ours below is stricter and says what to do.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                check_size(*opened.size)
                opened.seek(0)
                image = to_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        raise ValueError(f"this picture has more than {MOST_PIXELS // 10**6} megapixels; shrink it first") from None
    except UnidentifiedImageError:
        raise ValueError("this file is not a picture that can be read; use PNG, JPEG, WebP, GIF or TIFF") from None
    except DAMAGED as error:
        raise ValueError("this picture file is empty, cut short or damaged; save it again and retry") from error
    scale = min(1.0, longer_side / max(image.size))
    size = (max(SHORTEST_SIDE, round(image.width * scale)), max(SHORTEST_SIDE, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"this picture has {width} x {height} pixels, at most {MOST_PIXELS // 10**6} megapixels are taken; "
            "shrink it first"
        )
    if min(width, height) < 8:
        raise ValueError(f"this picture has only {width} x {height} pixels, at least 8 x 8 are needed to see anything")


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a picture of any mode; transparency becomes white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        full = 65535 if values.max(initial=0) > 255 else 255
        return Image.fromarray(np.clip(values * (255 / full), 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """(H, W) RGB picture to (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).contiguous()


def to_bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8, rounded."""
    return (image.detach().cpu() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def quantise(attacked: Tensor, image: Tensor, eps: float) -> np.ndarray:
    """The 8-bit picture closest to `attacked` that stays within eps of the 8-bit picture of `image`.

    attacked, image: (3, H, W) in [0, 1]. Returns (H, W, 3) uint8. With eps below 1/255 nothing can change.
    """
    levels = math.floor(eps * 255 + 1e-6)
    original = to_bytes(image).astype(int)
    change = (to_bytes(attacked).astype(int) - original).clip(-levels, levels)
    return (original + change).astype(np.uint8)


def largest_change(a: np.ndarray, b: np.ndarray) -> int:
    """L-infinity distance of two 8-bit pictures, in levels of 0 .. 255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())
