"""Layers and small functions that several architectures share."""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights; the CPU if it has none."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


class ConvNormAct(nn.Sequential):
    """Apply a convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Resize (B, C, h, w) to a height and width by bilinear interpolation."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
