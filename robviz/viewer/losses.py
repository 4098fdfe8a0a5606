"""The payload of the losses' card: what each does, and how strongly it pulls at a pixel."""

from __future__ import annotations

import torch

from robviz.losses import DESCRIPTIONS, LOSSES, pull
from robviz.viewer.payloads import LossCard, LossesData

#: p_y at which the curve is drawn, and the moments of the run that it is drawn for.
PROBABILITIES = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
MOMENTS = (0.0, 0.5, 1.0)


def card_of(name: str) -> LossCard:
    """Return one loss's card; its curves are scaled to their common largest value, and equal ones drawn once."""
    curves = [pull(name, PROBABILITIES, moment) for moment in MOMENTS]
    largest = max(curve.abs().max().item() for curve in curves)
    if all(torch.allclose(curve, curves[0]) for curve in curves):
        curves = curves[:1]
    return {
        "description": DESCRIPTIONS[name],
        "curves": [[round(v, 4) for v in (c / largest).tolist()] for c in curves],
    }


def losses_data(chosen: str) -> LossesData:
    """Return the payload of `losses`, ready for JSON."""
    return {
        "losses": {name: card_of(name) for name in LOSSES},
        "probabilities": [round(p, 4) for p in PROBABILITIES.tolist()],
        "chosen": chosen,
    }
