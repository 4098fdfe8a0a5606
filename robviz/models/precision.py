"""Choose the precision of an attack's gradients: float32, or bfloat16 where the hardware multiplies it faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robviz.types import InputError


class InBfloat16(nn.Module):
    """The model under autocast, its logits float32: for gradients, never for what is reported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.model(images).float()


def chosen_precision(precision: str, device: torch.device) -> str:
    """`fp32` or `bf16`: as asked for, or by `auto`, bf16 where the hardware multiplies it faster."""
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"unknown precision {precision!r}; choose from: auto, fp32, bf16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if device.type == "cpu" and has_amx() else "fp32"
