"""See how a semantic segmentation model breaks under attack, and what makes it hold.

Start with `load_model` and `load_dataset`. `robviz.attacks` attacks a model, `robviz.sea` measures how robust it is,
and `robviz.finetune` makes it more robust. Heavy libraries are imported only when they are needed.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robviz.datasets import load_dataset as load_dataset
    from robviz.models import load_model as load_model

__version__ = "0.1.0"

# Torch's threads spin while they wait for each other, by default for so long that a step takes 40 times as long when
# another process is busy; with this number of turns, about three times as long, and as long as before where none is.
# GNU's OpenMP reads the variable when torch is imported; other OpenMP libraries ignore it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

_FUNCTIONS = {"load_model": "robviz.models", "load_dataset": "robviz.datasets"}
#: public name -> module, imported on first use
_MODULES = {
    **{
        name: f"robviz.{name}"
        for name in (
            "attacks",
            "attribution",
            "checks",
            "corruptions",
            "datasets",
            "finetune",
            "losses",
            "metrics",
            "minimal",
            "models",
            "norms",
            "paper",
            "sea",
            "types",
            "universal",
        )
    },
    "charts": "robviz.notebook.charts",
    "comparison": "robviz.interactive.comparison",
    "course": "robviz.notebook.lesson",
    "failures": "robviz.results.failures",
    "report": "robviz.results.report",
}
__all__ = ["load_dataset", "load_model", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'robviz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
