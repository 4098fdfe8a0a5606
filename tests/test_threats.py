"""Universal perturbations, and corruptions as a yardstick."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robviz.attacks import apgd, predicted, share_equal
from robviz.corruptions import CORRUPTIONS, corrupted
from robviz.files.images import quantise, to_bytes
from robviz.norms import L2, LINF
from robviz.types import VOID, InputError
from robviz.universal import disturbed, universal, universal_steps
from tests.small import Bends


def images_of(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 9, 7, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([LINF, L2]), st.floats(0, 0.5), st.integers(0, 1000))
def test_a_projection_is_within_the_radius_and_the_colours_and_leaves_what_is_within_alone(norm, radius, seed):
    images = images_of(seed)
    far = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    inside = norm.project(far, images, radius, None)
    assert norm.size(inside - images).max() <= radius + 1e-6
    assert 0 <= inside.min() <= inside.max() <= 1
    torch.testing.assert_close(norm.project(inside, images, radius, None), inside)
    changeable = torch.zeros(2, 9, 7, dtype=torch.bool)
    changeable[:, :4] = True
    kept = norm.project(far, images, radius, changeable)
    assert kept[:, :, 4:].equal(images[:, :, 4:])
    assert norm.size(kept - images).max() <= radius + 1e-6


@pytest.mark.parametrize("norm", [LINF, L2])
def test_a_random_change_is_within_the_unit_ball_and_fills_it(norm):
    draws = [norm.draw(torch.Generator().manual_seed(seed), torch.Size((3, 9, 7))) for seed in range(20)]
    sizes = norm.size(torch.stack(draws))
    assert sizes.max() <= 1 + 1e-12
    assert sizes.mean() > 0.9


def test_the_zero_gradient_has_no_direction():
    assert L2.direction(torch.zeros(2, 3, 4, 4)).eq(0).all()


def test_a_picture_of_8_bits_stays_within_the_mean_square_it_was_given():
    image = images_of(0)[0]
    attacked = L2.project(image + 0.1 * torch.randn(image.shape), image, 4 / 255, None)
    change = quantise(attacked, image, 4 / 255, is_mean_square=True).astype(int) - to_bytes(image)
    assert 3.8 < (change**2).mean() ** 0.5 <= 4 + 1e-6


# ------------------------------------------------------------------------------------------ universal


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 0.3), st.integers(0, 100))
def test_a_universal_perturbation_never_leaves_its_budget(eps, seed):
    labels = torch.randint(-1, 4, (3, 9, 7), generator=torch.Generator().manual_seed(seed))
    for result in universal_steps(Bends().eval(), images_of(seed, 3), labels, eps, 2, batch_size=2, seed=seed):
        assert result.perturbation.abs().max() <= eps + 1e-6
        assert result.perturbation.shape == (3, 9, 7)


def test_the_best_universal_perturbation_of_a_linear_model_is_found(linear):
    images = 0.3 + 0.4 * images_of(0, 4).double()
    labels = torch.zeros(4, 9, 7, dtype=torch.int64)
    labels[:, 0] = VOID
    result = universal(linear, images, labels, 0.08, passes=8, loss="ce", batch_size=2)
    found = result.perturbation[:, 1:]
    corner = (0.08 * linear.weights[0].detach().sign()).expand_as(found)
    assert (found - corner).abs().mean() < 0.02
    assert result.perturbation[:, 0].eq(0).all()  # nothing is won there
    torch.testing.assert_close(
        result.accuracy, share_equal(predicted(linear, disturbed(images, result.perturbation)), labels)
    )


def test_one_perturbation_breaks_more_than_none_and_less_than_one_for_each_image():
    images, model = images_of(1, 4), Bends().eval()
    labels = predicted(model, images)
    start = next(universal_steps(model, images, labels, 0.2))
    shared = universal(model, images, labels, 0.2, passes=8, batch_size=2)
    own = apgd(model, images, labels, 0.2, steps=20)
    assert start.accuracy.eq(1).all()
    assert own.accuracy.mean() < shared.accuracy.mean() < 1


# ------------------------------------------------------------------------------------------ corruptions


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(CORRUPTIONS)), st.floats(0, 0.3), st.integers(0, 1000))
def test_a_corruption_is_of_the_size_of_the_attack_and_the_same_each_time(name, eps, seed):
    images = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(seed))
    found = corrupted(name, images, eps, seed)
    assert LINF.size(found - images).max() <= eps + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    assert found.equal(corrupted(name, images, eps, seed))
    assert found[:1].equal(corrupted(name, images[:1], eps, seed))


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_a_corruption_uses_its_budget(name):
    images = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    assert LINF.size(corrupted(name, images, 8 / 255) - images).item() == pytest.approx(8 / 255, abs=1e-6)


def test_an_unknown_corruption_is_refused():
    with pytest.raises(InputError, match="unknown corruption 'snow'; choose from: noise"):
        corrupted("snow", images_of(0), 0.1)
