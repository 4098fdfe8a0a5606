"""The paper's Table 3 in miniature: does a robust backbone make adversarial training better or cheaper?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from robviz.datasets import load_dataset
from robviz.finetune import run
from robviz.finetune.recipes import MINIATURE, Recipe, of_seed
from robviz.models import load_model
from robviz.results.plan import SeaSettings
from robviz.results.report import Report
from robviz.sea import PAPER, evaluate

RADII = (2, 4, 8)  # in 1/255


def miniature(
    out: str | Path,
    recipes: Sequence[Recipe] = MINIATURE,
    seeds: Sequence[int] = (0, 1, 2),
    settings: SeaSettings = PAPER,
    images: int | None = None,
    **options: Any,
) -> Iterator[Report]:
    """Train and evaluate each recipe with each seed; after an interruption, the same call resumes.

    Args:
        out: Folder of the models `<name>.safetensors`, their evaluations `<name>.<radius>/` on the val composites of
            128 pixels, and `reports/`, from which `robviz tables 3 --reports` makes the table.
        recipes: The recipes to train.
        seeds: The seeds of each training.
        settings: The ensemble of the evaluations.
        images: Evaluate on at most this many images.
        **options: Options of `robviz.finetune.run`.

    Yields:
        One report per model and radius.
    """
    out, device = Path(out), PartialState().device
    for seed in seeds:
        for recipe in (of_seed(recipe, seed) for recipe in recipes):
            path = run(recipe, out, **options)
            model, dataset = load_model(path, device), load_dataset("photos", "val-128")
            for eps in RADII:
                folder = out / f"{recipe.name}.{eps}"
                # Gradients in float32 on GPUs too, so that the attacks are the same on CPUs and GPUs.
                report = evaluate(
                    model, dataset, eps / 255, settings, folder, limit=images, batch_size=64, precision="fp32"
                )
                report.save(out / "reports" / f"{recipe.name}.{settings.name}.{eps}.json")
                yield report
