"""Attack the subject, watch it happen, go back through its steps, and save or share the result."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, replace
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from robviz.app.bar import model_choices
from robviz.app.page import Page, subject_key
from robviz.app.plots import attack_curve
from robviz.app.work import (
    AT_ONCE,
    FRAME_SECONDS,
    UNSEEN,
    Controls,
    Kept,
    Visit,
    drawn_by,
    drawn_once,
    in_turn,
    names_of,
    queue_line,
    refusing,
    session_of,
    streamed,
    taking,
)
from robviz.attacks import OPTIMISERS, TARGETED
from robviz.interactive.bundle import load_bundle, save_bundle
from robviz.interactive.comparison import Comparison, clean_comparison, continued
from robviz.interactive.scenario import (
    BREAK,
    CHANGE,
    MAX_STEPS,
    OWN_NOTE,
    TRUTH_NOTE,
    UPLOAD,
    Scenario,
    cached_model,
    check_choice,
    scenario_steps,
    seconds_a_step,
    subject_for,
)
from robviz.losses import LOSSES
from robviz.models import card_named
from robviz.sea import PAPER
from robviz.types import InputError
from robviz.viewer import viewer_data
from robviz.viewer.losses import losses_data
from robviz.viewer.payloads import Score, ViewerData
from robviz.viewer.sharing import attack_page

KEY = "attack"
ANY = "any other class"
#: name -> loss, attack and steps; the second is a run of the paper's ensemble.
PRESETS = {
    "quick": ("mask-ce", "apgd", 20),
    "paper": next((run.loss, run.attack, run.steps) for run in PAPER.runs if run.loss == "mask-ce"),
}
LISTENING = """
    element.firstChild.dataset.regions = 'yes';
    const shown = robviz.viewer(element.firstChild, props.value);
    watch('value', () => shown.update(props.value));
    element.firstChild.addEventListener('region', ({ detail }) => {
        const field = document.querySelector('#region textarea, #region input');
        field.value = detail ? detail.join(', ') : '';
        field.dispatchEvent(new Event('input', { bubbles: true }));
    });
    """
LOSS_CARD = """
const shown = robviz.losses(element.firstChild, data);
const chosen = document.querySelector('#loss input:checked');
if (chosen) shown.show(chosen.value);
"""
SHOW_LOSS = "name => document.querySelector('#loss-card [data-loss]')?.robviz.show(name)"


def setting_of(*values: Any) -> tuple[Scenario, str | None]:
    """Return the setting and the upload of the widgets, in the order of the inputs."""
    photo, upload, model, eps, loss, steps, seed, attack, target, region, where = values
    target = "" if target == ANY else target
    return Scenario(photo, model, eps, loss, steps, seed, attack, target, region or "", where), upload


def note_of(setting: Scenario) -> str:
    """Say what the labels are."""
    is_drawn = setting.photo != UPLOAD and cached_model(setting.model)[1].dataset == "photos"
    return TRUTH_NOTE if is_drawn else OWN_NOTE


def clean_view(setting: Scenario, upload: str | None = None) -> ViewerData:
    """Show the picture and its mask before any attack."""
    setting.check()
    subject, note = subject_for(setting.photo, upload, setting.model)
    shown = clean_comparison(subject, setting.spec())
    note = f"Press Attack: the right pane will show what the model sees in the attacked picture. {note}"
    return viewer_data(shown, subject.card.classes, subject.card.palette, note)


def result_view(setting: Scenario, final: Comparison, note: str) -> ViewerData:
    """Show a finished attack, with all there is to say about it."""
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
    setting: Scenario,
    upload: str | None,
    is_stopped: Callable[[], bool],
    start: torch.Tensor | None = None,
) -> Iterator[tuple[ViewerData, Comparison]]:
    """Stream frames of an attack, at most one every `FRAME_SECONDS`; the last one is the measured result.

    start: the picture (3, H, W) in [0, 1] that the attack goes on from; None for a start of its own.
    """
    setting.check()
    card, note = cached_model(setting.model)[1], note_of(setting)
    steps = scenario_steps(setting, upload, start=start, frame_seconds=FRAME_SECONDS, is_stopped=is_stopped)
    with closing(steps) as frames:
        for shown in frames:
            if not shown.is_final:
                yield viewer_data(shown, card.classes, card.palette, note), shown
    if is_stopped():
        note += " Stopped: this is the best found until then."
    elif shown.step < shown.steps:
        note += " Ended early: no pixel is left to break."
    yield result_view(setting, shown, note), shown


def preset_of(loss: str, attack: str, steps: int) -> str | None:
    """Return the preset that the widgets make up, if they do."""
    return next((name for name, values in PRESETS.items() if values == (loss, attack, steps)), None)


def targets(model: str, chosen: str = ANY) -> Any:
    """Return an update of the menu of targets for the classes of a model."""
    return gr.update(choices=[ANY, *cached_model(model)[1].classes], value=chosen)


@refusing
def estimate(photo: str, model: str, steps: int) -> str:
    """Say how long the attack will take, from a step measured on this machine."""
    Scenario(photo, model, steps=steps).check()
    step = seconds_a_step(photo, model)
    return f"About {max(1, round(steps * step))} s on this machine, where a step takes {1000 * step:.0f} ms."


def widgets_of(setting: Scenario) -> list[Any]:
    """Return updates of photo, model, eps, loss, steps, seed, attack, target, region and where."""
    photo, name, eps, loss, steps, seed, how, target, region, where = astuple(setting)
    # With its choices: the model may have come since the page was built, and gradio refuses what is none of them.
    model = gr.Dropdown(choices=model_choices(), value=name)
    return [photo, model, eps, loss, steps, seed, how, targets(name, target or ANY), region, where]


def address_of(setting: Scenario, view: str, first: str) -> str:
    """Return what belongs behind the `?` of an address; a setting without a view is an attack."""
    query = setting.query()
    if view == (KEY if query else first):
        return query
    return f"view={view}" + (f"&{query}" if query else "")


class Attack:
    """Handle the view's events, and keep what its visitors attacked last: to save, to share and to go on from."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.finished, self.wishes, self.tickets = Kept(), Kept(), itertools.count(1)
        self.following: set[str] = set()  # sessions whose live attack is under way

    def attack(
        self,
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
        visit: Visit,
    ) -> Iterator[tuple[ViewerData, Any]]:
        """Stream the attack; Stop keeps the best so far."""
        setting, upload = setting_of(photo, upload, model, eps, loss, steps, seed, attack, target, region, where)
        yield from self.run(setting, upload, visit.session, visit.is_stopped)

    def run(
        self,
        setting: Scenario,
        upload: str | None,
        session: str,
        is_stopped: Callable[[], bool],
        start: torch.Tensor | None = None,
    ) -> Iterator[tuple[ViewerData, Any]]:
        """Stream one attack and keep its result."""
        for view, shown in attack_views(setting, upload, is_stopped, start):
            if shown.is_final:
                self.keep(session, setting, upload, shown)
            yield view, gr.skip()  # the picture first: the page loads plotly for its first curve
        yield view, gr.Plot(attack_curve(shown.curve, shown.steps, shown.losses), visible=bool(shown.curve))

    def keep(self, session: str, setting: Scenario, upload: str | None, shown: Comparison) -> None:
        """Keep a result, without its trail and with labels in two bytes of eight."""
        small = {name: getattr(shown, name).astype(np.int16) for name in ("reference", "before", "after")}
        found = replace(shown, trail=(), **small)
        self.finished.keep(session, (setting, upload, found))
        self.page.keep(KEY, session, (setting, found, note_of(setting)))

    # ------------------------------------------------------------------------------------------------------- live

    def wish(self, is_live: bool, view: str, *values: Any) -> Any:
        """Store what the widgets ask for; the live attack goes on with it at its next step."""
        *setting, request = values
        if not is_live or view != KEY:
            return gr.skip()
        self.wishes.keep(session_of(request), setting)
        if session_of(request) not in self.following:
            self.page.looks[KEY].work.stop(request)  # an attack that was begun by a click gives way
        return str(next(self.tickets))  # another one each time, so that its change is heard

    def live(self, *arguments: Any) -> Iterator[tuple[ViewerData, Any]]:
        """Follow the widgets: each new radius or loss goes on from the perturbation found so far."""
        visit: Visit = arguments[-1]  # the widgets' values are those of the latest wish
        self.following.add(visit.session)
        try:
            done = None
            while (wish := self.wishes.get(visit.session)) is not None and wish is not done:
                done = wish
                setting, upload = setting_of(*wish)
                start = self.start_for(visit.session, setting, upload)

                def is_over(wish: Any = wish) -> bool:
                    return visit.is_stopped() or self.wishes.get(visit.session) is not wish

                yield from self.run(setting, upload, visit.session, is_over, start)
                if visit.is_stopped():
                    break
        finally:
            self.following.discard(visit.session)
        if self.wishes.get(visit.session) is done:
            self.wishes.pop(visit.session, None)

    def start_for(self, session: str, setting: Scenario, upload: str | None) -> torch.Tensor | None:
        """Return the last result on this subject, scaled to the radius of a setting; None where there is none."""
        if session not in self.finished:
            return None
        last, its_upload, shown = self.finished[session]

        def question(one: Scenario, its_upload: str | None) -> tuple[Any, ...]:
            return (*subject_key(one.photo, its_upload, one.model), one.region, one.where, one.target)

        is_same = question(last, its_upload) == question(setting, upload)
        return continued(shown, setting.eps_255 / 255) if is_same else None

    # ----------------------------------------------------------------------------------------- addresses and files

    def show(
        self, photo: str, upload: str | None, model: str, eps: float, loss: str, steps: int, *rest: Any
    ) -> tuple[ViewerData, Any]:
        """Show the chosen picture and its mask, before any attack."""
        return clean_view(Scenario(photo, model, eps, steps=steps), upload), gr.Plot(visible=False)

    def link(self, *values: Any) -> tuple[Any, Any]:
        """Return what belongs behind the `?` of an address, and the lines of Python that make the same attack.

        Nothing changes for an impossible setting: the attack says why.
        """
        *widgets, view = values
        setting, _ = setting_of(*widgets)
        try:
            setting.check()
        except InputError:
            return gr.skip(), gr.skip()
        return address_of(setting, view, next(iter(self.page.titles))), setting.cell()

    @refusing
    def save(self, request: gr.Request) -> tuple[str, str]:
        """Return a zip of the last finished attack, and what its pictures are found to hold when read back."""
        if session_of(request) not in self.finished:
            raise InputError("there is no finished attack to save yet; press Attack first")
        setting, _, shown = self.finished[session_of(request)]
        packed = save_bundle(setting, shown)
        return save_bytes_to_cache(packed, "robviz.zip", get_upload_folder()), load_bundle(io.BytesIO(packed)).verdict

    @refusing
    def reopen(self, path: str, request: gr.Request) -> list[Any]:
        """Show a saved zip again, with its pictures predicted again, and set the widgets as they were."""
        self.page.looks[KEY].work.leaves(request, path)
        found = load_bundle(path)
        view = result_view(found.setting, found.shown, f"{note_of(found.setting)} {found.verdict}")
        self.keep(session_of(request), found.setting, None, found.shown)
        curve = attack_curve(found.shown.curve, found.shown.steps, found.shown.losses)
        return [view, gr.Plot(curve, visible=True), *widgets_of(found.setting)]

    @refusing
    def restore(self, request: gr.Request) -> list[Any]:
        """Put view and widgets as the address says."""
        values = dict(request.query_params)
        if not {*Scenario().values(), "view"} & values.keys():
            return [gr.skip()] * 12
        first = next(iter(self.page.titles))
        setting = Scenario.parse(values)
        view = values.get("view", KEY if setting != Scenario() else first)
        check_choice("view", view, self.page.titles)
        widgets = widgets_of(setting) if setting != Scenario() else [gr.skip()] * 10
        return [gr.Tabs(selected=view), view, *widgets]  # the view that opens shows the picture


def build(page: Page) -> None:
    """Build the view into the page."""
    view, start = Attack(page), Scenario()
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=300, elem_classes="rv-controls"):
            with gr.Row(elem_id="go"):
                go_button = gr.Button("Attack", variant="primary", elem_id="attack", min_width=80)
                stop_button = gr.Button("Stop", variant="stop", elem_id="stop", min_width=60)
            is_live = gr.Checkbox(False, label="Live: go on as ε or loss change", elem_id="live")
            line = queue_line("queue")
            steps = gr.Slider(1, MAX_STEPS, start.steps, step=1, label="Steps", elem_id="steps")
            loss = gr.Radio(list(LOSSES), value=start.loss, label="Loss", elem_id="loss", elem_classes="rv-segments")
            drawn_once(LOSS_CARD, "loss-card", losses_data(start.loss))
            preset = gr.Radio(
                list(PRESETS), value="quick", label="Preset", elem_id="preset", elem_classes="rv-segments"
            )
            seconds = gr.Markdown(elem_id="estimate")
            with gr.Accordion("Optimiser, target and seed", open=False, elem_id="more"):
                how = gr.Dropdown(list(OPTIMISERS), value=start.attack, label="Optimiser", elem_id="optimiser")
                target = gr.Dropdown(
                    [ANY, *card_named(start.model).classes],
                    value=ANY,
                    label=f"Target class (with {', '.join(TARGETED)})",
                    elem_id="target",
                )
                seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            shown = drawn_by(LISTENING, "view")
            with gr.Row(elem_id="where-row"):
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
            curve = gr.Plot(show_label=False, elem_id="curve", visible=False)
            with gr.Accordion("Save, share or repeat this attack", open=False, elem_id="take"):
                with gr.Row():
                    save_button = gr.Button("Save as zip", size="sm", elem_id="save")
                    page.share(KEY, attack_page, "share")
                    open_button = gr.UploadButton("Open a saved zip", file_types=[".zip"], size="sm", elem_id="open")
                saved = gr.File(label="Pictures, masks, perturbation and setting", elem_id="saved")
                verdict = gr.Markdown(elem_id="verdict")
                cell = gr.Code(start.cell(), language="python", label="The same in a notebook", elem_id="cell")
        ticket = gr.Textbox(visible="hidden", elem_id="ticket")

    bar = page.bar
    own: list[Any] = [loss, steps, seed, how, target, region, where]
    inputs, outputs = [*bar.inputs, *own], [shown, curve]
    widgets = [bar.photo, bar.model, bar.eps, *own]
    controls = Controls(go_button, stop_button, line)
    work = page.wire(KEY, view.attack, view.show, name="attack", controls=controls, own=own, outputs=outputs)

    subject = page.looks[KEY].about

    def wish(*values: Any) -> Any:
        return view.wish(*values)

    wishes = [is_live, page.view, *inputs]
    moved = [bar.eps.change, loss.change, is_live.input]
    named = taking([f"value{number}" for number in range(len(wishes))], wish)
    gr.on(moved, named, wishes, ticket, api_visibility="private", trigger_mode="multiple", **AT_ONCE)
    live: dict[str, Any] = {"trigger_mode": "always_last", "api_name": "live", **in_turn(line)}
    ticket.change(streamed(work, view.live, subject, names_of(view.attack)), inputs, outputs, **live)

    changes = [one.change for one in widgets] + [page.view.change]
    links: dict[str, Any] = {"api_name": "link", "trigger_mode": "multiple", "show_progress": "hidden", "queue": False}
    page.after_looks.append(lambda: gr.on(changes, view.link, [*inputs, page.view], [page.address, cell], **links))
    gr.on([loss.change], None, loss, None, js=SHOW_LOSS, api_visibility="private")
    bar.model.input(targets, bar.model, target, **UNSEEN)
    preset.input(PRESETS.__getitem__, preset, [loss, how, steps], **UNSEEN)
    gr.on(
        [loss.input, how.input, steps.input],
        preset_of,
        [loss, how, steps],
        preset,
        trigger_mode="always_last",
        **UNSEEN,
    )
    save_button.click(view.save, None, [saved, verdict], api_name="save")
    timed = [bar.photo, bar.model, steps]
    page.while_open(KEY, estimate, timed, seconds)
    reopened = open_button.upload(view.reopen, open_button, [shown, curve, *widgets], api_name="reopen")
    reopened.then(estimate, timed, seconds, api_name="estimate", **AT_ONCE)
    page.at_load(view.restore, None, [page.tabs, page.view, *widgets])
