"""Pictures from files, attacked one after the other, with everything that shows what happened written beside them.

`attack_pictures` writes for each picture a folder with the attacked picture as PNG, exactly as the model was shown it,
both masks, both overlays and the numbers; for all together `numbers.json`. `robviz.viewer.folder` makes a page of them.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from robviz.attacks import AttackSpec, predicted
from robviz.datasets.pairs import read_indices
from robviz.files.atomic import replacing, write_atomically
from robviz.files.images import LONGER_SIDE, overlay, png_bytes, read_picture, to_tensor
from robviz.files.provenance import versions
from robviz.interactive.comparison import Comparison, Subject, compare
from robviz.interactive.scenario import known_class_weights
from robviz.models import Card, card_of, fingerprint
from robviz.models.layers import device_of
from robviz.types import VOID, InputError, Sample

#: What counts as a picture in a folder.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")
VOID_BYTE = 255
MOST_CLASSES = 255  # that a mask of 8 bits tells apart


@dataclass(frozen=True)
class Attacked:
    """Hold one of several pictures, attacked.

    Attributes:
        name: The name of its folder: the file's stem, made unique.
        source: The picture file.
        shown: The measured comparison.
        has_truth: True if scores compare with a label mask, False if with the model's own mask of the unattacked
            picture.
    """

    name: str
    source: Path
    shown: Comparison
    has_truth: bool

    def numbers(self) -> dict[str, Any]:
        """Return what was measured, ready for JSON; rates in [0, 1]."""
        shown = self.shown
        return {
            "picture": self.source.name,
            "compared_with": "the given mask" if self.has_truth else "the model's own mask of the unattacked picture",
            "clean": asdict(shown.scores_before),
            "attacked": asdict(shown.scores_after),
            "largest_change_255": shown.largest_change,
            "steps_made": shown.step,
            "accuracy_of_each_step": list(shown.curve),
        }


def pictures_in(paths: Iterable[Path]) -> list[Path]:
    """List the picture files among paths, those of a folder in the order of their names.

    Raises:
        InputError: for a path where there is nothing, for a folder without pictures, and for no path at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(
                    f"the folder {path} does not contain a picture; expected files ending in {', '.join(SUFFIXES)}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"there is no picture {path}; give picture files, or folders of them")
    if not found:
        raise InputError("there is nothing to attack; give picture files, or folders of them")
    return found


def names_for(pictures: Sequence[Path]) -> list[str]:
    """Name a folder for each picture: its stem, numbered where it came before."""
    names: list[str] = []
    for picture in pictures:
        name, number = picture.stem, 2
        while name in names:
            name, number = f"{picture.stem}-{number}", number + 1
        names.append(name)
    return names


def truth_for(picture: Path, masks: Path | None, size: tuple[int, int], num_classes: int) -> torch.Tensor | None:
    """Read the label mask of a picture, brought to the size (H, W) of the attack; None without a folder of masks.

    Raises:
        InputError: for a mask that is missing, of another shape than the picture, or of other classes.
    """
    if masks is None:
        return None
    path = masks / f"{picture.stem}.png"
    if not path.is_file():
        raise InputError(f"{path} is missing; a mask has the picture's name and holds class numbers, {VOID_BYTE} void")
    labels = read_indices(path)
    if abs(labels.shape[0] * size[1] - labels.shape[1] * size[0]) > max(labels.shape) * 1.5:
        raise InputError(
            f"{path} is {labels.shape[1]} x {labels.shape[0]}, which is not the shape of {picture.name} "
            f"({size[1]} x {size[0]} in the attack)"
        )
    labels = np.where(labels == VOID_BYTE, VOID, labels)
    if labels.max() >= num_classes:
        raise InputError(f"{path} holds class {labels.max()}, the model has {num_classes} classes, from 0 on")
    rows, columns = (
        ((np.arange(side) + 0.5) * there / side).astype(int) for side, there in zip(size, labels.shape, strict=True)
    )
    return torch.from_numpy(labels[rows[:, None], columns])


def write_png(path: Path, array: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8, whole or not at all."""
    with replacing(path) as file:
        file.write(png_bytes(array))


def write_mask(path: Path, labels: np.ndarray, card: Card) -> None:
    """Write class numbers in the colours of the classes, void as 255."""
    image = Image.fromarray(np.where(labels == VOID, VOID_BYTE, labels).astype(np.uint8)).convert("P")
    colours = [value for colour in card.palette for value in colour]
    # All 256 entries: of a shorter palette, Pillow would store fewer bits a pixel, and void would become a class.
    image.putpalette(colours + [128] * (3 * 256 - len(colours)))
    with replacing(path) as file:
        image.save(file, "PNG")


def write_attacked(folder: Path, found: Attacked, card: Card) -> None:
    """Write the files of one picture."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = found.shown
    write_png(folder / "picture.png", shown.image)
    write_png(folder / "attacked.png", shown.attacked)
    masks = {"mask_clean": shown.before, "mask_attacked": shown.after}
    if found.has_truth:
        masks["mask_truth"] = shown.reference
    for name, labels in masks.items():
        write_mask(folder / f"{name}.png", labels, card)
    write_png(folder / "overlay_clean.png", overlay(shown.image, shown.before, card.palette))
    write_png(folder / "overlay_attacked.png", overlay(shown.attacked, shown.after, card.palette))
    write_atomically(folder / "numbers.json", json.dumps(found.numbers(), indent=1) + "\n")


def attack_pictures(
    model: nn.Module,
    pictures: Sequence[Path],
    spec: AttackSpec,
    out: Path,
    *,
    masks: Path | None = None,
    longer_side: int = LONGER_SIDE,
) -> Generator[Attacked, None, None]:
    """Attack picture files one after the other; what is finished is on disk before the next begins.

    Args:
        model: One of ours, with a card.
        pictures: The files, as `pictures_in` lists them.
        spec: How; one of a whole picture, without masks.
        out: The folder to write to; files of an earlier run are replaced.
        masks: A folder of label masks by the pictures' names, PNG of class numbers; None to compare with the model's
            own mask of the unattacked picture.
        longer_side: The size, in pixels, that larger pictures are shrunk to.

    Yields:
        Each picture, once it is attacked and written.

    Raises:
        InputError: for a file that is no picture, or a mask that does not fit.
    """
    card = card_of(model)
    if len(card.classes) > MOST_CLASSES:
        raise InputError(f"masks are written in 8 bits, for at most {MOST_CLASSES} classes; got {len(card.classes)}")
    finished: list[Attacked] = []
    for name, picture in zip(names_for(pictures), pictures, strict=True):
        try:
            image = to_tensor(read_picture(picture, longer_side))
        except InputError as error:
            raise InputError(f"{picture}: {error}") from error
        truth = truth_for(picture, masks, (image.shape[1], image.shape[2]), len(card.classes))
        labels = predicted(model, image[None].to(device_of(model)))[0].cpu() if truth is None else truth
        subject = Subject(model, Sample(name, image, labels), card, known_class_weights(card.dataset))
        found = Attacked(name, picture, compare(subject, spec), truth is not None)
        write_attacked(out / name, found, card)
        finished.append(found)
        yield found
    write_atomically(
        out / "numbers.json", json.dumps(summary(model, card, spec, longer_side, finished), indent=1) + "\n"
    )


def summary(
    model: nn.Module, card: Card, spec: AttackSpec, longer_side: int, finished: Sequence[Attacked]
) -> dict[str, Any]:
    """Put together all that decided the outcome, and the numbers of every picture."""
    return {
        "model": {"name": card.name, "sha256": fingerprint(model), "source": card.source},
        "classes": list(card.classes),
        "attack": spec.numbers(),
        "target": None if spec.target is None else card.classes[int(spec.target)],
        "longer_side": longer_side,
        "versions": versions(),
        "pictures": {found.name: found.numbers() for found in finished},
    }
