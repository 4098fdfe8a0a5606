"""Sweep: the robustness curve of this picture, for one model or several, beside bad luck of the same size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

from robviz.app.page import Page
from robviz.app.work import FRAME_SECONDS, Visit, controls, drawn, refusing
from robviz.attacks import last_of
from robviz.interactive.comparison import Subject
from robviz.interactive.scenario import MAX_STEPS, Scenario, check_choice, seconds_a_step, subject_for
from robviz.interactive.sweep import RADII_255, Sweep, sweep_steps
from robviz.interactive.yardsticks import LUCK, SHARE, with_luck, with_smallest
from robviz.losses import LOSSES
from robviz.models import available
from robviz.types import InputError
from robviz.viewer.payloads import SweepData
from robviz.viewer.sharing import sweep_page
from robviz.viewer.sweep import sweep_data

KEY, OTHERS, STEPS = "sweep", ["photos-robust"], 10
MOST_MODELS = 4
SMALLEST_STEPS = 200  # of the search for the smallest radius, on each model
LUCK_LABEL = f"Corruptions of the same size: {', '.join(LUCK)}"
SMALLEST_LABEL = f"Smallest radius found that breaks {100 * SHARE:g} % of the pixels"


def names_of(model: str, others: list[str]) -> list[str]:
    """Return the models to attack, each once. Raises InputError for too many or unknown ones."""
    names = list(dict.fromkeys([model, *(others or [])]))
    known = available(offline=True)
    for name in names:
        check_choice("model", name, known)
    if len(names) > MOST_MODELS:
        raise InputError(f"a sweep takes at most {MOST_MODELS} models, got {len(names)}; remove some")
    return names


def radii_up_to(eps: float) -> tuple[float, ...]:
    """Return the radii of a sweep in 1/255; it ends at the bar's radius, or at 12 where that is smaller."""
    return (*(radius for radius in RADII_255 if radius < eps), eps) if eps > RADII_255[-1] else RADII_255


def subjects_for(photo: str, upload: str | None, names: list[str]) -> tuple[dict[str, Subject], dict[str, str]]:
    """Return the subjects and the notes on their labels, by model."""
    opened = {name: subject_for(photo, upload, name) for name in names}
    return {name: one for name, (one, _) in opened.items()}, {name: note for name, (_, note) in opened.items()}


def all_steps(
    subjects: dict[str, Subject], setting: Scenario, has_luck: bool, has_smallest: bool, is_stopped: Callable[[], bool]
) -> Generator[Sweep, None, None]:
    """Yield the curves as they grow, and then the yardsticks that are asked for."""
    radii = [radius / 255 for radius in radii_up_to(setting.eps_255)]
    common: dict[str, Any] = {"frame_seconds": FRAME_SECONDS, "is_stopped": is_stopped}
    with closing(sweep_steps(subjects, setting.spec(), radii, **common)) as frames:
        for found in frames:
            yield found
    found = replace(found, running=None)
    if has_luck:
        lucky = with_luck(found, setting.model, subjects[setting.model], is_stopped=is_stopped)
        for found in lucky:
            yield found
    if has_smallest:
        with closing(with_smallest(found, subjects, SMALLEST_STEPS, **common)) as frames:
            yield from frames


def data_of(sweep: Sweep, subjects: dict[str, Subject], notes: dict[str, str], note: str = "") -> SweepData:
    """Return what the page shows of a sweep."""
    return sweep_data(sweep, {name: subject.card for name, subject in subjects.items()}, notes, note)


def show(
    photo: str, upload: str | None, model: str, eps: float, others: list[str], loss: str, steps: int, *rest: Any
) -> SweepData:
    """Show the first point of every curve, at radius 0."""
    setting = Scenario(photo, model, eps, loss, steps)
    setting.check()
    subjects, notes = subjects_for(photo, upload, names_of(model, others))
    clean = last_of(sweep_steps(subjects, setting.spec(), [0]))
    radii = tuple(radius / 255 for radius in radii_up_to(eps))
    return data_of(replace(clean, radii=radii), subjects, notes, "Press Sweep: the curves grow from left to right.")


@refusing
def seconds_of(photo: str, model: str, others: list[str], steps: int, has_smallest: bool) -> str:
    """Say how long the sweep will take, from a step measured on this machine."""
    names = names_of(model, others)
    made = (len(RADII_255) - 1) * steps + (SMALLEST_STEPS if has_smallest else 0)
    seconds = made * sum(seconds_a_step(photo, name) for name in names)
    return f"{len(RADII_255) - 1} radii, {len(names)} models: at most {max(1, round(seconds))} s on this machine."


def build(page: Page) -> None:
    """Build the view into the page."""
    start = Scenario()
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            buttons = controls("Sweep", "sweep")
            others = page.model_menu("Compare with", OTHERS, "sweep-others", multiselect=True)
            loss = gr.Dropdown(list(LOSSES), value=start.loss, label="Loss", elem_id="sweep-loss")
            steps = gr.Slider(1, MAX_STEPS, STEPS, step=1, label="Steps at each radius", elem_id="sweep-steps")
            luck = gr.Checkbox(False, label=LUCK_LABEL, elem_id="sweep-luck")
            smallest = gr.Checkbox(False, label=SMALLEST_LABEL, elem_id="sweep-smallest")
            seconds = gr.Markdown(elem_id="sweep-seconds")
            page.share(KEY, sweep_page, "sweep-share")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            shown = drawn("sweep", "sweep")

    def run(
        photo: str,
        upload: str | None,
        model: str,
        eps: float,
        others: list[str],
        loss: str,
        steps: int,
        luck: bool,
        smallest: bool,
        visit: Visit,
    ) -> Iterator[SweepData]:
        """Stream the curves; Stop keeps the points so far."""
        setting = Scenario(photo, model, eps, loss, steps)
        setting.check()
        subjects, notes = subjects_for(photo, upload, names_of(model, others))
        with closing(all_steps(subjects, setting, bool(luck), bool(smallest), visit.is_stopped)) as frames:
            for found in frames:
                yield data_of(found, subjects, notes)
        page.keep(KEY, visit.session, (setting, replace(found, running=None), notes))

    own: list[Any] = [others, loss, steps, luck, smallest]
    page.wire(KEY, run, show, name="sweep", controls=buttons, own=own, outputs=[shown], about=[others])
    page.while_open(KEY, seconds_of, [page.bar.photo, page.bar.model, others, steps, smallest], seconds)
