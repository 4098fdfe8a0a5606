"""Attack a picture and watch it happen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from robviz.comparison import compare_steps, finish, unattacked
from robviz.figures import attack_curve
from robviz.losses import LOSSES
from robviz.models import available
from robviz.tabs.shared import (
    FRAME_SECONDS,
    IN_TURN,
    UPLOAD,
    VIEWER,
    Work,
    class_weights,
    drawn_by,
    model_of,
    photos,
    refusing,
    sample_of,
)
from robviz.viewer import viewer_data

MOST_EPS, MOST_STEPS = 16, 200
WORK = Work()


@dataclass(frozen=True)
class Setting:
    """What the widgets say; the defaults are the first view."""

    photo: str = "chelsea"
    upload: str | None = None
    model: str = "photos-clean"
    eps: float = 4  # in 1/255
    loss: str = "mask-ce"
    steps: int = 20
    seed: int = 0

    def check(self) -> None:
        """Raise ValueError for what the widgets do not offer: fields may be empty, requests come from anywhere."""
        if None in (self.eps, self.steps, self.seed):
            raise ValueError("ε, steps and seed must each hold a number")
        if not (0 <= self.eps <= MOST_EPS and 1 <= self.steps <= MOST_STEPS):
            raise ValueError(
                f"ε must lie in 0 .. {MOST_EPS} and steps in 1 .. {MOST_STEPS}, got {self.eps} and {self.steps}"
            )


def clean_view(setting: Setting) -> dict[str, Any]:
    """The picture and its mask before any attack."""
    setting.check()
    model, card = model_of(setting.model)
    sample, note = sample_of(setting.photo, setting.upload, model)
    shown = unattacked(model, sample, len(card.classes), setting.eps / 255, int(setting.steps))
    return viewer_data(shown, card.classes, card.palette, f"{note} Press Attack.")


def attack_views(setting: Setting, stopped: threading.Event) -> Iterator[tuple[dict[str, Any], go.Figure | None]]:
    """Frames of an attack, at most one every `FRAME_SECONDS`; the last one is the measured result with its curve."""
    setting.check()
    model, card = model_of(setting.model)
    sample, note = sample_of(setting.photo, setting.upload, model)
    frames = compare_steps(
        model,
        sample,
        len(card.classes),
        setting.eps / 255,
        int(setting.steps),
        setting.loss,
        class_weights(card.dataset),
        int(setting.seed),
        FRAME_SECONDS,
        stopped.is_set,
    )
    with closing(frames):
        for shown in frames:
            yield viewer_data(shown, card.classes, card.palette, note), None
    if stopped.is_set():
        note += " Stopped: this is the best found until then."
    elif shown.step < shown.steps:
        note += " Ended early: no pixel is left to break."
    final = finish(model, sample, shown, len(card.classes))
    if setting.eps < 1:
        note += " An 8-bit picture cannot hold a change below 1/255."
    yield viewer_data(final, card.classes, card.palette, note), attack_curve(final.curve, final.steps)


@refusing
def look(
    photo: str, upload: str | None, model: str, eps: float, steps: int, request: gr.Request
) -> tuple[dict[str, Any], go.Figure]:
    """Show the chosen picture and its mask, before any attack."""
    WORK.stop(request)
    return clean_view(Setting(photo, upload, model, eps, steps=steps)), attack_curve((), steps)


@refusing
def attack(
    photo: str, upload: str | None, model: str, eps: float, loss: str, steps: int, seed: int, request: gr.Request
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Stream the attack; ends early, keeping the best so far, on Stop or when the tab closes."""
    with WORK.begin(request) as stopped:
        for shown, curve in attack_views(Setting(photo, upload, model, eps, loss, steps, seed), stopped):
            yield shown, gr.skip() if curve is None else curve


def build() -> None:
    start = Setting()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Dropdown([*photos(), UPLOAD], value=start.photo, label="Picture", elem_id="photo")
            upload = gr.UploadButton("Upload a picture", file_count="single", size="sm", elem_id="upload")
            model = gr.Radio(available(offline=True), value=start.model, label="Model", elem_id="model")
            eps = gr.Slider(0, MOST_EPS, start.eps, step=0.25, label="ε, in 1/255", elem_id="eps")
            loss = gr.Dropdown(list(LOSSES), value=start.loss, label="Loss", elem_id="loss")
            steps = gr.Slider(1, MOST_STEPS, start.steps, step=1, label="Steps", elem_id="steps")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed")
            with gr.Row():
                go_button = gr.Button("Attack", variant="primary", elem_id="attack")
                stop_button = gr.Button("Stop", variant="stop", elem_id="stop")
        with gr.Column(scale=3, min_width=320, elem_id="result"):
            view = drawn_by(VIEWER, clean_view(start), "view")
            curve = gr.Plot(attack_curve((), start.steps), show_label=False, elem_id="curve")

    go_button.click(WORK.expect, None, None, queue=False, api_name="expect", concurrency_limit=None)
    attacking = go_button.click(
        attack,
        [photo, upload, model, eps, loss, steps, seed],
        [view, curve],
        api_name="attack",
        show_progress="minimal",
        show_progress_on=[view],
        **IN_TURN,
    )
    looking = {
        "fn": look,
        "inputs": [photo, upload, model, eps, steps],
        "outputs": [view, curve],
        "cancels": [attacking],
        "show_progress": "hidden",
    }
    gr.on([photo.input, model.input], **looking, api_name="look")
    upload.upload(lambda: UPLOAD, None, photo, api_visibility="private").then(**looking, api_visibility="private")
    stop_button.click(WORK.stop, None, None, queue=False, api_name="stop", concurrency_limit=None)
