"""Minimal perturbations, on a model whose smallest one is known, and against the authors' own code."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robviz.minimal import alma_prox, alma_prox_steps, hardest_left_out, proximal
from robviz.types import VOID, InputError
from tests.golden import golden
from tests.small import Bends


def towards_grey(images: torch.Tensor) -> torch.Tensor:
    """Images so close to grey that no small perturbation meets the colour range."""
    return 0.4 + 0.2 * images


@pytest.mark.parametrize("share", [0.8, 0.9])
@pytest.mark.slow
def test_the_smallest_radius_on_a_linear_model_is_found_and_never_undercut(linear, batch, share):
    images, labels = towards_grey(batch[0]), batch[1]
    linear.bias = 0.25  # both classes occur
    labels = torch.where(labels == VOID, VOID, linear(images).max(1).indices)
    radii = (linear(images)[:, 1].abs() / linear.weights.abs().sum()).detach()  # of each pixel
    result = alma_prox(linear, images, labels, 400, share)
    for radius, of_pixels, is_valid in zip(result.radius, radii, labels != VOID):
        ordered = of_pixels[is_valid].sort().values
        smallest = ordered[-1 - int((1 - share) * len(ordered) + 1e-6)]
        assert smallest <= radius <= 1.03 * smallest
    assert (result.flipped >= share - 1e-6).all()


class Layers(nn.Module):
    """Two convolutions without bias, from the golden file."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(nn.functional.conv2d(images - 0.5, self.first, padding=1))
        return nn.functional.conv2d(hidden, self.second)


def test_every_step_is_that_of_the_authors_code():
    """Sixty steps of theirs look at sixty points, ours at one more."""
    values = golden("alma_prox")
    model = Layers(values["first"], values["second"])
    *_, result, _ = alma_prox_steps(model, values["images"], values["labels"], steps=60)
    torch.testing.assert_close(result.flipped.double(), values["flipped"].double(), atol=0.009, rtol=0)
    size, theirs = ((images - values["images"]).abs().amax((1, 2, 3)) for images in (result.images, values["attacked"]))
    torch.testing.assert_close(size, theirs, atol=0, rtol=1e-3)
    torch.testing.assert_close(result.images, values["attacked"], atol=2e-3, rtol=0)


def test_the_radii_agree_with_the_authors_code_on_a_shipped_model():
    """Measured once, on crops of ten images; on four, one code or both flip less than 99 % of the pixels."""
    measured = json.loads((Path(__file__).parent / "golden" / "minimal.json").read_text(encoding="utf-8"))
    both = [pair for pair in zip(measured["ours"], measured["theirs"]) if None not in pair]
    assert len(both) >= 6
    ours, theirs = (statistics.median(radii) for radii in zip(*both))
    assert ours == pytest.approx(theirs, rel=0.01)
    assert all(our == pytest.approx(their, rel=0.03) for our, their in both)
    missed = [abs(a - b) for a, b in zip(measured["flipped_ours"], measured["flipped_theirs"])]
    assert max(missed) < 0.005


def test_every_step_is_valid_and_no_worse_than_the_last(bends, batch):
    images, labels = batch
    labels = torch.where(labels == VOID, VOID, bends(images).max(1).indices)
    before = None
    for step, result in enumerate(alma_prox_steps(bends, images, labels, 60, share=0.01)):
        assert result.step == step
        assert 0 <= result.images.min() <= result.images.max() <= 1
        assert result.predictions.equal(bends(result.images).max(1).indices)
        distance = (result.images - images).abs().flatten(1).amax(1)
        is_found = result.radius.isfinite()
        torch.testing.assert_close(distance[is_found], result.radius[is_found])
        if before is not None:
            assert (result.radius <= before.radius).all()
        before = result
    assert step == 60
    assert is_found.any()


def test_an_image_that_is_wrong_already_needs_no_perturbation(bends, batch):
    images, _ = batch
    labels = (bends(images).max(1).indices + 1) % 4
    result = alma_prox(bends, images, labels, 3)
    assert result.radius.eq(0).all()
    assert result.images.equal(images)


def test_void_pixels_do_not_change_the_search_and_a_batch_equals_its_images(bends, batch):
    images, labels = batch
    aimed = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    together = alma_prox(bends, images, labels, 8, aimed=aimed)
    one = alma_prox(bends, images[1:2], labels[1:2].masked_fill(~aimed[1:2], VOID), 8)
    torch.testing.assert_close(one.images[0], together.images[1], atol=1e-9, rtol=0)


def test_the_model_comes_back_as_it_was_though_the_search_is_closed_early(batch):
    images, labels = batch
    model = Bends().double().train()
    steps = alma_prox_steps(model, images, labels, 5)
    next(steps)
    assert not model.training
    steps.close()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"steps": 1}, "steps must be at least 2"), ({"share": 0.0}, "share must lie in"), ({"share": 1.5}, "share must")],
)
def test_an_impossible_search_is_refused(bends, batch, arguments, says):
    with pytest.raises(InputError, match=says):
        alma_prox(bends, *batch, **arguments)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_proximal_point_is_the_best_of_all_that_lie_in_the_colour_range(step_size, seed):
    """Its objective is convex: no random point in the box, and no scaled one, is better."""
    generator = torch.Generator().manual_seed(seed)
    images, metric = (torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    change = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    steps = torch.tensor([step_size], dtype=torch.float64)

    def objective(z: torch.Tensor) -> float:
        return (step_size * z.abs().max() + (metric * (z - change) ** 2).sum() / 2).item()

    found = proximal(change, images, steps, metric)
    assert 0 <= (images + found).min() <= (images + found).max() <= 1 + 1e-12
    for scale in (0, 0.5, 0.9, 0.99, 1.01, 1.1):
        other = (scale * found).clamp(-images, 1 - images)
        assert objective(found) <= objective(other) + 1e-6
    for _ in range(20):
        noise = 0.1 * torch.randn(found.shape, generator=generator, dtype=torch.float64)
        assert objective(found) <= objective((found + noise).clamp(-images, 1 - images)) + 1e-6


def test_the_pixels_that_need_not_flip_are_the_hardest():
    constraints = torch.tensor([[[5.0, 1.0, 4.0, 3.0]]])
    is_valid = torch.tensor([[[True, True, True, False]]])
    assert hardest_left_out(constraints, is_valid, torch.tensor([2])).tolist() == [[[False, True, True, False]]]
    assert hardest_left_out(constraints, is_valid, torch.tensor([0])).equal(is_valid)
