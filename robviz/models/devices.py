"""Find devices by name, and list those of this machine."""

from __future__ import annotations

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
