"""Architectures by name, and named checkpoints with their cards."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from robviz.downloads import cache_folder
from robviz.models import pspnet, segmenter, upernet
from robviz.models.adapters import adapt as adapt
from robviz.models.checkpoints import Keys, State, fill, listed, mismatches, renamed, state_of
from robviz.models.efficientnet import efficientnet_lite0, load_imagenet
from robviz.models.upernet import convnext
from robviz.records import replacing, write_atomically
from robviz.shipped import shipped


@dataclass(frozen=True)
class Architecture:
    """One row of `ARCHITECTURES`: the model of a number of classes, and how published checkpoints name its tensors."""

    build: Callable[[int], nn.Module]
    published_keys: Keys = ()
    load_imagenet: Callable[[Any], None] | None = None  # fills the backbone, for trainings to start from
    from_imagenet: Callable[[State], State] | None = None  # a published robust classifier to our backbone's tensors


#: To add an architecture, write its file and add its row.
ARCHITECTURES: dict[str, Architecture] = {
    "upernet-convnext-small-cvst": Architecture(partial(convnext, upernet.SMALL)),
    "upernet-efficientnet-lite0": Architecture(efficientnet_lite0, load_imagenet=load_imagenet),
    "upernet-convnext-t-cvst": Architecture(
        partial(convnext, upernet.TINY_512), upernet.PUBLISHED_KEYS, from_imagenet=upernet.from_imagenet
    ),
    "upernet-convnext-s-cvst": Architecture(
        partial(convnext, upernet.SMALL_512), upernet.PUBLISHED_KEYS, from_imagenet=upernet.from_imagenet
    ),
    "segmenter-vit-s": Architecture(
        segmenter.vit_small, segmenter.PUBLISHED_KEYS, from_imagenet=segmenter.from_imagenet
    ),
    "pspnet-50": Architecture(partial(pspnet.resnet50, "resnet50"), pspnet.PUBLISHED_KEYS),
    "pspnet-50-deepstem": Architecture(partial(pspnet.resnet50, "resnet50s"), pspnet.PUBLISHED_DEEPSTEM_KEYS),
}

#: The tensors that an ImageNet classifier has too; the norms after the stages are the segmenter's.
BACKBONE = re.compile(r"backbone\.(?!norms\.)")
#: What models that a user keeps are called, and how many there may be.
KEPT_NAME, MOST_KEPT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}"), 50
UNMISTAKABLE = 12347  # a number of classes that no tensor has as a side by chance


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
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

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


def kept_folder() -> Path:
    """Where the models lie that a user has trained and kept under a name."""
    return cache_folder() / "models"


def kept_models() -> list[str]:
    """Names of the models that this user has kept."""
    return sorted(path.stem for path in kept_folder().glob("*.safetensors") if path.with_suffix(".json").exists())


def keep_model(path: Path, name: str) -> Path:
    """Keep a checkpoint and its card under a name that `load_model` opens from now on; returns the path.

    Raises ValueError for a name that is taken or no name, and where there are too many already.
    """
    if not KEPT_NAME.fullmatch(name):
        raise ValueError(f"a name has 1 to 40 small letters, digits and dashes, such as my-model; got {name!r}")
    if name in available():
        raise ValueError(f"there is a model named {name!r} already; choose another name")
    if len(kept_models()) >= MOST_KEPT:
        raise ValueError(f"{MOST_KEPT} models are kept in {kept_folder()}; delete some of them first")
    target = kept_folder() / f"{name}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(path.read_bytes())
    replace(Card.load(path.with_suffix(".json")), name=name).save(target.with_suffix(".json"))
    return target


def available(offline: bool = False) -> list[str]:
    """Names that `load_model` opens: models shipped, kept by this user, and published, downloaded on first use.

    offline: only those that open without a download, being shipped or in the cache.
    """
    from robviz.models import published

    here = (name for name in published.CHECKPOINTS if not offline or published.is_here(name))
    return [*shipped_models(), *kept_models(), *here]


def build(architecture: str, num_classes: int) -> nn.Module:
    """A freshly initialised model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; choose from: {', '.join(ARCHITECTURES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    model = ARCHITECTURES[architecture].build(num_classes)
    model.architecture = architecture  # type: ignore[assignment]
    return model


def load_checkpoint(model: nn.Module, source: str | Path | State) -> nn.Module:
    """Fill a model that `build` made with a checkpoint, under its own keys or the published ones; returns the model.

    source: a path (`.safetensors`, or a `.pth` of tensors alone: code in it is never run) or a state dict. The
    dictionary may lie under "state_dict" or "model", its keys behind "module.". Strict: raises ValueError that names
    the first keys that are missing, unknown or of another shape, and what to build instead.
    """
    name, here = str(model.architecture), model.state_dict()

    def opened() -> State:
        return under_our_keys(state_of(source), name, here)

    if problems := mismatches(here, opened()):
        advice = what_fits(state_of(source), model)
        raise ValueError(f"the checkpoint does not hold a {name}: {listed(problems)}; {advice}")
    fill(here, opened)
    return model


def load_backbone(model: nn.Module, source: str | Path | State) -> nn.Module:
    """Fill the backbone of a model that `build` made with a robust ImageNet classifier (PIR-AT, paper, section 4).

    source: as for `load_checkpoint`. The classifier's head is left out, its normalisation goes into the first
    convolution. The rest of the model stays as it is. Strict: raises ValueError that names the first keys that are
    missing, unknown or of another shape. Returns the model.
    """
    name = str(model.architecture)
    convert = ARCHITECTURES[name].from_imagenet
    if convert is None:
        known = ", ".join(name for name, row in ARCHITECTURES.items() if row.from_imagenet)
        raise ValueError(f"no robust ImageNet backbone is published for {name}; choose from: {known}")
    state = convert(state_of(source))
    here = {key: value for key, value in model.state_dict().items() if BACKBONE.match(key)}
    if problems := mismatches(here, state):
        raise ValueError(f"the checkpoint does not hold an ImageNet backbone for {name}: {listed(problems)}")
    model.load_state_dict(state, strict=False)
    return model


def under_our_keys(state: State, architecture: str, here: State) -> State:
    """A published checkpoint under the keys of `here`, the state dict of such a model; one of ours as it is."""
    return state if state.keys() <= here.keys() else renamed(state, ARCHITECTURES[architecture].published_keys)


def what_fits(state: State, model: nn.Module) -> str:
    """What to do about a checkpoint that does not fit the model."""
    fitting = {name: classes for name in ARCHITECTURES if (classes := classes_in(state, name))}
    name = str(model.architecture)
    if name in fitting:
        here = classes_in(model.state_dict(), name)
        return f"it has {fitting[name]} classes, the model {here}: build it with num_classes={fitting[name]}"
    if fitting:
        other, classes = next(iter(fitting.items()))
        return f"it holds a {other} of {classes} classes: build({other!r}, {classes}) makes the model for it"
    if any(key.startswith("base_model.") for key in state):
        return "it looks like an ImageNet classifier: load_backbone takes those"
    return f"it holds none of {', '.join(ARCHITECTURES)}"


def classes_in(state: State, architecture: str) -> int | None:
    """The number of classes with which an architecture has exactly these tensors, if there is one."""
    with torch.device("meta"):
        here = build(architecture, UNMISTAKABLE).state_dict()
    state = under_our_keys(state, architecture, here)
    if state.keys() != here.keys():
        return None
    sides = {pair for key in here for pair in zip_longest(state[key].shape, here[key].shape)}
    classes = {side for side, wanted in sides if wanted == UNMISTAKABLE}
    fits = all(side == wanted or wanted == UNMISTAKABLE for side, wanted in sides)
    return classes.pop() if fits and len(classes) == 1 else None


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
    """Write `<name>.safetensors`, floats as float16, and `<name>.json`; returns the path of the weights.

    Each file is there whole or as it was. Raises OSError on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card.name}.safetensors"
    halved: dict[str, Tensor] = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    with replacing(path) as file:
        file.write(save(halved))
    card.save(path.with_suffix(".json"))
    return path


def path_of(name: str | Path) -> Path:
    """Where the weights of a model lie that needs no download. Raises ValueError for an unknown name."""
    folder = kept_folder() if name in kept_models() else shipped("checkpoints")
    path = Path(name) if str(name).endswith(".safetensors") else folder / f"{name}.safetensors"
    if not path.is_file():
        raise ValueError(
            f"unknown model {str(name)!r}; choose from: {', '.join(available())}, or give a .safetensors path"
        )
    return path


def card_named(name: str | Path) -> Card:
    """The card of what `load_model` opens under this name, without opening it."""
    from robviz.models import published

    return published.card(str(name)) if name in published.CHECKPOINTS else Card.load(path_of(name).with_suffix(".json"))


def load_model(name: str | Path, device: str | torch.device | None = None) -> nn.Module:
    """A trained model, frozen and in eval mode, with its `Card` as `.card`.

    name: one of `available()`, or the path of a `.safetensors` file with its card beside it, as `finetune` writes. A
    published model is downloaded on first use (`robviz.models.published.download`).
    device: where to put it; the CPU by default. The model maps images (B, 3, H, W) float RGB in [0, 1] to logits
    (B, K, H, W). Raises ValueError for an unknown name, a damaged file or a failed download.
    """
    from robviz.models import published

    path = published.download(str(name)) if name in published.CHECKPOINTS else path_of(name)
    card = card_named(name)
    model = build(card.architecture, len(card.classes))
    load_checkpoint(model, path)
    model.card = card  # type: ignore[assignment]
    return model.eval().requires_grad_(False).to(device or "cpu")
