"""The viewer in a notebook: the app's JavaScript as an anywidget, and a still picture wherever no widget shows."""

from __future__ import annotations

import base64
import io
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import traitlets
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import AttackSpec, check_eps
from robviz.files.images import VOID_BYTE, overlay
from robviz.interactive.comparison import Comparison, Subject, compare
from robviz.losses import LOSSES
from robviz.models import card_of
from robviz.notebook import charts
from robviz.types import VOID, Sample
from robviz.viewer import STYLE, viewer_data
from robviz.viewer.bundle import bundle
from robviz.viewer.payloads import ViewerData


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def still(data: dict[str, Any]) -> bytes:
    """The attacked picture and the masks before and after with their scores, side by side, as PNG."""
    pictures = {name: decoded(data["pictures"][name]) for name in ("image", "attacked", "before", "after")}
    values = {score["name"]: score["value"] for score in data["scores"]}
    rights = values["accuracy"].split(" → ")

    def mask(name: str, picture: str) -> np.ndarray:
        labels = np.where(pictures[name] == VOID_BYTE, VOID, pictures[name].astype(int))
        return overlay(pictures[picture], labels, data["palette"])

    titles = (
        f"attacked, largest change {values['change']}",
        f"before: {rights[0]} right",
        f"after: {rights[-1]} right",
    )
    shown = (pictures["attacked"], mask("before", "image"), mask("after", "attacked"))
    return charts.pictures(dict(zip(titles, shown)), height=3)._repr_png_()


def with_still(bundle: Any, data: dict[str, Any]) -> Any:
    """A widget's MIME bundle with the still picture, for pages without widgets."""
    picture = {"image/png": base64.b64encode(still(data)).decode()}
    if isinstance(bundle, tuple):
        return bundle[0] | picture, bundle[1]
    return bundle | picture


class Viewer(anywidget.AnyWidget):
    """The linked viewer; setting `data` shows the next frame in place."""

    _esm = bundle("widget.js")
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.data)


class Explorer(ipywidgets.VBox):
    """Controls above a viewer: each change attacks the picture again. `.comparison` is what is shown.

    eps: in [0, 1], as in an attack: `4 / 255`. Its slider, `eps_255`, shows it in 1/255.
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
    ) -> None:
        check_eps(eps)
        self.subject, self.seed = Subject(model, sample, card_of(model), class_weights), seed
        wait = {"continuous_update": False}  # an attack on release, not at every pixel of the way
        losses = [name for name in LOSSES if class_weights is not None or name != "mask-ce-bal"]
        self.eps_255 = ipywidgets.FloatSlider(255 * eps, min=0, max=16, step=0.25, description="ε in 1/255", **wait)
        self.loss = ipywidgets.Dropdown(options=losses, value=loss, description="loss")
        self.steps = ipywidgets.IntSlider(steps, min=1, max=100, description="steps", **wait)
        self.viewer = Viewer(data=self.attacked())
        super().__init__([ipywidgets.HBox([self.eps_255, self.loss, self.steps]), self.viewer])
        for control in (self.eps_255, self.loss, self.steps):
            control.observe(self.attack, "value")

    def attacked(self) -> ViewerData:
        card, eps = self.subject.card, self.eps_255.value / 255
        spec = AttackSpec(loss=self.loss.value, eps=eps, steps=self.steps.value, seed=self.seed)
        self.comparison = compare(self.subject, spec)
        return viewer_data(self.comparison, card.classes, card.palette, "Scores compare with the label mask.")

    def attack(self, change: Any = None) -> None:
        self.viewer.data = dict(self.attacked())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**options), self.viewer.data)


def show(shown: Comparison, model: nn.Module, note: str = "Scores compare with the label mask.") -> Viewer:
    """A comparison in the viewer. model: whose classes and colours these are; it has a card. note: the line below."""
    card = card_of(model)
    return Viewer(data=viewer_data(shown, card.classes, card.palette, note))
