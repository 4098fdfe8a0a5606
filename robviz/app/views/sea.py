"""Losses side by side: every attack of an ensemble on one picture, which of them broke which class, the worst case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import gradio as gr

from robviz.app.page import Page
from robviz.app.work import FRAME_SECONDS, Visit, controls, drawn, refusing
from robviz.interactive.comparison import clean_comparison
from robviz.interactive.ensemble import NOT_ATTACKED, ensemble_steps
from robviz.interactive.scenario import MAX_STEPS, Scenario, check_choice, seconds_a_step, subject_for
from robviz.results.plan import SeaSettings
from robviz.sea import SETTINGS
from robviz.viewer.ensemble import ensemble_data
from robviz.viewer.payloads import EnsembleData
from robviz.viewer.sharing import ensemble_page

KEY, STEPS, ENSEMBLE = "losses", 30, "paper"
#: Whose steps are not its own already.
ENSEMBLES = [name for name in SETTINGS if name != "quick"]


def setting_of(photo: str, model: str, eps: float, ensemble: str, steps: int) -> tuple[Scenario, SeaSettings]:
    """Return the setting and its ensemble. Raises InputError for what the widgets do not offer."""
    setting = Scenario(photo, model, eps, steps=steps)
    setting.check()
    check_choice("the ensemble", ensemble, ENSEMBLES)
    return setting, SETTINGS[ensemble].with_steps(int(steps))


def names_of(settings: SeaSettings) -> list[str]:
    """Return the names of the attacks."""
    return [run.name for run in settings.runs]


def show(photo: str, upload: str | None, model: str, eps: float, ensemble: str, steps: int) -> EnsembleData:
    """Show the unattacked picture, and the attacks that wait."""
    setting, settings = setting_of(photo, model, eps, ensemble, steps)
    subject, note = subject_for(photo, upload, model)
    shown = {NOT_ATTACKED: clean_comparison(subject, setting.spec())}
    return ensemble_data(shown, subject.card, names_of(settings), f"{note} Press Run all.")


@refusing
def seconds_of(photo: str, model: str, ensemble: str, steps: int) -> str:
    """Say how long the ensemble will take, from a step measured on this machine."""
    attacks = len(setting_of(photo, model, 0, ensemble, steps)[1].runs)
    step = seconds_a_step(photo, model)
    each = max(1, round(steps * step))
    return f"{attacks} attacks, each about {each} s on this machine, where a step takes {1000 * step:.0f} ms."


def build(page: Page) -> None:
    """Build the view into the page."""
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            buttons = controls("Run all", "sea")
            ensemble = gr.Dropdown(ENSEMBLES, value=ENSEMBLE, label="Ensemble", elem_id="sea-ensemble")
            steps = gr.Slider(1, MAX_STEPS, STEPS, step=1, label="Steps an attack, on average", elem_id="sea-steps")
            seconds = gr.Markdown(elem_id="sea-seconds")
            page.share(KEY, ensemble_page, "sea-share")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            shown = drawn("ensemble", "sea")

    def run(
        photo: str, upload: str | None, model: str, eps: float, ensemble: str, steps: int, visit: Visit
    ) -> Iterator[EnsembleData]:
        """Stream the ensemble; Stop keeps the best so far."""
        setting, settings = setting_of(photo, model, eps, ensemble, steps)
        subject, note = subject_for(photo, upload, model)
        radius, is_stopped = setting.spec().eps, visit.is_stopped
        frames = ensemble_steps(subject, radius, settings, frame_seconds=FRAME_SECONDS, is_stopped=is_stopped)
        with closing(frames):
            for found in frames:
                yield ensemble_data(found, subject.card, names_of(settings), note)
        page.keep(KEY, visit.session, (setting, settings, found, note))

    page.wire(KEY, run, show, name="sea", controls=buttons, own=[ensemble, steps], outputs=[shown], about=[ensemble])
    page.while_open(KEY, seconds_of, [page.bar.photo, page.bar.model, ensemble, steps], seconds)
