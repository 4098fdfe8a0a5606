"""The app's layout and handlers; what they show is computed by robviz."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves the machine

import gradio as gr
import plotly.graph_objects as go
from torch import Tensor, nn

from robviz.attacks import predicted
from robviz.comparison import compare_steps, finish, unattacked
from robviz.datasets import load_dataset
from robviz.figures import attack_curve
from robviz.landing import landing_data
from robviz.losses import LOSSES
from robviz.models import Card, available, card_of, load_model, shipped_models
from robviz.pictures import read_picture, to_tensor
from robviz.types import Sample
from robviz.viewer import SCRIPT, STYLE, viewer_data

UPLOAD = "my own picture"
TRUTH_NOTE = "Scores compare with the drawn label mask."
OWN_NOTE = (
    "This picture has no label mask in the model's classes: scores compare with its own mask of the unattacked picture."
)
FRAME_SECONDS = 0.25  # between two streamed frames
MOST_EPS, MOST_STEPS = 16, 200
VIEWER = (
    "const shown = robviz.viewer(element.firstChild, props.value); watch('value', () => shown.update(props.value));"
)
LANDING = "robviz.landing(element.firstChild, props.value);"


@dataclass(frozen=True)
class Setting:
    """What the widgets say; the defaults are the landing view."""

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


# session -> the stop signal of its attack, from the click on and while it runs
_waiting: dict[str, threading.Event] = {}
_running: dict[str, threading.Event] = {}


@lru_cache
def model_of(name: str) -> tuple[nn.Module, Card]:
    model = load_model(name)
    return model, card_of(model)


@lru_cache
def class_weights(dataset: str) -> Tensor | None:
    """Of the photos' classes; those of other datasets, which may not be on this machine, are not asked for."""
    return load_dataset("photos").class_weights if dataset == "photos" else None


@lru_cache
def photos() -> dict[str, Sample]:
    return {sample.name: sample for sample in load_dataset("photos", "photographs")}


def sample_of(setting: Setting, model: nn.Module) -> tuple[Sample, str]:
    """The chosen picture with its reference labels, and what they are."""
    if setting.photo != UPLOAD:
        sample = photos()[setting.photo]
        if card_of(model).dataset == "photos":
            return sample, TRUTH_NOTE
        image = sample.image
    elif setting.upload is None:
        raise ValueError("no picture was uploaded yet; choose one with “Upload a picture”")
    else:
        image = to_tensor(read_picture(setting.upload))
    return Sample(setting.photo, image, predicted(model, image[None])[0]), OWN_NOTE


def clean_view(setting: Setting) -> dict[str, Any]:
    """The picture and its mask before any attack."""
    setting.check()
    model, card = model_of(setting.model)
    sample, note = sample_of(setting, model)
    shown = unattacked(model, sample, len(card.classes), setting.eps / 255, int(setting.steps))
    return viewer_data(shown, card.classes, card.palette, f"{note} Press Attack.")


def attack_views(setting: Setting, stopped: threading.Event) -> Iterator[tuple[dict[str, Any], go.Figure | None]]:
    """Frames of an attack, at most one every `FRAME_SECONDS`; the last one is the measured result with its curve."""
    setting.check()
    model, card = model_of(setting.model)
    sample, note = sample_of(setting, model)
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


def look(
    photo: str, upload: str | None, model: str, eps: float, steps: int, request: gr.Request
) -> tuple[dict[str, Any], go.Figure]:
    """Show the chosen picture and its mask, before any attack."""
    stop(request)
    try:
        return clean_view(Setting(photo, upload, model, eps, steps=steps)), attack_curve((), steps)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def attack(
    photo: str, upload: str | None, model: str, eps: float, loss: str, steps: int, seed: int, request: gr.Request
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Stream the attack; ends early, keeping the best so far, on Stop or when the tab closes."""
    session = request.session_hash or ""
    stopped = _running[session] = _waiting.pop(session, threading.Event())
    try:
        for shown, curve in attack_views(Setting(photo, upload, model, eps, loss, steps, seed), stopped):
            yield shown, gr.skip() if curve is None else curve
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    finally:
        _waiting.pop(session, None)
        if _running.get(session) is stopped:
            del _running[session]


def expect(request: gr.Request) -> None:
    """An attack of this session joins the queue: Stop shall reach it there too."""
    _waiting[request.session_hash or ""] = threading.Event()


def stop(request: gr.Request) -> None:
    """End this session's attack at its next step, or at its first if it has yet to begin."""
    for signals in (_waiting, _running):
        signal = signals.get(request.session_hash or "")
        if signal is not None:
            signal.set()


def drawn_by(script: str, value: dict[str, Any], elem_id: str) -> gr.HTML:
    """A part of the page that a script fills; its template never changes, so gradio leaves what is drawn alone."""
    return gr.HTML(value, html_template="<div></div>", js_on_load=script, apply_default_css=False, elem_id=elem_id)


def build_app() -> gr.Blocks:
    for name in shipped_models():
        model_of(name)  # the first visitor of each should not wait for it
    start = Setting()
    first_view, first_curve = deque(attack_views(start, threading.Event()), maxlen=1).pop()
    with gr.Blocks(title="robviz", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gr.Markdown(
            "# robviz\nWatch a segmentation model break: no pixel changes by more than ε, too little to see, "
            "and yet the mask falls apart. A model trained against such changes holds longer."
        )
        drawn_by(LANDING, landing_data(), "landing")
        gr.Markdown("## Attack a picture yourself")
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
                view = drawn_by(VIEWER, first_view, "view")
                curve = gr.Plot(first_curve, show_label=False, elem_id="curve")

        go_button.click(expect, None, None, queue=False, api_name="expect", concurrency_limit=None)
        # One attack at a time: two would fight for the same cores, and both be slower than one after the other.
        attacking = go_button.click(
            attack,
            [photo, upload, model, eps, loss, steps, seed],
            [view, curve],
            api_name="attack",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=[view],
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
        stop_button.click(stop, None, None, queue=False, api_name="stop", concurrency_limit=None)
        demo.unload(stop)
    return demo


def main(port: int = 7860) -> None:
    """Serve on this machine alone, until interrupted."""
    build_app().queue(max_size=64).launch(
        server_name="127.0.0.1",
        server_port=port,
        head=f"<style>{STYLE}</style><script>{SCRIPT}</script>",
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        max_file_size="30mb",
        run_history=False,
        footer_links=[],
        ssr_mode=False,
        share=False,
    )


if __name__ == "__main__":
    main()
