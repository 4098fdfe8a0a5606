"""Layers and small functions that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence
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

    def over(self, maps: Sequence[Tensor], align_corners: bool = False) -> Tensor:
        """Apply to maps of several sizes, resized to the size of the first and stacked by channel."""
        first, *others = maps
        result: Tensor = self(torch.cat([first, *(resize(x, first.shape[2:], align_corners) for x in others)], 1))
        return result


def resize(x: Tensor, size: torch.Size, align_corners: bool = False) -> Tensor:
    """Resize (B, C, h, w) to a height and width by bilinear interpolation."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
