"""Describe a model on a card: what it is, and how it was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robviz.files.atomic import write_atomically
from robviz.types import InputError


@dataclass(frozen=True)
class Card:
    """Describe a checkpoint and how it was made; written beside the weights by the run that trained it.

    Attributes:
        name: The name that `load_model` opens.
        architecture: A key of `ARCHITECTURES`, or the class of an adapted model.
        dataset: The dataset of its classes.
        classes: The name of each class.
        palette: The RGB colour of each class.
        source: Where the model comes from.
        metrics: Figures by split, rates in [0, 1].
        training: Recipe, seed, command, duration, versions and curves.
    """

    name: str
    architecture: str
    dataset: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)  # recipe, seed, command, duration, versions, curve

    def save(self, path: Path) -> None:
        """Write the card as JSON.

        Args:
            path: The file.
        """
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Card:
        """Read a card.

        Args:
            path: A JSON file that `save` wrote.

        Returns:
            The card.

        Raises:
            InputError: If the file is not a card.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {key.name: values[key.name] for key in fields(cls)}
            known["classes"] = tuple(known["classes"])
            known["palette"] = tuple(tuple(colour) for colour in known["palette"])
        except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a robviz model card: {error!r}") from error
        return cls(**known)


def card_of(model: nn.Module) -> Card:
    """Return the card of a model that `load_model` opened or `adapt` made.

    Args:
        model: The model.

    Returns:
        Its card.

    Raises:
        InputError: If the model has no card.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, Card):
        raise InputError(f"{type(model).__name__} has no card; use robviz.load_model or robviz.models.adapt")
    return card


def fingerprint(model: nn.Module) -> str:
    """Compute the SHA-256 of a model's class and of every parameter and buffer, by name.

    It identifies the weights. Other things that influence the predictions, such as the code of a function behind
    `adapt`, are not included.

    Args:
        model: Any module.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
