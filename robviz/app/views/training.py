"""Train: make a model a little more robust, and watch an attacked picture heal."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from robviz.app.page import Page
from robviz.app.plots import training_curves
from robviz.app.work import Visit, controls, drawn, refusing, session_of
from robviz.attacks import predicted
from robviz.datasets import load_dataset
from robviz.files.images import overlay, png_url, to_bytes
from robviz.finetune.recipes import RECIPES
from robviz.interactive.scenario import cached_model, subject_for
from robviz.interactive.training import TrainingFrame, small, small_recipes, train_in_subprocess
from robviz.models import keep_model
from robviz.types import InputError, Sample
from robviz.viewer import percent
from robviz.viewer.payloads import TrainingData

KEY = "train"
MOST_ITERATIONS, MOST_EPS, MOST_STEPS = 400, 8, 5
PLOT_SECONDS = 1.0  # between two streamed curves


def shown_of(sample: Sample, steps: list[TrainingFrame], note: str) -> TrainingData:
    """Return the payload of `training` in `training.js`, ready for JSON."""
    image, palette = to_bytes(sample.image), load_dataset("photos").palette
    last, looks = steps[-1], [step.round for step in steps if step.round is not None]
    return {
        "size": [image.shape[1], image.shape[0]],
        "rounds": [
            {"url": png_url(overlay(image, one.mask, palette)), "caption": f"{percent(one.accuracy)} pixel accuracy"}
            for one in looks
        ],
        "done": last.iteration / last.iterations,
        "note": note,
    }


def curves_of(steps: list[TrainingFrame]) -> Any:
    """Draw how the training goes."""
    rounds = [(step.iteration, step.round.miou, step.round.attacked_miou) for step in steps if step.round is not None]
    accuracy = [step.round.accuracy for step in steps if step.round is not None]
    losses = [step.loss for step in steps if step.iteration]
    return training_curves(losses, rounds, steps[-1].iterations, accuracy)


def in_words(step: TrainingFrame) -> str:
    """Say how far the training is."""
    if step.iteration == 0:
        return "This is the model it starts from."
    return f"Iteration {step.iteration} of {step.iterations}, about {step.seconds_left:.0f} s left."


def first_view(photo: str, upload: str | None, recipe: str) -> TrainingData:
    """Return the picture and its mask by the model that the training starts from."""
    initial = str(RECIPES[recipe].initial)
    model, card = cached_model(initial)
    image = subject_for(photo, upload, initial)[0].sample.image
    mask = overlay(to_bytes(image), predicted(model, image[None])[0].numpy(), card.palette)
    return {
        "size": [image.shape[2], image.shape[1]],
        "rounds": [{"url": png_url(mask), "caption": f"{initial}, not attacked"}],
        "done": None,
        "note": f"Press Train: {initial} learns to withstand attacks within ε, and after each round, this picture is "
        "attacked again.",
    }


def show(photo: str, upload: str | None, model: str, eps: float, recipe: str, *rest: Any) -> tuple[TrainingData, Any]:
    """Show the chosen picture, before any training."""
    return first_view(photo, upload, recipe), gr.Plot(visible=False)


class Trainings:
    """Train for one visitor at a time, and hold the results of the last ones until they are kept or pushed out."""

    MOST_RESULTS = 4

    def __init__(self, page: Page) -> None:
        self.page, self.lock = page, threading.Lock()
        self.results: OrderedDict[str, tempfile.TemporaryDirectory[str]] = OrderedDict()  # by session

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raise InputError while somebody else trains: two would both take twice as long, and twice the memory."""
        if not self.lock.acquire(blocking=False):
            raise InputError("a model is being trained here already; wait until it is done, or stop it")
        try:
            yield
        finally:
            self.lock.release()

    def fresh_folder(self, session: str) -> Path:
        """Return where the result of a session's training goes, in place of the one before."""
        if session in self.results:
            self.results.pop(session).cleanup()
        folder = self.results[session] = tempfile.TemporaryDirectory(prefix="robviz-")
        while len(self.results) > self.MOST_RESULTS:
            self.results.popitem(last=False)[1].cleanup()
        return Path(folder.name)

    def train(
        self,
        photo: str,
        upload: str | None,
        model: str,
        eps: float,
        recipe: str,
        iterations: int,
        attack_steps: int,
        visit: Visit,
    ) -> Iterator[tuple[TrainingData, Any]]:
        """Train in a process apart and stream it; Stop keeps the last round, a closed tab ends it."""
        if None in (iterations, eps, attack_steps):
            raise InputError("iterations, ε and attack steps must each be a number")
        if not (1 <= iterations <= MOST_ITERATIONS and 0 < eps <= MOST_EPS and 1 <= attack_steps <= MOST_STEPS):
            raise InputError(
                f"expected 1 .. {MOST_ITERATIONS} iterations, ε above 0 up to {MOST_EPS} and 1 .. {MOST_STEPS} attack "
                f"steps, got {iterations}, {eps} and {attack_steps}"
            )
        chosen = small(recipe, int(iterations), eps / 255, int(attack_steps))
        sample = subject_for(photo, upload, str(RECIPES[recipe].initial))[0].sample
        steps, due = list[TrainingFrame](), 0.0
        with self.alone():
            folder = self.fresh_folder(visit.session)
            yield first_view(photo, upload, recipe) | {"note": "A process of its own starts ..."}, gr.skip()
            with closing(train_in_subprocess(chosen, sample, folder, is_stopped=visit.is_stopped)) as run:
                for step in run:
                    steps.append(step)
                    if step.round is not None or time.monotonic() >= due:
                        curves = gr.Plot(curves_of(steps), visible=True)
                        yield shown_of(sample, steps, in_words(step)), curves
                        due = time.monotonic() + PLOT_SECONDS
            if not steps:
                raise InputError("stopped before the first round; there is nothing to keep")
            ended = "Stopped: what can be kept is the last round." if visit.is_stopped() else "Done."
            note = f"{ended} Give it a name to use it in every view."
            yield shown_of(sample, steps, note), gr.Plot(curves_of(steps), visible=True)

    @refusing
    def keep(self, name: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Keep the trained model under a name; the menus of models list it from then on."""
        result, name = self.results.get(session_of(request)), (name or "").strip()
        found = sorted(Path(result.name).glob("*.safetensors")) if result is not None else []
        if not found:
            raise InputError("there is no trained model to keep yet; press Train")
        keep_model(found[0], name)
        return (f"Kept: choose {name} in the menus of models.", *self.page.listed())


def build(page: Page) -> None:
    """Build the view into the page."""
    recipes, trainings = small_recipes(), Trainings(page)
    recipe = recipes[-1]
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            buttons = controls("Train", "heal")
            gr.Markdown(f"At the radius ε of the bar, up to {MOST_EPS}/255.")
            chosen = gr.Dropdown(recipes, value=recipe, label="Recipe", elem_id="heal-recipe")
            iterations = gr.Slider(1, MOST_ITERATIONS, 80, step=1, label="Iterations", elem_id="heal-iterations")
            steps = gr.Slider(1, MOST_STEPS, 2, step=1, label="Attack steps", elem_id="heal-steps")
            name = gr.Textbox(label="Keep the result as", placeholder="my-model", max_length=40, elem_id="heal-name")
            keep_button = gr.Button("Keep", size="sm", elem_id="heal-keep")
            kept = gr.Markdown(elem_id="heal-kept")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            view = drawn("training", "heal")
            curves = gr.Plot(show_label=False, elem_id="heal-curves", visible=False)

    # Not in turn with the attacks: minutes. A second training is refused instead of waiting.
    page.wire(
        KEY,
        trainings.train,
        show,
        name="train",
        controls=buttons,
        waits=False,
        own=[chosen, iterations, steps],
        outputs=[view, curves],
        about=[chosen],
    )
    keep_button.click(trainings.keep, name, [kept, *page.menus], api_name="keep", show_progress="hidden")
