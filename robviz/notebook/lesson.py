"""One notebook being run: its mode and seed, its exercises and their solutions."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robviz.files.paths import cache_folder, shipped
from robviz.types import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode


MODES = ("quick", "full")
RUNTIMES = "runtimes.json"
#: What each mode is to be taken for.
MEANINGS = {
    "quick": "small models on composed photographs, on a CPU; **not comparable to the paper in absolute terms**",
    "full": "published checkpoints and datasets, on a GPU; what was interrupted goes on when run again",
}
T = TypeVar("T")


# ------------------------------------------------------------------------------------------ inside a notebook


@dataclass(frozen=True)
class Lesson:
    """One notebook being run: its mode and seed. As the last line of a cell it shows them with the measured runtime."""

    name: str
    mode: str
    seed: int = 0

    @property
    def device(self) -> str:
        return self.pick("cpu", "cuda")

    def pick(self, quick: T, full: T) -> T:
        """The value of this mode."""
        return {"quick": quick, "full": full}[self.mode]

    def out(self, name: str) -> Path | None:
        """The folder of an evaluation in full mode, which resumes there; None in quick mode, which keeps nothing."""
        return self.pick(None, cache_folder() / "course" / self.name / name)

    def solution(self, number: int) -> Folded:
        """The solution of an exercise, folded. Raises InputError for a number that the notebook does not have."""
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
    """Code behind a triangle."""

    title: str
    code: str

    def _repr_html_(self) -> str:
        return f"<details><summary>{escape(self.title)}</summary><pre>{escape(self.code)}</pre></details>"


def begin(name: str, mode: str | None = None) -> Lesson:
    """The lesson of a notebook. mode: `quick` or `full`; by default what `ROBVIZ_MODE` says, else quick.

    Raises InputError for another mode, and for `full` without CUDA.
    """
    mode = mode or os.environ.get("ROBVIZ_MODE", "quick")
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; choose from: {', '.join(MODES)}")
    if mode == "full":
        import torch

        if not torch.cuda.is_available():
            raise InputError("full mode needs a GPU with CUDA, and there is none; set ROBVIZ_MODE=quick")
    return Lesson(name, mode)


def runtimes() -> dict[str, Any]:
    """notebook -> mode -> {seconds, machine}, as `robviz course check --write` measured them."""
    path = shipped("notebooks") / RUNTIMES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# ------------------------------------------------------------------------------------------ the files


def names() -> list[str]:
    """The notebooks in their order."""
    return sorted(path.stem for path in shipped("notebooks").glob("*.ipynb"))


def read(name: str) -> NotebookNode:
    """A notebook, the student's copy. Raises InputError for an unknown name."""
    import nbformat

    if name not in names():
        raise InputError(f"unknown notebook {name!r}; choose from: {', '.join(names())}")
    return nbformat.read(shipped("notebooks") / f"{name}.ipynb", as_version=4)


def role(cell: NotebookNode) -> str | None:
    """`exercise`, `check`, `after` or None."""
    return next((tag for tag in ("exercise", "check", "after") if tag in cell.metadata.get("tags", [])), None)
