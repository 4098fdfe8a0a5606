"""How models over the radius look in the browser: the data of `sweep` in `sweep.js`."""

from __future__ import annotations

from collections.abc import Mapping

from robviz.interactive.comparison import Comparison
from robviz.interactive.sweep import Corrupted, Sweep, in_levels
from robviz.models import Card
from robviz.viewer import viewer_data
from robviz.viewer.payloads import LuckCurve, LuckPoint, SmallestRadius, SweepCurve, SweepData, SweepPoint


def sweep_data(sweep: Sweep, cards: Mapping[str, Card], notes: Mapping[str, str], note: str = "") -> SweepData:
    """Return the payload of `sweep`, ready for JSON.

    cards, notes: by model; a note says what its labels are. note: what is attacked, and how. While an attack is going
    on, only its view is sent; whenever one has ended, the latest view of each model.
    """
    latest = {name: points[-1] for name, points in sweep.found.items() if points}
    views = latest if sweep.running is None else dict([sweep.running])
    return {
        "eps": [in_levels(eps) for eps in sweep.radii],
        "curves": [curve(name, points) for name, points in sweep.found.items()],
        "luck": luck_curves(sweep),
        "smallest": smallest_radii(sweep),
        "views": {
            view_name(name, shown): viewer_data(
                shown, cards[name].classes, cards[name].palette, f"{place(name, shown)}. {notes[name]}"
            )
            for name, shown in views.items()
        },
        "last": last_view(views),
        "state": state(sweep),
        "note": note,
    }


def place(name: str, shown: Comparison) -> str:
    """Name a model at a radius."""
    return f"{name} at {in_levels(shown.eps):g}/255"


def view_name(name: str, shown: Comparison) -> str:
    """Name the view of a model at a radius."""
    return f"{name}/{in_levels(shown.eps):g}"


def last_view(views: Mapping[str, Comparison]) -> str | None:
    """Name the view of the largest radius, of several that of the last model."""
    if not views:
        return None
    name = max(reversed(list(views)), key=lambda one: views[one].eps)
    return view_name(name, views[name])


def curve(name: str, points: tuple[Comparison, ...]) -> SweepCurve:
    """Return the points of one model."""

    def point(shown: Comparison) -> SweepPoint:
        return {
            "name": view_name(name, shown),
            "eps": in_levels(shown.eps),
            "accuracy": shown.scores_after.accuracy,
            "miou": shown.scores_after.miou,
            "change": shown.largest_change,
            "steps": shown.step,
        }

    return {"name": name, "points": [point(shown) for shown in points]}


def luck_curves(sweep: Sweep) -> list[LuckCurve]:
    """Return the points of each corruption."""

    def point(one: Corrupted) -> LuckPoint:
        return {
            "eps": in_levels(one.eps),
            "accuracy": one.scores.accuracy,
            "miou": one.scores.miou,
            "change": one.largest_change,
        }

    kinds = dict.fromkeys((one.model, one.corruption) for one in sweep.luck)
    return [
        {
            "model": model,
            "corruption": corruption,
            "points": [point(one) for one in sweep.luck if (one.model, one.corruption) == (model, corruption)],
        }
        for model, corruption in kinds
    ]


def smallest_radii(sweep: Sweep) -> list[SmallestRadius]:
    """Return the smallest radius of each model."""
    return [
        {
            "model": name,
            "eps": None if one.eps is None else in_levels(one.eps),
            "flipped": one.flipped,
            "share": one.share,
            "steps": one.step,
        }
        for name, one in sweep.smallest.items()
    ]


def state(sweep: Sweep) -> str:
    """Say what is being done; nothing between two attacks."""
    if sweep.running is not None:
        name, shown = sweep.running
        return f"{place(name, shown)}: step {shown.step} of {shown.steps}"
    under_way = [name for name, one in sweep.smallest.items() if 0 < one.step < one.steps]
    if under_way:
        one = sweep.smallest[under_way[-1]]
        return f"{under_way[-1]}, smallest radius: step {one.step} of {one.steps}"
    return ""
