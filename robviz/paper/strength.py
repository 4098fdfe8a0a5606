"""Measure the parts of STRONG: the ablation behind `docs/strength.md`, with its tables and pictures.

`measure` runs the ablation of one model and radius; its variants are losses and ensembles that are available only here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from robviz.losses import LOSSES, Loss
from robviz.results.plan import Blockwise, Run, SeaSettings
from robviz.results.report import Report
from robviz.sea import STRONG, evaluate
from robviz.types import Dataset

STEPS = 100  # of each run of the ablation


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
    "error-01-to-01": (0.1, 0.1),
    "error-03-to-1": (0.3, 1.0),
    "error-1-to-03": (1.0, 0.3),
    "error-10-to-01": (10.0, 0.1),
}
VARIANTS: dict[str, Loss] = {
    **{name: partial(expected_error_between, first=a, last=b) for name, (a, b) in TEMPERATURES.items()},
}

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
    batch_size: int = 16,
    precision: str = "fp32",
) -> list[Report]:
    """Run the ablation, or some of it, at one radius; write reports to `<out>/<model>.<name>.<radius>.json`."""
    reports = []
    with with_variants():
        for name in names:
            settings = ACCURACY if name == "accuracy" else MIOU[name]
            report = evaluate(model, dataset, eps, settings, batch_size=batch_size, precision=precision)
            report.save(out / f"{report.plan['model']['name']}.{name}.{255 * eps:g}.json")
            reports.append(report)
    return reports
