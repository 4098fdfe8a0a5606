"""How a comparison looks: one self-contained piece of HTML, for the app and for notebooks alike."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from robviz.comparison import Comparison
from robviz.figures import Palette, amplified, broken, overlay
from robviz.types import VOID

STYLE = (Path(__file__).parent / "style.css").read_text()


def picture(array: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URL. PNG: lossy formats would drown the perturbation."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def tile(name: str, caption: str, array: np.ndarray) -> str:
    return (
        f'<figure data-tile="{name}"><img alt="{escape(caption)}" src="{picture(array)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def score(name: str, label: str, value: str) -> str:
    return f'<div class="rv-score" data-score="{name}"><span>{escape(label)}</span><b>{escape(value)}</b></div>'


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def arrow(before: float, after: float, is_attacked: bool) -> str:
    return f"{percent(before)} → {percent(after)}" if is_attacked else percent(before)


def legend(shown: Comparison, classes: tuple[str, ...], palette: Palette) -> str:
    """The classes that occur in the masks, in the order of their index."""
    present = np.unique(np.concatenate([shown.reference, shown.before, shown.after], axis=None))
    chips = [
        f'<li><i style="background: rgb{tuple(palette[index])}"></i>{escape(classes[index])}</li>'
        for index in present[present != VOID]
    ]
    return f'<ul class="rv-legend">{"".join(chips)}</ul>'


def render(shown: Comparison, classes: tuple[str, ...], palette: Palette, note: str) -> str:
    """HTML of a comparison: scores, the pictures, both masks and a legend. `note` says what the reference is."""
    is_attacked = bool(shown.curve)
    before, after = shown.scores_before, shown.scores_after
    levels = f"{shown.largest_change}/255"
    stretched, factor = amplified(shown.attacked, shown.image, shown.eps)
    found = "measured on the 8-bit picture shown" if shown.is_final else "so far"
    scores = [
        score("accuracy", "pixels right", arrow(before.accuracy, after.accuracy, is_attacked)),
        score("miou", "mIoU", arrow(before.miou, after.miou, is_attacked)),
        score("change", "largest change, 8-bit L∞", levels),
        score("step", "step", f"{shown.step} of {shown.steps}"),
    ]
    tiles = [
        tile("image", "picture", shown.image),
        tile("attacked", "attacked picture", shown.attacked),
        tile("perturbation", f"perturbation × {factor}", stretched),
        tile("before", "mask of the picture", overlay(shown.image, shown.before, palette)),
        tile("after", "mask of the attacked picture", overlay(shown.image, shown.after, palette)),
        tile("broken", "orange: broken by the attack", broken(shown.image, shown.reference, shown.before, shown.after)),
    ]
    return (
        f'<div class="rv" data-final="{str(shown.is_final).lower()}"><div class="rv-scores">{"".join(scores)}</div>'
        f'<div class="rv-tiles">{"".join(tiles)}</div>{legend(shown, classes, palette)}'
        f'<p class="rv-note">{escape(note)} {f"Scores {found}." if is_attacked else ""}</p></div>'
    )
