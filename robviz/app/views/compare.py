"""Compare two models on one picture, under the same perturbation and under each one's own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from robviz.app.page import Page
from robviz.app.work import FRAME_SECONDS, Visit, controls, drawn, refusing
from robviz.attacks import AttackSpec
from robviz.interactive.comparison import never
from robviz.interactive.scenario import MAX_STEPS, Scenario, cached_model, seconds_a_step, subject_for
from robviz.interactive.transfer import Transfer, transfer_steps
from robviz.losses import LOSSES
from robviz.models import Card
from robviz.types import InputError
from robviz.viewer.payloads import TransferData
from robviz.viewer.sharing import transfer_page
from robviz.viewer.transfer import transfer_data

KEY, OTHER = "compare", "photos-robust"


def spec_of(photo: str, models: tuple[str, str], eps: float, loss: str, steps: int) -> AttackSpec:
    """Return the attack that the widgets describe. Raises InputError for what they do not offer."""
    for model in models:
        setting = Scenario(photo, model, eps, loss, steps)
        setting.check()
    if models[0] == models[1]:
        raise InputError(f"both models are {models[0]}; choose two different ones")
    return setting.spec()


def frames_of(
    photo: str,
    upload: str | None,
    models: tuple[str, str],
    eps: float,
    loss: str,
    steps: int,
    is_stopped: Callable[[], bool] = never,
) -> Generator[tuple[Transfer, dict[str, str]], None, None]:
    """Yield the unattacked picture, and then what becomes of it; with each, a note on the labels by model."""
    spec = spec_of(photo, models, eps, loss, steps)
    opened = {name: subject_for(photo, upload, name) for name in models}
    subjects = {name: subject for name, (subject, _) in opened.items()}
    notes = {name: note for name, (_, note) in opened.items()}
    with closing(transfer_steps(subjects, spec, frame_seconds=FRAME_SECONDS, is_stopped=is_stopped)) as frames:
        for found in frames:
            yield found, notes


def cards_of(models: tuple[str, str]) -> dict[str, Card]:
    """Return the cards of the models by name."""
    return {name: cached_model(name)[1] for name in models}


def show(photo: str, upload: str | None, model: str, eps: float, other: str, loss: str, steps: int) -> TransferData:
    """Show what both models see in the picture, before any attack."""
    if model == other:
        other = next(name for name in (OTHER, "photos-clean") if name != model)
    models = (model, other)
    with closing(frames_of(photo, upload, models, eps, loss, steps)) as frames:
        found, notes = next(frames)
    return transfer_data(found, cards_of(models), notes)


@refusing
def seconds_of(photo: str, model: str, other: str, steps: int) -> str:
    """Say how long both attacks will take, from a step measured on each."""
    for name in (model, other):
        Scenario(photo, name, steps=steps).check()
    seconds = steps * sum(seconds_a_step(photo, name) for name in (model, other))
    return f"Two attacks, together about {max(1, round(seconds))} s on this machine."


def build(page: Page) -> None:
    """Build the view into the page."""
    start = Scenario()
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            buttons = controls("Attack both", "two")
            other = page.model_menu("Compare with", OTHER, "two-other")
            loss = gr.Dropdown(list(LOSSES), value=start.loss, label="Loss", elem_id="two-loss")
            steps = gr.Slider(1, MAX_STEPS, start.steps, step=1, label="Steps of each attack", elem_id="two-steps")
            seconds = gr.Markdown(elem_id="two-seconds")
            page.share(KEY, transfer_page, "two-share")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            shown = drawn("transfer", "transfer")

    def run(
        photo: str,
        upload: str | None,
        model: str,
        eps: float,
        other: str,
        loss: str,
        steps: int,
        visit: Visit,
    ) -> Iterator[TransferData]:
        """Stream both attacks; Stop keeps the best so far."""
        models = (model, other)
        with closing(frames_of(photo, upload, models, eps, loss, steps, visit.is_stopped)) as frames:
            for found, notes in frames:
                yield transfer_data(found, cards_of(models), notes)
        page.keep(KEY, visit.session, (Scenario(photo, model, eps, loss, steps), found, notes))

    own: list[Any] = [other, loss, steps]
    page.wire(KEY, run, show, name="transfer", controls=buttons, own=own, outputs=[shown], about=[other])
    page.while_open(KEY, seconds_of, [page.bar.photo, page.bar.model, other, steps], seconds)
