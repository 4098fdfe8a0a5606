"""How models over the radius look in the browser: the data of `sweep` in `sweep.js`."""

from __future__ import annotations

from collections.abc import Mapping

from robviz.interactive.comparison import Comparison
from robviz.interactive.sweep import Sweep
from robviz.models import Card
from robviz.viewer import viewer_data
from robviz.viewer.payloads import SweepCurve, SweepData, SweepPoint


def sweep_data(sweep: Sweep, cards: Mapping[str, Card], notes: Mapping[str, str], note: str = "") -> SweepData:
    """Return the payload of `sweep`, ready for JSON.

    cards, notes: by model; a note says what its labels are. note: what is attacked, and how. While an attack is going
    on, only its view is sent; whenever one has ended, the latest view of each model.
    """
    latest = {name: points[-1] for name, points in sweep.found.items() if points}
    views = latest if sweep.running is None else dict([sweep.running])
    return {
        "eps": [levels(eps) for eps in sweep.radii],
        "curves": [curve(name, points) for name, points in sweep.found.items()],
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


def levels(eps: float) -> float:
    """Return a radius in 1/255, as somebody would write it."""
    return round(255 * eps, 6)


def place(name: str, shown: Comparison) -> str:
    """Name a model at a radius."""
    return f"{name} at {levels(shown.eps):g}/255"


def view_name(name: str, shown: Comparison) -> str:
    """Name the view of a model at a radius."""
    return f"{name}/{levels(shown.eps):g}"


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
            "eps": levels(shown.eps),
            "accuracy": shown.scores_after.accuracy,
            "miou": shown.scores_after.miou,
            "change": shown.largest_change,
            "steps": shown.step,
        }

    return {"name": name, "points": [point(shown) for shown in points]}


def state(sweep: Sweep) -> str:
    """Say what is being done; nothing between two attacks."""
    if sweep.running is None:
        return ""
    name, shown = sweep.running
    return f"{place(name, shown)}: step {shown.step} of {shown.steps}"
