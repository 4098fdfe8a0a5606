"""Build architectures by name, and load checkpoints under their own or the published keys.

timm is imported where a model is built: with torchvision, which it imports, it takes as long as torch itself.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robviz.models import from_timm, pspnet, segmenter, upernet
from robviz.models.checkpoints import (
    Keys,
    State,
    chosen_state,
    fill_tensors,
    first_few,
    mismatches,
    renamed,
    state_of,
    with_counters,
)
from robviz.models.efficientnet import efficientnet_lite0, load_imagenet
from robviz.models.upernet import convnext
from robviz.types import InputError


@dataclass(frozen=True)
class Architecture:
    """Describe one row of `ARCHITECTURES`: how to build the model, and how published checkpoints name its tensors."""

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
PLACEHOLDER_CLASSES = 12347  # a number of classes that occurs as no other side of a tensor


def architecture_of(name: str) -> Architecture:
    """Return the row of an architecture.

    Args:
        name: A key of `ARCHITECTURES`, or `upernet/<a backbone of timm>`.

    Returns:
        The row.

    Raises:
        InputError: For an unknown name.
    """
    if found := from_timm.parts(name):
        return Architecture(found[0], load_imagenet=found[1])
    if name not in ARCHITECTURES:
        raise InputError(
            f"unknown architecture {name!r}; choose from: {', '.join(ARCHITECTURES)}, or {from_timm.PREFIX}<backbone> "
            "with one of timm's, such as upernet/resnet18"
        )
    return ARCHITECTURES[name]


def build(architecture: str, num_classes: int) -> nn.Module:
    """Build a model with fresh weights.

    Args:
        architecture: A key of `ARCHITECTURES`.
        num_classes: K, at least 2.

    Returns:
        A module from images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).

    Raises:
        InputError: For an unknown architecture or too few classes.
    """
    row = architecture_of(architecture)
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}")
    model = row.build(num_classes)
    model.architecture = architecture  # type: ignore[assignment]
    return model


def load_checkpoint(model: nn.Module, source: str | Path | State, averaged: bool | None = None) -> nn.Module:
    """Fill a model that `build` made with a checkpoint, under its own keys or the published ones.

    The loading is strict, except that counters of batch norm may be missing.

    Args:
        model: A model that `build` made.
        source: A path (`.safetensors`, or a `.pth` of tensors alone; code in it is never executed) or a state dict. The
            dictionary may lie under "state_dict", "model" and the like, and its keys may have the prefixes of
            DataParallel, torch.compile, Lightning or AveragedModel.
        averaged: Take the running average of the weights if a checkpoint has both, or the raw weights; if None, a
            warning says which weights were taken.

    Returns:
        The same model.

    Raises:
        InputError: If keys are missing, unknown or of another shape; the message names the first, and what to build
            instead.
    """
    name, here = str(model.architecture), model.state_dict()

    def opened() -> State:
        return with_counters(under_our_keys(state_of(source, averaged), name, here), here)

    state, told = chosen_state(source, averaged)
    if told is not None:
        warnings.warn(told, stacklevel=2)
    if problems := mismatches(here, with_counters(under_our_keys(state, name, here), here)):
        advice = what_fits(state, model)
        raise InputError(f"the checkpoint does not fit {name}: {first_few(problems)}; {advice}")
    del state  # closes the file
    fill_tensors(here, opened)
    return model


def load_backbone(model: nn.Module, source: str | Path | State) -> nn.Module:
    """Fill the backbone of a model that `build` made with a robust ImageNet classifier (PIR-AT, paper, section 4).

    The head of the classifier is left out, and its normalisation becomes part of the first convolution. The rest of the
    model does not change.

    Args:
        model: A model that `build` made.
        source: A path or a state dict, as for `load_checkpoint`.

    Returns:
        The same model.

    Raises:
        InputError: If keys are missing, unknown or of another shape (the message names the first), or if no robust
            backbone is published for the architecture.
    """
    name = str(model.architecture)
    convert = architecture_of(name).from_imagenet
    if convert is None:
        known = ", ".join(name for name, row in ARCHITECTURES.items() if row.from_imagenet)
        raise InputError(f"no robust ImageNet backbone is published for {name}; choose from: {known}")
    state = convert(state_of(source))
    here = {key: value for key, value in model.state_dict().items() if BACKBONE.match(key)}
    if problems := mismatches(here, state):
        raise InputError(f"the checkpoint has no ImageNet backbone for {name}: {first_few(problems)}")
    model.load_state_dict(state, strict=False)
    return model


def under_our_keys(state: State, architecture: str, here: State) -> State:
    """Rename a published checkpoint to the keys of `here`, the state dict of such a model; our own keys stay."""
    return state if state.keys() <= here.keys() else renamed(state, architecture_of(architecture).published_keys)


def architectures_of(state: State) -> dict[str, int]:
    """Return the rows of `ARCHITECTURES` that have exactly the tensors of a state, each with its number of classes."""
    return {name: classes for name in ARCHITECTURES if (classes := classes_in(state, name))}


def what_fits(state: State, model: nn.Module) -> str:
    """Give advice about a checkpoint that does not fit the model."""
    fitting, name = architectures_of(state), str(model.architecture)
    if name in fitting:
        here = classes_in(model.state_dict(), name)
        return f"it has {fitting[name]} classes, the model {here}: build it with num_classes={fitting[name]}"
    if fitting:
        other, classes = next(iter(fitting.items()))
        return f"it is a {other} of {classes} classes: build({other!r}, {classes}) builds the model for it"
    if any(key.startswith("base_model.") for key in state):
        return "it looks like an ImageNet classifier: load it with load_backbone"
    return f"it matches none of {', '.join(ARCHITECTURES)}"


def classes_in(state: State, architecture: str) -> int | None:
    """Return the number of classes for which an architecture has exactly these tensors, or None."""
    with torch.device("meta"):
        here = build(architecture, PLACEHOLDER_CLASSES).state_dict()
    state = with_counters(under_our_keys(state, architecture, here), here)
    if state.keys() != here.keys():
        return None
    sides = {pair for key in here for pair in zip_longest(state[key].shape, here[key].shape)}
    classes = {side for side, wanted in sides if wanted == PLACEHOLDER_CLASSES}
    fits = all(side == wanted or wanted == PLACEHOLDER_CLASSES for side, wanted in sides)
    return classes.pop() if fits and len(classes) == 1 else None
