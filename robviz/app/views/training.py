"""Make it robust: train a model a little, and watch an attacked picture heal."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from robviz.app.plots import training_curves
from robviz.app.work import Work, at_load, cached_model, drawn_by, listed, menus, photos, refusing, started_by
from robviz.attacks import predicted
from robviz.datasets import load_dataset
from robviz.files.images import overlay, png_url, to_bytes
from robviz.finetune.recipes import RECIPES
from robviz.interactive.training import TrainingFrame, small, small_recipes, train_in_subprocess
from robviz.models import keep_model
from robviz.types import InputError, Sample
from robviz.viewer import percent
from robviz.viewer.payloads import TrainingData

WORK = Work()
MOST_ITERATIONS, MOST_EPS, MOST_STEPS = 400, 8, 5
PLOT_SECONDS = 1.0  # between two streamed curves
HEALING = """
const shown = robviz.training(element.firstChild, props.value);
watch('value', () => shown.update(props.value));
"""
MOST_RESULTS = 4  # that wait to be kept
_training = threading.Lock()
_results: OrderedDict[str, tempfile.TemporaryDirectory[str]] = OrderedDict()  # by session


@contextmanager
def alone() -> Iterator[None]:
    """Raises InputError while somebody else trains: two would both take twice as long, and twice the memory."""
    if not _training.acquire(blocking=False):
        raise InputError("a model is being trained here already; wait until it is done, or stop it")
    try:
        yield
    finally:
        _training.release()


def fresh_folder(session: str) -> Path:
    """Where the result of a session's training goes, until it trains again or is pushed out by those of others."""
    if session in _results:
        _results.pop(session).cleanup()
    folder = _results[session] = tempfile.TemporaryDirectory(prefix="robviz-")
    while len(_results) > MOST_RESULTS:
        _results.popitem(last=False)[1].cleanup()
    return Path(folder.name)


def shown_of(sample: Sample, steps: list[TrainingFrame], note: str) -> TrainingData:
    """Return the payload of `training` in `training.js`, ready for JSON."""
    image, palette = to_bytes(sample.image), load_dataset("photos").palette
    last, looks = steps[-1], [step.round for step in steps if step.round is not None]
    return {
        "size": [image.shape[1], image.shape[0]],
        "rounds": [
            {"url": png_url(overlay(image, one.mask, palette)), "caption": f"{percent(one.accuracy)} right"}
            for one in looks
        ],
        "done": last.iteration / last.iterations,
        "note": note,
    }


def curves_of(steps: list[TrainingFrame]) -> Any:
    rounds = [(step.iteration, step.round.miou, step.round.attacked_miou) for step in steps if step.round is not None]
    accuracy = [step.round.accuracy for step in steps if step.round is not None]
    losses = [step.loss for step in steps if step.iteration]
    return training_curves(losses, rounds, steps[-1].iterations, accuracy)


def in_words(step: TrainingFrame) -> str:
    if step.iteration == 0:
        return "This is the model it starts from."
    return f"Iteration {step.iteration} of {step.iterations}, about {step.seconds_left:.0f} s left."


@refusing
def heal(
    photo: str, recipe: str, iterations: int, eps: float, attack_steps: int, request: gr.Request
) -> Iterator[tuple[TrainingData, Any]]:
    """Train in a process apart and stream it; Stop keeps the last round, a closed tab ends it."""
    if None in (iterations, eps, attack_steps):
        raise InputError("iterations, ε and attack steps must each hold a number")
    if not (1 <= iterations <= MOST_ITERATIONS and 0 < eps <= MOST_EPS and 1 <= attack_steps <= MOST_STEPS):
        raise InputError(
            f"expected 1 .. {MOST_ITERATIONS} iterations, ε above 0 up to {MOST_EPS} and 1 .. {MOST_STEPS} attack "
            f"steps, got {iterations}, {eps} and {attack_steps}"
        )
    chosen = small(recipe, int(iterations), eps / 255, int(attack_steps))
    sample, steps, due = photos()[photo], list[TrainingFrame](), 0.0
    with WORK.begin(request) as stopped, alone():
        folder = fresh_folder(request.session_hash or "")
        yield first_view(photo, recipe) | {"note": "A process of its own starts ..."}, gr.skip()
        with closing(train_in_subprocess(chosen, sample, folder, is_stopped=stopped.is_set)) as run:
            for step in run:
                steps.append(step)
                if step.round is not None or time.monotonic() >= due:
                    yield shown_of(sample, steps, in_words(step)), curves_of(steps)
                    due = time.monotonic() + PLOT_SECONDS
        if not steps:
            raise InputError("stopped before the first round; there is nothing to keep")
        ended = "Stopped: what can be kept is the last round." if stopped.is_set() else "Done."
        yield shown_of(sample, steps, f"{ended} Give it a name to use it in every view."), curves_of(steps)


def keeping(listing: list[Any]) -> Callable[..., tuple[Any, ...]]:
    """The handler that keeps a result and lists it in these menus."""

    @refusing
    def keep(name: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Keep the trained model under a name; the menus of models list it from now on."""
        result, name = _results.get(request.session_hash or ""), (name or "").strip()
        found = sorted(Path(result.name).glob("*.safetensors")) if result is not None else []
        if not found:
            raise InputError("there is no trained model to keep yet; press Train")
        keep_model(found[0], name)
        return (f"Kept: choose {name} in the menus of models.", *listed(listing))

    return keep


def first_view(photo: str, recipe: str) -> TrainingData:
    """The picture and its mask by the model that the training starts from."""
    initial = str(RECIPES[recipe].initial)
    model, card = cached_model(initial)
    image = photos()[photo].image
    mask = overlay(to_bytes(image), predicted(model, image[None])[0].numpy(), card.palette)
    return {
        "size": [image.shape[2], image.shape[1]],
        "rounds": [{"url": png_url(mask), "caption": f"{initial}, not attacked"}],
        "done": None,
        "note": "Press Train: each round, the model as it is by then is attacked on this picture anew.",
    }


@refusing
def look(photo: str, recipe: str) -> TrainingData:
    """The chosen picture, before any training."""
    return first_view(photo, recipe)


def build() -> None:
    recipes, listing = small_recipes(), menus()
    start, recipe = "chelsea", recipes[-1]
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.Dropdown(list(photos()), value=start, label="Picture", elem_id="heal-photo")
            chosen = gr.Dropdown(recipes, value=recipe, label="Recipe", elem_id="heal-recipe")
            iterations = gr.Slider(1, MOST_ITERATIONS, 80, step=1, label="Iterations", elem_id="heal-iterations")
            eps = gr.Slider(0.5, MOST_EPS, 2, step=0.5, label="ε, in 1/255", elem_id="heal-eps")
            steps = gr.Slider(1, MOST_STEPS, 2, step=1, label="Attack steps", elem_id="heal-steps")
            with gr.Row():
                go_button = gr.Button("Train", variant="primary", elem_id="heal-train")
                stop_button = gr.Button("Stop", variant="stop", elem_id="heal-stop")
            name = gr.Textbox(label="Keep it as", placeholder="my-model", max_length=40, elem_id="heal-name")
            keep_button = gr.Button("Keep", elem_id="heal-keep")
            kept = gr.Textbox(show_label=False, container=False, interactive=False, elem_id="heal-kept")
        with gr.Column(scale=3, min_width=320, elem_classes="rv-result"):
            view = drawn_by(HEALING, first_view(start, recipe), "heal")
            curves = gr.Plot(show_label=False, elem_id="heal-curves")

    setting: list[Any] = [photo, chosen, iterations, eps, steps]
    gr.on([photo.input, chosen.input], look, [photo, chosen], view, api_visibility="private", show_progress="hidden")
    # Not in turn with the attacks: minutes. A second training is refused instead of waiting.
    together: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
    started_by(go_button, stop_button, WORK, "train", heal, setting, [view, curves], **together)
    keep_button.click(keeping(listing), name, [kept, *listing], api_name="keep", show_progress="hidden")
    at_load(lambda: listed(listing), None, listing)
