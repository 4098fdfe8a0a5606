"""Open a network with its card by name: architectures, checkpoints, and your own model through `adapt`."""

from __future__ import annotations

from robviz.models.adapters import adapt
from robviz.models.architectures import ARCHITECTURES, architecture_of, build, load_backbone, load_checkpoint
from robviz.models.card import Card, card_of, fingerprint
from robviz.models.own import keep_own, open_own
from robviz.models.prepared import prepared
from robviz.models.zoo import (
    add_model,
    added_models,
    available,
    card_named,
    keep_model,
    kept_models,
    load_model,
    remove_model,
    save_checkpoint,
    shipped_models,
)

__all__ = [
    "ARCHITECTURES",
    "Card",
    "adapt",
    "add_model",
    "added_models",
    "architecture_of",
    "available",
    "build",
    "card_named",
    "card_of",
    "fingerprint",
    "keep_model",
    "keep_own",
    "kept_models",
    "load_backbone",
    "load_checkpoint",
    "load_model",
    "open_own",
    "prepared",
    "remove_model",
    "save_checkpoint",
    "shipped_models",
]
