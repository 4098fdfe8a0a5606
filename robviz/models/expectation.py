"""Attack a model with random outputs through the mean of several passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robviz.types import check_whole


class Expectation(nn.Module):
    """Average the logits of several passes (expectation over transformation, Athalye et al., ICML 2018)."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        check_whole("eot", draws, 1)
        self.model, self.draws = model, draws

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to logits (B, K, H, W)."""
        total = self.model(images)
        for _ in range(self.draws - 1):
            total = total + self.model(images)
        result: Tensor = total / self.draws
        return result


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random generators inside, and restore their state afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
