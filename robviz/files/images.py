"""Convert between files, 8-bit pictures and tensors, without surprises."""

from __future__ import annotations

import base64
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robviz.files.decoding import DAMAGED as DAMAGED
from robviz.files.decoding import decoded, upright
from robviz.types import VOID, InputError, Palette

#: A picture of more pixels than this is refused from its header, before it is decoded.
MAX_PIXELS = 50_000_000
#: The longer side that uploads are shrunk to, and the smallest shorter side that models accept.
LONGER_SIDE, SHORTEST_SIDE = 256, 32


def read_picture(path: str | Path, longer_side: int = LONGER_SIDE) -> Image.Image:
    """Read any picture file as 8-bit RGB, upright, its longer side at most `longer_side` pixels.

    16-bit greys are scaled by their type and floats taken as 0 .. 1, transparency becomes white, CMYK is converted,
    EXIF rotation is applied, and the first frame of an animation is taken. Raises InputError, in one sentence that
    names the file, for what is not a picture, is damaged, or is too large or too small.
    """

    def converted(image: Image.Image) -> Image.Image:
        check_size(*image.size, name)
        image.seek(0)
        return to_rgb(upright(image), name)

    name = Path(path).name
    image = decoded(path, converted, name)
    scale = min(1.0, longer_side / max(image.size))
    size = (max(SHORTEST_SIDE, round(image.width * scale)), max(SHORTEST_SIDE, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def check_size(width: int, height: int, name: str = "this picture") -> None:
    """Raise InputError for a picture of too many or too few pixels."""
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} has {width} x {height} pixels, at most {MAX_PIXELS // 10**6} megapixels are allowed; "
            "shrink it first"
        )
    if min(width, height) < 8:
        raise InputError(f"{name} has only {width} x {height} pixels, at least 8 x 8 are needed to see anything")


Range = tuple[float, float]


def range_of(image: Image.Image, name: str) -> Range:
    """Return black and white of a picture of more than 8 bits, by its type; raises InputError if its type has none."""
    if image.mode == "F":
        return 0.0, 1.0
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return 0.0, 65535.0
    low, high = image.getextrema()
    raise InputError(
        f"{name} contains whole numbers of 32 bits, {low} .. {high}, whose range is unknown: expected 8 or 16 bits, or "
        "floats in 0 .. 1; convert it, or declare `range: [black, white]` in the dataset's card"
    )


def to_rgb(image: Image.Image, name: str = "this picture", limits: Range | None = None) -> Image.Image:
    """Convert a picture of any mode to 8-bit RGB; transparency becomes white.

    Pictures of more than 8 bits are scaled by their type, never by their contents, so that the same number is the same
    grey in every picture.

    Args:
        image: The picture.
        name: What messages call it.
        limits: The numbers that are black and white in pictures of more than 8 bits; by default 0 and 65535 for 16
            bits, 0 and 1 for floats.

    Returns:
        The picture.

    Raises:
        InputError: If it contains NaN or numbers beyond the limits, or 32-bit integers without limits.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        low, high = limits or range_of(image, name)
        values = np.asarray(image, dtype=np.float64)
        if not (low <= values.min() and values.max() <= high):  # so that NaN is found as well
            raise InputError(
                f"{name} contains {values.min():.6g} .. {values.max():.6g}: expected {low:g} .. {high:g}; convert it "
                "to 8 bits, or declare `range: [black, white]` in the dataset's card"
            )
        return Image.fromarray(((values - low) * (255 / (high - low))).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB picture to (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).contiguous()


def to_bytes(image: Tensor) -> np.ndarray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) uint8, rounded."""
    return (image.detach().cpu() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def levels_within(eps: float) -> int:
    """Return how many of 255 levels a value may change within eps in [0, 1]."""
    return math.floor(eps * 255 + 1e-6)


def quantise(attacked: Tensor, image: Tensor, eps: float, is_mean_square: bool = False) -> np.ndarray:
    """Round an attacked image to the closest 8-bit picture within eps of the 8-bit original.

    With eps below 1/255 nothing can change.

    Args:
        attacked: (3, H, W) in [0, 1].
        image: (3, H, W) in [0, 1], the original.
        eps: The radius, in [0, 1].
        is_mean_square: True if eps bounds the root mean square of the change instead of each value.

    Returns:
        (H, W, 3) uint8.
    """
    if is_mean_square:
        return quantise_mean_square(attacked, image, eps)
    levels = levels_within(eps)
    original = to_bytes(image).astype(int)
    change = (to_bytes(attacked).astype(int) - original).clip(-levels, levels)
    result: np.ndarray = (original + change).astype(np.uint8)
    return result


def quantise_mean_square(attacked: Tensor, image: Tensor, eps: float) -> np.ndarray:
    """Round an attacked image to an 8-bit picture whose change has a root mean square of at most eps.

    attacked, image: (3, H, W) in [0, 1]. Returns (H, W, 3) uint8. Rounding may add to the change, which is then shrunk
    a little and rounded again.
    """
    original = to_bytes(image).astype(int)
    for shrunk in np.linspace(1, 0, 101):
        rounded = to_bytes(image + float(shrunk) * (attacked.detach().cpu() - image)).astype(int)
        if np.sqrt(np.mean((rounded - original) ** 2)) <= 255 * eps + 1e-6:
            return rounded.astype(np.uint8)
    return original.astype(np.uint8)


def largest_change(a: np.ndarray, b: np.ndarray) -> int:
    """Return the L-infinity distance of two 8-bit pictures, in levels of 0 .. 255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def png_bytes(array: np.ndarray) -> bytes:
    """Encode an array (H, W) or (H, W, 3) uint8 as PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


AGAINST, FOR = (86, 180, 233), (230, 159, 0)  # theirs, too


def overlay(image: np.ndarray, labels: np.ndarray, palette: Palette, opacity: float = 0.7) -> np.ndarray:
    """Draw class colours over the greyed picture; void stays grey.

    image: (H, W, 3) uint8. labels: (H, W) int. Returns (H, W, 3) uint8.
    """
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    colours = np.asarray(palette, float)[np.maximum(labels, 0)]
    blended = (1 - opacity) * grey + opacity * colours
    result: np.ndarray = np.where((labels == VOID)[..., None], grey, blended).round().astype(np.uint8)
    return result


def attribution_overlay(image: np.ndarray, attribution: np.ndarray, scale: float) -> np.ndarray:
    """Draw an attribution over the greyed picture: orange where it supports the class, blue where it opposes it.

    image: (H, W, 3) uint8. attribution: (H, W) float. scale: at plus and minus this value, the colours are opaque.
    Returns (H, W, 3) uint8.
    """
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    colours = np.where(attribution[..., None] > 0, FOR, AGAINST)
    opacity = np.minimum(np.abs(attribution) / max(scale, np.finfo(float).tiny), 1)[..., None]
    result: np.ndarray = ((1 - opacity) * grey + opacity * colours).round().astype(np.uint8)
    return result


VOID_BYTE = 255  # void in an index PNG


def data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    """Write a picture as a data URL. kind: PNG or JPEG. options: of Pillow's `save`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def png_url(array: np.ndarray, compress_level: int = 1) -> str:
    """Encode (H, W, 3) or (H, W) uint8 as a data URL of a PNG; lossy formats would drown the perturbation."""
    return data_url(Image.fromarray(array), "PNG", compress_level=compress_level)


def change_png_url(image: np.ndarray, attacked: np.ndarray) -> str:
    """Encode what an attack has changed as a data URL of a PNG, half as large as that of the attacked picture.

    image, attacked: (H, W, 3) uint8. The PNG is grey, with H rows of W x 3 bytes: the channels of a pixel side by side,
    128 for no change. What a byte cannot hold wraps around, as does its sum with the picture: `changed` is exact.
    """
    change = attacked - image + np.uint8(128)
    picture = Image.fromarray(change.reshape(len(change), -1))
    picture.putpalette([level for level in range(256) for _ in "rgb"])  # without one, PNG takes differences: of noise
    return data_url(picture, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def changed(image: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the attacked picture, (H, W, 3) uint8, from the bytes that `change_png_url` encodes."""
    result: np.ndarray = image + change.reshape(image.shape) - np.uint8(128)
    return result


def jpeg_url(image: np.ndarray, quality: int, longer_side: int | None = None) -> str:
    """Encode (H, W, 3) uint8 as a data URL of a JPEG, shrunk to a longer side; enough where nothing is measured."""
    small = Image.fromarray(image)
    if longer_side is not None:
        small.thumbnail((longer_side, longer_side))
    return data_url(small, "JPEG", quality=quality)


def index_png_url(labels: np.ndarray) -> str:
    """Encode (H, W) labels below 255 as a grey PNG, with void as 255; raises InputError for larger labels."""
    if labels.max() >= VOID_BYTE:
        raise InputError(f"the viewer shows at most {VOID_BYTE} classes, got label {labels.max()}; merge some")
    return png_url(np.where(labels == VOID, VOID_BYTE, labels).astype(np.uint8))
