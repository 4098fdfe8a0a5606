"""How a comparison looks in the browser: the data of the linked viewer, for the app and for notebooks alike.

`js/` and `style.css` are plain files without a build step. `viewer(element, data)` of `js/viewer.js` fills an element
and returns a handle whose `update(data)` shows the next frame in place: zoom, layers and toggles stay; `destroy()` ends
it. `payloads` has the records that the browser gets. In notebooks, `show` and `Explorer` of `robviz.notebook.widget`
show the viewer; they need the extra `notebooks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from robviz.files.images import change_png_url, index_png_url, png_url
from robviz.interactive.comparison import Comparison
from robviz.types import Palette
from robviz.viewer.bundle import script
from robviz.viewer.payloads import Pictures, Trail, ViewerData

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text(encoding="utf-8")
#: What the page calls, as the global object `robviz`.
SCRIPT = script("app.js")


def percent(value: float) -> str:
    """Write a rate in [0, 1] in per cent; NaN where it is undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def arrow(before: float, after: float, is_attacked: bool) -> str:
    """Write a rate before an attack, and after it where there was one."""
    return f"{percent(before)} → {percent(after)}" if is_attacked else percent(before)


def still(encode: Callable[[np.ndarray], str], array: np.ndarray) -> str:
    """Encode a picture that is the same in every frame of an attack, once."""
    return encoded(encode, array.tobytes(), array.shape, array.dtype.str)


@lru_cache(maxsize=32)
def encoded(encode: Callable[[np.ndarray], str], content: bytes, shape: tuple[int, ...], kind: str) -> str:
    """Encode an array that is given by its bytes."""
    return encode(np.frombuffer(content, kind).reshape(shape))


def trail_data(shown: Comparison) -> Trail:
    """Encode the masks on the way, one below the other in one picture, with their steps and accuracies."""
    return {
        "masks": index_png_url(np.concatenate([moment.mask for moment in shown.trail])),
        "steps": [moment.step for moment in shown.trail],
        "accuracy": [moment.accuracy for moment in shown.trail],
    }


def viewer_data(shown: Comparison, classes: tuple[str, ...], palette: Palette, note: str) -> ViewerData:
    """Return the payload of `viewer`, ready for JSON. `note` says what the reference is."""
    is_attacked = bool(shown.curve)
    before, after = shown.scores_before, shown.scores_after
    found = "measured on the 8-bit picture shown" if shown.is_final else "so far"
    pictures: Pictures = {
        "image": still(png_url, shown.image),
        "change": change_png_url(shown.image, shown.attacked),
        "before": still(index_png_url, shown.before),
        "after": index_png_url(shown.after),
        "reference": still(index_png_url, shown.reference),
        "confidence_before": still(png_url, shown.confidence_before),
    }
    if shown.confidence_after is not None:
        pictures["confidence_after"] = png_url(shown.confidence_after)
    return {
        "pictures": pictures,
        "trail": trail_data(shown) if len(shown.trail) > 1 and shown.is_final else None,
        "classes": list(classes),
        "palette": [list(colour) for colour in palette],
        "eps": shown.eps,
        "scores": [
            {
                "name": "accuracy",
                "label": "pixel accuracy",
                "value": arrow(before.accuracy, after.accuracy, is_attacked),
            },
            {"name": "miou", "label": "mIoU", "value": arrow(before.miou, after.miou, is_attacked)},
            {"name": "change", "label": "largest change, 8-bit L∞", "value": f"{shown.largest_change}/255"},
            {"name": "step", "label": "step", "value": f"{shown.step} of {shown.steps}"},
        ],
        "note": f"{note} Scores {found}." if is_attacked else note,
        "is_final": shown.is_final,
    }
