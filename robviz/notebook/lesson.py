"""Run the lesson of a notebook: its mode and seed, its models and images, its exercises, guesses and claims."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robviz.files.paths import bundled_path, cache_folder
from robviz.notebook.expect import expect as expect
from robviz.types import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from torch import Tensor, nn

    from robviz.results.report import Report
    from robviz.types import Dataset, Sample


__all__ = ["Folded", "Guess", "Lesson", "begin", "names", "runtimes"]

MODES = ("quick", "full")
RUNTIMES = "runtimes.json"
#: An explanation of the results of each mode.
MEANINGS = {
    "quick": "small models on photographs and composites, on a CPU; **not comparable to the paper in absolute terms**",
    "full": "published checkpoints and datasets, on a GPU; an interrupted evaluation resumes when the cell runs again",
}
#: mode -> the name of a model in charts -> its name. There is no published ordinary model: full mode compares two
#: robust ones.
PAIRS = {
    "quick": {"ordinary": "photos-clean", "robust": "photos-robust"},
    "full": {"ConvNeXt-T": "voc-upernet-convnext-t-pirat", "ConvNeXt-S": "voc-upernet-convnext-s-pirat"},
}
#: mode -> the model that the course attacks, and the arguments of its dataset.
ROBUST = {"quick": "photos-robust", "full": "voc-upernet-convnext-t-pirat"}
DATASET = {"quick": ("photos", "val-128"), "full": ("voc", "val")}
#: The extra that the notebooks need, and its packages.
EXTRA = ("anywidget", "ipywidgets", "nbformat")
T = TypeVar("T")


# ------------------------------------------------------------------------------------------ inside a notebook


@dataclass(frozen=True)
class Lesson:
    """Store the mode and seed of a running notebook. At the end of a cell, it shows them with the measured runtime."""

    name: str
    mode: str
    seed: int = 0

    # -------------------------------------------------------------------------------------- models and images

    @property
    def device(self) -> str:
        """Return the device of this mode: `cpu` in quick mode, `cuda` in full mode."""
        return self.pick("cpu", "cuda")

    def pick(self, quick: T, full: T) -> T:
        """Return the value of this mode.

        Args:
            quick: For quick mode.
            full: For full mode.

        Returns:
            One of them.
        """
        return {"quick": quick, "full": full}[self.mode]

    def model(self) -> nn.Module:
        """Load the robust model that the course attacks, onto the device.

        Returns:
            The model.
        """
        return self._load(ROBUST[self.mode])

    def pair(self) -> dict[str, nn.Module]:
        """Load the two models that the course compares, by their names in charts; the first is the weaker one."""
        return {title: self._load(name) for title, name in PAIRS[self.mode].items()}

    def _load(self, name: str) -> nn.Module:
        from robviz.models import load_model

        return load_model(name, self.device)

    def dataset(self) -> Dataset:
        """Load the validation images that the course attacks."""
        from robviz.datasets import load_dataset

        return load_dataset(*DATASET[self.mode])

    def photographs(self) -> list[Sample]:
        """Load the photographs behind the composites; in full mode, the first images of the dataset."""
        from robviz.datasets import load_dataset

        photos = load_dataset("photos", "photographs") if self.mode == "quick" else self.dataset()
        return [photos[i] for i in range(min(len(photos), 16))]

    def picture(self, name: str = "chelsea") -> Sample:
        """Load one photograph by its name; in full mode, the first image of the dataset.

        Args:
            name: The name of the photograph.

        Returns:
            The labelled picture.
        """
        photos = self.photographs()
        return next((one for one in photos if one.name == name), photos[0])

    def samples(self, quick: int | Sequence[int], full: int = 8) -> list[Sample]:
        """Load images of `dataset`.

        Args:
            quick: In quick mode, how many of the first images, or which indices.
            full: In full mode, how many of the first images.

        Returns:
            The labelled pictures.
        """
        data = self.dataset()
        chosen = self.pick(range(quick) if isinstance(quick, int) else quick, range(full))
        return [data[i] for i in chosen]

    def batch(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Stack samples of one size, on the device.

        Args:
            samples: Labelled pictures of one size.

        Returns:
            Images (B, 3, H, W) in [0, 1] and labels (B, H, W).
        """
        import torch

        images, labels = (torch.stack(part) for part in zip(*((one.image, one.labels) for one in samples)))
        return images.to(self.device), labels.to(self.device)

    # -------------------------------------------------------------------------------------- evaluations

    def out(self, name: str) -> Path | None:
        """Return the folder of an evaluation in full mode, which resumes there; None in quick mode.

        Evaluations of other versions of robviz or torch have their own folders, so that an upgrade starts over instead
        of being refused.

        Args:
            name: The name of the evaluation.

        Returns:
            The folder or None.
        """
        return self.pick(
            None, cache_folder() / "course" / f"robviz-{version('robviz')}-torch-{version('torch')}" / name
        )

    def sea(self, radii: Sequence[int] = (4, 8)) -> list[Report]:
        """Evaluate `model` on `dataset` with SEA: the shipped reports, or, in full mode, computed once.

        In full mode, notebooks share their evaluations. The expected time is printed first.

        Args:
            radii: The radii, in 1/255.

        Returns:
            One report per radius.
        """
        from robviz import sea
        from robviz.paper.generated_tables import reports_in

        if self.mode == "quick":
            reports = reports_in(bundled_path("checkpoints/reports"))
            wanted = (ROBUST["quick"], "paper")
            found = [one for one in reports if (one.plan["model"]["name"], one.plan["settings"]["name"]) == wanted]
            return sorted(
                (one for one in found if round(255 * one.plan["eps"]) in radii), key=lambda one: one.plan["eps"]
            )
        model, data = self.model(), self.dataset()
        steps = len(data) * sum(run.steps for run in sea.PAPER.runs) * len(radii)
        self.announce(model, data[0], steps)
        return [
            sea.evaluate(model, data, radius / 255, out=self.out(f"sea/{ROBUST['full']}/{radius}"), batch_size=4)
            for radius in radii
        ]

    def announce(self, model: nn.Module, sample: Sample, steps: int) -> None:
        """Print how long this number of gradient steps will take, by timing a few of them.

        Args:
            model: The model.
            sample: The picture.
            steps: Gradient steps on one image each.
        """
        import torch

        from robviz.attacks import apgd

        images, labels = self.batch([sample])
        apgd(model, images, labels, 1 / 255, 2)  # warms up
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        apgd(model, images, labels, 1 / 255, 5)
        end.record()
        torch.cuda.synchronize()
        hours = steps * start.elapsed_time(end) / 5 / 3.6e6
        print(f"{steps:,} gradient steps, about {hours:.1f} hours here; stop at any time, the next run resumes.")

    # -------------------------------------------------------------------------------------- guesses, claims, solutions

    def guess(self, *options: str) -> Guess:
        """Return a place to write down a prediction before the next cell gives the answer.

        Args:
            *options: The options to choose from; without options, a number.

        Returns:
            The widget.
        """
        return Guess(options)

    def claim(self, sentence: str, holds: bool) -> None:
        """Print a sentence about the numbers above if it holds.

        In full mode, with other models and data, it says so if the sentence does not hold.

        Args:
            sentence: The claim.
            holds: True if the claim holds.

        Raises:
            AssertionError: If it does not hold in quick mode.
        """
        if self.mode == "quick":
            assert holds, f"this does not hold: {sentence}"
        print(f"{'✓' if holds else '✗ not so here:'} {sentence}")

    def solution(self, number: int) -> Folded:
        """Return the solution of an exercise, folded.

        Args:
            number: The number of the exercise, from 1.

        Returns:
            The solution.

        Raises:
            InputError: For a number that the notebook does not have.
        """
        solutions = [cell.metadata.robviz.solution for cell in read(self.name).cells if role(cell) == "exercise"]
        if not 1 <= number <= len(solutions):
            raise InputError(f"{self.name} has exercises 1 to {len(solutions)}, got {number}")
        return Folded(f"Solution of Exercise {number}", solutions[number - 1])

    def _repr_markdown_(self) -> str:
        measured = runtimes().get(self.name, {})
        took = ", ".join(
            f"{mode}: {measured[mode]['seconds']:.0f} s on {measured[mode]['machine']}"
            if mode in measured
            else f"{mode}: not measured yet"
            for mode in MODES
        )
        return f"**Mode `{self.mode}`**: {MEANINGS[self.mode]}.  \n**Seed** {self.seed}. **Measured runtime** {took}."


@dataclass(frozen=True)
class Folded:
    """Show code that is folded at first."""

    title: str
    code: str

    def _repr_html_(self) -> str:
        return f"<details><summary>{escape(self.title)}</summary><pre>{escape(self.code)}</pre></details>"


class Guess:
    """Ask for a prediction with buttons or a number; `reveal` compares it with what was measured."""

    def __init__(self, options: Sequence[str]) -> None:
        import ipywidgets

        if options:
            self.widget = ipywidgets.ToggleButtons(options=options, value=None, description="I say:")
        else:
            self.widget = ipywidgets.Text(placeholder="a number, then Enter", description="I say:")
        self.options = tuple(options)

    @property
    def said(self) -> str | None:
        """Return the student's prediction, or None if there is none yet."""
        return self.widget.value or None

    def reveal(self, answer: object) -> None:
        """Print the prediction beside the answer.

        Args:
            answer: What was measured.
        """
        print(f"You said: {self.said or 'nothing yet'}. Measured: {answer}.")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.widget._repr_mimebundle_(**options)
        text = "I say: " + (" · ".join(self.options) or "a number") + " (choose in the notebook)"
        return bundle | {"text/plain": text, "text/html": f"<p class='guess'>{escape(text)}</p>"}


def require_extra() -> None:
    """Raise InputError unless the packages of the extra `notebooks` are installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the notebooks need {', '.join(missing)}; install the extra: pip install 'robviz[notebooks]', "
            "then restart the kernel"
        )


def begin(name: str, mode: str | None = None) -> Lesson:
    """Begin the lesson of a notebook.

    Args:
        name: The name of the notebook.
        mode: `quick` or `full`; by default `$ROBVIZ_MODE`, or else quick.

    Returns:
        The lesson.

    Raises:
        InputError: For another mode, for `full` without CUDA, and if the extra `notebooks` is missing.
    """
    require_extra()
    mode = mode or os.environ.get("ROBVIZ_MODE", "quick")
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; choose from: {', '.join(MODES)}")
    if mode == "full":
        import torch

        if not torch.cuda.is_available():
            raise InputError("full mode needs a GPU with CUDA, and there is none; set ROBVIZ_MODE=quick")
    return Lesson(name, mode)


def runtimes() -> dict[str, Any]:
    """Return the run times that `robviz course check --write` measured.

    Returns:
        notebook -> mode -> {seconds, machine}.
    """
    path = bundled_path("notebooks") / RUNTIMES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# ------------------------------------------------------------------------------------------ the files


def names() -> list[str]:
    """Return the names of the notebooks, in order.

    Returns:
        The names.
    """
    return sorted(path.stem for path in bundled_path("notebooks").glob("*.ipynb"))


def read(name: str) -> NotebookNode:
    """Read a notebook, the student's copy; raises InputError for an unknown name."""
    import nbformat

    if name not in names():
        raise InputError(f"unknown notebook {name!r}; choose from: {', '.join(names())}")
    result: NotebookNode = nbformat.read(bundled_path("notebooks") / f"{name}.ipynb", as_version=4)
    return result


def role(cell: NotebookNode) -> str | None:
    """Return the role of a cell: `exercise`, `check`, `after`, `claim` or None."""
    return next((tag for tag in ("exercise", "check", "after", "claim") if tag in cell.metadata.get("tags", [])), None)
