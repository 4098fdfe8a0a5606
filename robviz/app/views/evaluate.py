"""Evaluate: a model on a dataset under an ensemble, from here; it ends in Failures, on the report just made."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from robviz.app.page import Page
from robviz.app.work import Visit, controls
from robviz.datasets import DATASETS, inventory, load_dataset
from robviz.files.paths import cache_folder
from robviz.interactive.evaluation import EvaluationProgress, evaluation_steps
from robviz.interactive.scenario import MAX_EPS, MAX_STEPS, cached_model, check_choice
from robviz.sea import SETTINGS
from robviz.types import Dataset, InputError

KEY = "evaluate"
OWN, START, MOST_IMAGES = "my own folder", "photos, photographs", 500
ENSEMBLES = list(SETTINGS)
WAITING = (
    "Press Evaluate: every image is attacked by every attack of the ensemble. What is finished stays on this machine, "
    "so an evaluation that was stopped goes on where it was. In the end, Failures opens the report."
)


def splits_here() -> list[str]:
    """Return dataset and split of what can be evaluated on this machine."""
    here = [name for name, state, _ in inventory() if state == "found"]
    return [f"{name}, {split}" for name in here for split in DATASETS[name].splits if not split.startswith("train")]


def dataset_of(chosen: str, folder: str) -> Dataset:
    """Open what the widgets name. Raises InputError for anything else."""
    if chosen == OWN:
        if not (folder or "").strip():
            raise InputError("no folder was given yet; write the path of a folder with a dataset.yaml")
        return load_dataset(Path(folder.strip()))
    check_choice("the dataset", chosen, splits_here())
    name, _, split = chosen.partition(", ")
    return load_dataset(name, split)


def folder_for(*values: Any) -> Path:
    """Return the folder of an evaluation; the same values give the same one, which is how it resumes."""
    model, eps, chosen, folder, ensemble, steps, images = values
    where = hashlib.sha256(folder.encode()).hexdigest()[:8] if chosen == OWN else chosen.replace(", ", "-")
    name = f"{model}-{where}-{ensemble}-{steps}-{eps:g}-{images}".replace("/", "-")
    return cache_folder() / "evaluations" / name


def told(progress: EvaluationProgress) -> str:
    """Say how far an evaluation has come, as HTML."""
    left = "" if math.isnan(progress.seconds_left) else f", about {in_time(progress.seconds_left)} left"
    where = f": {html.escape(progress.run)} on {html.escape(str(progress.image))}" if progress.run else ""
    share = progress.done / progress.total
    return bar(share, f"{progress.done} of {progress.total} records{left}{where}")


def in_time(seconds: float) -> str:
    """Say a duration."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def bar(share: float, words: str) -> str:
    """Return a progress bar with words below it, as HTML."""
    return f'<div class="rv"><progress value="{share:.4f}" aria-label="progress"></progress><p>{words}</p></div>'


def build(page: Page) -> None:
    """Build the view into the page."""
    splits = splits_here()
    with gr.Row(elem_classes="rv-view"):
        with gr.Column(scale=1, min_width=280, elem_classes="rv-controls"):
            buttons = controls("Evaluate", "evaluate")
            gr.Markdown("The model and ε of the bar, on a dataset.")
            chosen = gr.Dropdown([*splits, OWN], value=START, label="Dataset", elem_id="evaluate-dataset")
            folder = gr.Textbox(label="Own folder", placeholder="/path/to/a/folder", elem_id="evaluate-folder")
            ensemble = gr.Dropdown(ENSEMBLES, value="quick", label="Ensemble", elem_id="evaluate-ensemble")
            steps = gr.Slider(1, MAX_STEPS, 10, step=1, label="Steps an attack, on average", elem_id="evaluate-steps")
            images = gr.Slider(1, MOST_IMAGES, 8, step=1, label="Images", elem_id="evaluate-images")
        with gr.Column(scale=4, min_width=320, elem_classes="rv-result"):
            status = gr.HTML(bar(0, WAITING), elem_id="evaluate-status", apply_default_css=False)

    def run(
        photo: str,
        upload: str | None,
        model: str,
        eps: float,
        chosen: str,
        folder: str,
        ensemble: str,
        steps: int,
        images: int,
        visit: Visit,
    ) -> Iterator[tuple[Any, ...]]:
        """Stream the evaluation; Stop keeps its records, and the same values go on with it."""
        check_choice("the ensemble", ensemble, ENSEMBLES)
        if None in (eps, steps, images) or not (0 <= eps <= MAX_EPS and 1 <= images <= MOST_IMAGES):
            raise InputError(f"expected ε in 0 .. {MAX_EPS} and 1 .. {MOST_IMAGES} images, got {eps} and {images}")
        same = [gr.skip()] * 3
        dataset, settings = dataset_of(chosen, folder), SETTINGS[ensemble].with_steps(int(steps))
        place = folder_for(model, eps, chosen, folder or "", ensemble, int(steps), int(images))
        done = evaluation_steps(
            cached_model(model)[0],
            dataset,
            eps / 255,
            settings,
            place,
            limit=int(images),
            is_stopped=visit.is_stopped,
        )
        progress = None
        with closing(done):
            for progress in done:
                yield told(progress), *same
        if progress is None or progress.report is None:
            reached = 0 if progress is None else progress.done / progress.total
            yield bar(reached, "Stopped. What is finished is kept: Evaluate goes on from here."), *same
            return
        number = page.evaluations.add(place)
        menu = gr.Dropdown(choices=page.evaluations.names(), value=number)
        yield bar(1, "Done. The report is in Failures."), menu, gr.Tabs(selected="failures"), "failures"

    outputs = [status, page.reports, page.tabs, page.view]
    own: list[Any] = [chosen, folder, ensemble, steps, images]
    page.wire(KEY, run, None, name="evaluate", controls=buttons, own=own, outputs=outputs)
