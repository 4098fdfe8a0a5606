"""Architectures by name, and named checkpoints with their cards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robviz.models.upernet import SMALL, UPerNet
from robviz.shipped import shipped

#: name -> function of the number of classes. To add an architecture, write its file and add its row.
ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "upernet-convnext-small-cvst": partial(UPerNet, SMALL),
}


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and how it came to be; written by the run that trained it, beside the weights."""

    name: str
    architecture: str
    dataset: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)  # recipe, seed, command, duration, versions, curve

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Card:
        """Raises ValueError when the file is no card."""
        try:
            values = json.loads(path.read_text())
            known = {key.name: values[key.name] for key in fields(cls)}
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a robviz model card: {error!r}") from error
        known["classes"] = tuple(known["classes"])
        known["palette"] = tuple(tuple(colour) for colour in known["palette"])
        return cls(**known)


def available() -> list[str]:
    """Names of the checkpoints that `load_model` opens without a download."""
    return sorted(path.stem for path in shipped("checkpoints").glob("*.safetensors"))


def build(architecture: str, num_classes: int) -> nn.Module:
    """A freshly initialised model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; choose from: {', '.join(ARCHITECTURES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    return ARCHITECTURES[architecture](num_classes)


def card_of(model: nn.Module) -> Card:
    """The card of a model that `load_model` opened."""
    card = getattr(model, "card", None)
    if not isinstance(card, Card):
        raise TypeError(f"{type(model).__name__} has no card; open models with robviz.load_model")
    return card


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's class and of every parameter and buffer, by name: which weights are these?"""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(model: nn.Module, card: Card, folder: Path) -> Path:
    """Write `<name>.safetensors`, floats as float16, and `<name>.json`; returns the path of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card.name}.safetensors"
    halved: dict[str, Tensor] = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(halved, path)
    card.save(path.with_suffix(".json"))
    return path


def load_model(name: str | Path, device: str | torch.device | None = None) -> nn.Module:
    """A trained model, frozen and in eval mode, with its `Card` as `.card`.

    name: one of `available()`, or the path of a `.safetensors` file with its card beside it, as `finetune` writes.
    device: where to put it; the CPU by default. The model maps images (B, 3, H, W) float RGB in [0, 1] to logits
    (B, K, H, W). Raises ValueError for an unknown name or a damaged file.
    """
    path = Path(name) if str(name).endswith(".safetensors") else shipped("checkpoints") / f"{name}.safetensors"
    if not path.is_file():
        raise ValueError(
            f"unknown model {str(name)!r}; choose from: {', '.join(available())}, or give a .safetensors path"
        )
    card = Card.load(path.with_suffix(".json"))
    model = build(card.architecture, len(card.classes))
    try:
        model.load_state_dict({key: value.float() for key, value in load_file(path).items()}, strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} does not hold a {card.architecture}: {reason}; fetch or train it again") from error
    model.card = card  # type: ignore[assignment]
    return model.eval().requires_grad_(False).to(device or "cpu")
