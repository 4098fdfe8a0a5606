"""Conventions that every module shares: the void label, the labelled sample, the dataset, and the user's error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["VOID", "Dataset", "InputError", "Palette", "Sample"]

#: The label of unlabelled pixels, which never count in any loss, attack or metric.
VOID = -1
#: One RGB colour per class, in 0 .. 255.
Palette = Sequence[tuple[int, int, int]]


class InputError(ValueError):
    """Report a mistake that the user can correct: what was expected, what came, and what to do.

    The command line, the app and the notebooks turn this error, and no other, into one sentence. Any other exception is
    a fault of robviz and keeps its traceback.
    """


@dataclass(frozen=True)
class Sample:
    """Hold one labelled picture.

    Attributes:
        name: Unique within its dataset.
        image: (3, H, W) float32 RGB in [0, 1].
        labels: (H, W) int64 class indices, `VOID` for unlabelled pixels.
    """

    name: str
    image: torch.Tensor
    labels: torch.Tensor


class Dataset(ABC):
    """Define what a dataset offers: `len()`, `[i]` -> `Sample`, iteration, and the meaning of its labels.

    Attributes:
        name: The name that `load_dataset` knows, or that of the user's folder.
        split: The part of the dataset, such as `train` or `val`.
        classes: The name of each class.
        palette: The RGB colour of each class, in 0 .. 255.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def class_weights(self) -> torch.Tensor | None:
        """Return (K,) weights 1 / N_y for the balanced losses, or None if they are unknown.

        N_y is the number of pixels of class y in the training set.
        """
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))
