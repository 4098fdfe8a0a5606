"""One picture over the radius: how much each of several models still gets right as the budget grows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pandas as pd

from robviz.attacks import AttackSpec
from robviz.files.images import levels_within
from robviz.interactive.comparison import (
    Comparison,
    Scores,
    Subject,
    clean_comparison,
    compare_steps,
    continued,
    finalise,
    never,
)
from robviz.norms import LINF
from robviz.types import InputError, check_radius

#: The radii of a sweep, unless others are asked for, in 1/255.
RADII_255 = (0, 0.5, 1, 2, 3, 4, 6, 8, 12)
MOST_RADII = 24


@dataclass(frozen=True)
class Corrupted:
    """Hold what a model still gets right on a picture that was corrupted within a radius.

    Attributes:
        model: The name of the model.
        corruption: A key of `CORRUPTIONS`.
        eps: The radius, in [0, 1].
        scores: Against the reference.
        largest_change: L-infinity distance of the two pictures, in levels of 0 .. 255.
    """

    model: str
    corruption: str
    eps: float
    scores: Scores
    largest_change: int


@dataclass(frozen=True)
class Smallest:
    """Hold the smallest radius found so far at which a share of the pixels is wrong.

    Attributes:
        eps: The radius, in [0, 1]; None as long as too few pixels are wrong.
        flipped: The share that is wrong at it or, without one, the largest share so far.
        share: The share that is asked for.
        step: The number of steps made.
        steps: The number of steps of the whole search.
    """

    eps: float | None
    flipped: float
    share: float
    step: int
    steps: int


@dataclass(frozen=True)
class Sweep:
    """Hold what a sweep has found so far.

    Attributes:
        radii: All radii that are asked for, ascending, in [0, 1].
        found: By model, the measured comparisons so far, in the order of the radii.
        running: The model under attack and what it sees; None between two attacks.
        luck: Corruptions of the same picture, by radius (`robviz.interactive.yardsticks`).
        smallest: By model, the smallest radius that breaks the picture (the same file).
    """

    radii: tuple[float, ...]
    found: Mapping[str, tuple[Comparison, ...]]
    running: tuple[str, Comparison] | None = None
    luck: tuple[Corrupted, ...] = ()
    smallest: Mapping[str, Smallest] = field(default_factory=dict)

    def extended(self, name: str, shown: Comparison) -> Sweep:
        """Return the sweep with one more point of a model."""
        return replace(self, found={**self.found, name: (*self.found[name], shown)}, running=None)


def sweep_steps(
    subjects: Mapping[str, Subject],
    spec: AttackSpec,
    radii: Sequence[float],
    *,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Sweep, None, None]:
    """Attack one picture at each radius in turn, on all models at each; yields what there is so far.

    An attack begins from what was found at the radius before, scaled up. At no radius is more pixel accuracy left than
    at a smaller one: where an attack finds less on the 8-bit picture, the picture of the smaller radius counts.

    Args:
        subjects: By name, all with the same picture.
        spec: The attack; its radius is replaced.
        radii: Ascending, in [0, 1]; at 0, the picture is not attacked.
        frame_seconds: The least time between two frames of one attack.
        is_stopped: Called at every step; once it returns True, the attack under way ends with its best so far, and no
            other begins.

    Yields:
        The empty sweep, frames of attacks under way, and the sweep after every point.

    Raises:
        InputError: For no model, and for radii that are not ascending, out of range or too many; at the first `next`.
    """
    check_radii(radii)
    if not subjects:
        raise InputError("there is no model to attack; expected at least one")
    sweep = Sweep(tuple(radii), {name: () for name in subjects})
    yield sweep
    for eps in radii:
        for name, subject in subjects.items():
            if is_stopped():
                return
            before = sweep.found[name][-1] if sweep.found[name] else None
            steps = point_steps(subject, replace(spec, eps=eps), before, frame_seconds, is_stopped)
            with closing(steps) as frames:
                for shown in frames:
                    if not shown.is_final:
                        yield replace(sweep, running=(name, shown))
            sweep = sweep.extended(name, shown)
            yield sweep


def check_radii(radii: Sequence[float]) -> None:
    """Raise InputError unless these are the radii of a sweep."""
    for eps in radii:
        check_radius("every radius of a sweep", eps)
    if not 1 <= len(radii) <= MOST_RADII:
        raise InputError(f"a sweep takes 1 .. {MOST_RADII} radii, got {len(radii)}")
    if any(after <= before for before, after in pairwise(radii)):
        raise InputError(
            f"the radii of a sweep must ascend, got {', '.join(f'{255 * eps:g}' for eps in radii)} in 1/255"
        )


def changes_nothing(spec: AttackSpec) -> bool:
    """Return True if the only 8-bit picture within the budget is the unattacked one."""
    return levels_within(spec.eps) == 0 if spec.norm is LINF else spec.eps == 0


def point_steps(
    subject: Subject, spec: AttackSpec, before: Comparison | None, frame_seconds: float, is_stopped: Callable[[], bool]
) -> Generator[Comparison, None, None]:
    """Attack at one radius, beginning from the point before; the last comparison leaves no more accuracy than that."""
    if changes_nothing(spec):
        yield finalise(subject, clean_comparison(subject, spec))
        return
    start = continued(before, spec.eps) if before is not None and before.largest_change else None
    with closing(
        compare_steps(subject, spec, start=start, frame_seconds=frame_seconds, is_stopped=is_stopped)
    ) as frames:
        for shown in frames:
            yield stronger(before, shown) if before is not None and shown.is_final else shown


def stronger(before: Comparison, shown: Comparison) -> Comparison:
    """Return the comparison that leaves less pixel accuracy, at the radius of `shown`, which includes the other."""
    is_better = shown.scores_after.accuracy <= before.scores_after.accuracy
    return shown if is_better else replace(before, eps=shown.eps)


#: The columns of `sweep_table`; `csvOf` in `curves.js` writes the same.
COLUMNS = ("model", "eps_255", "accuracy", "miou", "largest_change", "steps", "by")


def sweep_table(sweep: Sweep) -> pd.DataFrame:
    """Return a row for each point.

    Columns: model, radius in 1/255, pixel accuracy and mIoU in [0, 1], largest change in 1/255, steps made, and by
    what: an attack, a corruption, or the search for the smallest radius that breaks the picture, which has no mIoU.
    """
    attacks = [
        (name, in_levels(shown.eps), *shares(shown.scores_after), shown.largest_change, shown.step, "attack")
        for name, points in sweep.found.items()
        for shown in points
    ]
    luck = [
        (one.model, in_levels(one.eps), *shares(one.scores), one.largest_change, 0, one.corruption)
        for one in sweep.luck
    ]
    smallest = [
        (name, in_levels(one.eps), 1 - one.flipped, None, None, one.step, f"smallest for {100 * one.share:g} %")
        for name, one in sweep.smallest.items()
        if one.eps is not None
    ]
    return pd.DataFrame([*attacks, *luck, *smallest], columns=list(COLUMNS))


def shares(found: Scores) -> tuple[float, float]:
    """Return pixel accuracy and mIoU."""
    return found.accuracy, found.miou


def in_levels(eps: float) -> float:
    """Return a radius in 1/255, as somebody would write it."""
    return round(255 * eps, 6)
