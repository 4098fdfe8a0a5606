from __future__ import annotations

import math

import pytest
import torch

from robviz.losses import LOSSES, expected_score, pixel_loss
from tests.golden import golden

WEIGHTS = torch.tensor([0.2, 0.5, 0.3])


@pytest.mark.parametrize(
    ("name", "progress", "key"),
    [
        ("ce", 0.0, "ce"),
        ("segpgd", 0.0, "segpgd_t0_of_10"),
        ("segpgd", 0.7, "segpgd_t7_of_10"),
        ("cospgd", 0.0, "cospgd"),
        ("mask-ce", 0.0, "mask_ce"),
        ("mask-ce-bal", 0.0, "mask_ce_bal"),
        ("js", 0.0, "js"),
        ("mask-spherical", 0.0, "mask_spherical"),
    ],
)
def test_value_and_gradient_equal_the_official_code(name, progress, key):
    values = golden("losses")
    logits = values["logits"].clone().requires_grad_()
    loss = pixel_loss(name, logits, values["target"], values["class_weights"], progress)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), values[key], atol=1e-8, rtol=0)
    torch.testing.assert_close(logits.grad, values[f"{key}_grad"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("logits", [(0.0, 0.0, 0.0), (200.0, 0.0, -200.0), (1e4, 0.0, -1e4), (-1e30, -1e30, 1e30)])
def test_value_and_gradient_stay_finite_at_any_gap_between_logits(name, logits, progress):
    logits = torch.tensor(logits).view(1, 3, 1, 1).repeat(1, 1, 1, 3).requires_grad_()
    loss = pixel_loss(name, logits, torch.tensor([[[0, 1, 2]]]), WEIGHTS, progress)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_void_pixels_cost_nothing_and_pull_nothing(name):
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.full((2, 4, 5), -1)
    labels[0, 0, 0] = 1
    loss = pixel_loss(name, logits, labels, WEIGHTS, 0.5)
    loss.sum().backward()
    assert loss[labels == -1].eq(0).all()
    assert logits.grad.movedim(1, -1)[labels == -1].eq(0).all()


def test_cross_entropy_of_equal_logits_is_log_k():
    loss = pixel_loss("ce", torch.zeros(1, 5, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.full((1, 2, 2), math.log(5)))


def test_masked_cross_entropy_hears_only_the_pixels_still_correct():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)  # predictions: 0, 1
    loss = pixel_loss("mask-ce", logits, torch.zeros(1, 1, 2, dtype=torch.int64))
    assert loss[0, 0, 0] > 0
    assert loss[0, 0, 1] == 0


def test_jensen_shannon_runs_from_zero_at_certainty_to_log_two_when_broken():
    logits = torch.tensor([[50.0, -50.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    loss = pixel_loss("js", logits, torch.zeros(1, 1, 2, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.tensor([[[0.0, math.log(2)]]]), atol=1e-6, rtol=0)


def test_balanced_masked_cross_entropy_weighs_each_pixel_by_its_class():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    plain, balanced = (
        pixel_loss("mask-ce", logits, labels),
        pixel_loss("mask-ce-bal", logits, labels, torch.tensor([1.0, 7.0])),
    )
    torch.testing.assert_close(balanced, plain * torch.tensor([1.0, 7.0]))


def test_tsallis_starts_at_the_cubed_and_ends_at_the_plain_cross_entropy():
    logits = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    labels = torch.randint(4, (1, 3, 5))
    p = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(pixel_loss("tsallis", logits, labels, progress=0.0), (1 - p**3) / 3)
    torch.testing.assert_close(pixel_loss("tsallis", logits, labels, progress=1.0), -p.log())
    near = pixel_loss("tsallis", logits, labels, progress=1 - 1e-9)
    torch.testing.assert_close(near, -p.log(), atol=1e-6, rtol=0)


def test_an_unknown_loss_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown loss 'msk-ce'; choose from: ce, segpgd, cospgd, mask-ce, "):
        pixel_loss("msk-ce", torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"got \(1, 2, 4, 4\) and \(1, 2, 2\)"):
        pixel_loss("ce", torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, dtype=torch.int64))


def test_the_expected_error_is_the_error_itself_in_the_end_and_soft_at_first():
    logits = torch.tensor([[8.0, 0.0], [0.0, 8.0]]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    last = pixel_loss("expected-error", logits, labels, progress=1.0)
    torch.testing.assert_close(last, torch.tensor([[[0.0, 1.0]]]))
    soft, plain = (pixel_loss(f"expected-error{kind}", logits, labels, progress=0.0)[0, 0, 0] for kind in ("-soft", ""))
    assert soft == pytest.approx(1 / (1 + math.exp(8 / 3)), rel=1e-3)
    assert plain == pytest.approx(1 / (1 + math.exp(8)), rel=1e-3)


def test_the_gradient_of_the_expected_score_has_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 4, (2, 3, 5), generator=generator)
    leave, enter = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    loss = expected_score(logits, labels, leave, enter, 0.7)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    worth = (leave[:, None] + enter[None]).fill_diagonal_(0)[labels].movedim(-1, 1)  # (B, K, H, W)
    p = (logits / 0.7).softmax(1)
    torch.testing.assert_close(loss, (p * worth).sum(1))
    torch.testing.assert_close(gradient, p * (worth - loss[:, None]) / 0.7)
    assert ((loss >= 0) & (loss <= (leave.max() + enter.max()))).all()


def test_the_expected_miou_sends_pixels_to_rare_classes():
    logits = torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss = pixel_loss("expected-miou", logits, torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([0.2, 0.7, 0.1]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    common, rare = gradient[0, 2, 0, 0], gradient[0, 1, 0, 0]
    assert rare > common > 0


def test_the_expected_miou_takes_two_rows_of_worths_and_needs_some():
    logits, labels = torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    both = pixel_loss("expected-miou", logits, labels, WEIGHTS.expand(2, 3))
    torch.testing.assert_close(both, pixel_loss("expected-miou", logits, labels, WEIGHTS))
    with pytest.raises(ValueError, match="expected-miou needs class_weights"):
        pixel_loss("expected-miou", logits, labels)
