"""Measure a model during and after its training, clean and under attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robviz.attacks import AttackSpec, last_of, predicted, spec_steps
from robviz.datasets.batching import batches
from robviz.files.progress import track
from robviz.metrics import Counts, accuracy_per_image, counts, miou
from robviz.models.layers import device_of
from robviz.types import InputError, Sample

SIDE_BY_SIDE = 16  # images of one size, on a GPU; on a CPU, batches are no faster


def rates(prefix: str, per_image: list[Counts]) -> dict[str, float]:
    """Compute mIoU and pixel accuracy in [0, 1], pooled over the images; raises InputError if all pixels are void."""
    pooled = Counts(*(torch.cat(column).sum(0) for column in zip(*per_image)))
    if not pooled.valid:
        raise InputError(
            f"none of {len(per_image)} images has a labelled pixel to measure the model on; check its labels"
        )
    return {
        f"{prefix}_miou": round(miou(pooled.intersection, pooled.union), 4),
        f"{prefix}_pixel_accuracy": round(accuracy_per_image(pooled.correct, pooled.valid).item(), 4),
    }


def stacks(samples: Sequence[Sample], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels of one size in batches of the length that suits the device."""
    length = 1 if device.type == "cpu" else SIDE_BY_SIDE
    for batch in batches(samples, range(len(samples)), length):
        yield torch.stack([one.image for _, one in batch]), torch.stack([one.labels for _, one in batch])


def measure_clean(model: nn.Module, samples: Sequence[Sample], num_classes: int) -> dict[str, float]:
    """Compute `clean_miou` and `clean_pixel_accuracy` over the samples."""
    device, found = device_of(model), []
    for images, labels in stacks(samples, device):
        found.append(counts(predicted(model, images.to(device)).cpu(), labels, num_classes))
    return rates("clean", found)


def measure_attacked(
    model: nn.Module, samples: Sequence[Sample], num_classes: int, spec: AttackSpec
) -> dict[str, float]:
    """Compute `attacked_miou` and `attacked_pixel_accuracy` under an attack, each image at its lowest accuracy."""
    device, found = device_of(model), []
    for images, labels in track(stacks(samples, device), "attacking", stays=False):
        result = last_of(spec_steps(spec, model, images.to(device), labels.to(device)))
        found.append(counts(result.predictions.cpu(), labels, num_classes))
    return rates("attacked", found)
