"""How an attribution looks in the browser: the data of `why` in `why.js`."""

from __future__ import annotations

import numpy as np
import scipy

from robviz.attribution import Contrast, TopLogits
from robviz.files.images import attribution_overlay, overlay, png_url
from robviz.interactive.comparison import Comparison
from robviz.models import Card
from robviz.viewer.payloads import WhyData, WhyLogits, WhyPane


def outlined(image: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Draw the edge of a region (H, W) in white on a picture (H, W, 3)."""
    if region is None:
        return image
    return np.where((region & ~scipy.ndimage.binary_erosion(region))[..., None], np.array(255, np.uint8), image)


def why_data(
    shown: Comparison,
    card: Card,
    note: str,
    point: tuple[int, int] | None = None,
    region: np.ndarray | None = None,
    target: int | None = None,
    top: TopLogits | None = None,
    contrast: Contrast | None = None,
) -> WhyData:
    """Return the payload of a picture and its attacked version, with their masks or with both maps in one scale.

    card: of the model. point: x and y. region: (H, W) bool, what is explained. target: its class. top: of both
    pictures, at the point.
    """
    panes: list[WhyPane] = []
    for title, image, mask, row in (
        ("clean", shown.image, shown.before, "clean"),
        ("attacked", shown.attacked, shown.after, "attacked"),
    ):
        found = getattr(contrast, row, None)
        if contrast is None:
            painted, caption = overlay(image, mask, card.palette), "what the model sees"
        elif found is None:
            painted, caption = image, "comes next"
        else:
            painted = attribution_overlay(image, found.map, contrast.scale)
            caption = f"mean logit {found.value:.1f}"
        panes.append({"title": title, "caption": caption, "url": png_url(outlined(painted, region))})
    logits: list[WhyLogits] = []
    for n, label in enumerate(top.classes.tolist() if top is not None else ()):
        assert top is not None
        logits.append(
            {
                "name": card.classes[label],
                "colour": list(card.palette[label]),
                "logits": top.logits[:, n].tolist(),
                "probabilities": top.probabilities[:, n].tolist(),
                "isTarget": label == target,
            }
        )
    return {
        "panes": panes,
        "size": [shown.image.shape[1], shown.image.shape[0]],
        "point": list(point) if point is not None else None,
        "scale": None if contrast is None else f"{contrast.scale:.2g}",
        "done": None if contrast is None else contrast.done,
        "logits": logits,
        "note": note,
    }
