"""SEA on one picture: every attack of an ensemble, which of them broke which class, and the worst case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import gradio as gr

from robviz.app.views.attack import measured
from robviz.app.views.failures import card_view, evaluations, first_card, opened
from robviz.app.work import (
    FRAME_SECONDS,
    VIEWER,
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
from robviz.interactive.comparison import clean_comparison
from robviz.interactive.ensemble import NOT_ATTACKED, ensemble_steps
from robviz.interactive.scenario import MAX_EPS, MAX_STEPS, Scenario
from robviz.models import available
from robviz.results.failures import select
from robviz.results.plan import SeaSettings
from robviz.sea import SETTINGS
from robviz.types import InputError
from robviz.viewer.ensemble import ensemble_data
from robviz.viewer.failures import heatmap_data
from robviz.viewer.payloads import EnsembleData, HeatmapData, ViewerData

WORK = Work()
STEPS = 30
#: Whose steps are not its own already.
ENSEMBLES = [name for name in SETTINGS if name != "quick"]
ENSEMBLE = """
const shown = robviz.ensemble(element.firstChild, props.value);
watch('value', () => shown.update(props.value));
"""
HEATMAP = """
const cells = robviz.heatmap(element.firstChild, props.value, (cell) => trigger("select", cell));
watch('value', () => cells.update(props.value));
"""


def settings_of(ensemble: str, steps: int) -> SeaSettings:
    """Raises InputError for what the widgets do not offer."""
    if ensemble not in ENSEMBLES:
        raise InputError(f"the ensemble must be one of {', '.join(ENSEMBLES)}; got {str(ensemble)[:40]!r}")
    return SETTINGS[ensemble].with_steps(int(steps))


def names_of(settings: SeaSettings) -> list[str]:
    return [run.name for run in settings.runs]


def first_view(photo: str, model: str, eps: float, ensemble: str, steps: int) -> EnsembleData:
    """The unattacked picture, and the attacks that wait."""
    setting, settings = Scenario(photo, model, eps, steps=steps), settings_of(ensemble, steps)
    setting.check()
    subject, note = subject_for(photo, None, model)
    shown = {NOT_ATTACKED: clean_comparison(subject, setting.spec())}
    return ensemble_data(shown, subject.card, names_of(settings), f"{note} Press Run.")


def expect(photo: str, model: str, ensemble: str, request: gr.Request) -> None:
    """An ensemble joins the queue."""
    WORK.restart(request, (photo, model, ensemble))


@refusing
def look(photo: str, model: str, eps: float, ensemble: str, steps: int, request: gr.Request) -> EnsembleData:
    """Show the chosen picture before any attack; an ensemble on it stays."""
    if not WORK.leaves(request, (photo, model, ensemble)):
        result: EnsembleData = gr.skip()
        return result
    return first_view(photo, model, eps, ensemble, steps)


@refusing
def run(photo: str, model: str, eps: float, ensemble: str, steps: int, request: gr.Request) -> Iterator[EnsembleData]:
    """Stream the ensemble; Stop keeps the best so far."""
    setting, settings = Scenario(photo, model, eps, steps=steps), settings_of(ensemble, steps)
    setting.check()
    subject, note = subject_for(photo, None, model)
    with WORK.begin(request, (photo, model, ensemble)) as stopped:
        radius = setting.spec().eps
        frames = ensemble_steps(subject, radius, settings, frame_seconds=FRAME_SECONDS, is_stopped=stopped.is_set)
        with closing(frames):
            for shown in frames:
                if WORK.is_left(request, (photo, model, ensemble)):
                    return
                yield ensemble_data(shown, subject.card, names_of(settings), note)


@refusing
def seconds_of(photo: str, model: str, ensemble: str, steps: int) -> str:
    """How long the ensemble will take, from a step made now."""
    Scenario(photo, model, steps=steps).check()
    attacks, step = len(settings_of(ensemble, steps).runs), measured(model, photo)
    each = max(1, round(steps * step))
    return f"{attacks} attacks, each about {each} s on this machine, by a step measured on it: {1000 * step:.0f} ms."


@refusing
def record(evaluation: int, event: gr.EventData) -> ViewerData:
    """Open a cell of the heatmap."""
    return card_view(evaluation, event.row)[0]


@refusing
def records(evaluation: int) -> tuple[HeatmapData, Mapping[str, Any]]:
    """An evaluation's heatmap, and its worst cell."""
    return recorded(evaluation)


def recorded(evaluation: int) -> tuple[HeatmapData, Mapping[str, Any]]:
    found, _ = opened(evaluation)
    return heatmap_data(found), first_card(evaluation, select(found))[0]


def build() -> None:
    start, ensemble = Scenario(), "paper"
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Dropdown(list(photos()), value=start.photo, label="Picture", elem_id="sea-photo")
            model = gr.Dropdown(available(offline=True), value=start.model, label="Model", elem_id="sea-model")
            eps = gr.Slider(0, MAX_EPS, start.eps_255, step=0.25, label="ε, in 1/255", elem_id="sea-eps")
            chosen = gr.Dropdown(ENSEMBLES, value=ensemble, label="Ensemble", elem_id="sea-ensemble")
            steps = gr.Slider(1, MAX_STEPS, STEPS, step=1, label="Steps an attack, on average", elem_id="sea-steps")
            seconds = gr.Markdown(elem_id="sea-seconds")
            line = queue_line("sea-queue")
            with gr.Row():
                go_button = gr.Button("Run", variant="primary", elem_id="sea-run")
                stop_button = gr.Button("Stop", variant="stop", elem_id="sea-stop")
        with gr.Column(scale=3, min_width=320, elem_classes="rv-result"):
            view = drawn_by(ENSEMBLE, first_view(start.photo, start.model, start.eps_255, ensemble, STEPS), "sea")

    gr.Markdown("### Many pictures, every attack", elem_id="sea-many")
    names = evaluations()
    heat, first = recorded(0)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            evaluation = gr.Dropdown(names, value=0, label="Evaluation", elem_id="sea-evaluation")
            cells = drawn_by(HEATMAP, heat, "heat")
        with gr.Column(scale=3, min_width=320):
            shown = drawn_by(VIEWER, first, "sea-record")

    inputs: list[Any] = [photo, model, eps, chosen, steps]
    told: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    evaluation.input(records, evaluation, [cells, shown], **told)
    cells.select(record, evaluation, shown, **told)
    subject, turn = [photo, model, chosen], in_turn(line)
    started_by(go_button, stop_button, WORK, "sea", run, inputs, view, expect, subject, trigger_mode="multiple", **turn)
    gr.on([one.input for one in subject], look, inputs, view, **told)
    at_every_change(seconds_of, [photo, model, chosen, steps], seconds)
