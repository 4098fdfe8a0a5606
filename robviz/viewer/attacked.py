"""The page of attacked pictures: what `robviz attack` wrote, the pictures that broke most first."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robviz.attacks import AttackSpec
from robviz.files.decoding import decoded
from robviz.files.images import VOID_BYTE, index_png_url, jpeg_url, overlay, png_url
from robviz.results.failures import broken_pairs
from robviz.types import VOID, InputError, Palette
from robviz.viewer import arrow, percent
from robviz.viewer.failures import THUMBNAIL, matrix_of
from robviz.viewer.page import page
from robviz.viewer.payloads import FailuresData, GalleryCard, ViewerData
from robviz.viewer.sharing import attack_said, radius, versions_said
from robviz.viewer.worst import Entry, Shared, as_many_as_fit, flips_of, gallery_of, views_of


def attacked_page(folder: Path, limit: int | None, title: str | None, most_bytes: int) -> Shared:
    """Write the page of attacked pictures; see `folder_page`."""
    try:
        numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        model, classes, pictures = numbers["model"], tuple(map(str, numbers["classes"])), numbers["pictures"]
        spec = AttackSpec(**numbers["attack"])
        in_order = sorted(pictures, key=lambda name: pictures[name]["attacked"]["accuracy"])
        if any(Path(name).name != name for name in pictures):
            raise ValueError("a picture's folder lies elsewhere")
        target = numbers.get("target") or ""
        entries = (
            (lambda row=row, name=name: attacked_entry(folder / name, pictures[name], row, classes, spec.eps))
            for row, name in enumerate(in_order)
        )
        made = as_many_as_fit(entries, limit, most_bytes)
        text = page(
            title or f"{model['name']} under attack",
            "failures",
            attacked_data(made, pictures, classes, spec),
            lead=f"{len(pictures)} {'picture' if len(pictures) == 1 else 'pictures'}, each changed by at most "
            f"{radius(spec.eps)}.",
            setting={
                "Model": model["name"],
                "Weights, SHA-256": model["sha256"],
                **attack_said(spec, target),
                **versions_said(numbers["versions"]),
            },
            again=attacked_again(model["name"], spec, target, pictures, folder.name),
        )
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(folder, error) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise damaged(folder, error) from error
    return Shared(text, len(made), len(pictures))


def damaged(folder: Path, error: Exception) -> InputError:
    return InputError(f"{folder / 'numbers.json'} is not what `robviz attack` writes: {error!r}; attack again")


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
    flips = broken_pairs(reference, before, after, len(classes))
    was, now = numbers["clean"], numbers["attacked"]
    compared = f"Compared with {numbers['compared_with']}. Scores are measured on the 8-bit picture shown."
    view: ViewerData = {
        "pictures": {
            "image": png_url(image),
            "attacked": png_url(attacked),
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
    labels = decoded(path, np.array).astype(np.int64)
    result: np.ndarray = np.where(labels == VOID_BYTE, VOID, labels)
    return result


def attacked_again(name: str, spec: AttackSpec, target: str, pictures: dict[str, Any], folder: str) -> str:
    """Return the command that attacks the same pictures."""
    files = [str(one["picture"]) for one in pictures.values()]
    shown = files if len(files) <= 3 else [*files[:3], "..."]
    words = [
        ["robviz", "attack", *shown],
        ["--model", name, "--attack", spec.attack, "--loss", spec.loss],
        ["--eps", f"{255 * spec.eps:.6g}", "--steps", str(spec.steps), "--seed", str(spec.seed)],
        [*(["--target", target] if target else []), "--out", folder],
    ]
    return " \\\n    ".join(map(shlex.join, words))
