"""The plan of an evaluation: its attacks, how their worst case is formed, and how its records are named."""

from __future__ import annotations

from dataclasses import dataclass, replace

from robviz.attacks import AttackSpec
from robviz.types import InputError


@dataclass(frozen=True)
class Run:
    """One attack of an ensemble."""

    loss: str
    attack: str = "red-eps-apgd"
    steps: int = 300

    @property
    def name(self) -> str:
        return f"{self.loss}.{self.attack}.{self.steps}"

    def spec(self, eps: float, seed: int) -> AttackSpec:
        """The run at a radius, in [0, 1]."""
        return AttackSpec(self.attack, self.loss, eps, self.steps, seed)


@dataclass(frozen=True)
class SeaSettings:
    """An ensemble of attacks and how their worst case is formed.

    aggregation: "each", the worst accuracy an image and, apart from it, the greedy worst mIoU; or "accuracy", the
    attack of lowest accuracy on each image also gives the mIoU, as in version 1 of the paper.
    """

    name: str
    runs: tuple[Run, ...]
    aggregation: str = "each"
    seed: int = 0

    def with_steps(self, steps: int) -> SeaSettings:
        """The same ensemble with another mean number of steps a run, in the same proportions; the name says so."""
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        factor = steps * len(self.runs) / sum(run.steps for run in self.runs)
        runs = tuple(replace(run, steps=max(1, round(factor * run.steps))) for run in self.runs)
        return replace(self, name=f"{self.name}-{steps}", runs=runs)


LOOK = "look"  # the key of what was measured before the first attack
CLEAN = "clean"  # the key of the unattacked images among the runs


def key_of(index: int, run: str) -> str:
    return f"{index:06d}.{run}"
