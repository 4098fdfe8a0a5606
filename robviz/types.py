"""Conventions every module shares: what void is, and the record a dataset yields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Label of pixels nobody can name: never counted, for or against, in any loss, attack or metric.
VOID = -1
#: RGB in 0 .. 255, one of each class.
Palette = Sequence[tuple[int, int, int]]


class InputError(ValueError):
    """Raise for what a user can mend: the message says what was expected, what came and what to do.

    The command line, the app and the notebooks turn this error, and no other, into one sentence. Any other exception
    is a fault of robviz and keeps its traceback.
    """


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    name: unique within its dataset. image: (3, H, W) float32 RGB in [0, 1].
    labels: (H, W) int64 class indices, `VOID` where there is none.
    """

    name: str
    image: torch.Tensor
    labels: torch.Tensor


class Dataset(ABC):
    """len(), [i] -> Sample, iteration, and what the labels mean."""

    name: str
    split: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def class_weights(self) -> torch.Tensor | None:
        """(K,) 1 / N_y, N_y the pixels of class y in the training set, for the balanced losses; None if unknown."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))
