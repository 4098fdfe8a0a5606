"""Check the output of a model, and name the argument of `adapt` that helps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from robviz.types import InputError

ADAPT = "robviz.models.adapt(model, classes, mean=..., std=..."


def told(answer: Any) -> str:
    """Describe an output in a few words."""
    if isinstance(answer, Tensor):
        return f"{answer.dtype} {tuple(answer.shape)}"
    inside = f" of {', '.join(map(repr, answer))}" if isinstance(answer, Mapping) else ""
    return f"a {type(answer).__name__}{inside}"


def advice_for(answer: Any) -> str:
    """Name the argument of `adapt` that selects the logits from a different kind of output."""
    if isinstance(answer, Mapping):
        key = next((key for key in ("logits", "out") if key in answer), next(iter(answer), "out"))
        return f"{ADAPT}, output={key!r}) takes them out"
    if isinstance(answer, (tuple, list)):
        return f"{ADAPT}, output=0) takes the first"
    if isinstance(answer, Tensor) and not answer.is_floating_point():
        return "return the scores of the classes, before the argmax"
    return f"{ADAPT}, output=lambda answer: ...) selects them"


def logits_of(answer: Any, images: Tensor, num_classes: int | None = None) -> Tensor:
    """Return a model's output as logits, in float32 or wider so that no sum over pixels overflows.

    Args:
        answer: What the model returned.
        images: (B, 3, H, W), the images that it was given.
        num_classes: The expected number of classes; None accepts any number from 2 on.

    Returns:
        (B, K, H, W).

    Raises:
        InputError: If it returned anything else. The message names the argument of `adapt` that helps.
    """
    batch, (height, width) = len(images), images.shape[2:]
    if not (isinstance(answer, Tensor) and answer.is_floating_point()):
        raise InputError(
            f"the model must return logits, a float tensor (B, K, H, W), got {told(answer)}; {advice_for(answer)}"
        )
    if answer.ndim != 4 or len(answer) != batch or answer.shape[2:] != images.shape[2:]:
        raise InputError(
            f"the model must return logits (B, K, H, W) at the images' resolution, ({batch}, K, {height}, {width}), "
            f"got {tuple(answer.shape)}; {ADAPT}) brings logits of another size to the picture's"
        )
    channels = answer.shape[1]
    if channels == 1:
        raise InputError(
            "the model returned one channel, in which the largest is always class 0 and nothing can break; expected a "
            f'channel for each class: {ADAPT}, output="binary") makes two of one logit for the foreground'
        )
    if num_classes is not None and channels != num_classes:
        raise InputError(
            f"the model returned {channels} channels for {num_classes} classes; expected one for each: {ADAPT}, "
            "dataset=..., class_map=..., void_index=...) brings its classes to the dataset's"
        )
    return answer if answer.dtype == torch.float64 else answer.float()


def answer_of(model: nn.Module, images: Tensor) -> Any:
    """Run a model. Raises InputError if its weights and the images differ in precision."""
    try:
        return model(images)
    except RuntimeError as error:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), images.dtype)
        if dtype == images.dtype:
            raise
        raise InputError(
            f"the model failed on images of {images.dtype}, as its weights are {dtype}; expected the same for both: "
            f"use model.to({images.dtype}) or images.to({dtype})"
        ) from error


def require_normal(model: nn.Module) -> None:
    """Raise InputError if a model was made in `torch.inference_mode`, so that no gradient can pass through it."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        raise InputError(
            "the model's weights were made in torch.inference_mode(), where no gradient passes; expected a model made "
            "or loaded outside of it: leave that block before, or use torch.no_grad() there instead"
        )
