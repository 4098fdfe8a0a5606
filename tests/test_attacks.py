from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robviz.attacks import apgd, apgd_steps
from robviz.losses import LOSSES, pixel_loss
from tests.conftest import Bends, golden


def test_the_best_attack_on_a_linear_model_is_found_exactly(linear, batch):
    images, _ = batch
    labels = torch.zeros(3, 12, 10, dtype=torch.int64)
    result = apgd(linear, images, labels, eps=0.03, steps=3, loss="ce")
    corner = (images + 0.03 * linear.weights.sign()).clamp(0, 1)
    torch.testing.assert_close(result.best_loss_images, corner.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", ["mask-ce", "js"])
def test_every_step_equals_the_official_code(loss):
    values = golden("apgd.npz")
    first, second = nn.Conv2d(3, 8, 3, padding=1).double(), nn.Conv2d(8, 5, 3, padding=1).double()
    for layer, i in ((first, 1), (second, 2)):
        layer.load_state_dict({"weight": values[f"w{i}"], "bias": values[f"b{i}"]})

    class Official(nn.Module):
        def forward(self, x):
            return 3 * second(nn.functional.gelu(first(x - 0.5)))

    steps, key = int(values["n_iter"]), loss.replace("-", "_")
    result = apgd(Official(), values["x"], values["y"], float(values["eps"]), steps, loss, random_start=False)
    torch.testing.assert_close(result.images, values[f"{key}_lowest_acc_x"], atol=1e-7, rtol=0)
    torch.testing.assert_close(result.best_loss_images, values[f"{key}_best_loss_x"], atol=1e-7, rtol=0)
    torch.testing.assert_close(result.accuracy, values[f"{key}_acc"], atol=1e-6, rtol=0)
    torch.testing.assert_close(result.history.loss.max(0).values, values[f"{key}_best_loss"], atol=1e-7, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 0.3), st.sampled_from(sorted(LOSSES)), st.booleans(), st.integers(0, 1000))
def test_no_step_leaves_the_budget_or_the_colour_range(eps, loss, random_start, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 6, 7, generator=generator)
    labels = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    for result in apgd_steps(Bends().eval(), images, labels, eps, 4, loss, None, random_start, seed):
        for candidate in (result.images, result.best_loss_images):
            assert (candidate - images).abs().max() <= eps + 1e-6
            assert candidate.min() >= 0
            assert candidate.max() <= 1


def test_the_result_is_the_best_of_all_steps_and_its_scores_are_true(bends, batch):
    images, labels = batch
    result = apgd(bends, images, labels, eps=0.1, steps=12, loss="mask-ce")
    predictions = bends(result.images).argmax(1)
    valid = labels != -1
    accuracy = ((predictions == labels) & valid).sum((1, 2)) / valid.sum((1, 2))
    assert result.predictions.equal(predictions)
    torch.testing.assert_close(result.accuracy, accuracy)
    torch.testing.assert_close(result.accuracy, result.history.accuracy.min(0).values)
    loss = pixel_loss("ce", bends(result.best_loss_images), labels).sum((1, 2)) / valid.sum((1, 2))
    torch.testing.assert_close(loss.detach(), result.history.loss.max(0).values)


def test_more_steps_break_more_pixels(bends, batch):
    images, labels = batch
    clean = bends(images).argmax(1)
    labels = torch.where(labels == -1, labels, clean)
    start = next(apgd_steps(bends, images, labels, 0.05, 20, random_start=False))
    end = apgd(bends, images, labels, 0.05, 20)
    assert start.accuracy.eq(1).all()
    assert end.accuracy.max() < 0.9


def test_void_pixels_do_not_change_the_attack(linear, batch):
    """Void labels are as good as absent: what the model makes of those pixels must not matter."""
    images, labels = batch
    labels = labels.clamp_max(1)
    result = apgd(linear, images, labels, eps=0.05, steps=6, random_start=False)
    is_void = (labels == -1)[:, None].expand_as(images)
    assert is_void.any()
    assert result.images[is_void].equal(images[is_void])


def test_an_image_that_is_all_void_comes_back_unbroken(bends, batch):
    images, labels = batch
    labels = labels.clone()
    labels[1] = -1
    result = apgd(bends, images, labels, eps=0.05, steps=3)
    assert result.accuracy[1] == 1
    assert result.images.isfinite().all()


def test_a_batch_equals_its_images_one_by_one_in_any_order(bends, batch):
    images, labels = batch
    together = apgd(bends, images, labels, eps=0.05, steps=10, seed=5)
    backwards = apgd(bends, images.flip(0), labels.flip(0), eps=0.05, steps=10, seed=5)
    torch.testing.assert_close(backwards.images.flip(0), together.images, atol=1e-12, rtol=0)
    for i in range(3):
        alone = apgd(bends, images[i : i + 1], labels[i : i + 1], eps=0.05, steps=10, seed=5)
        torch.testing.assert_close(alone.images[0], together.images[i], atol=1e-12, rtol=0)


def test_the_seed_decides_the_start(bends, batch):
    images, labels = batch
    starts = [next(apgd_steps(bends, images, labels, 0.05, 3, seed=seed)).images for seed in (0, 0, 1)]
    assert starts[0].equal(starts[1])
    assert not starts[0].equal(starts[2])


@pytest.mark.parametrize("stop_after", [1, 3, None])
def test_the_model_comes_back_as_it_was(batch, stop_after):
    images, labels = batch
    model = Bends().double().train()
    model.layers[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    attack = apgd_steps(model, images, labels, 0.05, 5)
    for i, _ in enumerate(attack, 1):
        assert not model.training
        if i == stop_after:
            attack.close()
            break
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_arguments_and_earlier_results_are_not_modified(bends, batch):
    images, labels = batch
    kept_images, kept_labels = images.clone(), labels.clone()
    results = list(apgd_steps(bends, images, labels, 0.05, 8))
    first = results[0].images.clone()
    again = next(apgd_steps(bends, images, labels, 0.05, 8))
    assert images.equal(kept_images)
    assert labels.equal(kept_labels)
    assert again.images.equal(first)
    assert len(results) == 9
    assert results[3].history.accuracy.shape == (4, 3)


def test_a_zero_budget_changes_nothing(bends, batch):
    images, labels = batch
    assert apgd(bends, images, labels, eps=0, steps=3).images.equal(images)


def call(**changes):
    arguments = {
        "images": torch.rand(1, 3, 4, 4),
        "labels": torch.zeros(1, 4, 4, dtype=torch.int64),
        "eps": 0.1,
        "steps": 2,
        "loss": "ce",
        **changes,
    }
    return apgd(Bends().eval(), **arguments)


NAN = torch.rand(1, 3, 4, 4)
NAN[0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"eps": -0.1}, ValueError, r"eps must lie in \[0, 1\].*got -0.1"),
        ({"eps": 8}, ValueError, r"eps must lie in \[0, 1\].*got 8"),
        ({"eps": float("nan")}, ValueError, r"eps must lie in"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"loss": "dice"}, ValueError, "unknown loss 'dice'; choose from: ce"),
        ({"images": torch.rand(3, 4, 4)}, ValueError, r"must be \(B, 3, H, W\), got \(3, 4, 4\); add a batch"),
        ({"images": torch.rand(1, 4, 4, 4)}, ValueError, r"must be \(B, 3, H, W\), got \(1, 4, 4, 4\)"),
        ({"images": torch.ones(1, 3, 4, 4, dtype=torch.uint8)}, TypeError, "must be float in .* got torch.uint8"),
        ({"images": 255 * torch.ones(1, 3, 4, 4)}, ValueError, r"must lie in \[0, 1\], got 255 .. 255; divide by 255"),
        ({"images": NAN}, ValueError, "images hold NaN"),
        ({"labels": torch.zeros(1, 4, 4)}, TypeError, "labels must be int64, got torch.float32"),
        ({"labels": torch.zeros(1, 5, 4, dtype=torch.int64)}, ValueError, r"like the images, got \(1, 5, 4\)"),
        ({"labels": torch.full((1, 4, 4), 255)}, ValueError, r"labels must lie in -1 \(void\) .. 3 .* got 255 .. 255"),
    ],
)
def test_a_bad_call_says_what_was_expected_what_came_and_what_to_do(changes, error, says):
    with pytest.raises(error, match=says):
        call(**changes)


def test_a_model_that_answers_at_another_resolution_is_refused(batch):
    images, labels = batch
    with pytest.raises(ValueError, match=r"at the labels' resolution \(12, 10\), got \(1, 3, 6, 5\)"):
        apgd(nn.AvgPool2d(2), images, labels, eps=0.1)
