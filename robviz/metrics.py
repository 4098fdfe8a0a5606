"""Counts first, ratios last: every number is a quotient of integers summed over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robviz.types import VOID


class Counts(NamedTuple):
    """Per-image pixel counts, int64; sum over images before taking a ratio."""

    intersection: Tensor  # (B, K): predicted and labelled as the class
    union: Tensor  # (B, K): predicted or labelled as the class
    correct: Tensor  # (B,)
    valid: Tensor  # (B,): pixels that are not void


def counts(predictions: Tensor, labels: Tensor, num_classes: int) -> Counts:
    """Count, per image, what accuracy and IoU are made of; void pixels take no part.

    predictions: (B, H, W) int64 in 0 .. K - 1. labels: (B, H, W) int64 in -1 (void) .. K - 1.
    Raises ValueError when the shapes differ or a value is out of range.
    """
    if predictions.shape != labels.shape or labels.ndim != 3:
        raise ValueError(
            f"expected predictions and labels of one shape (B, H, W), got {tuple(predictions.shape)} "
            f"and {tuple(labels.shape)}"
        )
    for what, values, lowest in (("predictions", predictions, 0), ("labels", labels, VOID)):
        if values.numel() and (values.min() < lowest or values.max() >= num_classes):
            raise ValueError(
                f"{what} must lie in {lowest} .. {num_classes - 1}, "
                f"got {int(values.min())} .. {int(values.max())}; check num_classes and the void index"
            )
    batch, is_valid = len(labels), labels != VOID
    image = torch.arange(batch, device=labels.device).view(-1, 1, 1).expand_as(labels)[is_valid]
    p, y = predictions[is_valid], labels[is_valid]
    confusion = torch.bincount((image * num_classes + y) * num_classes + p, minlength=batch * num_classes**2)
    confusion = confusion.view(batch, num_classes, num_classes)
    intersection = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - intersection
    return Counts(intersection, union, intersection.sum(1), is_valid.flatten(1).sum(1))


def miou(intersection: Tensor, union: Tensor) -> float:
    """Mean IoU in [0, 1] of summed counts, both (K,), over the classes that occur in labels or predictions."""
    occurs = union > 0
    return (intersection[occurs].double() / union[occurs]).mean().item() if occurs.any() else float("nan")


def pixel_accuracy(correct: Tensor, valid: Tensor) -> Tensor:
    """Share of the valid pixels that are correct, elementwise; 1 where there is none, as nothing can be broken."""
    return torch.where(valid > 0, correct / valid.clamp_min(1), torch.ones_like(correct, dtype=torch.float32))
