"""A name gives a network with a card: architectures, checkpoints, and anyone's own model through `adapt`."""

from __future__ import annotations

from robviz.models.adapters import adapt
from robviz.models.architectures import ARCHITECTURES, build, load_backbone, load_checkpoint
from robviz.models.card import Card, card_of, fingerprint
from robviz.models.zoo import (
    available,
    card_named,
    keep_model,
    kept_models,
    load_model,
    save_checkpoint,
    shipped_models,
)

__all__ = [
    "ARCHITECTURES",
    "Card",
    "adapt",
    "available",
    "build",
    "card_named",
    "card_of",
    "fingerprint",
    "keep_model",
    "kept_models",
    "load_backbone",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
    "shipped_models",
]
