"""Two models on one picture, under the same perturbation and under each one's own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from robviz.app.views.attack import measured
from robviz.app.work import (
    FRAME_SECONDS,
    UPLOAD,
    Work,
    at_every_change,
    drawn_by,
    in_turn,
    photos,
    queue_line,
    refusing,
    started_by,
    subject_for,
)
from robviz.attacks import AttackSpec
from robviz.interactive.comparison import never
from robviz.interactive.scenario import MAX_EPS, MAX_STEPS, Scenario
from robviz.interactive.transfer import transfer_steps
from robviz.losses import LOSSES
from robviz.models import available
from robviz.types import InputError
from robviz.viewer.payloads import TransferData
from robviz.viewer.transfer import transfer_data

WORK = Work()
PAIR = ("photos-clean", "photos-robust")
TRANSFER = """
const shown = robviz.transfer(element.firstChild, props.value);
watch('value', () => shown.update(props.value));
"""


def spec_of(photo: str, models: tuple[str, str], eps: float, loss: str, steps: int) -> AttackSpec:
    """The attack that the widgets describe. Raises InputError for what they do not offer."""
    for model in models:
        setting = Scenario(photo, model, eps, loss, steps)
        setting.check()
    if models[0] == models[1]:
        raise InputError(f"both models are {models[0]}; choose two different ones")
    return setting.spec()


def views(
    photo: str,
    upload: str | None,
    models: tuple[str, str],
    eps: float,
    loss: str,
    steps: int,
    is_stopped: Callable[[], bool] = never,
) -> Generator[TransferData, None, None]:
    """The unattacked picture, and what becomes of it."""
    spec = spec_of(photo, models, eps, loss, steps)
    opened = {name: subject_for(photo, upload, name) for name in models}
    subjects = {name: subject for name, (subject, _) in opened.items()}
    notes = {name: note for name, (_, note) in opened.items()}
    cards = {name: subject.card for name, subject in subjects.items()}
    frames = transfer_steps(subjects, spec, frame_seconds=FRAME_SECONDS, is_stopped=is_stopped)
    with closing(frames):
        for found in frames:
            yield transfer_data(found, cards, notes)


def subject_of(photo: str, upload: str | None, one: str, other: str) -> tuple[str, ...]:
    """What the attacks are about, for `WORK`."""
    return (photo, upload or "" if photo == UPLOAD else "", one, other)


def expect(photo: str, upload: str | None, one: str, other: str, request: gr.Request) -> None:
    """Attacks join the queue."""
    WORK.restart(request, subject_of(photo, upload, one, other))


@refusing
def look(
    photo: str, upload: str | None, one: str, other: str, eps: float, loss: str, steps: int, request: gr.Request
) -> TransferData:
    """Show what both models see in the chosen picture, before any attack; attacks on it stay."""
    if not WORK.leaves(request, subject_of(photo, upload, one, other)):
        result: TransferData = gr.skip()
        return result
    with closing(views(photo, upload, (one, other), eps, loss, steps)) as frames:
        return next(frames)


@refusing
def run(
    photo: str, upload: str | None, one: str, other: str, eps: float, loss: str, steps: int, request: gr.Request
) -> Iterator[TransferData]:
    """Stream both attacks; Stop keeps the best so far."""
    subject = subject_of(photo, upload, one, other)
    with WORK.begin(request, subject) as stopped:
        for view in views(photo, upload, (one, other), eps, loss, steps, stopped.is_set):
            if WORK.is_left(request, subject):
                return
            yield view


@refusing
def seconds_of(photo: str, one: str, other: str, steps: int) -> str:
    """How long both attacks will take, from a step made now on each."""
    picture = next(iter(photos())) if photo == UPLOAD else photo
    for model in (one, other):
        Scenario(picture, model, steps=steps).check()
    seconds = steps * sum(measured(model, picture) for model in (one, other))
    return f"Two attacks, together about {max(1, round(seconds))} s on this machine, by a step measured on it."


def build() -> None:
    start = Scenario()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Dropdown([*photos(), UPLOAD], value=start.photo, label="Picture", elem_id="two-photo")
            upload = gr.UploadButton("Upload a picture", file_count="single", size="sm", elem_id="two-upload")
            one = gr.Dropdown(available(offline=True), value=PAIR[0], label="One model", elem_id="two-one")
            other = gr.Dropdown(available(offline=True), value=PAIR[1], label="The other", elem_id="two-other")
            eps = gr.Slider(0, MAX_EPS, start.eps_255, step=0.25, label="ε, in 1/255", elem_id="two-eps")
            loss = gr.Dropdown(list(LOSSES), value=start.loss, label="Loss", elem_id="two-loss")
            steps = gr.Slider(1, MAX_STEPS, start.steps, step=1, label="Steps an attack", elem_id="two-steps")
            seconds = gr.Markdown(elem_id="two-seconds")
            line = queue_line("two-queue")
            with gr.Row():
                go_button = gr.Button("Attack both", variant="primary", elem_id="two-run")
                stop_button = gr.Button("Stop", variant="stop", elem_id="two-stop")
        with gr.Column(scale=3, min_width=320, elem_classes="rv-result"):
            first = next(views(start.photo, None, PAIR, start.eps_255, start.loss, start.steps))
            view = drawn_by(TRANSFER, first, "transfer")

    inputs: list[Any] = [photo, upload, one, other, eps, loss, steps]
    subject, turn = [photo, upload, one, other], in_turn(line)
    started_by(
        go_button, stop_button, WORK, "transfer", run, inputs, view, expect, subject, trigger_mode="multiple", **turn
    )
    looking: dict[str, Any] = {
        "fn": look,
        "inputs": inputs,
        "outputs": view,
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    gr.on([photo.input, one.input, other.input], **looking)
    upload.upload(lambda: UPLOAD, None, photo, api_visibility="private").then(**looking)
    at_every_change(seconds_of, [photo, one, other, steps], seconds)
