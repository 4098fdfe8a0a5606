"""The plan of an evaluation: its attacks, how their worst case is formed, and how its records are named."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        return f"{self.loss}.{self.attack}.{self.steps}"

    def spec(self, eps: float, seed: int) -> AttackSpec:
        """Return the attack at a radius.

        Args:
            eps: The radius, in [0, 1].
            seed: Of the random start.

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
            computes the mIoU, too, under the attack of lowest accuracy on each image, as version 1 of the paper does.
        seed: Of all random starts.
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
        setwise: The losses of these runs, which come after all others, one run after the other.
        blocks: The number of blocks that the images are dealt into, by their numbers. More blocks follow the state of
            the set more closely; fewer attack more images side by side.
    """

    setwise: tuple[str, ...] = ("expected-miou", "expected-miou-soft")
    blocks: int = 4


CLEAN = "clean"  # the key of the unattacked images among the runs


def key_of(index: int, run: str) -> str:
    return f"{index:06d}.{run}"
