"""The page of attacked pictures: what `robviz attack` wrote, the pictures that broke most first."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robviz.attacks import AttackSpec
from robviz.files.decoding import decoded
from robviz.files.images import LONGER_SIDE, VOID_BYTE, change_png_url, index_png_url, jpeg_url, overlay, png_url
from robviz.models import available
from robviz.results.failures import broken_pairs
from robviz.types import VOID, InputError, Palette
from robviz.viewer import arrow, percent
from robviz.viewer.failures import THUMBNAIL, matrix_of
from robviz.viewer.page import MOST_BYTES, page
from robviz.viewer.payloads import FailuresData, GalleryCard, ViewerData
from robviz.viewer.sharing import attack_said, command_of, model_said, radius, versions_said, within
from robviz.viewer.worst import Entry, Shared, as_many_as_fit, flips_of, gallery_of, views_of

MOST_NAMED = 3  # pictures in the command that attacks them again


def attacked_page(
    folder: Path, limit: int | None = None, title: str | None = None, most_bytes: int = MOST_BYTES
) -> Shared:
    """Write the page of attacked pictures; see `folder_page`."""
    try:
        numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        pictures, classes, spec = numbers["pictures"], tuple(numbers["classes"]), AttackSpec(**numbers["attack"])
        in_order = sorted(pictures, key=lambda name: pictures[name]["attacked"]["accuracy"])
        if any(Path(name).name != name for name in pictures):
            raise InputError(f"{folder / 'numbers.json'} names a picture outside of the folder; attack again")
        entries = (
            partial(attacked_entry, folder / name, pictures[name], row, classes, spec.eps)
            for row, name in enumerate(in_order)
        )
        made = as_many_as_fit(entries, limit, most_bytes)
        name, digest, made_with = numbers["model"]["name"], numbers["model"]["sha256"], numbers["versions"]
    except InputError:
        raise
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / 'numbers.json'} is not what `robviz attack` writes ({error!r}); attack again"
        ) from error
    text = page(
        title or f"{name} under attack",
        "failures",
        attacked_data(made, pictures, classes, spec),
        lead=f"{len(pictures)} {'picture' if len(pictures) == 1 else 'pictures'}, each changed within {within(spec)}.",
        setting={
            "Model": model_said(name, digest),
            **attack_said(spec, numbers.get("target") or ""),
            **versions_said(made_with),
        },
        again=attacked_again(numbers, spec, folder.name),
    )
    return Shared(text, len(made), len(pictures))


def attacked_data(
    made: list[Entry], pictures: dict[str, Any], classes: tuple[str, ...], spec: AttackSpec
) -> FailuresData:
    """Return the payload of `failures` for attacked pictures."""
    counts = np.zeros((len(classes),) * 2, np.int64)
    for _, label, seen_as, pixels in flips_of(made):
        counts[label, seen_as] += pixels

    def both(name: str) -> str:
        before, after = (np.mean([one[when][name] for one in pictures.values()]) for when in ("clean", "attacked"))
        return arrow(float(before), float(after), is_attacked=True)

    note = f"Pixels that were correct and no longer are, {len(made)} attacked pictures. Click a cell to see them."
    return {
        "scores": [
            {"name": "accuracy", "label": "pixel accuracy, mean", "value": both("accuracy")},
            {"name": "miou", "label": "mIoU of a picture, mean", "value": both("miou")},
            {"name": "images", "label": "pictures", "value": str(len(pictures))},
            {"name": "radius", "label": "radius ε", "value": radius(spec.eps)},
        ],
        "doubts": [],
        "missing": "",
        "classes": list(classes),
        "gallery": gallery_of(made, len(pictures)),
        "views": views_of(made),
        "matrix": matrix_of(counts, classes, note),
        "flips": flips_of(made),
        "tables": [],
    }


def attacked_entry(folder: Path, numbers: dict[str, Any], row: int, classes: tuple[str, ...], eps: float) -> Entry:
    """Read what `robviz attack` wrote about one picture."""
    image, attacked = (decoded(folder / f"{name}.png", np.array) for name in ("picture", "attacked"))
    palette: Palette = decoded(folder / "mask_clean.png", lambda opened: palette_of(opened, len(classes)))
    before, after = (read_mask(folder / f"mask_{name}.png") for name in ("clean", "attacked"))
    truth = folder / "mask_truth.png"
    reference = read_mask(truth) if truth.is_file() else before
    fits = all(mask.shape == image.shape[:2] and mask.max() < len(classes) for mask in (before, after, reference))
    if not fits or attacked.shape != image.shape or len(palette) != len(classes):
        raise InputError(f"the pictures and masks in {folder} do not belong together; attack again")
    flips = broken_pairs(reference, before, after, len(classes))
    was, now = numbers["clean"], numbers["attacked"]
    compared = f"Compared with {numbers['compared_with']}. Scores are measured on the 8-bit picture shown."
    view: ViewerData = {
        "pictures": {
            "image": png_url(image),
            "change": change_png_url(image, attacked),
            "before": index_png_url(before),
            "after": index_png_url(after),
            "reference": index_png_url(reference),
        },
        "trail": None,
        "classes": list(classes),
        "palette": [list(colour) for colour in palette],
        "eps": eps,
        "scores": [
            {"name": "accuracy", "label": "pixel accuracy", "value": arrow(was["accuracy"], now["accuracy"], True)},
            {"name": "miou", "label": "mIoU", "value": arrow(was["miou"], now["miou"], True)},
            {"name": "change", "label": "largest change, 8-bit L∞", "value": f"{numbers['largest_change_255']}/255"},
            {"name": "flipped", "label": "flipped pixels", "value": f"{flips[:, 2].sum():,}"},
        ],
        "note": f"{numbers['picture']}. {compared}",
        "is_final": True,
    }
    card: GalleryCard = {
        "row": row,
        "title": str(numbers["picture"]),
        "lines": [f"{percent(was['accuracy'])} → {percent(now['accuracy'])}"],
        "picture": jpeg_url(overlay(image, after, palette), 85, THUMBNAIL),
    }
    return card, view, [[row, *flip] for flip in flips.tolist()]


def palette_of(opened: Image.Image, count: int) -> Palette:
    """Return the first colours of an indexed picture."""
    colours = np.array(opened.getpalette() or []).reshape(-1, 3)[:count].tolist()
    return [(red, green, blue) for red, green, blue in colours]


def read_mask(path: Path) -> np.ndarray:
    """Read class numbers from a mask of 8 bits."""
    labels = decoded(path, np.array).astype(np.int64)
    result: np.ndarray = np.where(labels == VOID_BYTE, VOID, labels)
    return result


def attacked_again(numbers: dict[str, Any], spec: AttackSpec, folder: str) -> str:
    """Return the command that attacks the same pictures; what only its author has is in capitals."""
    name, pictures = numbers["model"]["name"], list(numbers["pictures"].values())
    is_ours, target = name in available(), numbers.get("target")
    has_masks = any(one["compared_with"] == "the given mask" for one in pictures)
    files = [one["picture"] for one in pictures[:MOST_NAMED]] + ["..."] * (len(pictures) > MOST_NAMED)
    words = [
        ["robviz", "attack", *files],
        ["--model", name if is_ours else "MODEL.py:FUNCTION", "--attack", spec.attack, "--loss", spec.loss],
        ["--eps", f"{255 * spec.eps:.6g}", "--steps", str(spec.steps), "--seed", str(spec.seed)],
        [*(["--target", target] if target else []), *(["--masks", "MASKS"] if has_masks else [])],
        ["--size", str(numbers.get("longer_side", LONGER_SIDE)), "--out", folder],
    ]
    return command_of(words, [] if is_ours else [f"MODEL.py:FUNCTION returns {name}"])
