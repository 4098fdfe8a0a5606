"""Attack the mIoU of a whole set, one block of images after the other: robviz's own method (`docs/strength.md`).

The mIoU of a set is the mean over classes of I_c / U_c, both summed over all images. To first order, a pixel labelled y
that is predicted as j instead takes 1 / U_y from the IoU of its own class, and I_j / U_j^2 from that of the class it
enters, whose union it enlarges. `expected-miou` therefore weights pixels by the current state of the set: the images of
a block by the state after the previous block. Each image keeps the point that leaves the set with the lowest mIoU.

A class that does not occur in the labels of the set has weight 0 and does not count in this mean: predicting classes
that are not there is no success.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robviz.metrics import counts


def blocks_of(count: int, blocks: int) -> list[list[int]]:
    """Distribute the image numbers 0 .. count - 1 in turn over at most this many blocks; none is empty."""
    return [list(range(first, count, blocks)) for first in range(min(blocks, count))]


def labelled_miou(intersection: Tensor, union: Tensor, is_labelled: Tensor) -> Tensor:
    """Compute the mean IoU over the labelled classes.

    Args:
        intersection: (..., K) counts.
        union: (..., K) counts.
        is_labelled: (K,) bool.

    Returns:
        (...) float64 in [0, 1].
    """
    shares = intersection.double() / union.clamp_min(1) * is_labelled
    return shares.sum(-1) / is_labelled.sum().clamp_min(1)


@dataclass(frozen=True)
class SetState:
    """Store the counts of a set of images, with one prediction per image.

    Attributes:
        intersection: (N, K) int64.
        union: (N, K) int64.
        is_labelled: (K,) bool, the classes that occur in the labels of the set.
    """

    intersection: Tensor
    union: Tensor
    is_labelled: Tensor

    @property
    def miou(self) -> float:
        """Return the mean IoU of the set over its labelled classes."""
        return labelled_miou(self.intersection.sum(0), self.union.sum(0), self.is_labelled).item()

    def worths(self) -> Tensor:
        """Return (2, K) float32: how much the mIoU falls if a pixel leaves each class, and if one enters it.

        They are 1 / U_j and I_j / U_j^2, 0 for classes without a label, scaled to a largest value of 1.
        """
        intersection, union = self.intersection.sum(0).double(), self.union.sum(0).clamp_min(1).double()
        worths = torch.stack([1 / union, intersection / union**2]) * self.is_labelled
        largest = worths.max()
        return (worths / largest.where(largest > 0, 1)).float()

    def adopted(self, index: int, intersection: Tensor, union: Tensor) -> SetState:
        """Return the state with other counts (K,) of one image if they make the mIoU no higher, else the same state."""
        one, two = self.intersection.clone(), self.union.clone()
        one[index], two[index] = intersection, union
        changed = replace(self, intersection=one, union=two)
        return changed if changed.miou <= self.miou else self

    def judge(self, indices: list[int], device: torch.device) -> LeftOfSet:
        """Return a judge that rates other predictions of each of these images by the mIoU that the set would have."""
        others = [part.sum(0) - part[indices] for part in (self.intersection, self.union)]
        return LeftOfSet(others[0].to(device), others[1].to(device), self.is_labelled.to(device))


@dataclass(frozen=True)
class LeftOfSet:
    """Judge predictions of single images by the mIoU of the set, with all other images unchanged.

    Attributes:
        intersection: (B, K) int64, the counts of all others.
        union: (B, K) int64, the counts of all others.
    """

    intersection: Tensor
    union: Tensor
    is_labelled: Tensor

    def __call__(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Map predictions and labels, (B, H, W) each, to (B,) float64 in [0, 1]."""
        here = counts(predictions, labels, len(self.is_labelled))
        return labelled_miou(self.intersection + here.intersection, self.union + here.union, self.is_labelled)

    def rows(self, keep: list[int]) -> LeftOfSet:
        """Return the same judge for some of the images."""
        return replace(self, intersection=self.intersection[keep], union=self.union[keep])
