"""Class weights from the labels of a training split."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from robviz.files.progress import track
from robviz.types import Dataset, InputError


def class_weights(dataset: Dataset) -> Tensor:
    """Compute class weights 1 / N_y from the labels of a dataset (section 3.2).

    Only their ratios matter to an attack. A class without any pixel gets the weight of the rarest class that has some,
    so that its pixels in other splits are neither ignored nor infinitely important; a warning names it.

    Args:
        dataset: The training split.

    Returns:
        (K,) float32, scaled to a sum of 1 like the published weights.

    Raises:
        InputError: If nothing is labelled.
    """
    if dataset.is_endless and dataset.class_weights is not None:  # as it declares them, since they cannot be counted
        return dataset.class_weights / dataset.class_weights.sum()
    count = len(dataset.classes)
    pixels = torch.zeros(count, dtype=torch.int64)
    for sample in track(dataset, f"class weights of {dataset.name}", len(dataset), "images"):
        # NumPy's bincount is many times faster than torch's; void, -1, comes first.
        pixels += torch.from_numpy(np.bincount(sample.labels.numpy().ravel() + 1, minlength=count + 1)[1:])
    occurs = pixels > 0
    if not occurs.any():
        raise InputError(f"{dataset.name} ({dataset.split}) has no labelled pixel to compute class weights from")
    if not occurs.all():
        absent = ", ".join(name for name, has_pixels in zip(dataset.classes, occurs.tolist()) if not has_pixels)
        warnings.warn(
            f"{dataset.name} ({dataset.split}) has no pixel of: {absent}; they weigh as much as the rarest other class",
            stacklevel=2,
        )
    weights = 1 / pixels.where(occurs, pixels[occurs].min()).double()
    return (weights / weights.sum()).float()
