"""The app's layout and handlers; what they show is computed by robviz."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import lru_cache

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing leaves the machine

import gradio as gr
import plotly.graph_objects as go
from torch import nn

from robviz.comparison import compare_steps, finish, predict, unattacked
from robviz.datasets import load_dataset
from robviz.figures import attack_curve
from robviz.losses import LOSSES
from robviz.models import Card, available, load_model
from robviz.pictures import read_picture, to_tensor
from robviz.types import Sample
from robviz.viewer import STYLE, render

UPLOAD = "my own picture"
TRUTH_NOTE = "Scores compare with the drawn label mask."
OWN_NOTE = "This picture has no label mask: scores compare with the model's own mask of the unattacked picture."
FRAME_SECONDS = 0.25  # between two streamed frames
LANDING = {"photo": "chelsea", "model": "photos-clean", "eps": 4.0, "loss": "mask-ce", "steps": 20}

_running: dict[str, threading.Event] = {}  # session -> its attack's stop signal


@lru_cache
def model_of(name: str) -> tuple[nn.Module, Card]:
    model = load_model(name)
    return model, model.card  # type: ignore[return-value]


@lru_cache
def photos() -> dict[str, Sample]:
    return {sample.name: sample for sample in load_dataset("photos", "photographs")}


def sample_of(photo: str, upload: str | None, model: nn.Module) -> tuple[Sample, str]:
    """The chosen picture with its reference labels, and what they are."""
    if photo != UPLOAD:
        return photos()[photo], TRUTH_NOTE
    if upload is None:
        raise ValueError("no picture was uploaded yet; choose one with “Upload a picture”")
    image = to_tensor(read_picture(upload))
    return Sample("upload", image, predict(model, image)), OWN_NOTE


def look(photo: str, upload: str | None, model_name: str, eps: float, steps: int, request: gr.Request):
    """The picture and its clean mask, before any attack."""
    stop(request)
    model, card = model_of(model_name)
    try:
        sample, note = sample_of(photo, upload, model)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    shown = unattacked(model, sample, len(card.classes), eps / 255, int(steps))
    return render(shown, card.classes, card.palette, f"{note} Press Attack."), None


def attack_views(
    photo: str, upload: str | None, model_name: str, eps: float, loss: str, steps: int, seed: int, stop: threading.Event
) -> Iterator[tuple[str, go.Figure | None]]:
    """Frames of an attack, at most one every `FRAME_SECONDS`; the last one is the measured result."""
    model, card = model_of(model_name)
    sample, note = sample_of(photo, upload, model)
    shown, due = None, 0.0
    for shown in compare_steps(model, sample, len(card.classes), eps / 255, int(steps), loss, int(seed)):
        if stop.is_set():
            note += " Stopped: this is the best found until then."
            break
        if shown.step > 0 and time.monotonic() >= due:
            yield render(shown, card.classes, card.palette, note), None
            due = time.monotonic() + FRAME_SECONDS
    assert shown is not None
    final = finish(model, sample, shown, len(card.classes))
    if eps < 1:
        note += " An 8-bit picture cannot hold a change below 1/255."
    yield render(final, card.classes, card.palette, note), attack_curve(final.curve, final.steps)


def attack(
    photo: str, upload: str | None, model_name: str, eps: float, loss: str, steps: int, seed: int, request: gr.Request
):
    """Stream the attack; ends early, keeping the best so far, on Stop or when the tab closes."""
    signal = _running[request.session_hash or ""] = threading.Event()
    try:
        for html, curve in attack_views(photo, upload, model_name, eps, loss, steps, seed, signal):
            yield html, gr.skip() if curve is None else curve
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    finally:
        signal.set()
        _running.pop(request.session_hash or "", None)


def stop(request: gr.Request) -> None:
    """End this session's attack at its next step."""
    signal = _running.get(request.session_hash or "")
    if signal is not None:
        signal.set()


def build_app() -> gr.Blocks:
    names = list(photos())
    models = available()
    first = list(
        attack_views(
            LANDING["photo"], None, LANDING["model"], LANDING["eps"], LANDING["loss"], LANDING["steps"], 0, threading.Event()
        )
    )[-1]
    with gr.Blocks(title="robviz", analytics_enabled=False) as demo:
        gr.Markdown(
            "# robviz\nWatch a segmentation model break: each pixel may change by at most ε, "
            "too little to see, and the mask falls apart. Unless the model was trained for it."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo = gr.Dropdown([*names, UPLOAD], value=LANDING["photo"], label="Picture", elem_id="photo")
                upload = gr.UploadButton("Upload a picture", file_count="single", size="sm", elem_id="upload")
                model = gr.Radio(models, value=LANDING["model"], label="Model", elem_id="model")
                eps = gr.Slider(0, 16, LANDING["eps"], step=0.25, label="ε, in 1/255", elem_id="eps")
                loss = gr.Radio(list(LOSSES), value=LANDING["loss"], label="Loss", elem_id="loss")
                steps = gr.Slider(1, 200, LANDING["steps"], step=1, label="Steps", elem_id="steps")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed")
                with gr.Row():
                    go_button = gr.Button("Attack", variant="primary", elem_id="attack")
                    stop_button = gr.Button("Stop", variant="stop", elem_id="stop")
            with gr.Column(scale=3, min_width=320):
                view = gr.HTML(first[0], elem_id="view")
                curve = gr.Plot(first[1], label="How the attack went", elem_id="curve")

        choice = [photo, upload, model]
        upload.upload(lambda: UPLOAD, None, photo, api_visibility="private")
        # One attack at a time: two would fight for the same cores, and both be slower than one after the other.
        attacking = go_button.click(
            attack,
            [*choice, eps, loss, steps, seed],
            [view, curve],
            api_name="attack",
            concurrency_limit=1,
            show_progress="hidden",
        )
        gr.on(
            [photo.change, model.change, upload.upload],
            look,
            [*choice, eps, steps],
            [view, curve],
            api_name="look",
            cancels=[attacking],
            show_progress="hidden",
        )
        stop_button.click(stop, None, None, queue=False, api_name="stop", concurrency_limit=None)
        demo.unload(stop)
    return demo


def main(port: int = 7860) -> None:
    """Serve on this machine alone, until interrupted."""
    build_app().queue(max_size=64).launch(
        server_name="127.0.0.1",
        server_port=port,
        css=STYLE,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        max_file_size="30mb",
        run_history=False,
        footer_links=[],
        ssr_mode=False,
        share=False,
    )


if __name__ == "__main__":
    main()
