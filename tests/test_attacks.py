from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robviz import attacks, attribution, checks
from robviz.attacks import (
    OPTIMISERS,
    TARGETED,
    AttackSpec,
    annealed_pgd,
    apgd,
    apgd_l2,
    apgd_reduced_radius,
    apgd_steps,
    attack_steps,
    last_of,
    norm_of,
    pgd,
    predicted,
    red_eps_apgd,
    red_eps_apgd_steps,
    spec_steps,
)
from robviz.finetune.evaluation import measure_clean
from robviz.interactive import comparison
from robviz.losses import LOSSES, pixel_loss
from robviz.norms import LINF, project_linf
from robviz.types import Sample
from tests.golden import golden
from tests.small import Bends


def test_the_best_attack_on_a_linear_model_is_found_exactly(linear, batch):
    images, _ = batch
    labels = torch.zeros(3, 12, 10, dtype=torch.int64)
    result = apgd(linear, images, labels, eps=0.03, steps=3, loss="ce")
    corner = (images + 0.03 * linear.weights.sign()).clamp(0, 1)
    torch.testing.assert_close(result.best_loss_images, corner.detach(), atol=1e-12, rtol=0)


def test_the_best_l2_attack_on_a_linear_model_is_found_exactly(linear):
    """On grey images every pixel pulls the same way: along the weights, the whole budget spent."""
    images = torch.full((2, 3, 8, 6), 0.5, dtype=torch.float64)
    labels = torch.zeros(2, 8, 6, dtype=torch.int64)
    result = apgd_l2(linear, images, labels, eps=0.05, steps=10, loss="ce", random_start=False)
    along = linear.weights.detach() / linear.weights.detach().square().mean().sqrt()
    best = (images + 0.05 * along).expand_as(images)
    torch.testing.assert_close(result.best_loss_images, best, atol=1e-4, rtol=0)


def test_an_l2_attack_of_the_same_radius_breaks_more_than_one_that_bounds_each_value(bends, batch):
    images, labels = batch
    each, mean = (attack(bends, images, labels, eps=0.05, steps=20) for attack in (apgd, apgd_l2))
    assert mean.accuracy.mean() < each.accuracy.mean()


@pytest.fixture
def official():
    """The golden file and its two-layer model."""
    values = golden("apgd")
    first, second = nn.Conv2d(3, 8, 3, padding=1).double(), nn.Conv2d(8, 5, 3, padding=1).double()
    for layer, i in ((first, 1), (second, 2)):
        layer.load_state_dict({"weight": values[f"w{i}"], "bias": values[f"b{i}"]})

    class Official(nn.Module):
        def forward(self, x):
            return 3 * second(nn.functional.gelu(first(x - 0.5)))

    return values, Official()


@pytest.mark.parametrize("loss", ["mask-ce", "mask-ce-bal", "js"])
def test_every_step_equals_the_official_code(official, loss):
    values, model = official
    steps, eps, weights, key = (
        int(values["n_iter"]),
        float(values["eps"]),
        values["class_weights"],
        loss.replace("-", "_"),
    )
    result = apgd(model, values["x"], values["y"], eps, steps, loss, weights, random_start=False)
    torch.testing.assert_close(result.images, values[f"{key}_lowest_acc_x"], atol=1e-7, rtol=0)
    torch.testing.assert_close(result.best_loss_images, values[f"{key}_best_loss_x"], atol=1e-7, rtol=0)
    torch.testing.assert_close(result.accuracy, values[f"{key}_acc"], atol=1e-6, rtol=0)
    torch.testing.assert_close(result.history.loss.max(0).values, values[f"{key}_best_loss"], atol=1e-7, rtol=0)


@pytest.mark.parametrize("loss", ["mask-ce", "mask-ce-bal", "js"])
def test_the_reduced_radius_equals_the_official_code(official, loss, monkeypatch):
    """The golden run spent ten steps at each of its three radii."""
    values, model = official
    thirds = partial(apgd_reduced_radius, radii=((2.0, 1 / 3), (1.5, 1 / 3), (1.0, 1 / 3)))
    monkeypatch.setitem(OPTIMISERS, "red-eps-apgd", thirds)
    eps, weights, key = float(values["eps"]), values["class_weights"], loss.replace("-", "_")
    result = red_eps_apgd(model, values["x"], values["y"], eps, 30, loss, weights, random_start=False)
    torch.testing.assert_close(result.images, values[f"{key}_red_eps_x"], atol=1e-7, rtol=0)
    torch.testing.assert_close(result.accuracy, values[f"{key}_red_eps_acc"], atol=1e-6, rtol=0)


def test_the_reduced_radius_spends_three_three_and_four_tenths_of_the_steps_at_its_radii(bends, batch):
    result = red_eps_apgd(bends, *batch, eps=0.02, steps=20)
    spans = [(result.history.radius[:, 0] == radius).sum().item() for radius in (0.04, 0.03, 0.02)]
    assert spans == [6 + 1, 6 + 1, 8 + 1]  # each stage looks at its starting point as well


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(OPTIMISERS)),
    st.floats(0, 0.3),
    st.sampled_from(sorted(LOSSES)),
    st.booleans(),
    st.integers(0, 1000),
)
def test_no_step_leaves_the_budget_or_the_colour_range(attack, eps, loss, random_start, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 6, 7, generator=generator)
    labels = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    for result in attack_steps(attack, Bends().eval(), images, labels, eps, 4, loss, torch.rand(4), random_start, seed):
        for candidate in (result.images, result.best_loss_images):
            assert norm_of(attack).size(candidate - images).max() <= eps + 1e-6
            assert candidate.min() >= 0
            assert candidate.max() <= 1


@pytest.mark.parametrize("attack", [pgd, apgd, red_eps_apgd, annealed_pgd])
def test_the_result_is_the_best_of_all_steps_and_its_scores_are_true(bends, batch, attack):
    images, labels = batch
    result = attack(bends, images, labels, eps=0.1, steps=12, loss="mask-ce")
    predictions = bends(result.images).argmax(1)
    valid = labels != -1
    accuracy = ((predictions == labels) & valid).sum((1, 2)) / valid.sum((1, 2))
    assert result.predictions.equal(predictions)
    torch.testing.assert_close(result.accuracy, accuracy)
    within = result.history.radius[:, 0] <= 0.1
    torch.testing.assert_close(result.accuracy.double(), result.history.accuracy[within].min(0).values)
    loss = pixel_loss("ce", bends(result.best_loss_images), labels).sum((1, 2)) / valid.sum((1, 2))
    torch.testing.assert_close(loss.detach(), result.history.loss[within].max(0).values, atol=1e-6, rtol=0)


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


@pytest.mark.parametrize("attack", [pgd, apgd, red_eps_apgd, annealed_pgd])
def test_restarts_go_on_from_the_best_and_only_help(bends, batch, attack):
    once, thrice = (attack(bends, *batch, 0.05, 5, restarts=restarts) for restarts in (1, 3))
    assert thrice.step == 15
    assert (thrice.accuracy <= once.accuracy).all()
    assert not thrice.images.equal(once.images)
    torch.testing.assert_close(thrice.history.loss[: len(once.history.loss)], once.history.loss)
    assert (bends(thrice.images).argmax(1) == thrice.predictions).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(OPTIMISERS)),
    st.floats(0, 0.3),
    st.floats(0, 2),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 1000),
)
def test_from_any_start_the_budget_is_kept_and_nothing_is_lost(attack, eps, spread, steps, is_masked, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    start = images + spread * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    changeable = torch.rand(2, 6, 7, generator=generator) < 0.7 if is_masked else None
    model, norm = Bends().eval().double(), norm_of(attack)
    best = attacks.share_equal(predicted(model, norm.project(start, images, eps, changeable)), labels)
    for result in attack_steps(attack, model, images, labels, eps, steps, changeable=changeable, start=start):
        for candidate in (result.images, result.best_loss_images):
            assert norm.size(candidate - images).max() <= eps + 1e-6
            assert candidate.min() >= 0
            assert candidate.max() <= 1
        assert (result.accuracy <= best).all()
        best = result.accuracy


@pytest.mark.parametrize("attack", OPTIMISERS)
def test_an_attack_begins_at_the_start_within_its_first_radius_whatever_the_seed(bends, batch, attack):
    images, labels = batch
    start = (images + 0.03 * images.sub(0.5).sign()).clamp(0, 1)
    first, other = (next(attack_steps(attack, bends, images, labels, 0.05, 4, seed=i, start=start)) for i in (0, 1))
    assert first.images.equal(other.images)
    torch.testing.assert_close(first.images, start, atol=1e-12, rtol=0)
    assert first.predictions.equal(predicted(bends, start))


@pytest.mark.parametrize("attack", OPTIMISERS)
def test_from_a_start_a_batch_equals_its_images_one_by_one(bends, batch, attack):
    images, labels = batch
    start = images.flip(-1)
    together = last_of(attack_steps(attack, bends, images, labels, 0.05, 6, start=start))
    for i in range(3):
        rows = slice(i, i + 1)
        alone = last_of(attack_steps(attack, bends, images[rows], labels[rows], 0.05, 6, start=start[rows]))
        torch.testing.assert_close(alone.images[0], together.images[i], atol=1e-12, rtol=0)


def test_the_reduced_radius_begins_at_the_start_within_its_largest_radius(bends, batch):
    images, labels = batch
    seen = []
    handle = bends.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    next(red_eps_apgd_steps(bends, images, labels, 0.05, 10, start=torch.ones_like(images)))
    handle.remove()
    torch.testing.assert_close(seen[0], (images + 0.1).clamp(0, 1), atol=1e-12, rtol=0)
    torch.testing.assert_close(seen[1], (images + 0.05).clamp(0, 1), atol=1e-12, rtol=0)


def test_a_start_is_not_modified_and_may_come_from_inference_mode(bends, batch):
    with torch.inference_mode():
        start = batch[0] + 0.02
    kept = start.clone()
    result = apgd(bends, *batch, 0.05, 3, start=start)
    assert start.equal(kept)
    assert not result.images.is_inference()


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


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize("attack", OPTIMISERS)
def test_a_short_run_makes_the_steps_it_was_given(bends, batch, attack, steps):
    assert last_of(attack_steps(attack, bends, *batch, 0.05, steps)).step == steps


def test_a_run_stopped_outside_the_budget_has_a_true_result_within(bends, batch):
    images, labels = batch
    steps = red_eps_apgd_steps(bends, images, labels, 0.02, 50)
    for result in steps:
        if result.step == 12:
            break
    steps.close()
    assert result.history.radius[-1].eq(0.04).all()
    assert (result.images - images).abs().max() <= 0.02 + 1e-6
    assert result.predictions.equal(bends(result.images).argmax(1))
    start = next(red_eps_apgd_steps(bends, images, labels, 0.02, 50))
    assert (result.accuracy < start.accuracy).all()


@pytest.mark.parametrize("loss", TARGETED)
def test_a_target_class_takes_over_the_pixels(bends, batch, loss):
    images, labels = batch
    before = (bends(images).argmax(1) == 1)[labels != -1].double().mean()
    result = apgd(bends, images, labels, eps=0.2, steps=20, loss=loss, target=1)
    valid = labels != -1
    share = ((result.predictions == 1) & valid).sum((1, 2)) / valid.sum((1, 2))
    torch.testing.assert_close(result.reached, share)
    assert share.min() > before + 0.2


def test_a_target_may_be_a_map_of_labels(bends, batch):
    images, labels = batch
    wanted = torch.zeros_like(labels)
    wanted[:, :, 5:] = 1
    result = apgd(bends, images, labels, eps=0.2, steps=10, loss="js", target=wanted)
    assert (result.predictions == wanted).double().mean() > (bends(images).argmax(1) == wanted).double().mean() + 0.2


@pytest.mark.parametrize("attack", [pgd, apgd, red_eps_apgd, annealed_pgd])
def test_only_changeable_pixels_change(bends, batch, attack):
    images, labels = batch
    changeable = torch.zeros_like(labels, dtype=torch.bool)
    changeable[:, 2:7, 3:8] = True
    result = attack(bends, images, labels, eps=0.1, steps=6, changeable=changeable)
    changed = (result.images != images).any(1)
    assert changed.any()
    assert not changed[~changeable].any()


def test_only_aimed_pixels_count_and_they_break_sooner(bends, batch):
    images, labels = batch
    labels = torch.where(labels == -1, labels, bends(images).argmax(1))
    aimed = torch.zeros_like(labels, dtype=torch.bool)
    aimed[:, :4] = True
    everywhere, there = (apgd(bends, images, labels, 0.05, 20, aimed=mask) for mask in (None, aimed))
    counted = aimed & (labels != -1)

    def accuracy(result):
        return ((result.predictions == labels) & counted).sum((1, 2)) / counted.sum((1, 2))

    torch.testing.assert_close(there.accuracy, accuracy(there))
    assert (accuracy(there) <= accuracy(everywhere)).all()
    assert accuracy(there).mean() < accuracy(everywhere).mean()


def test_the_attack_ends_once_nothing_is_left_to_break(linear, batch):
    images, _ = batch
    labels = linear(images).argmax(1)
    results = list(apgd_steps(linear, images, labels, eps=1, steps=50, loss="ce"))
    assert results[-1].accuracy.eq(0).all()
    assert len(results) < 51


def test_an_image_that_is_done_leaves_the_batch_and_the_others_go_on_as_if_alone(linear, batch):
    images, _ = batch
    labels = linear(images).argmax(1)
    labels[1:] = torch.where(torch.arange(10) < 5, labels[1:], 1 - labels[1:])
    seen = []
    handle = linear.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    changeable = torch.ones_like(labels, dtype=torch.bool)
    changeable[1:, 3:] = False
    together = apgd(linear, images, labels, eps=1, steps=20, loss="ce", changeable=changeable)
    handle.remove()
    assert together.accuracy[0] == 0
    assert together.accuracy[1:].min() > 0
    assert seen[0] == 3
    assert seen[-1] == 2
    for i in range(3):
        alone = apgd(linear, *(x[i : i + 1] for x in (images, labels)), 1, 20, "ce", changeable=changeable[i : i + 1])
        torch.testing.assert_close(alone.images[0], together.images[i], atol=1e-12, rtol=0)


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
        ({"images": torch.ones(1, 3, 4, 4, dtype=torch.uint8)}, ValueError, "must be float in .* got torch.uint8"),
        ({"images": 255 * torch.ones(1, 3, 4, 4)}, ValueError, r"must lie in \[0, 1\], got 255 .. 255; divide by 255"),
        ({"images": NAN}, ValueError, "images contain NaN"),
        ({"labels": torch.zeros(1, 4, 4)}, ValueError, "labels must be int64, got torch.float32"),
        ({"labels": torch.zeros(1, 5, 4, dtype=torch.int64)}, ValueError, r"like the images, got \(1, 5, 4\)"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1"),
        ({"restarts": 2, "random_start": False}, ValueError, "and 1 without a random start; got 2"),
        ({"start": torch.rand(3, 4, 4)}, ValueError, r"start must be \(1, 3, 4, 4\) like the images, got \(3, 4, 4\)"),
        ({"start": NAN}, ValueError, "start holds NaN or infinity"),
        ({"start": torch.ones(1, 3, 4, 4, dtype=torch.uint8)}, ValueError, "start must be float in .* torch.uint8"),
        ({"start": [[0.5]]}, ValueError, "start must be a torch.Tensor, got list"),
        ({"start": torch.rand(1, 3, 4, 4), "restarts": 2}, ValueError, "expected 1 with a start that is given, got 2"),
        ({"loss": "mask-ce-bal"}, ValueError, r"mask-ce-bal needs class_weights \(K,\), got None"),
        ({"loss": "mask-ce", "target": 1}, ValueError, "takes one of the losses ce, js, tsallis; got 'mask-ce'"),
        ({"target": 9}, ValueError, r"labels must lie in -1 \(void\) .. 3 .* got 9 .. 9"),
        (
            {"aimed": torch.ones(1, 4, 4)},
            ValueError,
            r"aimed must be bool \(B, H, W\) = \(1, 4, 4\), got torch.float32",
        ),
        ({"labels": torch.full((1, 4, 4), 255)}, ValueError, r"labels must lie in -1 \(void\) .. 3 .* got 255 .. 255"),
    ],
)
def test_a_bad_call_says_what_was_expected_what_came_and_what_to_do(changes, error, says):
    with pytest.raises(error, match=says):
        call(**changes)


def test_a_model_that_turns_to_nan_ends_the_attack_with_a_clear_error_and_is_restored(bends, batch):
    bends.train()
    count = iter(range(100))
    handle = bends.register_forward_hook(lambda _, __, logits: logits * float("nan") if next(count) == 3 else logits)
    with pytest.raises(ValueError, match="the model returned NaN or infinite logits"):
        apgd(bends, *batch, eps=0.1, steps=10)
    handle.remove()
    assert all(module.training for module in bends.modules())


def test_an_unknown_attack_is_answered_with_the_known_ones(bends, batch):
    with pytest.raises(ValueError, match="unknown attack 'fgsm'; choose from: pgd, apgd, red-eps-apgd, annealed"):
        next(attack_steps("fgsm", bends, *batch, 0.1))


def test_a_model_that_answers_at_another_resolution_is_refused(batch):
    images, labels = batch
    with pytest.raises(ValueError, match=r"at the images' resolution, \(3, K, 12, 10\), got \(3, 3, 6, 5\)"):
        apgd(nn.AvgPool2d(2), images, labels, eps=0.1)


# ------------------------------------------------------------------------------------------ the record


def test_a_spec_makes_the_same_attack_as_its_arguments(bends, batch):
    images, labels = batch
    aimed = labels == 1
    spec = AttackSpec("red-eps-apgd", "js", 0.05, 6, seed=3, target=2, aimed=aimed, changeable=labels != 0)
    ours = last_of(spec_steps(spec, bends, images, labels))
    same = red_eps_apgd(bends, images, labels, 0.05, 6, "js", seed=3, target=2, aimed=aimed, changeable=labels != 0)
    assert ours.images.equal(same.images)
    assert ours.history.loss.equal(same.history.loss)


def test_a_mask_without_a_batch_axis_holds_for_every_image(bends, batch):
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[2:7, 3:8] = True
    for name in ("aimed", "changeable"):
        one, each = (apgd(bends, *batch, 0.05, 4, **{name: part}) for part in (mask, mask.expand(3, 12, 10)))
        assert one.images.equal(each.images)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attack": "fgsm"}, "unknown attack 'fgsm'; choose from: pgd, apgd"),
        ({"loss": "dice"}, "unknown loss 'dice'"),
        ({"eps": 4}, r"eps must lie in \[0, 1\].*got 4"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"target": 1}, "a targeted attack takes one of the losses ce, js, tsallis; got 'mask-ce'"),
    ],
)
def test_a_spec_that_makes_no_attack_is_refused_when_it_is_made(changes, says):
    with pytest.raises(ValueError, match=says):
        AttackSpec(**changes)


# ------------------------------------------------------------------------------------------ the names


@pytest.mark.parametrize("attack", OPTIMISERS)
def test_an_attack_is_called_by_its_name_and_explains_its_own_arguments(attack):
    name = attack.replace("-", "_")
    for function, section in ((getattr(attacks, name), "Returns:"), (getattr(attacks, f"{name}_steps"), "Yields:")):
        assert function.__name__ == function.__qualname__ == name + "_steps" * (section == "Yields:")
        assert f"{function.__name__}(model: " in pydoc.plain(pydoc.render_doc(function))
        assert list(inspect.signature(function).parameters) == list(inspect.signature(attack_steps).parameters)[1:]
        assert function.__doc__.startswith(f"Attack a batch by {attack} ")
        assert all(part in function.__doc__ for part in (section, "Args:\n    model: ", "Raises:"))
        assert pickle.loads(pickle.dumps(function)) is function


def test_a_traceback_names_the_attack(bends, batch):
    with pytest.raises(ValueError, match="eps must lie") as refused:
        apgd(bends, *batch, 8)
    assert "apgd" in [entry.name for entry in refused.traceback]


def test_an_attack_needs_its_row_in_the_table_and_nothing_else(bends, batch):
    source = inspect.getsource(attacks).replace('    "pgd": pgd_run,', '    "pgd": pgd_run,\n    "my-walk": pgd_run,')
    extended = ModuleType("extended")
    sys.modules["extended"] = extended  # where dataclasses look their module up
    try:
        exec(source, extended.__dict__)
    finally:
        del sys.modules["extended"]
    assert extended.my_walk.__name__ == "my_walk"
    assert extended.my_walk(bends, *batch, 0.05, 3).images.equal(pgd(bends, *batch, 0.05, 3).images)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0.1, 3), st.booleans())
def test_a_projection_is_the_closest_point_allowed_and_projecting_again_changes_nothing(seed, eps, spread, is_masked):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    candidates = images + spread * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    changeable = torch.rand(2, 4, 5, generator=generator) < 0.5 if is_masked else None
    found = project_linf(candidates, images, eps, changeable)
    may_change = torch.ones(2, 4, 5, dtype=torch.bool) if changeable is None else changeable
    may_change = may_change.unsqueeze(1).expand_as(images)
    assert ((found - images).abs() <= eps + 1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert found[~may_change].equal(images[~may_change])
    assert project_linf(found, images, eps, changeable).equal(found)
    # No other allowed point is closer, whichever we draw.
    for _ in range(5):
        other = images + eps * (2 * torch.rand(images.shape, generator=generator, dtype=torch.float64) - 1)
        distance, others = (found - candidates).abs(), (other.clamp(0, 1) - candidates).abs()
        assert (distance <= others + 1e-12)[may_change].all()


def infinite_somewhere(logits):
    return logits.index_fill(1, torch.tensor([1]), -float("inf"))


SHORT = AttackSpec(eps=0.1, steps=1)
#: By name: every way from pictures to what a model sees in them.
LOOKS = {
    "predicted": lambda model, images, labels: predicted(model, images),
    "the app": lambda model, images, labels: comparison.predict_with_confidence(model, images[0]),
    "checks": lambda model, images, labels: checks.random_outputs(checks.Case(model, images, labels, SHORT)),
    "top logits": lambda model, images, labels: attribution.top_logits(model, images, 0, 0),
    "attribution": lambda model, images, labels: attribution.attribute(model, images[0], labels[0] == labels[0], 0),
    "a card": lambda model, images, labels: measure_clean(model, [Sample("x", images[0], labels[0])], 4),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda logits: logits * float("nan"), "NaN or infinite logits"),
        (infinite_somewhere, "NaN or infinite logits"),
        (lambda logits: logits[..., ::2, ::2], r"the images' resolution, \(\d, K, 12, 10\), got \(\d, 4, 6, 5\)"),
        (lambda logits: logits.argmax(1), r"got (torch.int64 )?\(\d, 12, 10\)"),
        (lambda logits: torch.cat([logits, logits]), r"got \(\d, 4, 12, 10\)"),
    ],
)
def test_nothing_is_read_from_logits_that_are_not_finite_or_do_not_fit(bends, batch, look, answer, says):
    bends.register_forward_hook(lambda _, __, logits: answer(logits))
    with pytest.raises(ValueError, match=says):
        look(bends, *batch)


class CountsOfPictures(TorchDispatchMode):
    """Count the operations on tensors that are at least as large as a mask."""

    def __init__(self, pixels):
        super().__init__()
        self.pixels, self.count = pixels, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_view = any(name in str(func) for name in ("view", "select", "unbind", "detach", "alias", "expand", "slice"))
        tensors = [one for one in tree_leaves((args, result)) if isinstance(one, torch.Tensor)]
        self.count += not is_view and max((one.numel() for one in tensors), default=0) >= self.pixels
        return result


@pytest.mark.parametrize("attack", [name for name in OPTIMISERS if norm_of(name) is LINF])
def test_a_larger_batch_takes_hardly_more_operations(attack, bends):
    def operations(images):
        picture = torch.rand(images, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        labels = bends(picture).argmax(1)
        with CountsOfPictures(64) as mode:
            for _ in attack_steps(attack, bends, picture, labels, 0.002, steps=12, loss="ce", random_start=False):
                pass
        return mode.count

    assert operations(8) <= 1.05 * operations(2)  # in a step, some images of a batch may improve and others not
