"""Wrap a library's preprocessing, network and postprocessing as one differentiable module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.datasets.labels import read_table
from robviz.models.adapters import adapt, chosen_output
from robviz.models.card import Card, card_of
from robviz.models.layers import resize
from robviz.types import Dataset, Sample


@dataclass(frozen=True)
class Sides:
    """Describe how a picture is scaled for the network.

    Sides are rounded up to multiples of `multiple_of` by scaling.

    Attributes:
        shortest: The shorter side, in pixels.
        longest: The longer side is at most this.
        height: The height, whatever the shape of the picture.
        width: The width, whatever the shape of the picture.
    """

    shortest: int | None = None
    longest: int | None = None
    height: int | None = None
    width: int | None = None
    multiple_of: int = 1

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the size (H, W) that a picture of this size is scaled to."""
        if self.height is not None and self.width is not None:
            sides = [self.height, self.width]
        elif self.shortest is not None:
            short, long = sorted((height, width))
            shorter, longer = self.shortest, int(self.shortest * long / short)
            if self.longest is not None and longer > self.longest:
                shorter, longer = int(self.longest * shorter / longer), self.longest
            sides = [shorter, longer] if height <= width else [longer, shorter]
        else:
            sides = [height, width]
        rounded = [side + -side % self.multiple_of for side in sides]
        return rounded[0], rounded[1]


@dataclass(frozen=True)
class Preparation:
    """Describe the preprocessing of a picture, in the library's order."""

    mean: Sequence[float]
    std: Sequence[float]
    sides: Sides = Sides()
    mode: str = "bilinear"  # of the scaling, as torch.nn.functional.interpolate names it
    padded_to: int = 1  # sides are padded to multiples of this, with the mean colour
    is_bgr: bool = False


#: From a module's output to scores (B, K, h, w) at any resolution.
Scores = Callable[[Any], Tensor]


def as_they_are(scores: Tensor) -> Tensor:
    """Return scores that are logits already."""
    return scores


def logarithm(scores: Tensor) -> Tensor:
    """Turn scores of at least 0 into logits whose softmax is the scores, divided by their sum."""
    return scores.clamp_min(1e-6).log()


class Pipeline(nn.Module):
    """Map images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), as the library would."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        preparation: Preparation,
        scores: Scores = lambda answer: chosen_output(answer, None),
        to_logits: Callable[[Tensor], Tensor] = as_they_are,
    ) -> None:
        """Wrap a module. scores: selects them from its result. to_logits: applied at the picture's resolution."""
        super().__init__()
        self.module, self.preparation = module, preparation
        self.register_buffer("mean", torch.tensor(tuple(preparation.mean), dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(preparation.std), dtype=torch.float32).view(1, 3, 1, 1))
        self.scores, self.to_logits = scores, to_logits

    def prepared(self, images: Tensor) -> Tensor:
        """Return the input of the network, before it is padded."""
        sides, x = self.preparation.sides.of(*images.shape[2:]), images
        if self.preparation.is_bgr:
            x = x.flip(1)
        if tuple(sides) != tuple(x.shape[2:]):
            x = F.interpolate(x, sides, mode=self.preparation.mode, align_corners=False, antialias=True)
        return (x - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for images (B, 3, H, W) in [0, 1]."""
        x = self.prepared(images)
        height, width = x.shape[2:]
        multiple = self.preparation.padded_to
        padded = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        scores = self.scores(self.module(padded))
        if padded.shape != x.shape:
            scores = scores if scores.shape[2:] == padded.shape[2:] else resize(scores, padded.shape[2:])
            scores = scores[:, :, :height, :width]
        if scores.shape[2:] != images.shape[2:]:
            scores = resize(scores, images.shape[2:])
        return self.to_logits(scores)


#: What is wrong with weights that pickle more than tensors.
HOLDS_CODE = "its weights hold more than tensors, and code is never run; save them as safetensors"


class Meaning(Dataset):
    """Name, classes and colours of a published dataset, without its pictures, which need not be on this machine."""

    split = "none"

    def __init__(self, name: str) -> None:
        self.name, table = name, read_table(name)
        self.classes, self.palette = table["classes"], table["palette"]

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Sample:
        raise IndexError(index)


#: Published datasets whose classes a model may predict.
KNOWN = ("voc", "ade20k", "camvid")
#: The share of the class names that must agree, in order: libraries shorten some.
ENOUGH = 0.9


def plain(name: str) -> str:
    """Return a class name without the parts that libraries write in different ways."""
    return "".join(letter for letter in name.split(",")[0].split(";")[0].lower() if letter.isalnum())


def recognised(classes: Sequence[str]) -> tuple[Meaning, dict[str | int, str | int]] | None:
    """Return the published dataset that has these classes, in its order, and the class map to it.

    ADE20K models often leave out its background: their first class is then its second.
    """
    for name in KNOWN:
        meaning = Meaning(name)
        for offset in (0, 1):
            theirs = meaning.classes[offset:]
            if len(theirs) != len(classes):
                continue
            equal = sum(plain(a) == plain(b) for a, b in zip(classes, theirs))
            if equal >= ENOUGH * len(classes):
                return meaning, {i: i + offset for i in range(len(classes))}
    return None


def carded(pipeline: Pipeline, classes: Sequence[str], name: str, source: str, **facts: Any) -> nn.Module:
    """Give a pipeline a card, as robviz's models have. facts: other fields of the card."""
    found = recognised(classes)
    onto: dict[str, Any] = {"dataset": found[0], "class_map": found[1]} if found else {}
    model = adapt(pipeline, classes, mean=(0, 0, 0), std=(1, 1, 1), name=name, **onto)
    card: Card = replace(card_of(model), source=source, architecture=type(pipeline.module).__name__, **facts)
    model.card = card  # type: ignore[assignment]
    return model.eval().requires_grad_(False)
