"""Describe the plan of an evaluation: its attacks, how their worst case is formed, and how its records are named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypedDict

from robviz.attacks import AttackSpec
from robviz.types import InputError


@dataclass(frozen=True)
class Run:
    """Describe one attack of an ensemble."""

    loss: str
    attack: str = "red-eps-apgd"
    steps: int = 300

    @property
    def name(self) -> str:
        """Return the name of the run: `mask-ce.apgd.300`."""
        return f"{self.loss}.{self.attack}.{self.steps}"

    def spec(self, eps: float, seed: int) -> AttackSpec:
        """Return the attack at a radius.

        Args:
            eps: The radius, in [0, 1].
            seed: The seed of the random start.

        Returns:
            The attack.
        """
        return AttackSpec(self.attack, self.loss, eps, self.steps, seed)


@dataclass(frozen=True)
class SeaSettings:
    """Describe an ensemble of attacks and how their worst case is formed.

    Attributes:
        name: The name in reports.
        runs: The attacks.
        aggregation: "each" takes the worst accuracy per image and, separately, the greedy worst mIoU; "accuracy"
            also computes the mIoU under the attack of lowest accuracy on each image, as version 1 of the paper does.
        seed: The seed of all random starts.
    """

    name: str
    runs: tuple[Run, ...]
    aggregation: str = "each"
    seed: int = 0

    def with_steps(self, steps: int) -> SeaSettings:
        """Return the same ensemble with another average number of steps per run, in the same proportions.

        Args:
            steps: The average number of steps.

        Returns:
            The ensemble, with the number in its name.

        Raises:
            InputError: If steps is below 1.
        """
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        factor = steps * len(self.runs) / sum(run.steps for run in self.runs)
        runs = tuple(replace(run, steps=max(1, round(factor * run.steps))) for run in self.runs)
        return replace(self, name=f"{self.name}-{steps}", runs=runs)


@dataclass(frozen=True)
class Blockwise(SeaSettings):
    """Describe an ensemble whose later runs attack the mIoU of the whole set, one block of images after the other.

    Attributes:
        setwise: The losses of these runs, which follow all others, one run after the other.
        blocks: The number of blocks of images. With more blocks, attacks follow the state of the set more closely; with
            fewer, more images are attacked at a time.
    """

    setwise: tuple[str, ...] = ("expected-miou", "expected-miou-soft")
    blocks: int = 4


LOOK = "look"  # the key of the checks before the first attack
CLEAN = "clean"  # the key of the unattacked images among the runs


def record_key(index: int, run: str) -> str:
    """Return the key of the record of an image under a run."""
    return f"{index:06d}.{run}"


class ModelPlan(TypedDict, total=False):
    """Identify the model of an evaluation: its name, its weights, and how it is wrapped."""

    name: str
    sha256: str
    settings: dict[str, Any]
    wrapping: dict[str, Any]
    code: str
    packages: dict[str, str]


class DatasetPlan(TypedDict, total=False):
    """Identify the images of an evaluation and their labels."""

    name: str
    split: str
    images: int
    classes: list[str]
    class_weights: list[float] | None
    sha256: str


class RunPlan(TypedDict):
    """Describe one attack of the ensemble, as `Run` does."""

    loss: str
    attack: str
    steps: int


class SettingsPlan(TypedDict, total=False):
    """Describe the ensemble, as `SeaSettings` does."""

    name: str
    runs: list[RunPlan]
    aggregation: str
    seed: int
    setwise: list[str]
    blocks: int


class Plan(TypedDict, total=False):
    """Store everything that determines an evaluation; plans of older versions lack some keys."""

    model: ModelPlan
    dataset: DatasetPlan
    eps: float
    settings: SettingsPlan
    seed: int
    precision: str
    prepared: bool
    eot: int
    device: str
    threads: int
    versions: dict[str, str]


class ImageRecord(TypedDict, total=False):
    """Store the counts of one image under one run, from which every figure of a report is computed."""

    image: str
    intersection: list[int]  # per class
    union: list[int]
    labelled: list[int]
    correct: int
    valid: int
    size_intersection: list[int]  # small, medium, large objects
    size_union: list[int]
    gradients: int
    seconds: float
    trouble: list[int]


Rate = Any  # a float in [0, 1], or None where it is undefined


class Figures(TypedDict, total=False):
    """Store the figures of a report about one prediction per image."""

    accuracy_mean: Rate
    accuracy_pooled: Rate
    miou: Rate
    balanced_accuracy: Rate
    iou_by_size: dict[str, Rate]
    iou_by_class: dict[str, Rate]


class ImageFigures(TypedDict):
    """Store the pixel accuracy of one image before and under `by`, the strongest attack on it."""

    image: str
    clean: float
    worst: float
    by: str
