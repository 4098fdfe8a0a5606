"""Record runs that are too long for a notebook: `robviz course record` computes and writes them.

The reports lie in `checkpoints/reports/course`; beside them, `optimisers.json` has the runs of the optimisers, and
`halving.<model>.json` the smallest radii that APGD finds on the crops of `checkpoints/minimal`.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import robviz
from robviz import sea
from robviz.attacks import AttackResult, apgd, attack_steps
from robviz.files.atomic import write_atomically
from robviz.files.paths import bundled_path
from robviz.files.provenance import versions
from robviz.paper.minimal import Minimal, centre, shipped_minimal
from robviz.results.plan import Run, SeaSettings
from robviz.results.report import Report

FOLDER = "checkpoints/reports/course"
OPTIMISERS = "optimisers.json"
#: Earlier work as its authors run it, by plain PGD (Table 1), and plain cross-entropy beside it.
EARLIER = SeaSettings("earlier", tuple(Run(loss, "pgd") for loss in ("ce", "cospgd", "segpgd")))
#: The same losses by the optimiser of SEA and with the steps of `paper-100`, so that only the loss differs.
LOSSES = SeaSettings("losses-100", tuple(Run(loss, steps=100) for loss in ("ce", "cospgd", "segpgd")))
#: Name -> attack, steps, restarts: what Figures 2 and 4 compare, at equal cost.
WAYS = {
    "PGD": ("pgd", 100, 1),
    "APGD, 3 restarts": ("apgd", 33, 3),
    "APGD, one run": ("apgd", 100, 1),
    "reduced radius": ("red-eps-apgd", 100, 1),
    "annealed": ("annealed-pgd", 100, 1),
}
#: Steps of one run of APGD, each from its own start to its own end (Figure 5).
BUDGETS = (10, 25, 50, 100, 200)
RADIUS = 8  # in 1/255, of the optimisers
IMAGES = 16
#: Halving the radius on the crops of `checkpoints/minimal` (Figure 6): where it starts, in 1/255, how often it halves,
#: and the steps and seed of APGD on mask-ce at each radius.
HALVING = {"high": 32, "rounds": 8, "steps": 100, "seed": 0}


def folder() -> Path:
    """Return the folder of the recorded runs."""
    return bundled_path(FOLDER)


def optimisers() -> dict[str, Any]:
    """Read the recorded runs on one loss.

    Returns `plan` (what was run, with versions), `ways` (name -> `left`, the pixel accuracy of each image, and the
    curves `accuracy`, `best` so far and `radius` in 1/255, a mean over the images for each step) and `budgets` (steps
    -> `left`).
    """
    result: dict[str, Any] = json.loads((folder() / OPTIMISERS).read_text(encoding="utf-8"))
    return result


def reports(settings: str) -> list[Report]:
    """Read the recorded reports of `earlier` or `losses-100`, by growing radius."""
    found = [Report.load(path) for path in folder().glob(f"*.{settings}.*.json")]
    return sorted(found, key=lambda report: report.plan["eps"])


def rounded(values: Tensor) -> list[float]:
    """Return the values as a list, rounded to 5 decimals."""
    return [round(value, 5) for value in values.tolist()]


def summary(result: AttackResult, eps: float) -> dict[str, list[float]]:
    """Summarise an attack: the accuracy left on each image, and its curves as a mean over the images."""
    found = result.history
    best = found.accuracy.where(found.radius <= eps + 1e-9, 1.0).cummin(0).values
    return {
        "left": rounded(result.accuracy),
        "accuracy": rounded(found.accuracy.mean(1)),
        "best": rounded(best.mean(1)),
        "radius": rounded(255 * found.radius.mean(1)),
    }


def compare_optimisers(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> dict[str, Any]:
    """Run every way and budget on mask-ce. images: (B, 3, H, W). labels: (B, H, W). eps in [0, 1]."""

    def attacked(attack: str, steps: int, restarts: int = 1) -> dict[str, list[float]]:
        running = attack_steps(attack, model, images, labels, eps, steps, "mask-ce", restarts=restarts)
        return summary(deque(running, maxlen=1).pop(), eps)

    ways = {name: attacked(*way) for name, way in WAYS.items()}
    return {"ways": ways, "budgets": {str(steps): attacked("apgd", steps)["left"] for steps in BUDGETS}}


def by_halving(model: nn.Module, images: Tensor, labels: Tensor, share: float) -> float | None:
    """Return the smallest radius, in 1/255, at which APGD flips a share of the pixels; None if it fails at the largest.

    images: (1, 3, H, W). labels: (1, H, W).
    """

    def breaks(radius: float) -> bool:
        steps, seed = HALVING["steps"], HALVING["seed"]
        return apgd(model, images, labels, radius / 255, steps, "mask-ce", seed=seed).accuracy.item() <= 1 - share

    low, high = 0.0, float(HALVING["high"])
    if not breaks(high):
        return None
    for _ in range(HALVING["rounds"]):
        middle = (low + high) / 2
        low, high = (low, middle) if breaks(middle) else (middle, high)
    return high


def halve(name: str, found: Minimal, device: str) -> Minimal:
    """Halve the radius on the crops that ALMA prox was run on. name: of the model. found: the radii of ALMA prox."""
    model, dataset = robviz.load_model(name, device), robviz.load_dataset("photos", "val-128")
    radii = []
    for i in range(found.plan["images"]):
        sample = dataset[i]
        rows, columns = (centre(side, found.plan["crop"]) for side in sample.labels.shape)
        image, labels = sample.image[None, :, rows, columns].to(device), sample.labels[None, rows, columns].to(device)
        radii.append(by_halving(model, image, labels, found.plan["share"]))
    how = {"attack": "apgd on mask-ce", "device": device, **HALVING, "versions": versions()}
    return Minimal({**found.plan, **how}, tuple(radii))


def halvings() -> dict[str, Minimal]:
    """Read the smallest radii that were found by halving, by model."""
    found = sorted(folder().glob("halving.*.json"))
    return {path.name.split(".")[1]: Minimal.load(path) for path in found}


def record(out: Path) -> None:
    """Compute and write what is missing, for `photos-robust` on val-128, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, dataset = robviz.load_model("photos-robust", device), robviz.load_dataset("photos", "val-128")
    same = {"limit": IMAGES, "batch_size": IMAGES, "precision": "fp32"}
    for settings, radii in ((EARLIER, (8, 4)), (LOSSES, (8,))):
        for radius in radii:
            path = out / f"photos-robust.{settings.name}.{radius}.json"
            if not path.exists():
                sea.evaluate(model, dataset, radius / 255, settings, **same).save(path)  # type: ignore[arg-type]
    for name, radii_found in shipped_minimal().items():
        if not (out / f"halving.{name}.json").exists():
            halve(name, radii_found, device).save(out / f"halving.{name}.json")
    if (out / OPTIMISERS).exists():
        return
    plan, _ = sea.build_plan(model, dataset, RADIUS / 255, sea.PAPER, IMAGES, "fp32")
    about = {**plan, "settings": {"loss": "mask-ce", "ways": WAYS}}
    samples = [dataset[i] for i in range(IMAGES)]
    images, labels = (torch.stack(part).to(device) for part in zip(*((one.image, one.labels) for one in samples)))
    found = compare_optimisers(model, images, labels, RADIUS / 255)
    write_atomically(out / OPTIMISERS, json.dumps({"plan": about, **found}) + "\n")
