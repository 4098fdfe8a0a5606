"""Counts first, ratios last: every number is a quotient of integers summed over images.

What holds where nothing is labelled is decided here. The pixel accuracy of an image whose labels are all void is 1:
nothing in it is wrong, and nothing can be broken. Such an image takes no part in a mean over images, and a class that
is neither predicted nor labelled takes no part in a mean over classes. A mean of nothing is NaN.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from robviz.types import VOID, InputError


class Counts(NamedTuple):
    """Per-image pixel counts, int64; sum over images before taking a ratio."""

    intersection: Tensor  # (B, K): predicted and labelled as the class
    union: Tensor  # (B, K): predicted or labelled as the class
    correct: Tensor  # (B,)
    valid: Tensor  # (B,): pixels that are not void


def counts(predictions: Tensor, labels: Tensor, num_classes: int) -> Counts:
    """Count, per image, what accuracy and IoU are made of; void pixels take no part.

    predictions: (B, H, W) int64 in 0 .. K - 1. labels: (B, H, W) int64 in -1 (void) .. K - 1.
    Raises InputError when the shapes differ or a value is out of range.
    """
    if predictions.shape != labels.shape or labels.ndim != 3:
        raise InputError(
            f"expected predictions and labels of one shape (B, H, W), got {tuple(predictions.shape)} "
            f"and {tuple(labels.shape)}"
        )
    for what, values, lowest in (("predictions", predictions, 0), ("labels", labels, VOID)):
        if values.numel() and (values.min() < lowest or values.max() >= num_classes):
            raise InputError(
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


Array = TypeVar("Array", Tensor, np.ndarray)


def accuracy_per_image(correct: Tensor, valid: Tensor) -> Tensor:
    """Compute the pixel accuracy of each image from its counts.

    Args:
        correct: (...) pixels that are right. Counts in float64 give float64, int64 gives float32.
        valid: (...) pixels that are not void.

    Returns:
        (...) the ratios in [0, 1]; 1 for an image with void alone, which `worst_case_accuracy` leaves out of its mean.
    """
    return torch.where(valid > 0, correct / valid.clamp_min(1), 1.0)


def iou(intersection: Array, union: Array) -> Array:
    """Compute the intersection over union of counts, elementwise, in [0, 1].

    Args:
        intersection: (...) pixels predicted and labelled as a class. In torch, float64 gives float64, int64 float32.
        union: (...) pixels predicted or labelled as the class.

    Returns:
        (...) the ratios; 0 for a class that does not occur, which a mean leaves out (`union > 0`).
    """
    return intersection / union.clip(1)


def miou(intersection: Tensor, union: Tensor) -> float:
    """Mean IoU in [0, 1] of summed counts, both (K,), over the classes that occur; NaN where none does."""
    occurs = union > 0
    return iou(intersection[occurs].double(), union[occurs]).mean().item() if occurs.any() else float("nan")


def label_counts(labels: Tensor, num_classes: int) -> Tensor:
    """(B, K) int64: pixels labelled as each class."""
    return torch.stack([torch.bincount(y[y != VOID], minlength=num_classes) for y in labels])


def balanced_accuracy(intersection: Tensor, labelled: Tensor) -> float:
    """Mean over the labelled classes of the share of their pixels that are right, in [0, 1]; both summed, (K,).

    Bounds the mIoU from above (section 3.2).
    """
    occurs = labelled > 0
    return (intersection[occurs].double() / labelled[occurs]).mean().item() if occurs.any() else float("nan")


#: Objects below the first share of the image's pixels are small, from the second on large.
SIZE_EDGES = (0.01, 0.1)
SIZE_NAMES = ("small", "medium", "large")


def size_counts(predictions: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Intersection and union by the size of the labelled object, both (B, 3) int64: small, medium, large.

    An object is a connected region of one label. A pixel wrongly predicted as a class belongs to the nearest object
    of that class in the image, and to none where there is none. predictions, labels: (B, H, W).
    """
    intersection, union = (torch.zeros(len(labels), len(SIZE_NAMES), dtype=torch.int64) for _ in range(2))
    for i, (p, y) in enumerate(zip(predictions.cpu().numpy(), labels.cpu().numpy())):
        for k in np.unique(y[y != VOID]).tolist():
            objects, count = ndimage.label(y == k)
            nearest = ndimage.distance_transform_edt(objects == 0, return_distances=False, return_indices=True)
            said = (p == k) & (y != VOID)
            area = np.bincount(objects.ravel(), minlength=count + 1)[1:]
            hits = np.bincount(objects[said & (objects > 0)], minlength=count + 1)[1:]
            strays = np.bincount(objects[tuple(nearest)][said & (objects == 0)], minlength=count + 1)[1:]
            size = torch.from_numpy(np.digitize(area / y.size, SIZE_EDGES))
            intersection[i].index_add_(0, size, torch.from_numpy(hits))
            union[i].index_add_(0, size, torch.from_numpy(area + strays))
    return intersection, union


# ------------------------------------------------------------------------------------------ worst cases


class WorstAccuracy(NamedTuple):
    """Every image under the attack that leaves the fewest pixels right."""

    pooled: float  # over all pixels of all images
    mean: float  # of the images' accuracies: the paper's number
    choice: Tensor  # (N,) the attack of each image


def worst_case_accuracy(correct: Tensor, valid: Tensor) -> WorstAccuracy:
    """Lowest pixel accuracy that one attack an image can reach (section 3.6), in [0, 1].

    correct: (A, N) int64, right pixels of N images under A attacks. valid: (N,) int64. Of equal attacks the first
    counts. Images without a valid pixel take no part in the mean. Raises InputError for shapes that do not fit.
    """
    if correct.ndim != 2 or valid.shape != correct.shape[1:]:
        raise InputError(f"expected correct (A, N) and valid (N,), got {tuple(correct.shape)} and {tuple(valid.shape)}")
    least, choice = correct.min(0)
    counted = valid > 0
    if not counted.any():
        return WorstAccuracy(float("nan"), float("nan"), choice)
    pooled = accuracy_per_image(least.sum().double(), valid.sum())
    mean = accuracy_per_image(least[counted].double(), valid[counted]).mean()
    return WorstAccuracy(pooled.item(), mean.item(), choice)


class WorstCase(NamedTuple):
    """The choice of one attack an image that makes the mIoU of the whole set lowest, as far as found."""

    miou: float
    choice: Tensor  # (N,) the attack of each image


#: Random starting points of the search, beside each attack alone.
RANDOM_STARTS = 5


def mean_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """`miou` over the last axis, of many counts at once; 0 where no class occurs."""
    return iou(intersection, union).sum(-1) / (union > 0).sum(-1).clip(1)


def worst_case_miou(intersection: Tensor, union: Tensor, seed: int = 0) -> WorstCase:
    """Lowest mIoU that one attack an image can reach, by greedy search (section 3.6), in [0, 1].

    intersection, union: (A, N, C) int64 counts of N images under A attacks. One image's choice changes every class's
    ratio, so the exact minimum is a combinatorial problem. Visit the images in random order, give each the attack
    that makes the total lowest, and repeat until nothing changes. The total never rises, and the search starts from
    each attack alone among others, so the result is no higher than any of them. All starts advance side by side.
    Raises InputError for shapes that do not fit.
    """
    if intersection.ndim != 3 or intersection.shape != union.shape or 0 in intersection.shape:
        raise InputError(
            f"expected intersection and union of one shape (A, N, C), got {tuple(intersection.shape)} "
            f"and {tuple(union.shape)}"
        )
    attacks, images, _ = intersection.shape
    parts = np.stack([intersection.cpu().numpy(), union.cpu().numpy()]).transpose(2, 1, 0, 3)  # (N, A, 2, C)
    rng = np.random.default_rng(seed)
    alone = np.repeat(np.arange(attacks)[:, None], images, 1)
    choice = np.concatenate([alone, rng.integers(0, attacks, (RANDOM_STARTS, images))])  # (S, N)
    totals = parts[np.arange(images), choice].sum(1)  # (S, 2, C)
    starts = np.arange(len(choice))
    while True:
        before = choice.copy()
        for n in rng.permutation(images):
            candidates = (totals - parts[n, choice[:, n]])[:, None] + parts[n]  # (S, A, 2, C)
            values = mean_iou(candidates[:, :, 0], candidates[:, :, 1])
            best = values.argmin(1)
            better = values[starts, best] < values[starts, choice[:, n]]
            choice[better, n] = best[better]
            totals = candidates[starts, choice[:, n]]
        if np.array_equal(before, choice):
            break
    values = mean_iou(totals[:, 0], totals[:, 1])
    best = int(values.argmin())
    return WorstCase(float(values[best]), torch.from_numpy(choice[best]))
