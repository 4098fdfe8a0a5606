"""Runs that are too long for a notebook, recorded once: `python -m robviz.notebook.recorded` computes and writes them.

The reports lie in `checkpoints/reports/course`, the runs of the optimisers in `optimisers.json` beside them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robviz.attacks import AttackResult, attack_steps
from robviz.files.atomic import write_atomically
from robviz.files.paths import shipped
from robviz.results.plan import Run, SeaSettings

FOLDER = "checkpoints/reports/course"
OPTIMISERS = "optimisers.json"
#: Earlier work as its authors run it, by plain PGD (Table 1), and plain cross-entropy beside them.
EARLIER = SeaSettings("earlier", tuple(Run(loss, "pgd") for loss in ("ce", "cospgd", "segpgd")))
#: The same losses by the optimiser of SEA, so that nothing but the loss differs.
LOSSES = SeaSettings("losses", tuple(Run(loss) for loss in ("ce", "cospgd", "segpgd")))
#: Name -> attack, steps, restarts: what Figures 2 and 4 compare, at equal cost.
WAYS = {
    "PGD, step size tuned": ("pgd", 300, 1),
    "APGD, 3 restarts": ("apgd", 100, 3),
    "APGD, one run": ("apgd", 300, 1),
    "reduced radius": ("red-eps-apgd", 300, 1),
    "annealed": ("annealed-pgd", 300, 1),
}
#: Steps of one run of APGD, each from its own start to its own end (Figure 5).
BUDGETS = (10, 25, 50, 100, 200, 300, 500, 1000)


def optimisers() -> dict[str, Any]:
    """The recorded runs on one loss.

    Returns `plan` (what was run, with versions), `ways` (name -> radius in 1/255 -> `left`, the pixel accuracy of each
    image, and the curves `accuracy`, `best`, `radius`, a mean over the images for each step) and `budgets`
    (radius -> steps -> `left`).
    """
    return json.loads((shipped(FOLDER) / OPTIMISERS).read_text())


def rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def summary(result: AttackResult, eps: float) -> dict[str, list[float]]:
    """What one attack left of each image, and how it went there, as a mean over the images."""
    found = result.history
    within = found.accuracy.where(found.radius <= eps + 1e-9, 1.0)
    return {
        "left": rounded(result.accuracy),
        "accuracy": rounded(found.accuracy.mean(1)),
        "best": rounded(within.cummin(0).values.mean(1)),
        "radius": rounded(255 * found.radius.mean(1)),
    }


def compare_optimisers(model: nn.Module, images: Tensor, labels: Tensor, radii: Iterable[int]) -> dict[str, Any]:
    """Run every way and budget on mask-ce at these radii (in 1/255). images: (B, 3, H, W). labels: (B, H, W)."""

    def attacked(attack: str, radius: int, steps: int, restarts: int = 1) -> dict[str, list[float]]:
        eps = radius / 255
        running = attack_steps(attack, model, images, labels, eps, steps, "mask-ce", restarts=restarts)
        return summary(deque(running, maxlen=1).pop(), eps)

    return {
        "ways": {
            name: {str(radius): attacked(attack, radius, steps, restarts) for radius in radii}
            for name, (attack, steps, restarts) in WAYS.items()
        },
        "budgets": {
            str(radius): {str(steps): attacked("apgd", radius, steps)["left"] for steps in BUDGETS} for radius in radii
        },
    }


def record(folder: Path, radii: Iterable[int] = (4, 8)) -> None:
    """Compute everything for `photos-robust` on val-128, on a GPU where there is one, and write it."""
    import robviz
    from robviz import sea

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, dataset = robviz.load_model("photos-robust", device), robviz.load_dataset("photos", "val-128")
    for settings in (EARLIER, LOSSES):
        for radius in radii:
            report = sea.evaluate(model, dataset, radius / 255, settings, batch_size=len(dataset))
            report.save(folder / f"photos-robust.{settings.name}.{radius}.json")
    samples = [dataset[i] for i in range(len(dataset))]
    images, labels = (torch.stack(part).to(device) for part in zip(*((one.image, one.labels) for one in samples)))
    found = compare_optimisers(model, images, labels, radii)
    plan = report.plan | {"settings": {"loss": "mask-ce", "ways": WAYS}}
    del plan["eps"]
    write_atomically(folder / OPTIMISERS, json.dumps({"plan": plan, **found}) + "\n")


if __name__ == "__main__":
    record(shipped(FOLDER))
