"""Attack a picture, watch it happen, go back through its steps, and take it along."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, replace
from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np
import plotly.graph_objects as go
import torch
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from robviz.app.plots import attack_curve
from robviz.app.work import (
    FRAME_SECONDS,
    UPLOAD,
    VIEWER,
    Work,
    as_it_came,
    cached_model,
    drawn_by,
    in_turn,
    photos,
    queue_line,
    refusing,
    sample_of,
    started_by,
    subject_for,
)
from robviz.attacks import OPTIMISERS, TARGETED
from robviz.interactive.bundle import load_bundle, save_bundle
from robviz.interactive.comparison import Comparison, clean_comparison, step_seconds
from robviz.interactive.scenario import (
    BREAK,
    CHANGE,
    MAX_EPS,
    MAX_STEPS,
    OWN_NOTE,
    TRUTH_NOTE,
    Scenario,
    scenario_steps,
)
from robviz.losses import LOSSES
from robviz.models import available
from robviz.sea import PAPER
from robviz.types import InputError
from robviz.viewer import viewer_data
from robviz.viewer.payloads import Score, ViewerData

WORK = Work()
ANY = "any other class"
#: name -> loss, attack and steps; the second is a run of the paper's ensemble.
PRESETS = {
    "quick": ("mask-ce", "apgd", 20),
    "paper": next((run.loss, run.attack, run.steps) for run in PAPER.runs if run.loss == "mask-ce"),
}
#: What the visitors attacked last, for their zips: session -> setting and result.
_finished: OrderedDict[str, tuple[Scenario, Comparison]] = OrderedDict()
MOST_FINISHED = 32
LISTENING = (
    "element.firstChild.dataset.regions = 'yes';"
    + VIEWER
    + """
    element.firstChild.addEventListener('region', ({ detail }) => {
        const field = document.querySelector('#region textarea, #region input');
        field.value = detail ? detail.join(', ') : '';
        field.dispatchEvent(new Event('input', { bubbles: true }));
    });
    """
)
TO_ADDRESS = "query => { history.replaceState(null, '', query ? '?' + query : location.pathname); }"


def setting_of(*values: Any) -> tuple[Scenario, str | None]:
    """The setting and the upload of the widgets, in the order of the inputs."""
    photo, upload, model, eps, loss, steps, seed, attack, target, region, where = values
    target = "" if target == ANY else target
    return Scenario(photo, model, eps, loss, steps, seed, attack, target, region or "", where), upload


def note_of(setting: Scenario) -> str:
    """What the labels are."""
    is_drawn = setting.photo != UPLOAD and cached_model(setting.model)[1].dataset == "photos"
    return TRUTH_NOTE if is_drawn else OWN_NOTE


def clean_view(setting: Scenario, upload: str | None = None) -> ViewerData:
    """The picture and its mask before any attack."""
    setting.check()
    subject, note = subject_for(setting.photo, upload, setting.model)
    shown = clean_comparison(subject, setting.spec())
    return viewer_data(shown, subject.card.classes, subject.card.palette, f"{note} Press Attack.")


def result_view(setting: Scenario, final: Comparison, note: str) -> ViewerData:
    """A finished attack, with all there is to say about it."""
    card = cached_model(setting.model)[1]
    if setting.eps_255 < 1:
        note += " An 8-bit picture cannot hold a change below 1/255."
    shown = viewer_data(final, card.classes, card.palette, note)
    if setting.target:
        aimed = setting.inside(torch.from_numpy(final.reference)) if setting.where == BREAK else None
        where = ... if aimed is None else aimed.numpy()
        label = card.classes.index(setting.target)
        before, after = ((mask[where] == label).mean() for mask in (final.before, final.after))
        row: Score = {"name": "target", "label": f"pixels at {setting.target}", "value": f"{before:.1%} → {after:.1%}"}
        shown["scores"].insert(2, row)
    return shown


def attack_views(
    setting: Scenario, upload: str | None, stopped: threading.Event
) -> Iterator[tuple[ViewerData, Comparison]]:
    """Frames of an attack, at most one every `FRAME_SECONDS`; the last one is the measured result."""
    setting.check()
    card, note = cached_model(setting.model)[1], note_of(setting)
    steps = scenario_steps(setting, upload, frame_seconds=FRAME_SECONDS, is_stopped=stopped.is_set)
    with closing(steps) as frames:
        for shown in frames:
            if not shown.is_final:
                yield viewer_data(shown, card.classes, card.palette, note), shown
    if stopped.is_set():
        note += " Stopped: this is the best found until then."
    elif shown.step < shown.steps:
        note += " Ended early: no pixel is left to break."
    yield result_view(setting, shown, note), shown


def subject_of(photo: str, upload: str | None, model: str) -> tuple[str, ...]:
    """What an attack is about, for `WORK`."""
    return (photo, upload or "", model) if photo == UPLOAD else (photo, model)


def expect(photo: str, upload: str | None, model: str, request: gr.Request) -> None:
    """An attack joins the queue."""
    WORK.restart(request, subject_of(photo, upload, model))


@refusing
def look(
    photo: str, upload: str | None, model: str, eps: float, steps: int, request: gr.Request
) -> tuple[ViewerData, go.Figure]:
    """Show the chosen picture and its mask, before any attack; an attack on them stays."""
    if not WORK.leaves(request, subject_of(photo, upload, model)):
        return gr.skip(), gr.skip()
    return clean_view(Scenario(photo, model, eps, steps=steps), upload), attack_curve((), steps)


@refusing
def attack(
    photo: str,
    upload: str | None,
    model: str,
    eps: float,
    loss: str,
    steps: int,
    seed: int,
    attack: str,
    target: str,
    region: str,
    where: str,
    request: gr.Request,
) -> Iterator[tuple[ViewerData, Any]]:
    """Stream the attack; ends early, keeping the best so far, on Stop or when the tab closes."""
    setting, upload = setting_of(photo, upload, model, eps, loss, steps, seed, attack, target, region, where)
    subject = subject_of(photo, upload, model)
    with WORK.begin(request, subject) as stopped:
        for view, shown in attack_views(setting, upload, stopped):
            if WORK.is_left(request, subject):
                return
            yield view, attack_curve(shown.curve, shown.steps, shown.losses) if shown.is_final else gr.skip()
    keep(request, setting, shown)


def keep(request: gr.Request, setting: Scenario, shown: Comparison) -> None:
    """For a zip: without the trail, which none holds, and labels in two bytes of eight."""
    session = request.session_hash or ""
    small = {name: getattr(shown, name).astype(np.int16) for name in ("reference", "before", "after")}
    _finished[session] = setting, replace(shown, trail=(), **small)
    _finished.move_to_end(session)
    while len(_finished) > MOST_FINISHED:
        _finished.popitem(last=False)


def link(*values: Any) -> tuple[Any, Any]:
    """Of the setting: what belongs behind the `?` of an address, and the lines of Python that do the same.

    Nothing changes for an impossible one: the attack that the same click begins says why.
    """
    setting, _ = setting_of(*values)
    try:
        setting.check()
    except InputError:
        return gr.skip(), gr.skip()
    return setting.query(), setting.cell()


@refusing
def save(request: gr.Request) -> tuple[str, str]:
    """A zip of the last finished attack, and what its pictures are found to hold when read back."""
    if (request.session_hash or "") not in _finished:
        raise InputError("there is no finished attack to save yet; press Attack first")
    packed = save_bundle(*_finished[request.session_hash or ""])
    return save_bytes_to_cache(packed, "robviz.zip", get_upload_folder()), load_bundle(io.BytesIO(packed)).verdict


def widgets_of(setting: Scenario) -> list[Any]:
    """Updates of photo, model, eps, loss, steps, seed, attack, target, region and where."""
    photo, model, eps, loss, steps, seed, how, target, region, where = astuple(setting)
    return [photo, model, eps, loss, steps, seed, how, targets(model, target or ANY), region, where]


@refusing
def reopen(path: str, request: gr.Request) -> list[Any]:
    """Show a saved zip again, its pictures looked at anew, and put the widgets as they were."""
    WORK.leaves(request, path)
    found = load_bundle(path)
    keep(request, found.setting, found.shown)
    view = result_view(found.setting, found.shown, f"{note_of(found.setting)} {found.verdict}")
    curve = attack_curve(found.shown.curve, found.shown.steps, found.shown.losses)
    return [view, curve, *widgets_of(found.setting)]


@refusing
def restore(request: gr.Request) -> list[Any]:
    """Put the widgets as the address says."""
    values = dict(request.query_params)
    if not values:
        return [gr.skip()] * 12
    setting = Scenario.parse(values)
    return [clean_view(setting), attack_curve((), setting.steps), *widgets_of(setting)]


def preset_of(loss: str, attack: str, steps: int) -> str | None:
    """The preset that the widgets make up, if they do."""
    return next((name for name, values in PRESETS.items() if values == (loss, attack, steps)), None)


def targets(model: str, chosen: str = ANY) -> Any:
    return gr.update(choices=[ANY, *cached_model(model)[1].classes], value=chosen)


@lru_cache
def measured(model: str, photo: str) -> float:
    opened = cached_model(model)[0]
    return step_seconds(opened, sample_of(photo, None, opened)[0])


@refusing
def estimate(photo: str, model: str, steps: int) -> str:
    """How long the attack will take, from a step made now."""
    Scenario(photo, model, steps=steps).check()
    step = measured(model, next(iter(photos())) if photo == UPLOAD else photo)
    return f"About {max(1, round(steps * step))} s on this machine, by a step measured on it: {1000 * step:.0f} ms."


def build() -> None:
    start = Scenario()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Dropdown([*photos(), UPLOAD], value=start.photo, label="Picture", elem_id="photo")
            upload = gr.UploadButton("Upload a picture", file_count="single", size="sm", elem_id="upload")
            model = gr.Radio(available(offline=True), value=start.model, label="Model", elem_id="model")
            eps = as_it_came(gr.Slider(0, MAX_EPS, start.eps_255, step=0.25, label="ε, in 1/255", elem_id="eps"))
            preset = gr.Radio(list(PRESETS), value="quick", label="Preset", elem_id="preset")
            steps = as_it_came(gr.Slider(1, MAX_STEPS, start.steps, step=1, label="Steps", elem_id="steps"))
            seconds = gr.Markdown(elem_id="estimate")
            line = queue_line("queue")
            with gr.Row():
                go_button = gr.Button("Attack", variant="primary", elem_id="attack")
                stop_button = gr.Button("Stop", variant="stop", elem_id="stop")
            region = gr.Textbox(
                "",
                label="Region: left, top, right, bottom",
                placeholder="whole picture; or draw it with ▭ or b",
                elem_id="region",
            )
            where = gr.Radio(
                [("break only these pixels", BREAK), ("change only these pixels", CHANGE)],
                value=BREAK,
                label="In the region",
                elem_id="where",
            )
            with gr.Accordion("Loss, target and seed", open=False, elem_id="more"):
                loss = gr.Dropdown(list(LOSSES), value=start.loss, label="Loss", elem_id="loss")
                how = gr.Dropdown(list(OPTIMISERS), value=start.attack, label="Attack", elem_id="optimiser")
                target = gr.Dropdown(
                    [ANY, *cached_model(start.model)[1].classes],
                    value=ANY,
                    label=f"Towards (with {', '.join(TARGETED)})",
                    elem_id="target",
                )
                seed = as_it_came(gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed"))
        with gr.Column(scale=3, min_width=320, elem_id="result"):
            view = drawn_by(LISTENING, clean_view(start), "view")
            curve = gr.Plot(attack_curve((), start.steps), show_label=False, elem_id="curve")
            with gr.Accordion("Export", open=False, elem_id="take"):
                with gr.Row():
                    save_button = gr.Button("Save as zip", size="sm", elem_id="save")
                    open_button = gr.UploadButton("Open a saved zip", file_types=[".zip"], size="sm", elem_id="open")
                saved = gr.File(label="Pictures, masks, perturbation and setting", elem_id="saved")
                verdict = gr.Markdown(elem_id="verdict")
                cell = gr.Code(start.cell(), language="python", label="The same in a notebook", elem_id="cell")
                address = gr.Textbox(visible=False)

    inputs = [photo, upload, model, eps, loss, steps, seed, how, target, region, where]
    widgets = [photo, model, eps, loss, steps, seed, how, target, region, where]
    # A click while an attack runs begins another in its place.
    again: dict[str, Any] = {"trigger_mode": "multiple", **in_turn(line)}
    subject: list[Any] = [photo, upload, model]
    started_by(go_button, stop_button, WORK, "attack", attack, inputs, [view, curve], expect, subject, **again)
    go_button.click(link, inputs, [address, cell], api_name="link", show_progress="hidden").then(
        None, address, None, js=TO_ADDRESS, api_visibility="private"
    )
    looking = {
        "fn": look,
        "inputs": [photo, upload, model, eps, steps],
        "outputs": [view, curve],
        "show_progress": "hidden",
    }
    gr.on([photo.input, model.input], **looking, api_name="look")
    upload.upload(lambda: UPLOAD, None, photo, api_visibility="private").then(**looking, api_visibility="private")
    told: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    model.input(targets, model, target, **told)
    preset.input(PRESETS.__getitem__, preset, [loss, how, steps], **told)
    gr.on(
        [loss.input, how.input, steps.input], preset_of, [loss, how, steps], preset, trigger_mode="always_last", **told
    )
    gr.on(
        [photo.change, model.change, steps.change],
        estimate,
        [photo, model, steps],
        seconds,
        api_name="estimate",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    save_button.click(save, None, [saved, verdict], api_name="save")
    open_button.upload(reopen, open_button, [view, curve, *widgets], api_name="reopen")
    gr.on(None, restore, None, [view, curve, *widgets], **told).then(estimate, [photo, model, steps], seconds, **told)
