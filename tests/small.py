"""Models whose best attack is known or that show a wrong mode, and a dataset of five pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robviz.types import Dataset, Sample


class PixelwiseLinear(nn.Module):
    """Two classes, each pixel judged by itself: logits (0, w . x + b). The best attack is a corner of the box."""

    def __init__(self, weights: tuple[float, ...] = (1.0, -2.0, 0.5), bias: float = 0.1) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64).view(1, 3, 1, 1))
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        margin = (self.weights * images).sum(1) + self.bias
        return torch.stack([torch.zeros_like(margin), margin], 1)


class Bends(nn.Module):
    """A small seeded network with dropout and batch norm, so that a wrong mode shows."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.GELU(),
                nn.Dropout(0.5),
                nn.Conv2d(8, num_classes, 1),
            )

    def forward(self, images: Tensor) -> Tensor:
        return 5 * self.layers(images - 0.5)


class Noise(Dataset):
    """Random pictures of two sizes, labelled by the model itself but for some void, so that attacks have work to do."""

    name, split = "noise", "val"
    classes = ("a", "b", "c", "d")
    palette = ((0, 0, 0),) * 4
    class_weights = torch.tensor([0.4, 0.3, 0.2, 0.1])

    def __len__(self):
        return 5

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 12, 10 + index // 3, generator=generator)
        labels = Bends().eval()(image[None])[0].argmax(0)
        labels[torch.rand(labels.shape, generator=generator) < 0.1] = -1
        return Sample(f"noise-{index}", image, labels)
