"""Counts first, ratios last: every figure is a quotient of integers that are summed over images."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import scipy
import torch
from torch import Tensor

from robviz.types import VOID, InputError

__all__ = [
    "Counts",
    "WorstAccuracy",
    "WorstCase",
    "accuracy_per_image",
    "balanced_accuracy",
    "confusions",
    "counts",
    "iou",
    "label_counts",
    "mean_iou",
    "miou",
    "size_counts",
    "worst_case_accuracy",
    "worst_case_miou",
]


class Counts(NamedTuple):
    """Store the pixel counts of each image, int64; sum them over images before taking a ratio."""

    intersection: Tensor  # (B, K): predicted and labelled as the class
    union: Tensor  # (B, K): predicted or labelled as the class
    correct: Tensor  # (B,)
    valid: Tensor  # (B,): pixels that are not void


def confusions(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each image by label and prediction; void pixels do not count.

    Args:
        predictions: (B, H, W) int64 in 0 .. K - 1.
        labels: (B, H, W) int64 in -1 (void) .. K - 1.
        num_classes: K.

    Returns:
        (B, K, K) int64; the row is the label, the column the prediction.

    Raises:
        InputError: If the shapes differ or a value is out of range.
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
    pixels = torch.bincount((image * num_classes + y) * num_classes + p, minlength=batch * num_classes**2)
    return pixels.view(batch, num_classes, num_classes)


def counts(predictions: Tensor, labels: Tensor, num_classes: int) -> Counts:
    """Count the pixels of each image from which accuracy and IoU are computed; void pixels do not count.

    Args:
        predictions: (B, H, W) int64 in 0 .. K - 1.
        labels: (B, H, W) int64 in -1 (void) .. K - 1.
        num_classes: K.

    Returns:
        Intersection and union (B, K), correct and valid pixels (B,).

    Raises:
        InputError: If the shapes differ or a value is out of range.
    """
    confusion = confusions(predictions, labels, num_classes)
    intersection = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - intersection
    return Counts(intersection, union, intersection.sum(1), (labels != VOID).flatten(1).sum(1))


Array = TypeVar("Array", Tensor, np.ndarray)


def accuracy_per_image(correct: Tensor, valid: Tensor) -> Tensor:
    """Compute the pixel accuracy of each image from its counts.

    Args:
        correct: (...) pixels that are predicted correctly. Counts in float64 give float64, int64 gives float32.
        valid: (...) pixels that are not void.

    Returns:
        (...) the ratios in [0, 1]; 1 for an image of void pixels only, which `worst_case_accuracy` leaves out of its
        mean.
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
    result: Array = intersection / union.clip(1)
    return result


def miou(intersection: Tensor, union: Tensor) -> float:
    """Compute the mean IoU over the classes that occur in labels or predictions.

    Args:
        intersection: (K,), summed over images.
        union: (K,), summed over images.

    Returns:
        The mIoU in [0, 1]; NaN if no class occurs.
    """
    occurs = union > 0
    return iou(intersection[occurs].double(), union[occurs]).mean().item() if occurs.any() else float("nan")


def label_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each class in the labels.

    Args:
        labels: (B, H, W) int64 in -1 (void) .. K - 1.
        num_classes: K.

    Returns:
        (B, K) int64.
    """
    return torch.stack([torch.bincount(y[y != VOID], minlength=num_classes) for y in labels])


def balanced_accuracy(intersection: Tensor, labelled: Tensor) -> float:
    """Compute the mean over the labelled classes of the share of their pixels that are correct.

    It bounds the mIoU from above (section 3.2).

    Args:
        intersection: (K,), summed over images.
        labelled: (K,) labelled pixels, summed over images.

    Returns:
        The balanced accuracy in [0, 1]; NaN if nothing is labelled.
    """
    occurs = labelled > 0
    return (intersection[occurs].double() / labelled[occurs]).mean().item() if occurs.any() else float("nan")


#: Objects below the first share of the image's pixels are small; from the second share on they are large.
SIZE_EDGES = (0.01, 0.1)
SIZE_NAMES = ("small", "medium", "large")


def size_counts(predictions: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Count intersection and union by the size of the labelled object.

    An object is a connected region of one label. A pixel that is wrongly predicted as a class belongs to the nearest
    object of that class in the image, and to no object if there is none.

    Args:
        predictions: (B, H, W) int64.
        labels: (B, H, W) int64.
        num_classes: K.

    Returns:
        Intersection and union, both (B, 3) int64, for small, medium and large objects.
    """
    intersection, union = (torch.zeros(len(labels), len(SIZE_NAMES), dtype=torch.int64) for _ in range(2))
    for i, (p, y) in enumerate(zip(predictions.cpu().numpy(), labels.cpu().numpy())):
        for k in np.unique(y[y != VOID]).tolist():
            objects, count = scipy.ndimage.label(y == k)
            nearest = scipy.ndimage.distance_transform_edt(objects == 0, return_distances=False, return_indices=True)
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
    """Store the pixel accuracy of every image under its worst attack."""

    pooled: float  # over all pixels of all images
    mean: float  # of the images' accuracies: the paper's number
    choice: Tensor  # (N,) the attack of each image


def worst_case_accuracy(correct: Tensor, valid: Tensor) -> WorstAccuracy:
    """Compute the lowest pixel accuracy that one attack per image can reach (section 3.6).

    Args:
        correct: (A, N) int64, correct pixels of N images under A attacks.
        valid: (N,) int64, pixels that are not void.

    Returns:
        Accuracies in [0, 1] and the chosen attacks. Among equally strong attacks, the first is chosen. Images without a
            valid pixel do not count in the mean.

    Raises:
        InputError: For shapes that do not fit together.
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
    """Store the choice of one attack per image that gives the lowest mIoU found for the whole set."""

    miou: float
    choice: Tensor  # (N,) the attack of each image


#: Random starting points of the search, in addition to each attack alone.
RANDOM_STARTS = 5


def mean_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Compute `miou` over the last axis of many counts at once; 0 where no class occurs.

    Args:
        intersection: (..., K) counts.
        union: (..., K) counts.

    Returns:
        (...) in [0, 1].
    """
    result: np.ndarray = iou(intersection, union).sum(-1) / (union > 0).sum(-1).clip(1)
    return result


def worst_case_miou(intersection: Tensor, union: Tensor, seed: int = 0) -> WorstCase:
    """Search for the lowest mIoU that one attack per image can reach (section 3.6).

    The choice for one image changes the ratio of every class, so the exact minimum is a combinatorial problem. The
    greedy search visits the images in random order, gives each the attack that makes the total lowest, and repeats
    until nothing changes. The total never rises, and each attack alone is among the starting points, so the result is
    no higher than any single attack.

    Args:
        intersection: (A, N, C) int64, counts of N images under A attacks.
        union: (A, N, C) int64.
        seed: The seed of the random orders and starting points.

    Returns:
        The mIoU in [0, 1] and the chosen attacks.

    Raises:
        InputError: For shapes that do not fit together.
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
