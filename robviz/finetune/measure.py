"""How good a model is by now, clean and under attack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from robviz.attacks import apgd, predicted
from robviz.metrics import Counts, counts, miou
from robviz.models.adapters import device_of
from robviz.types import Sample


def rates(prefix: str, per_image: list[Counts]) -> dict[str, float]:
    """mIoU and pixel accuracy, in [0, 1], pooled over the images."""
    pooled = Counts(*(torch.cat(column).sum(0) for column in zip(*per_image)))
    return {
        f"{prefix}_miou": round(miou(pooled.intersection, pooled.union), 4),
        f"{prefix}_pixel_accuracy": round((pooled.correct / pooled.valid).item(), 4),
    }


def measure_clean(model: nn.Module, samples: Sequence[Sample], num_classes: int) -> dict[str, float]:
    """`clean_miou` and `clean_pixel_accuracy` over the samples."""
    found = []
    for sample in samples:
        predictions = predicted(model, sample.image[None].to(device_of(model)))
        found.append(counts(predictions.cpu(), sample.labels[None], num_classes))
    return rates("clean", found)


def measure_attacked(
    model: nn.Module, samples: Sequence[Sample], num_classes: int, eps: float, steps: int
) -> dict[str, float]:
    """`attacked_miou` and `attacked_pixel_accuracy` under APGD on mask-ce, each image at its lowest accuracy."""
    device, found = device_of(model), []
    for sample in tqdm(samples, desc="attacking", disable=None, leave=False):
        result = apgd(model, sample.image[None].to(device), sample.labels[None].to(device), eps, steps, "mask-ce")
        found.append(counts(result.predictions.cpu(), sample.labels[None], num_classes))
    return rates("attacked", found)
