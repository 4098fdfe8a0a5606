"""Choose the precision of an attack's gradients: float32, or bfloat16 where the hardware multiplies it faster."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robviz.types import InputError

PRECISIONS = ("auto", "fp32", "bf16")


class InBfloat16(nn.Module):
    """Run a model under autocast, with float32 logits: for gradients, never for reported predictions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) in float32, computed in bfloat16."""
        with torch.autocast(images.device.type, torch.bfloat16):
            result: Tensor = self.model(images).float()
            return result


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return True if the hardware multiplies bfloat16 faster than float32.

    GPUs that support it do, and CPUs with AMX or the instructions AVX512-BF16.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # older versions of PyTorch have neither
    checks: list[Callable[[], bool]] = [getattr(torch.cpu, name, lambda: False) for name in names]
    return device.type == "cpu" and any(check() for check in checks)


def chosen_precision(precision: str, device: torch.device) -> str:
    """Choose the precision of the gradients.

    Args:
        precision: `fp32`, `bf16`, or `auto`, which takes bf16 where the hardware multiplies it faster than float32:
            on GPUs that support it and on CPUs with AMX or AVX512-BF16. The environment variable `ROBVIZ_PRECISION`
            (`fp32` or `bf16`) overrides the choice of `auto`, so that a run or a test shows on one machine what another
            would do.
        device: The model's device.

    Returns:
        `fp32` or `bf16`.

    Raises:
        ValueError: For any other precision, in the argument or in the environment.
    """
    forced = os.environ.get("ROBVIZ_PRECISION", "auto")
    for name, value in (("precision", precision), ("precision in ROBVIZ_PRECISION", forced)):
        if value not in PRECISIONS:
            raise InputError(f"unknown {name} {value!r}; choose from: {', '.join(PRECISIONS)}")
    asked = forced if precision == "auto" else precision
    if asked != "auto":
        return asked
    return "bf16" if has_fast_bfloat16(device) else "fp32"
