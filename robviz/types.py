"""Define the conventions that every module shares: the void label, the sample, the dataset, and the user's error."""

from __future__ import annotations

import math
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
    a bug in robviz and keeps its traceback.
    """


def check_number(name: str, value: object, low: float, high: float = math.inf, unit: str = "") -> None:
    """Raise InputError unless a value is a finite number within low .. high."""
    limits = f"at least {low:g}" if high == math.inf else f"within {low:g} .. {high:g}"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high and abs(value) < math.inf):  # type: ignore[operator, arg-type]
        raise InputError(f"{name} must be a number {limits}{unit}, got {value!r}")


def check_whole(name: str, value: object, low: int = 0) -> None:
    """Raise InputError unless a value is a whole number of at least low."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, got {value!r}")
    if value < low:
        raise InputError(f"{name} must be at least {low}, got {value}")


def check_radius(name: str, value: object) -> None:
    """Raise InputError unless a value is a radius in [0, 1] pixel units."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= 1):  # type: ignore[operator]  # NaN is in no range
        meant = f"; did you mean {value:g}/255?" if is_number and 1 < value <= 255 else ""  # type: ignore[operator]
        raise InputError(f"{name} must lie in [0, 1] (pixel units: 4 / 255 for four levels), got {value!r}{meant}")


#: A radius in 1/255 below all published ones was probably meant in [0, 1].
SMALLEST_LEVELS = 0.1


def radius_in_levels(text: str) -> float:
    """Read a radius that is given in 1/255, such as `4` or `4/255`; returns it in [0, 1].

    Raises:
        InputError: If it is not a number, lies outside 0 .. 255, or looks like a radius in [0, 1].
    """
    number = text.strip().removesuffix("/255")
    try:
        levels = float(number)
    except ValueError:
        levels = math.nan
    if not 0 <= levels <= 255:
        raise InputError(f"a radius is given in 1/255, such as 4 or 4/255, and lies within 0 .. 255; got {text!r}")
    if 0 < levels < SMALLEST_LEVELS:
        raise InputError(
            f"a radius is given in 1/255, and {text} of them change nothing; did you mean {255 * levels:.3g}?"
        )
    return levels / 255


@dataclass(frozen=True)
class Sample:
    """Store one labelled picture.

    Attributes:
        name: The name, unique within its dataset.
        image: (3, H, W) float32 RGB in [0, 1].
        labels: (H, W) int64 class indices, `VOID` for unlabelled pixels.
    """

    name: str
    image: torch.Tensor
    labels: torch.Tensor


class Dataset(ABC):
    """Define the interface of a dataset: `len()`, `[i]` -> `Sample`, iteration, and the meaning of its labels.

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
    def is_endless(self) -> bool:
        """Return True if samples are generated on request, so that they cannot all be read."""
        return False

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
