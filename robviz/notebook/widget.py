"""The viewer in a notebook: the app's JavaScript as an anywidget, and a still picture wherever no widget shows."""

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

from robviz.files.images import VOID_BYTE, overlay
from robviz.interactive.comparison import Comparison, compare
from robviz.losses import LOSSES
from robviz.models import card_of
from robviz.notebook import charts
from robviz.types import VOID, Sample
from robviz.viewer import HERE, STYLE, viewer_data

RENDER = """
export default {
  render({ model, el }) {
    const shown = viewer(el, model.get("data"));
    const update = () => shown.update(model.get("data"));
    model.on("change:data", update);
    return () => model.off("change:data", update);
  },
};
"""


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


#: The environment variable under which viewers leave their frames for a rendered page.
RENDERING = "ROBVIZ_RENDERING"
#: What a page that is rendered finds the frame of a viewer under; `robviz course render` asks for it.
LIVE = "application/vnd.robviz.viewer+json"


def still(data: dict[str, Any]) -> charts.Chart:
    """Draw a frame as it stands: both pictures, both masks with their scores, and what the colours mean."""
    pictures = {name: decoded(data["pictures"][name]) for name in ("image", "attacked", "before", "after")}
    values = {score["name"]: score["value"] for score in data["scores"]}
    rights = values["accuracy"].split(" → ")
    labels = {
        name: np.where(pictures[name] == VOID_BYTE, VOID, pictures[name].astype(int)) for name in ("before", "after")
    }
    shown = {
        "picture": pictures["image"],
        f"attacked, largest change {values['change']}": pictures["attacked"],
        f"mask before: {rights[0]} right": overlay(pictures["image"], labels["before"], data["palette"]),
        f"mask after: {rights[-1]} right": overlay(pictures["attacked"], labels["after"], data["palette"]),
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
    """A widget's MIME bundle with the still picture, for pages without widgets."""
    shown, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    png, told = still(data)._repr_png_()
    shown = shown | {"image/png": base64.b64encode(png).decode()}
    if os.environ.get(RENDERING):
        shown |= {LIVE: data}
    return shown, metadata | {"image/png": told}


class Viewer(anywidget.AnyWidget):
    """The linked viewer; setting `data` shows the next frame in place."""

    _esm = (HERE / "viewer.js").read_text() + RENDER
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.data)


class Explorer(ipywidgets.VBox):
    """Controls above a viewer: each change attacks the picture anew. `.comparison` is what is shown."""

    def __init__(
        self,
        model: nn.Module,
        sample: Sample,
        eps: float = 4,
        loss: str = "mask-ce",
        steps: int = 20,
        seed: int = 0,
        class_weights: Tensor | None = None,
        losses: Sequence[str] | None = None,
    ) -> None:
        """losses: those of the menu, by default all that can be used here; a single one needs no menu."""
        self.model, self.sample, self.seed, self.class_weights = model, sample, seed, class_weights
        wait = {"continuous_update": False}  # an attack on release, not at every pixel of the way
        losses = losses or [name for name in LOSSES if class_weights is not None or name != "mask-ce-bal"]
        self.eps = ipywidgets.FloatSlider(eps, min=0, max=16, step=0.25, description="ε in 1/255", **wait)
        self.loss = ipywidgets.Dropdown(options=losses, value=loss, description="loss")
        self.steps = ipywidgets.IntSlider(steps, min=1, max=100, description="steps", **wait)
        self.viewer = Viewer(data=self.attacked())
        menu = [self.loss] if len(losses) > 1 else []
        super().__init__([ipywidgets.HBox([self.eps, *menu, self.steps]), self.viewer])
        for control in (self.eps, self.loss, self.steps):
            control.observe(self.attack, "value")

    def attacked(self) -> dict[str, Any]:
        card, eps = card_of(self.model), self.eps.value / 255
        classes = len(card.classes)
        self.comparison = compare(
            self.model, self.sample, classes, eps, self.steps.value, self.loss.value, self.class_weights, self.seed
        )
        return viewer_data(self.comparison, card.classes, card.palette, "Scores compare with the label mask.")

    def attack(self, change: Any = None) -> None:
        self.viewer.data = self.attacked()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.viewer.data)


def show(shown: Comparison, model: nn.Module, note: str = "Scores compare with the label mask.") -> Viewer:
    """A comparison in the viewer. model: whose classes and colours these are; it has a card. note: the line below."""
    card = card_of(model)
    return Viewer(data=viewer_data(shown, card.classes, card.palette, note))
