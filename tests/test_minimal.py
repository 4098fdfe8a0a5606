"""Minimal perturbations, on a model whose smallest one is known, and against the authors' own code."""

from __future__ import annotations

import pytest
import torch

from robviz.minimal import alma_prox
from robviz.types import VOID


def grey(batch):
    """The images pressed together around grey, so that no perturbation meets the colour range."""
    images, labels = batch
    return 0.4 + 0.2 * images, labels


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_the_smallest_radius_on_a_linear_model_is_found_and_never_undercut(linear, batch, share):
    images, labels = grey(batch)
    linear.bias = 0.25  # both classes occur
    labels = torch.where(labels == VOID, VOID, linear(images).max(1).indices)
    margins = (linear(images)[:, 1].abs() / linear.weights.abs().sum()).detach()
    valid = labels != VOID
    for i, result in enumerate(alma_prox(linear, images[i : i + 1], labels[i : i + 1], 400, share) for i in range(3)):
        needed = margins[i][valid[i]].sort().values
        smallest = needed[-1 - int((1 - share) * len(needed) + 1e-6)]
        assert smallest <= result.radius.item() <= 1.03 * smallest
        assert result.flipped.item() >= share - 1e-6
