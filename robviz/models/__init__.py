"""Architectures by name, and named checkpoints with their cards."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robviz.models import upernet
from robviz.models.adapters import adapt as adapt
from robviz.models.efficientnet import efficientnet_lite0, load_imagenet
from robviz.models.upernet import convnext
from robviz.shipped import shipped


@dataclass(frozen=True)
class Architecture:
    """One row of `ARCHITECTURES`: the model of a number of classes, and how published checkpoints name its tensors."""

    build: Callable[[int], nn.Module]
    published_keys: tuple[tuple[str, str], ...] = ()  # pattern and replacement, in turn
    load_imagenet: Callable[[Any], None] | None = None  # fills the backbone, for trainings to start from


#: To add an architecture, write its file and add its row.
ARCHITECTURES: dict[str, Architecture] = {
    "upernet-convnext-small-cvst": Architecture(partial(convnext, upernet.SMALL)),
    "upernet-efficientnet-lite0": Architecture(efficientnet_lite0, load_imagenet=load_imagenet),
    "upernet-convnext-t-cvst": Architecture(partial(convnext, upernet.TINY_512), upernet.PUBLISHED_KEYS),
    "upernet-convnext-s-cvst": Architecture(partial(convnext, upernet.SMALL_512), upernet.PUBLISHED_KEYS),
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


def shipped_models() -> list[str]:
    """Names of the checkpoints that are part of the installation."""
    return sorted(path.stem for path in shipped("checkpoints").glob("*.safetensors"))


def available(offline: bool = False) -> list[str]:
    """Names that `load_model` opens: the shipped models, then the published ones, downloaded on first use.

    offline: only those that open without a download, being shipped or in the cache.
    """
    from robviz.models import published

    return [*shipped_models(), *(name for name in published.CHECKPOINTS if not offline or published.is_here(name))]


def build(architecture: str, num_classes: int) -> nn.Module:
    """A freshly initialised model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; choose from: {', '.join(ARCHITECTURES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    model = ARCHITECTURES[architecture].build(num_classes)
    model.architecture = architecture  # type: ignore[assignment]
    return model


def load_checkpoint(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Fill a model that `build` made with a checkpoint, under its own keys or the published ones; returns the model.

    source: a path (`.safetensors`, or a `.pth` of tensors alone: code in it is never run) or a state dict. The
    dictionary may lie under "state_dict" or "model", its keys behind "module.". Strict: raises ValueError that names
    the first keys that are missing, unknown or of another shape.
    """
    architecture = ARCHITECTURES[str(model.architecture)]
    state: Any = source if isinstance(source, Mapping) else read_tensors(Path(source))
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if not state.keys() <= model.state_dict().keys():
        for pattern, replacement in architecture.published_keys:
            state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    here = model.state_dict()
    problems = [
        *(f"{key} is missing" for key in here.keys() - state.keys()),
        *(f"{key} is unknown" for key in state.keys() - here.keys()),
        *(
            f"{key} is {tuple(state[key].shape)} instead of {tuple(here[key].shape)}"
            for key in here.keys() & state.keys()
            if state[key].shape != here[key].shape
        ),
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3])
        raise ValueError(f"the checkpoint does not hold a {model.architecture}: {shown} ({len(problems)} in all)")
    model.load_state_dict(state)
    return model


def read_tensors(path: Path) -> Any:
    """The tensors of a checkpoint file. Raises ValueError when it holds anything else."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is not a checkpoint of tensors alone: {str(error).splitlines()[0]}") from error


def card_of(model: nn.Module) -> Card:
    """The card of a model that `load_model` opened or `adapt` made."""
    card = getattr(model, "card", None)
    if not isinstance(card, Card):
        raise TypeError(f"{type(model).__name__} has no card; use robviz.load_model or robviz.models.adapt")
    return card


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's class and of every parameter and buffer, by name: which weights are these?

    What else decides its answers, such as the code of a function behind `adapt`, is not in it.
    """
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

    name: one of `available()`, or the path of a `.safetensors` file with its card beside it, as `finetune` writes. A
    published model is downloaded on first use (`robviz.models.published.download`).
    device: where to put it; the CPU by default. The model maps images (B, 3, H, W) float RGB in [0, 1] to logits
    (B, K, H, W). Raises ValueError for an unknown name, a damaged file or a failed download.
    """
    from robviz.models import published

    if name in published.CHECKPOINTS:
        path, card = published.download(str(name)), published.card(str(name))
    else:
        path = Path(name) if str(name).endswith(".safetensors") else shipped("checkpoints") / f"{name}.safetensors"
        if not path.is_file():
            raise ValueError(
                f"unknown model {str(name)!r}; choose from: {', '.join(available())}, or give a .safetensors path"
            )
        card = Card.load(path.with_suffix(".json"))
    model = build(card.architecture, len(card.classes))
    load_checkpoint(model, path)
    model.card = card  # type: ignore[assignment]
    return model.eval().requires_grad_(False).to(device or "cpu")
