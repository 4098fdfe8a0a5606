"""Explain an odd answer to an exercise in one sentence, before a check looks at its value."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Answer = TypeVar("Answer")


def told(answer: object) -> str:
    """Describe an answer in a few words."""
    if isinstance(answer, Tensor):
        return f"a {str(answer.dtype).removeprefix('torch.')} tensor of shape {tuple(answer.shape)}"
    if isinstance(answer, np.ndarray):
        return f"a numpy array of shape {answer.shape}"
    name = type(answer).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def is_number(answer: object) -> bool:
    """Return True for a real number that is not a bool."""
    return isinstance(answer, numbers.Real) and not isinstance(answer, bool)


#: kind -> a test for it, and its name in sentences.
KINDS: dict[type, tuple[Callable[[object], bool], str]] = {
    float: (is_number, "a number"),
    int: (lambda answer: is_number(answer) and float(answer).is_integer(), "a whole number"),  # type: ignore[arg-type]
    bool: (lambda answer: isinstance(answer, (bool, np.bool_)), "True or False"),
    str: (lambda answer: isinstance(answer, str), "a text"),
    list: (lambda answer: isinstance(answer, list), "a list"),
    dict: (lambda answer: isinstance(answer, dict), "a dictionary"),
    Tensor: (lambda answer: isinstance(answer, Tensor), "a torch tensor"),
    np.ndarray: (lambda answer: isinstance(answer, np.ndarray), "a numpy array"),
    nn.Module: (lambda answer: isinstance(answer, nn.Module), "a torch module"),
}
#: How to convert one kind of answer to another, (given, expected) -> hint.
HINTS: dict[tuple[type, type], str] = {
    (Tensor, float): "; add `.item()`",
    (np.ndarray, float): "; add `.item()`",
    (Tensor, bool): "; add `.item()`",
    (np.ndarray, Tensor): "; `torch.from_numpy` makes one of it",
    (list, Tensor): "; `torch.stack` or `torch.tensor` makes one of it",
    (Tensor, np.ndarray): "; add `.cpu().numpy()`",
    (Tensor, list): "; add `.tolist()`",
}


def values(answer: object) -> Iterator[float]:
    """Yield every number in an answer."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield from answer.detach().flatten().tolist()
    elif isinstance(answer, np.ndarray):
        if answer.dtype.kind == "f":
            yield from answer.ravel().tolist()
    elif isinstance(answer, dict):
        for value in answer.values():
            yield from values(value)
    elif isinstance(answer, (list, tuple)):
        for value in answer:
            yield from values(value)
    elif is_number(answer):
        yield float(answer)  # type: ignore[arg-type]


def expect(
    answer: Answer,
    kind: type = Tensor,
    shape: tuple[int, ...] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    is_share: bool = False,
) -> Answer:
    """Return the answer of an exercise if it is of the right kind.

    Args:
        answer: What the student's function returned.
        kind: A key of `KINDS`: `float`, `int`, `bool`, `str`, `list`, `dict`, `Tensor`, `numpy.ndarray`, `nn.Module`.
        shape: The shape of a tensor or an array; None for any.
        device: The device of a tensor; None for any.
        dtype: The type of a tensor; None for any.
        is_share: True if it must lie in [0, 1].

    Raises:
        AssertionError: If it is anything else; one sentence says what it is, and what to do.
    """
    assert answer is not None, "Nothing was returned: does the function end in a `return`?"
    fits, name = KINDS[kind]
    hint = next((hint for (came, asked), hint in HINTS.items() if asked is kind and isinstance(answer, came)), "")
    assert fits(answer), f"The answer must be {name}, and this is {told(answer)}{hint}."
    if isinstance(answer, (Tensor, np.ndarray)):
        if shape is not None:
            assert tuple(answer.shape) == tuple(shape), (
                f"The answer must have the shape {tuple(shape)}, and this has {tuple(answer.shape)}."
            )
        if dtype is not None:
            assert answer.dtype == dtype, f"The answer must be {dtype}, and this is {told(answer)}."
    if device is not None and isinstance(answer, Tensor):
        assert answer.device.type == torch.device(device).type, (
            f"The answer lies on {answer.device}, and the images lie on {device}: make it from them, "
            "or move it with `.to(images.device)`."
        )
    found = list(values(answer))
    assert not any(math.isnan(value) for value in found), (
        "The answer contains NaN: is something divided by zero, or is it the mean of nothing?"
    )
    assert not any(math.isinf(value) for value in found), (
        "The answer is not finite: is something divided by zero, or is it the logarithm of zero?"
    )
    if is_share and found:
        assert max(found) <= 1 or min(found) < 0, (
            f"A share lies between 0 and 1, and this is {max(found):g}: is it in per cent, or a count?"
        )
        assert 0 <= min(found) <= max(found) <= 1, f"A share lies between 0 and 1, and this is {min(found):g}."
    return answer


# ------------------------------------------------------------------------------------------ what tests feed a check


class NotApplicableError(Exception):
    """Report that this oddity does not apply to such an answer."""


def as_nan(answer: object) -> object:
    """Replace a right answer by NaN."""
    if is_number(answer):
        return float("nan")
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return answer * float("nan")
    raise NotApplicableError


def as_infinite(answer: object) -> object:
    """Replace a right answer by infinity."""
    if is_number(answer):
        return float("inf")
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return answer + float("inf")
    raise NotApplicableError


def as_other_library(answer: object) -> object:
    """Turn a tensor into an array, an array into a tensor, and a number or a list into text."""
    if isinstance(answer, Tensor):
        return answer.detach().cpu().numpy()
    if isinstance(answer, np.ndarray):
        return torch.from_numpy(answer)
    if is_number(answer) or isinstance(answer, list):
        return str(answer)
    raise NotApplicableError


def with_an_axis(answer: object) -> object:
    """Add an axis in front of a right answer."""
    if isinstance(answer, (Tensor, np.ndarray)):
        return answer[None]
    if is_number(answer):
        return torch.tensor([answer])
    raise NotApplicableError


def as_per_cent(answer: object) -> object:
    """Give a rate in per cent instead of in [0, 1]."""
    if is_number(answer) and 0 < answer <= 1:  # type: ignore[operator]
        return 100 * answer  # type: ignore[operator]
    raise NotApplicableError


#: Functions that make a right answer odd; every check must explain the result.
ODDITIES: dict[str, Callable[[object], object]] = {
    "nothing": lambda answer: None,
    "NaN": as_nan,
    "infinity": as_infinite,
    "another type": as_other_library,
    "an axis too many": with_an_axis,
    "per cent": as_per_cent,
}


def odd(right: Callable[..., object], kind: str) -> Callable[..., object]:
    """Turn a right solution into one with an odd answer, a key of `ODDITIES`."""

    def answer(*args: object, **kwargs: object) -> object:
        return ODDITIES[kind](right(*args, **kwargs))

    return answer
