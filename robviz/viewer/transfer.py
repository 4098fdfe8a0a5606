"""How models under each other's attacks look in the browser: the data of `transfer` in `transfer.js`."""

from __future__ import annotations

from robviz.interactive.ensemble import NOT_ATTACKED
from robviz.interactive.transfer import Transfer
from robviz.models import Card
from robviz.viewer import percent, viewer_data
from robviz.viewer.payloads import TransferCell, TransferColumn, TransferData, ViewerData


def transfer_data(found: Transfer, cards: dict[str, Card], notes: dict[str, str]) -> TransferData:
    """Return the payload of `transfer`, ready for JSON. cards, notes: by model; a note says what its labels are.

    While an attack is going on, only its view is sent, and all of them whenever one has ended.
    """
    running = {key: shown for key, shown in found.items() if key[0] != NOT_ATTACKED and not shown.is_final}

    def cell(source: str, looker: str) -> TransferCell:
        shown = found.get((source, looker))
        if shown is None:
            return {"name": f"{looker}/{source}", "right": None, "state": "waiting"}
        state = f"step {shown.step} of {shown.steps}" if (source, looker) in running else ""
        share = shown.scores_before if source == NOT_ATTACKED else shown.scores_after
        return {"name": f"{looker}/{source}", "right": share.accuracy, "state": state}

    def view(source: str, looker: str) -> ViewerData:
        card = cards[looker]
        how = "not attacked" if source == NOT_ATTACKED else f"attacked on {source}"
        return viewer_data(
            found[source, looker], card.classes, card.palette, f"Seen by {looker}, {how}. {notes[looker]}"
        )

    columns: list[TransferColumn] = [{"title": f"attacked on {name}", "source": name} for name in cards]
    return {
        "columns": [{"title": "not attacked", "source": NOT_ATTACKED}, *columns],
        "rows": [
            {"name": looker, "cells": [cell(source, looker) for source in (NOT_ATTACKED, *cards)]} for looker in cards
        ],
        "verdict": verdict(found, list(cards)),
        "views": {f"{looker}/{source}": view(source, looker) for source, looker in running or found},
        "first": next(f"{looker}/{source}" for source, looker in reversed(running or found)),
    }


def verdict(found: Transfer, names: list[str]) -> str:
    """Say in one sentence per attack what it does to its own model and to the other."""
    words = []
    for source in names:
        lost = {
            looker: shown.scores_before.accuracy - shown.scores_after.accuracy
            for looker in names
            if (shown := found.get((source, looker))) is not None and shown.is_final
        }
        if len(lost) == len(names):
            others = " and ".join(f"{percent(value)} from {name}" for name, value in lost.items() if name != source)
            words.append(f"The attack on {source} takes {percent(lost[source])} of its pixels, and {others}.")
    return " ".join(words)
