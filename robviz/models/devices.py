"""Find devices by name, list those of this machine, and share a CPU among threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from robviz.types import InputError


def devices() -> list[str]:
    """Return the names of the devices that this machine has."""
    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def device_named(name: str | torch.device | None) -> torch.device:
    """Return a device by its name, or the CPU for None. Raises InputError if this machine has no such device."""
    here = devices()
    try:
        device = torch.device(name or "cpu")
    except (RuntimeError, TypeError):
        raise InputError(f"unknown device {name!r}; this machine has: {', '.join(here)}") from None
    whole = f"{device.type}:{device.index or 0}" if device.type == "cuda" else device.type
    if device.type in ("cpu", "cuda", "mps") and (whole not in here or (device.type != "cuda" and device.index)):
        raise InputError(f"there is no device {str(name)!r} here; this machine has: {', '.join(here)}")
    return device


@lru_cache(maxsize=1)
def openmp_pauses() -> tuple[Callable[[int], int], ...]:
    """Return the function of GNU's OpenMP that ends a thread's team, of each such library in this process."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not on Linux
        return ()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
    libraries = [ctypes.CDLL(path) for path in sorted(paths)]
    return tuple(one.omp_pause_resource_all for one in libraries if hasattr(one, "omp_pause_resource_all"))


def release_threads() -> None:
    """End the OpenMP threads that torch has started for this thread of Python; its next operation starts them again.

    GNU's OpenMP keeps a team of threads for each thread that has ever computed. Once all teams together are larger than
    the number of cores, it hardly lets a thread spin before it sleeps, and an attack in a thread of a server takes far
    longer than alone. Does nothing where torch uses another library.
    """
    hard = 2  # of OpenMP's `omp_pause_resource_t`
    for pause in openmp_pauses():
        pause(hard)
