"""Your own pictures: a folder with a `dataset.yaml` that describes them.

    name: rooftops                      # optional; by default the name of the folder
    classes: [ground, roof, tree]       # or, with colours: {ground: [120, 100, 80], roof: [200, 0, 0], ...}
    labels: numbers                     # optional; or `colours`, in which case the classes need theirs
    void: 255                           # optional; a number or a list of them, or colours
    first: 0                            # optional; the number of the first class in the masks
    range: [0, 4095]                    # optional; black and white of pictures of more than 8 bits
    class_weights: [0.1, 0.5, 0.4]      # optional; by default computed from the masks of the split `train`
    splits:
      train: {images: images/train, masks: masks/train}
      val:   {images: "scenes/*/*_photo.jpg", masks: "labels/*/*_ids.png"}
      test:  {images: images/all, masks: masks/all, list: test.txt}

Paths are relative to the file. `images` and `masks` are folders, where a mask has the name of its picture but ends in
`.png`, or patterns, where every `*` of `masks` stands for what the same `*` of `images` matches. A sample is named by
its picture without suffix, or by what the `*`s match, joined by `/`; `list` is a text file with the names to use, one
per line. Masks of numbers have one channel, palette or grey, with 1 to 16 bits; masks of colours are read as RGB.
`first: 1` is for masks that count the classes from 1, such as those of ADE20K, where 0 is void. Pictures are turned
upright as their EXIF orientation says. Pictures of more than 8 bits are scaled by their type, 16 bits from 0 .. 65535
and floats from 0 .. 1, or by `range`. Files that begin with a dot are ignored: macOS leaves such files behind.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from torch import Tensor, tensor

from robviz.datasets.pairs import Pair, Pairs, names_in, read_indices
from robviz.datasets.weights import class_weights
from robviz.files.decoding import decoded, is_system_file, upright
from robviz.files.images import Range, to_rgb
from robviz.types import VOID, InputError

FOLDER_CARD = "dataset.yaml"
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class FolderCard:
    """Store the checked contents of a `dataset.yaml`."""

    path: Path
    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    has_colours: bool  # the masks are colours
    void: tuple[Any, ...]  # numbers, or colours
    class_weights: tuple[float, ...] | None
    splits: dict[str, dict[str, str]]
    first: int = 0  # the number of the first class in the masks
    range: Range | None = None  # black and white of pictures of more than 8 bits


# ------------------------------------------------------------------------------------------ reading the card


def colour_map(count: int) -> tuple[Colour, ...]:
    """Return the colours of VOC's development kit for any number of classes: the bits of the index spread over RGB."""

    def part(index: int, channel: int) -> int:
        return sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))

    return tuple((part(index, 0), part(index, 1), part(index, 2)) for index in range(count))


def is_number(value: Any) -> bool:
    """Return True for an int that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_colour(value: Any) -> bool:
    """Return True for a list of three numbers within 0 .. 255."""
    return isinstance(value, list) and len(value) == 3 and all(is_number(part) and 0 <= part <= 255 for part in value)


def require_keys(path: Path, where: str, values: Any, needed: set[str], optional: set[str]) -> None:
    """Raise InputError unless the value is a mapping with these keys."""
    known = ", ".join(sorted(needed | optional))
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected {where} to be a mapping with {known}, got {values!r}")
    for key in sorted(needed - values.keys()):
        raise InputError(f"{path}: {where} lacks {key!r}; its keys are {known}")
    for key in sorted(values.keys() - needed - optional, key=str):
        raise InputError(f"{path}: {where} has an unknown key {key!r}; its keys are {known}")


def read_classes(path: Path, value: Any) -> tuple[tuple[str, ...], tuple[Colour, ...] | None]:
    """Read the names of the classes, and their colours if there are any; raises InputError."""
    names = list(value) if isinstance(value, (list, dict)) else None
    if not names or len(names) < 2:
        raise InputError(f"{path}: expected classes to be a list of at least two names, got {value!r}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{path}: expected every class to be a name, got {name!r}; put it in quotes")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the class {name!r} is listed twice; names must differ")
    if not isinstance(value, dict):
        return tuple(names), None
    for name, colour in value.items():
        if not is_colour(colour):
            raise InputError(f"{path}: expected the colour of {name!r} as [red, green, blue], 0 .. 255, got {colour!r}")
    return tuple(names), tuple(tuple(colour) for colour in value.values())


def read_void(path: Path, value: Any, has_colours: bool) -> tuple[Any, ...]:
    """Read the numbers or colours of void; raises InputError."""
    one, what = (is_colour, "[red, green, blue]") if has_colours else (is_number, "a number")
    values = [value] if one(value) else value
    if not isinstance(values, list) or not all(map(one, values)):
        raise InputError(f"{path}: expected void to be {what}, or a list of such, got {value!r}")
    return tuple(map(tuple, values)) if has_colours else tuple(values)


def read_first(path: Path, value: Any, count: int, void: tuple[Any, ...], has_colours: bool) -> int:
    """Read the number of the first class in the masks; raises InputError, also if void is the number of a class."""
    if not is_number(value) or not 0 <= value <= 65535 or (has_colours and value):
        raise InputError(
            f"{path}: expected first to be the number of the first class in masks of numbers, 0 or more, got {value!r}"
        )
    taken = [] if has_colours else [number for number in void if value <= number < value + count]
    if taken:
        raise InputError(
            f"{path}: {taken[0]} is void and the number of a class, which could never be labelled: the {count} classes "
            f"have the numbers {value} .. {value + count - 1} in the masks; `first: {taken[0] + 1}` says that they "
            f"begin at {taken[0] + 1}"
        )
    result: int = value
    return result


def read_range(path: Path, value: Any) -> Range | None:
    """Read the values of black and white, or None if the card gives none; raises InputError."""
    if value is None:
        return None
    is_pair = isinstance(value, list) and len(value) == 2 and all(is_number(x) or isinstance(x, float) for x in value)
    if not is_pair or not -float("inf") < value[0] < value[1] < float("inf"):
        raise InputError(f"{path}: expected range to be [black, white], such as [0, 4095], got {value!r}")
    return float(value[0]), float(value[1])


def read_weights(path: Path, value: Any, count: int) -> tuple[float, ...] | None:
    """Read the class weights, or None if the card gives none; raises InputError."""
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(weight, (int, float)) and 0 <= weight < float("inf") for weight in value)
    ):
        raise InputError(f"{path}: expected class_weights to be {count} numbers, one per class, got {value!r}")
    if not any(value):
        raise InputError(f"{path}: class_weights are all 0, so no pixel would be attacked; expected one above 0")
    return tuple(map(float, value))


def read_splits(path: Path, value: Any) -> dict[str, dict[str, str]]:
    """Read the splits, each {images, masks, list}; raises InputError."""
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: expected splits to name at least one split, got {value!r}")
    for split, places in value.items():
        if not isinstance(split, str):
            raise InputError(f"{path}: expected every split to be a name, got {split!r}; put it in quotes")
        require_keys(path, f"the split {split!r}", places, {"images", "masks"}, {"list"})
        for key, place in places.items():
            if not isinstance(place, str):
                raise InputError(f"{path}: expected {key!r} of the split {split!r} to be a path, got {place!r}")
    return value


def read_card(path: Path) -> FolderCard:
    """Read the `dataset.yaml` of a folder or at a path; raises InputError for the first mistake in it."""
    path = path / FOLDER_CARD if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} is missing: a folder of your own needs this card, see robviz.datasets.custom")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    optional = {"name", "labels", "void", "first", "range", "class_weights"}
    require_keys(path, "the card", values, {"classes", "splits"}, optional)
    name = values.get("name", path.resolve().parent.name)
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: expected name to be a text, got {name!r}; put it in quotes")
    kind = values.get("labels", "numbers")
    if kind not in ("numbers", "colours"):
        raise InputError(f"{path}: unknown value {kind!r} of labels; choose from: numbers, colours")
    has_colours = kind == "colours"
    classes, palette = read_classes(path, values["classes"])
    if has_colours and palette is None:
        raise InputError(
            f"{path}: masks of colours need the classes' colours; write classes as name: [red, green, blue]"
        )
    void = read_void(path, values.get("void", []), has_colours)
    if has_colours and len({*(palette or ()), *void}) < len(classes) + len(void):
        raise InputError(
            f"{path}: two classes, or a class and void, have the same colour; masks of colours need others"
        )
    return FolderCard(
        path=path,
        name=name,
        classes=classes,
        palette=palette or colour_map(len(classes)),
        has_colours=has_colours,
        void=void,
        class_weights=read_weights(path, values.get("class_weights"), len(classes)),
        splits=read_splits(path, values["splits"]),
        first=read_first(path, values.get("first", 0), len(classes), void, has_colours),
        range=read_range(path, values.get("range")),
    )


# ------------------------------------------------------------------------------------------ finding the pairs


def by_pattern(base: Path, pattern: str) -> dict[str, Path]:
    """Map what the `*`s match, joined by `/`, to the picture."""
    pieces = pattern.split("*")
    expression = re.compile("([^/]*)".join(map(re.escape, pieces)))
    pictures = {}
    for name in sorted(glob.glob("*".join(map(glob.escape, pieces)), root_dir=base)):
        match = expression.fullmatch(Path(name).as_posix())
        if match is not None and Path(name).suffix.lower() in PICTURES:
            pictures["/".join(match.groups())] = base / name
    return pictures


def by_folder(folder: Path) -> dict[str, Path]:
    """Map names without suffix to pictures; raises InputError if two pictures have the same name."""
    pictures: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in PICTURES and not is_system_file(path.name):
            if path.stem in pictures:
                raise InputError(f"{pictures[path.stem]} and {path.name} would share one mask; rename one of them")
            pictures[path.stem] = path
    return pictures


def pairs_of(card: FolderCard, split: str) -> list[Pair]:
    """Pair the pictures of a split with their masks, which may be missing; raises InputError if there is no picture."""
    base, places = card.path.parent, card.splits[split]
    images, masks = places["images"], places["masks"]
    pictures = by_pattern(base, images) if "*" in images else by_folder(base / images)
    if not pictures:
        raise InputError(f"{card.path}: there is no picture of the split {split!r} in {base / images}")
    pieces = (masks if "*" in masks else f"{masks}/*.png").split("*")
    if len(pieces) - 1 != max(images.count("*"), 1):
        raise InputError(
            f"{card.path}: expected as many * in masks as in images of the split {split!r}, "
            f"got {masks!r} and {images!r}"
        )
    names = names_in(base / places["list"]) if "list" in places else list(pictures)
    for name, times in Counter(names).items():
        if times > 1:
            raise InputError(
                f"{base / places['list']} lists {name!r} {times} times, so it would count {times} times in every "
                "figure; list it once"
            )
        if name not in pictures:
            raise InputError(f"{base / places['list']} lists {name!r}, which is not among {base / images}")
    return [Pair(name, pictures[name], base / filled(pieces, name)) for name in names]


def filled(pieces: list[str], name: str) -> str:
    """Fill the `*`s of a mask pattern with a sample's name."""
    stars = name.split("/") if len(pieces) > 2 else [name]
    return "".join(piece + star for piece, star in zip(pieces, [*stars, ""]))


# ------------------------------------------------------------------------------------------ reading the masks


def numbers(path: Path, void: tuple[int, ...], first: int = 0) -> np.ndarray:
    """Read a mask of numbers as (H, W) int64; raises InputError for a number below that of the first class."""
    labels = read_indices(path, void)
    is_void = np.isin(labels, void)
    if first and (below := labels[~is_void & (labels < first)]).size:
        raise InputError(
            f"{path} contains {below[0]}: expected the numbers of the classes, from {first} on, or of void; "
            f"add `void: {below[0]}` to the card if it means that"
        )
    return np.where(is_void, VOID, labels - first)


def colours(path: Path, palette: tuple[Colour, ...], void: tuple[Colour, ...]) -> np.ndarray:
    """Read a mask of colours as (H, W) int64; raises InputError for colours that are neither a class's nor void's."""
    rgb = decoded(path, lambda image: np.asarray(image.convert("RGB")).astype(np.int64))
    codes = rgb @ (1 << 16, 1 << 8, 1)
    labels = np.full(codes.shape, len(palette))
    for label, (red, green, blue) in [*enumerate(palette), *((VOID, colour) for colour in void)]:
        labels[codes == (red << 16 | green << 8 | blue)] = label
    unknown = np.unique(rgb[labels == len(palette)], axis=0).tolist()
    if unknown:
        raise InputError(
            f"{path} contains the colour {unknown[0]}{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}: "
            "expected those of the classes and of void"
        )
    return labels


def own_picture(image: Image.Image, name: str, limits: Range | None = None) -> Image.Image:
    """Return 8-bit RGB, turned as the EXIF orientation says, as every viewer shows it."""
    return to_rgb(upright(image), name, limits)


# ------------------------------------------------------------------------------------------ the dataset


class Folder(Pairs):
    """Open one split of a user's folder."""

    def __init__(self, card: FolderCard, split: str) -> None:
        read = (
            partial(colours, palette=card.palette, void=card.void)
            if card.has_colours
            else partial(numbers, void=card.void, first=card.first)
        )
        pairs = pairs_of(card, split)
        orient = partial(own_picture, limits=card.range)
        super().__init__(card.name, split, pairs, read, card.classes, card.palette, orient=orient)
        self.card = card

    @cached_property
    def class_weights(self) -> Tensor | None:
        """Return the weights of the card, or else those of the split `train`; None without either."""
        if self.card.class_weights is not None:
            return tensor(self.card.class_weights)
        return class_weights(Folder(self.card, "train")) if "train" in self.card.splits else None


def load(path: Path, split: str) -> Folder:
    """Open a split of the folder, or of the `dataset.yaml`, at a path; raises InputError for mistakes in it."""
    card = read_card(path)
    if split not in card.splits:
        raise InputError(f"{card.path} has no split {split!r}; choose from: {', '.join(card.splits)}")
    return Folder(card, split)
