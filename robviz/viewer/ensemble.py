"""How an ensemble on one picture looks in the browser: the data of `ensemble` in `ensemble.js`."""

from __future__ import annotations

from robviz.interactive.comparison import Comparison
from robviz.interactive.ensemble import NOT_ATTACKED, WORST, breakdown
from robviz.models import Card
from robviz.viewer import viewer_data
from robviz.viewer.payloads import EnsembleData, EnsembleRow


def ensemble_data(shown: dict[str, Comparison], card: Card, names: list[str], note: str) -> EnsembleData:
    """Return the payload of `ensemble`, ready for JSON.

    shown: the results so far, the latest last; at first `{CLEAN: ...}`. names: of all runs, in order. While a run is
    going on, only its view is sent, and all of them whenever one has ended.
    """
    table, last = breakdown(shown, card.classes), list(shown)[-1]

    def row(name: str) -> EnsembleRow:
        is_running = name == last and name in names and not shown[name].is_final
        is_there = name == NOT_ATTACKED or name in shown or (name == WORST and last != NOT_ATTACKED)
        return {
            "name": name,
            "cells": table.loc[name].tolist() if is_there else None,
            # On this column, no other attack left less.
            "least": (table.loc[name] == table.loc[WORST]).tolist() if name in names and is_there else None,
            "state": f"step {shown[name].step} of {shown[name].steps}" if is_running else "" if is_there else "waiting",
        }

    views = shown if shown[last].is_final else {last: shown[last]}
    return {
        "columns": list(table.columns),
        "rows": [row(name) for name in (NOT_ATTACKED, *names, WORST)],
        "last": last,
        "views": {name: viewer_data(one, card.classes, card.palette, f"{name}. {note}") for name, one in views.items()},
    }
