"""Read the tensors of a checkpoint, whatever their names, and copy them into a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from robviz.types import InputError

Keys = tuple[tuple[str, str], ...]  # pattern and replacement, applied in turn
State = Mapping[str, Tensor]

WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|!--|\?xml)", re.IGNORECASE)
#: Keys under which trainers keep the weights as trained, and their running average.
RAW = ("state_dict", "model", "model_state_dict", "net", "network")
AVERAGED = ("state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "model_ema_state_dict", "ema", "averaged")
#: The prefixes that DataParallel, torch.compile, Lightning modules and averages of models put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema_model.", "online_model.")
#: Parts of a training module that are not the model: the counter of AveragedModel, the weights of a loss, metrics.
COMPANIONS = re.compile(r"(n_averaged|num_updates|initted|step)$|(criterion|loss\w*|\w*metrics?)\.")
NORMALISATION = ("base_normalize.mean", "base_normalize.std")


def read_tensors(path: Path) -> object:
    """Read the contents of a file, mapped where possible, without executing any code in it.

    Raises InputError if it contains more than tensors and plain values, or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}; check the path")
    with path.open("rb") as file:
        start = file.read(1000)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # a damaged file can raise any exception
        if not start:
            reason = "it is empty; fetch it again"
        elif WEB_PAGE.match(start):
            reason = "it is a web page; fetch the file that the page offers"
        elif code := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"it would run {code[1]}; save its state dict alone"
        else:
            reason = "it is damaged or truncated; fetch it again"
        raise InputError(f"{path} is not a checkpoint of tensors alone: {reason}") from error


class Chosen(NamedTuple):
    """Store a state dict under a model's own keys, and a sentence about the choice if there were several."""

    state: dict[str, Tensor]
    told: str | None


def state_of(source: str | Path | State, averaged: bool | None = None) -> dict[str, Tensor]:
    """Find the state dict in a file or a mapping; see `chosen_state`."""
    return chosen_state(source, averaged).state


def chosen_state(source: str | Path | State, averaged: bool | None = None) -> Chosen:
    """Find the state dict in a file or a mapping, without what trainers wrap around it.

    Args:
        source: A path, or a mapping: a bare state dict, or one with the state dict under a key of `RAW` or `AVERAGED`.
            The prefixes of DataParallel, torch.compile, Lightning and AveragedModel are removed, in any order.
        averaged: Take the running average of the weights if a checkpoint has both; by default, the raw weights.

    Raises:
        InputError: If there is no state dict, or the requested weights are not there.
    """
    content: object = source if isinstance(source, Mapping) else read_tensors(Path(source))
    if not isinstance(content, Mapping):
        raise InputError(
            f"a checkpoint must be a dictionary of tensors, got a {type(content).__name__}; save a state dict"
        )
    raw, means = ([key for key in keys if isinstance(content.get(key), Mapping)] for keys in (RAW, AVERAGED))
    is_average = bool(means) and (averaged if raw and averaged is not None else not raw)
    keys = means if is_average else raw
    state = content[keys[0]] if keys else content
    while isinstance(state.get("state_dict"), Mapping):  # {"model": {"state_dict": ...}}
        state = state["state_dict"]
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"a checkpoint must be a dictionary of tensors, bare or under one of {', '.join(map(repr, RAW))}, "
                f"but under {name!r} lies an object of type {type(value).__name__}; save the state dict alone"
            )
    is_average = is_average or "n_averaged" in state
    if averaged not in (None, is_average):
        raise InputError(
            f"averaged={averaged} asks for {'averaged' if averaged else 'raw'} weights, which the checkpoint does not "
            "hold; leave averaged= out"
        )
    told = None
    if averaged is None and raw and means:
        told = f"took the raw weights under {raw[0]!r}; averaged=True takes those averaged under {means[0]!r}"
    elif averaged is None and is_average:
        told = "took the averaged weights, the only ones in the checkpoint"
    return Chosen(unwrapped(state), told)


def unwrapped(state: State) -> dict[str, Tensor]:
    """Return the tensors of a model without the prefixes and companions that trainers add."""
    inside = {str(key): value for key, value in state.items() if not COMPANIONS.match(str(key))}
    while inside and (prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in inside)), None)):
        inside = {key.removeprefix(prefix): value for key, value in inside.items()}
    return {key.removeprefix("module."): value for key, value in inside.items()}


def with_counters(state: State, here: State) -> State:
    """Add the counters of batch norm that are missing from a state; they do not affect predictions."""
    missing = (key for key in here.keys() - state.keys() if key.endswith(".num_batches_tracked"))
    return {**state, **{key: here[key] for key in missing}}


def renamed(state: State, keys: Keys) -> dict[str, Tensor]:
    """Return the tensors under new keys, without those whose key becomes empty."""
    result = {}
    for key, value in state.items():
        for pattern, replacement in keys:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    result.pop("", None)
    return result


def mismatches(here: State, state: State) -> list[str]:
    """List the differences in keys and shapes between `state` and `here`, sorted."""
    return sorted(
        [
            *(f"{key} is missing" for key in here.keys() - state.keys()),
            *(f"{key} is unknown" for key in state.keys() - here.keys()),
            *(
                f"{key} is {tuple(state[key].shape)} instead of {tuple(here[key].shape)}"
                for key in here.keys() & state.keys()
                if state[key].shape != here[key].shape
            ),
        ]
    )


def first_few(problems: list[str]) -> str:
    """Join the first few problems, followed by their number."""
    return f"{'; '.join(problems[:3])} ({len(problems)} in all)"


@torch.no_grad()
def fill_tensors(here: State, opened: Callable[[], State]) -> None:
    """Copy the tensors of a checkpoint into those of a model; the checkpoint is opened again for each part.

    The pages of a mapped file stay in memory until the file is closed, so this avoids a second copy of all weights. A
    model that kept the mapped tensors themselves would crash if the file was overwritten.
    """
    for keys in parts(here):
        state = opened()
        for key in keys:
            here[key].copy_(state[key])
        del state  # closes the file before it is opened again


def parts(here: State) -> Iterator[list[str]]:
    """Yield the keys in portions of an eighth of the bytes, or of one tensor."""
    limit = sum(value.nbytes for value in here.values()) / 8
    part: list[str] = []
    size = 0
    for key, value in here.items():
        if part and size + value.nbytes > limit:
            yield part
            part, size = [], 0
        part.append(key)
        size += value.nbytes
    yield part


def without_normalisation(state: State, convolution: str) -> State:
    """Adapt a checkpoint whose first `convolution` expects normalised images to images in [0, 1].

    The result is exact except for the border of a padded convolution, which then sees black instead of the mean colour.
    """
    kernel, offset = f"{convolution}.weight", f"{convolution}.bias"
    if not state.keys() >= {*NORMALISATION, kernel, offset}:
        return state
    mean, std = (state[key].reshape(1, 3, 1, 1) for key in NORMALISATION)
    weight = state[kernel] / std
    bias = state[offset] - (weight * mean).sum((1, 2, 3))
    rest = {key: value for key, value in state.items() if key not in NORMALISATION}
    return {**rest, kernel: weight, offset: bias}
