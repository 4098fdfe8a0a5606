"""Show the viewer in a notebook: the app's JavaScript as an anywidget, and a still picture without widgets."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import traitlets
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import AttackSpec
from robviz.files.images import VOID_BYTE, changed, overlay
from robviz.interactive.comparison import Comparison, Subject, compare
from robviz.losses import LOSSES
from robviz.models import card_of
from robviz.notebook import charts
from robviz.types import VOID, InputError, Sample
from robviz.viewer import STYLE, viewer_data
from robviz.viewer.bundle import bundle
from robviz.viewer.payloads import ViewerData


def decode_url(url: str) -> np.ndarray:
    """Decode a picture from a data URL."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


#: The environment variable under which viewers leave their frames for a rendered page.
RENDERING = "ROBVIZ_RENDERING"
#: The MIME type of a viewer's frame in a rendered page; `robviz course render` reads it.
LIVE = "application/vnd.robviz.viewer+json"


def still(data: dict[str, Any]) -> charts.Chart:
    """Draw a frame as a still picture: both pictures, both masks with their scores, and a legend of the colours."""
    pictures = {name: decode_url(data["pictures"][name]) for name in ("image", "change", "before", "after")}
    attacked = changed(pictures["image"], pictures["change"])
    values = {score["name"]: score["value"] for score in data["scores"]}
    rights = values["accuracy"].split(" → ")
    labels = {
        name: np.where(pictures[name] == VOID_BYTE, VOID, pictures[name].astype(int)) for name in ("before", "after")
    }
    shown = {
        "picture": pictures["image"],
        f"attacked, largest change {values['change']}": attacked,
        f"mask before: {rights[0]} right": overlay(pictures["image"], labels["before"], data["palette"]),
        f"mask after: {rights[-1]} right": overlay(attacked, labels["after"], data["palette"]),
    }
    chart = charts.pictures(shown, height=2.4)
    present = sorted({int(k) for mask in labels.values() for k in np.unique(mask)} - {VOID})
    charts.chips(chart, present, data["classes"], data["palette"])
    seen = (
        f"{title}: "
        + ", ".join(f"{data['classes'][k]} {np.mean(mask == k):.0%}" for k in present if (mask == k).mean() >= 0.005)
        for title, mask in labels.items()
    )
    chart.alt = f"{'; '.join(shown)}. Of the pixels the model sees, {'; '.join(seen)}."
    return chart


def with_still(bundle: Any, data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a widget's MIME bundle with a still picture, for pages without widgets."""
    shown, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    png, told = still(data)._repr_png_()
    shown = shown | {"image/png": base64.b64encode(png).decode()}
    if os.environ.get(RENDERING):
        shown |= {LIVE: data}
    return shown, metadata | {"image/png": told}


class Viewer(anywidget.AnyWidget):
    """Show the linked viewer; setting `data` shows the next frame in the same place."""

    _esm = bundle("widget.js")
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.data)


MOST_EPS_255 = 16


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Show controls above a viewer: each change attacks the picture again. `.comparison` is the one that is shown.

    eps: in pixel units, as in an attack: `4 / 255`, at most `16 / 255`. Its slider, `eps_255`, shows it in 1/255.
    """

    def __init__(
        self,
        model: nn.Module,
        sample: Sample,
        eps: float = 4 / 255,
        loss: str = "mask-ce",
        steps: int = 20,
        seed: int = 0,
        class_weights: Tensor | None = None,
        losses: Sequence[str] | None = None,
    ) -> None:
        """losses: those of the menu, by default all that can be used here; a single one needs no menu."""
        if not 0 <= 255 * eps <= MOST_EPS_255:
            raise InputError(f"eps must lie in 0 .. {MOST_EPS_255} / 255 (pixel units: write 4 / 255), got {eps}")
        self.subject, self.seed = Subject(model, sample, card_of(model), class_weights), seed
        wait = {"continuous_update": False}  # attack when the slider is released, not while it moves
        losses = losses or [name for name in LOSSES if class_weights is not None or name != "mask-ce-bal"]
        self.eps_255 = ipywidgets.FloatSlider(
            255 * eps, min=0, max=MOST_EPS_255, step=0.25, description="ε in 1/255", **wait
        )
        self.loss = ipywidgets.Dropdown(options=losses, value=loss, description="loss")
        self.steps = ipywidgets.IntSlider(steps, min=1, max=100, description="steps", **wait)
        self.viewer = Viewer(data=self.attacked())
        menu = [self.loss] if len(losses) > 1 else []
        super().__init__([ipywidgets.HBox([self.eps_255, *menu, self.steps]), self.viewer])
        for control in (self.eps_255, self.loss, self.steps):
            control.observe(self.attack, "value")

    def attacked(self) -> ViewerData:
        """Run the attack that the controls describe, and return its frame for the viewer."""
        card, eps = self.subject.card, self.eps_255.value / 255
        spec = AttackSpec(loss=self.loss.value, eps=eps, steps=self.steps.value, seed=self.seed)
        self.comparison = compare(self.subject, spec)
        return viewer_data(self.comparison, card.classes, card.palette, "Scores compare with the label mask.")

    def attack(self, change: Any = None) -> None:
        """Run the attack again and show it."""
        self.viewer.data = dict(self.attacked())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.viewer.data)


def show(shown: Comparison, model: nn.Module, note: str = "Scores compare with the label mask.") -> Viewer:
    """Show a comparison in the viewer. model: has the card with the classes and colours. note: the line below it."""
    card = card_of(model)
    return Viewer(data=viewer_data(shown, card.classes, card.palette, note))
