"""Measure what `docs/strength.md` shows: the parts of STRONG, and how much random starts change.

`measure` runs the ablation of one model and radius; its variants are losses and ensembles that are available only here.
`repeat` runs an ensemble with several seeds, `curves_on` single attacks on one image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from robviz.attacks import attack_steps
from robviz.files.atomic import write_atomically
from robviz.losses import LOSSES, SHARPEST, Loss
from robviz.models import card_of, fingerprint
from robviz.results.confusion import confusion_of
from robviz.results.plan import Blockwise, Run, SeaSettings
from robviz.results.report import Report
from robviz.sea import STRONG, evaluate
from robviz.types import VOID, Dataset

STEPS = 100  # of each run of the ablation
IMAGES = 16


def expected_error_between(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, progress: float, first: float, last: float
) -> Tensor:
    """Return the expected error with a temperature from first to last, by the same factor each step."""
    tau = first * (last / first) ** progress
    result: Tensor = 1 - (logits / tau).softmax(1).gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
    return result


#: Losses that only the ablation uses: their first and last temperatures.
TEMPERATURES: dict[str, tuple[float, float]] = {
    "error-1-to-1": (1.0, 1.0),
    "error-2-to-2": (2.0, 2.0),
    "error-01-to-01": (0.1, 0.1),
    "error-03-to-01": (0.3, 0.1),
    "error-2-to-01": (2.0, 0.1),
    "error-03-to-1": (0.3, 1.0),
    "error-1-to-03": (1.0, 0.3),
    "error-10-to-01": (10.0, 0.1),
}
VARIANTS: dict[str, Loss] = {
    **{name: partial(expected_error_between, first=a, last=b) for name, (a, b) in TEMPERATURES.items()},
}

#: The first and last temperature of every loss that counts errors.
FIRST_AND_LAST = {**TEMPERATURES, "expected-error": (1.0, SHARPEST), "expected-error-soft": (3.0, SHARPEST)}

#: Each of these alone, for the accuracy: losses, then optimisers, then temperatures.
ACCURACY = SeaSettings(
    "ablation-accuracy",
    (
        Run("mask-ce", "annealed-pgd", STEPS),
        Run("js", "annealed-pgd", STEPS),
        Run("error-1-to-1", "annealed-pgd", STEPS),
        Run("error-03-to-1", "annealed-pgd", STEPS),
        Run("error-01-to-01", "annealed-pgd", STEPS),
        Run("error-1-to-03", "annealed-pgd", STEPS),
        Run("expected-error", "annealed-pgd", STEPS),
        Run("expected-error-soft", "annealed-pgd", STEPS),
        Run("error-10-to-01", "annealed-pgd", STEPS),
        Run("expected-error", "annealed-pgd-near", STEPS),
        Run("expected-error", "red-eps-apgd", STEPS),
        Run("expected-error-soft", "red-eps-apgd", STEPS),
    ),
)
#: The first and last temperatures that support the claims about it, each alone.
SCHEDULES = SeaSettings(
    "ablation-temperatures",
    tuple(
        Run(loss, "annealed-pgd", STEPS)
        for loss in (
            "error-2-to-2",
            "error-1-to-1",
            "error-03-to-01",
            "expected-error",
            "error-2-to-01",
            "expected-error-soft",
        )
    ),
)
ALONE = STRONG.runs[:2]


def setwise(name: str, *last: Run, blocks: int = STRONG.blocks) -> Blockwise:
    """Return an ensemble of the members for the accuracy, followed by runs on the set."""
    return Blockwise(f"ablation-{name}", (*ALONE, *last), blocks=blocks)


NEAR = Run("expected-miou", "annealed-pgd-near", STEPS)
#: What each part of the attack on the mIoU adds to the members for the accuracy.
MIOU: dict[str, SeaSettings] = {
    "static": SeaSettings("ablation-static", (*ALONE, NEAR)),
    "paper-loss": SeaSettings("ablation-paper-loss", (*ALONE, Run("mask-ce-bal", steps=STEPS))),
    "1-block": setwise("1-block", NEAR, blocks=1),
    "4-blocks": setwise("4-blocks", NEAR),
    "16-blocks": setwise("16-blocks", NEAR, blocks=16),
    "far": setwise("far", Run("expected-miou", "annealed-pgd", STEPS)),
    "two-passes": setwise(
        "two-passes",
        Run("expected-miou", "annealed-pgd-near", STEPS // 2),
        Run("expected-miou-soft", "annealed-pgd-near", STEPS // 2),
    ),
}


#: Every ensemble of the ablation.
ENSEMBLES: dict[str, SeaSettings] = {"accuracy": ACCURACY, "temperatures": SCHEDULES, **MIOU}

#: Both members of `strong` for the accuracy, each part of the second one replaced, and the paper's strongest.
CROSSED = (
    *ALONE,
    Run("error-1-to-1", "annealed-pgd-near", STEPS),
    Run("mask-ce", "annealed-pgd-near", STEPS),
    Run("expected-error", "red-eps-apgd", STEPS),
    Run("mask-ce", "red-eps-apgd", STEPS),
)


@contextmanager
def with_variants() -> Iterator[None]:
    """Add the losses of the ablation to `LOSSES` within the `with` block."""
    LOSSES.update(VARIANTS)
    try:
        yield
    finally:
        for name in VARIANTS:
            del LOSSES[name]


def measure(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    out: Path,
    names: tuple[str, ...] = ("accuracy", *MIOU),
    steps: int | None = None,
    seed: int = 0,
    limit: int = IMAGES,
) -> list[Report]:
    """Run the ablation, or some of it, at one radius, with gradients in float32 of a prepared copy.

    Args:
        model: A model with a card.
        dataset: Labelled pictures in its classes.
        eps: The radius, in [0, 1].
        out: Folder of the reports, `<model>.<name>.<radius>.seed<seed>.json`.
        names: Ensembles from `ENSEMBLES`.
        steps: The average number of steps per run, which becomes part of the name; by default, the ensembles' own.
        seed: The seed of all random starts.
        limit: The number of images, the first ones; on a GPU, all are attacked at a time.

    Returns:
        A report for each name.
    """
    reports = []
    with with_variants():
        for name in names:
            settings = replace(ENSEMBLES[name], seed=seed)
            settings = settings if steps is None else settings.with_steps(steps)
            report = evaluate(
                model, dataset, eps, settings, limit=limit, batch_size=limit, precision="fp32", prepare=True
            )
            short = settings.name.removeprefix("ablation-")
            report.save(out / f"{report.plan['model']['name']}.{short}.{255 * eps:g}.seed{seed}.json")
            reports.append(report)
    return reports


def repeat(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    settings: SeaSettings,
    work: Path,
    reports: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    limit: int = IMAGES,
) -> list[Report]:
    """Run an ensemble with several seeds, with gradients in float32, and count where the pixels of the first one went.

    Args:
        model: A model with a card.
        dataset: Labelled pictures in its classes.
        eps: The radius, in [0, 1].
        settings: The ensemble.
        work: Folder of the evaluations, one folder each; whatever is finished there is not computed again.
        reports: Folder of the results: `seeds/<model>.<ensemble>.<radius>.seed<seed>.json`, and the counts of the first
            seed under the same name in `confusion/`.
        seeds: The seeds of all random starts.
        limit: The number of images, the first ones.

    Returns:
        A report for each seed.
    """
    found = []
    for seed in seeds:
        name = f"{settings.name}.{255 * eps:g}.seed{seed}"
        seeded = replace(settings, seed=seed)
        report = evaluate(model, dataset, eps, seeded, work / name, limit=limit, precision="fp32", keep_masks=True)
        file = f"{report.plan['model']['name']}.{name}.json"
        report.save(reports / "seeds" / file)
        if seed == seeds[0]:
            confusion_of(work / name, dataset).save(reports / "confusion" / file)
        found.append(report)
    return found


def margin(model: nn.Module, image: Tensor, labels: Tensor) -> float:
    """Return the largest lead of the label's logit over the others, among the pixels of one image; 0 if none."""
    with torch.inference_mode():
        logits: Tensor = model(image[None])[0].movedim(0, -1)[labels != VOID]
    own = labels[labels != VOID][:, None]
    rivals = logits.scatter(1, own, -math.inf).amax(1)
    return max(0.0, (logits.gather(1, own)[:, 0] - rivals).max().item())


def curves_on(
    model: nn.Module,
    dataset: Dataset,
    index: int,
    eps: float,
    out: Path,
    runs: Sequence[Run] = CROSSED,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Path:
    """Count the correct pixels that single attacks leave on one image, after each step.

    Args:
        model: A model with a card.
        dataset: Labelled pictures in its classes.
        index: The number of the image.
        eps: The radius, in [0, 1].
        out: Folder of the result, `<model>.image<index>.<radius>.json`.
        runs: The attacks. One that leaves no correct pixel ends early.
        seeds: The seeds of their random starts.

    Returns:
        The file: model, weights, image, the number of its labelled pixels, the radius in 1/255, and for each run and
        seed `left`, the correct pixels of the attack's result at the start and after each step, and `margin`, the
        largest margin in logits of those that are left in the end.
    """
    sample = dataset[index]
    labelled = int((sample.labels != VOID).sum())
    curves = []
    with with_variants():
        for run, seed in product(runs, seeds):
            left, batch = [], (sample.image[None], sample.labels[None])
            for frame in attack_steps(run.attack, model, *batch, eps, run.steps, run.loss, seed=seed):
                left.append(round(frame.accuracy.item() * labelled))
            last = margin(model, frame.images[0], sample.labels)
            curves.append({"loss": run.loss, "attack": run.attack, "seed": seed, "margin": last, "left": left})
    name = card_of(model).name
    found = {"model": name, "weights": fingerprint(model), "image": sample.name, "labelled": labelled, "eps": 255 * eps}
    path = out / f"{name}.image{index}.{255 * eps:g}.json"
    write_atomically(path, json.dumps(found | {"curves": curves}) + "\n")
    return path
