"""Read any picture file, whatever its metadata; every error message names the file."""

from __future__ import annotations

import io
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from robviz.types import InputError

T = TypeVar("T")
#: What Pillow raises for files that are empty, cut short or damaged.
DAMAGED = (OSError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, ValueError, struct.error, zlib.error)
PNG = b"\x89PNG\r\n\x1a\n"
#: Chunks of a PNG with text or a colour profile, which the pixels do not need.
REMARKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
#: Files that macOS and Windows leave in folders of pictures; all hidden files begin with a dot.
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")


def is_system_file(name: str) -> bool:
    """Return True for files that an operating system left behind: `._x.jpg`, `.DS_Store`, `Thumbs.db`, ..."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def without_remarks(png: bytes) -> bytes:
    """Remove the texts and the colour profile from a PNG. Raises struct.error if it is truncated."""
    kept, at = [PNG], len(PNG)
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind not in REMARKS:
            kept.append(png[at : at + length + 12])
        at += length + 12
    return b"".join(kept)


def decoded(path: str | Path, convert: Callable[[Image.Image], T], called: str | None = None) -> T:
    """Open a picture file and return what `convert` makes of it.

    A PNG is read even if it has very long texts or colour profiles, or a broken EXIF block.

    Args:
        path: The file.
        convert: A function of the open picture; it may raise InputError.
        called: The name of the file in messages; by default its path.

    Raises:
        InputError: If the file is missing, not a picture, damaged, or too large to be decoded. The message names it.
    """
    path, called = Path(path), called or str(path)
    if not path.is_file():
        raise InputError(f"{called} is missing{nearly(path)}")
    try:
        with warnings.catch_warnings(), whole():
            warnings.simplefilter("ignore")  # about sizes and broken metadata, which are handled here
            return opened(path, convert)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{called} has too many pixels to be decoded ({error}); cut it into tiles, or shrink it first"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{called} is not a picture that can be read; use PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from error
    except DAMAGED as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{called} is empty, cut short or damaged ({said}); save it again") from error


def nearly(path: Path) -> str:
    """Say which file is there in place of a missing one: its name differs in capitals, or in how accents are stored."""

    def read(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    there = path.parent.iterdir() if path.parent.is_dir() else ()
    found = next((one.name for one in there if read(one.name) == read(path.name)), None)
    return f", but {found} is there; rename it to {path.name}" if found is not None else ""


@contextmanager
def whole() -> Iterator[None]:
    """Refuse pictures that are cut short, whatever other libraries have told Pillow."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def opened(path: Path, convert: Callable[[Image.Image], T]) -> T:
    """Convert an open picture; a PNG whose texts or profile Pillow refuses is opened a second time without them."""
    try:
        with Image.open(path) as image:
            return convert(image)
    except InputError:
        raise
    except ValueError:  # Pillow's limits on texts and profiles, which are also those of a damaged chunk
        content = path.read_bytes()
        if not content.startswith(PNG):
            raise
        with Image.open(io.BytesIO(without_remarks(content))) as image:
            return convert(image)


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; one whose EXIF block is broken stays as it is stored."""
    try:
        return ImageOps.exif_transpose(image)
    except (*DAMAGED, AttributeError, KeyError, UnicodeError):
        image.info.pop("exif", None)
        return image


#: The highest value of greys that Pillow stretches to 0 .. 255 when it reads them, by how they are packed.
PACKED = {"1": 1, "L;2": 3, "L;4": 15}


def highest_sample(image: Image.Image) -> int | None:
    """Return the highest number that a grey picture's file can contain if Pillow reads it as 255 or 65535, or None.

    Call it before the pixels are loaded. In all other files, the numbers are those that Pillow returns.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return None
    kind, _, _, arguments = tiles[0]
    if kind in ("ppm", "ppm_plain"):  # (mode, highest), or mode alone where the highest is 255 or 65535
        return arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else None
    packing = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return PACKED.get(str(packing))


def samples(image: Image.Image) -> tuple[np.ndarray, int | None]:
    """Return the numbers in the file of a one-channel picture, (H, W) int64, and the highest of a packed one."""
    highest = highest_sample(image)
    values = np.asarray(image).astype(np.int64)
    if highest is None or image.mode == "1":
        return values, highest
    full = 255 if image.mode == "L" else 65535
    return (values * highest + full // 2) // full, highest
