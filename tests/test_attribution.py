from __future__ import annotations

import copy
import inspect
import pydoc

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.segmentation import slic
from torch import nn

import robviz
from robviz import attribution
from robviz.attribution import (
    METHODS,
    attribute,
    attribute_steps,
    contrast,
    contrast_steps,
    estimate,
    feature_layer,
    region_at,
    top_logits,
)
from robviz.files.images import AGAINST, FOR, attribution_overlay, to_bytes
from robviz.models import adapt, build
from robviz.models.layers import resize
from tests.small import Bends

#: Every method, small, on `Bends`.
SMALL = {
    "grad-cam": {"layer": "layers.2"},
    "integrated-gradients": {"steps": 6, "samples": 2},
    "occlusion": {"across": 3},
    "segments": {"count": 6},
}


@pytest.fixture
def image(batch):
    return batch[0][0]  # (3, 12, 10)


@pytest.fixture
def left():
    """The left three columns."""
    return torch.arange(10).expand(12, 10) < 3


def blurred(image):
    return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 12 / 16, 12 / 16), mode="nearest"))


def test_integrated_gradients_of_a_linear_model_are_weight_times_change(linear, image, left):
    found = attribute(linear, image, left, 1, "integrated-gradients", steps=4)
    expected = (linear.weights[0] * (image - blurred(image))).sum(0) * left / left.sum()
    np.testing.assert_allclose(found.map, expected.detach(), atol=1e-7)
    assert abs(found.delta) < 1e-7


def test_integrated_gradients_sum_to_the_change_of_the_logit_and_delta_is_what_is_missing(bends, image, left):
    change = (bends(image[None]) - bends(blurred(image)[None]))[0, 2][left].mean().item()
    coarse, fine = (attribute(bends, image, left, 2, "integrated-gradients", steps=n) for n in (2, 40))
    for found in (coarse, fine):
        assert found.delta == pytest.approx(found.map.sum() - change, abs=1e-5)
    assert abs(fine.delta) < 1e-3 * abs(change)
    assert abs(fine.delta) < abs(coarse.delta)


@pytest.fixture
def ramp():
    """Smooth enough for superpixels: (3, 12, 10)."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 12), torch.linspace(0, 1, 10), indexing="ij")
    return torch.stack([rows, columns, (rows - columns).abs()]).double()


@pytest.mark.parametrize("method", ["occlusion", "segments"])
def test_hiding_what_a_linear_model_does_not_look_at_costs_nothing(linear, ramp, left, method):
    found = attribute(linear, ramp, left, 1, method, **SMALL[method])
    assert (found.map[:, 7:] == 0).all()
    assert (found.map[:, :3] != 0).any()


def test_hiding_parts_equals_captum(bends, ramp, left):
    from captum.attr import FeatureAblation, Occlusion

    def score(images):
        return bends(images)[:, 2][:, left].mean(1)

    hidden = blurred(ramp)[None]
    windows = Occlusion(score).attribute(ramp[None], (3, 4, 4), (3, 2, 2), baselines=hidden)[0, 0]
    found = attribute(bends, ramp, left, 2, "occlusion", batch_size=4, across=3)
    np.testing.assert_allclose(found.map, windows.detach(), atol=1e-6)
    numbers = torch.from_numpy(slic(to_bytes(ramp), 6, start_label=0))
    assert numbers.unique().numel() > 3
    parts = FeatureAblation(score).attribute(ramp[None], hidden, feature_mask=numbers[None, None])[0, 0]
    found = attribute(bends, ramp, left, 2, "segments", batch_size=4, count=6)
    np.testing.assert_allclose(found.map, parts.detach(), atol=1e-6)


class Pooled(nn.Module):
    """Means of 4 x 4 pixels, judged by a linear function."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.AvgPool2d(4, ceil_mode=True)
        self.weights = nn.Parameter(torch.tensor((1.0, -2.0, 0.5), dtype=torch.float64).view(1, 3, 1, 1))

    def forward(self, images):
        judged = (self.weights * self.backbone(images)).sum(1, keepdim=True)
        return resize(torch.cat([torch.zeros_like(judged), judged], 1), images.shape[2:])


def test_grad_cam_weighs_features_by_their_mean_gradient():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, everywhere = Pooled(), np.ones((16, 16), bool)
    cells = (model.weights * model.backbone(image[None])).sum(1, keepdim=True) / 16
    found = attribute(model, image, everywhere, 1, "grad-cam")
    np.testing.assert_allclose(found.map, resize(cells, (16, 16))[0, 0].detach(), atol=1e-7)


def test_cells_beyond_the_picture_do_not_move_the_map():
    """Of 16 x 10 pixels, the third column of cells is half outside."""
    image = torch.rand(3, 16, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, everywhere = Pooled(), np.ones((16, 10), bool)
    cells = (model.weights * model.backbone(image[None])).sum(1, keepdim=True)
    expected = resize(cells, (16, 12))[0, 0, :, :10].detach().numpy()
    found = attribute(model, image, everywhere, 1, "grad-cam").map
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 1 - 1e-6


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("upernet-efficientnet-lite0", "backbone.blocks.4"),
        ("upernet-convnext-small-cvst", "backbone.norms.2"),
        ("segmenter-vit-s", "backbone"),
        ("pspnet-50", "backbone.layer4"),
    ],
)
@pytest.mark.slow
def test_grad_cam_looks_at_the_last_features_of_a_sixteenth(architecture, layer):
    with torch.device("meta"):
        model = build(architecture, 3).eval()
    model.to_empty(device="cpu")
    assert feature_layer(model, torch.rand(1, 3, 64, 48)) is model.get_submodule(layer)


def test_grad_cam_finds_the_features_of_an_adapted_model():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    model = adapt(net, ["a", "b"], mean=(0, 0, 0), std=(1, 1, 1))
    assert feature_layer(model, torch.rand(1, 3, 64, 64)) is net.backbone["16"]


def test_grad_cam_of_cat_lies_on_the_cat():
    chelsea = next(s for s in robviz.load_dataset("photos", "photographs") if s.name == "chelsea")
    model, cat = robviz.load_model("photos-robust"), chelsea.labels == 2
    found = attribute(model, chelsea.image, cat, 2, "grad-cam").map
    assert found[cat].mean() > 3 * abs(found[~cat].mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_handed_back_as_it_came_wherever_one_stops(image, left, method):
    model = Bends().double().train()
    model.layers[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    count = sum(1 for _ in attribute_steps(model, image, left, 2, method, **SMALL[method]))
    for stop in range(1, count + 1):
        run = attribute_steps(model, image, left, 2, method, **SMALL[method])
        for _ in range(stop):
            next(run)
        assert not any(module.training for module in model.modules())
        run.close()
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        flags = [parameter.requires_grad for parameter in model.parameters()]
        assert flags == [False] + [True] * (len(flags) - 1)
        assert all(parameter.grad is None for parameter in model.parameters())
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


def test_no_hook_stays_when_the_model_fails(image):
    model = Pooled()
    model.weights = nn.Parameter(torch.full((1, 3, 1, 1), torch.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN"):
        attribute(model, image, np.ones((12, 10), bool), 1, "grad-cam")
    model.forward = lambda images: model.backbone(images).fail()
    with pytest.raises(AttributeError):
        feature_layer(model, image[None])
    assert not model.backbone._forward_hooks


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_turns_to_nan_on_the_way_is_no_map(bends, image, left, method):
    run = attribute_steps(bends, image, left, 2, method, **SMALL[method])
    next(run)
    bends.register_forward_hook(lambda _, __, logits: logits * torch.nan)
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        next(run)


@pytest.mark.parametrize("method", METHODS)
def test_every_part_is_complete_and_the_last_one_the_result(bends, image, left, method):
    parts = list(attribute_steps(bends, image, left, 2, method, **SMALL[method]))
    assert not parts[0].map.any()
    assert [part.done for part in parts] == sorted(part.done for part in parts)
    assert (parts[0].done, parts[-1].done) == (0, 1)
    for part in parts:
        assert part.map.shape == (12, 10)
        assert part.map.dtype == np.float32
        assert part.value == pytest.approx(bends(image[None])[0, 2][left].mean().item())
    found = attribute(bends, image, left, 2, method, **SMALL[method])
    assert np.array_equal(found.map, parts[-1].map)
    assert np.array_equal(found.region, left)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_changes_nothing_and_no_batch_exceeds_it(bends, image, left, method):
    sizes = []
    bends.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    one, four = (attribute(bends, image, left, 2, method, batch_size=n, **SMALL[method]) for n in (1, 4))
    np.testing.assert_allclose(one.map, four.map, atol=1e-6)
    assert max(sizes) <= 4
    assert max(sizes[: len(sizes) // 2]) == 1


def test_noise_depends_on_the_seed_alone(bends, image, left):
    before = torch.get_rng_state()
    first, again, other = (
        attribute(bends, image, left, 2, "integrated-gradients", seed=seed, samples=2, noise=0.1) for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(before)
    assert np.array_equal(first.map, again.map)
    assert not np.allclose(first.map, other.map)
    assert abs(first.delta) < 1e-3


def test_comparing_is_explaining_both_on_one_scale(bends, image, left):
    attacked = (image + 0.1).clamp(0, 1)
    found = contrast(bends, image, attacked, left, 2, "occlusion", across=3)
    maps = [attribute(bends, one, left, 2, "occlusion", across=3).map for one in (image, attacked)]
    assert np.array_equal(found.clean.map, maps[0])
    assert np.array_equal(found.attacked.map, maps[1])
    assert found.scale == pytest.approx(np.quantile(np.abs(maps), 0.99))
    assert contrast(bends, attacked, image, left, 2, "occlusion", across=3).scale == found.scale
    shares = [part.done for part in contrast_steps(bends, image, attacked, left, 2, "segments", count=6)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_the_estimate_is_the_time_that_all_passes_take(linear, image, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(attribution.time, "perf_counter", lambda: clock[0])

    def tick(_, inputs):
        clock[0] += len(inputs[0])

    linear.register_forward_pre_hook(tick)
    for method, options in (("occlusion", {"across": 3}), ("integrated-gradients", {"steps": 6})):
        expected = estimate(linear, method, image, **options)
        started = clock[0]
        attribute(linear, image, np.ones((12, 10), bool), 0, method, **options)
        assert expected == pytest.approx(clock[0] - started, rel=0.5)


def test_a_region_is_what_hangs_together_around_the_pixel():
    labels = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, -1]])
    assert region_at(torch.from_numpy(labels), 0, 0).tolist() == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    with pytest.raises(ValueError, match=r"pixel \(2, 3\) is void and has no class; choose another one"):
        region_at(labels, 2, 3)
    for y, x in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(ValueError, match=f"y in 0 .. 2 and x in 0 .. 3, got y = {y}, x = {x}"):
            region_at(labels, y, x)


def test_top_logits_hold_the_highest_of_every_image_in_the_order_of_the_first(bends, batch):
    images, _ = batch
    logits = bends(images[:2])[:, :, 1, 4].detach()
    found = top_logits(bends, images[:2], 1, 4, k=2)
    top = set(logits.topk(2).indices.flatten().tolist())
    assert found.classes.tolist() == [k for k in logits[0].argsort(descending=True).tolist() if k in top]
    np.testing.assert_allclose(found.logits, logits[:, found.classes], rtol=1e-6)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1)[:, found.classes], rtol=1e-6)
    assert top_logits(bends, images[:1], 1, 4, k=9).probabilities.sum() == pytest.approx(1)


def test_the_overlay_shows_the_photo_where_nothing_speaks():
    image = np.full((1, 4, 3), (90, 60, 0), np.uint8)
    shown = attribution_overlay(image, np.array([[0.0, 2.0, -5.0, 1.0]]), 2.0)
    assert shown.dtype == np.uint8
    assert shown[0, :3].tolist() == [[50, 50, 50], list(FOR), list(AGAINST)]
    assert shown[0, 3].tolist() == np.round((50 + np.array(FOR)) / 2).tolist()
    assert (attribution_overlay(image, np.zeros((1, 4)), 0.0) == 50).all()


class Flattened(nn.Sequential):
    """Changes nothing, by a layer that gives (B, C, H * W)."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(2), nn.Unflatten(2, (12, 10)))


def test_wrong_calls_are_answered_in_one_sentence(bends, image, left):
    calls = [
        ({"method": "gradcam"}, "unknown method 'gradcam'; choose from: grad-cam, integrated-gradients, occlusion"),
        ({"target": 4}, "target must be one of the model's classes 0 .. 3, got 4"),
        ({"target": -1}, "target must be one of"),
        ({"image": image[None]}, r"image must be one picture \(3, H, W\), got \(1, 3, 12, 10\)"),
        ({"image": 255 * image}, r"images must lie in \[0, 1\]"),
        ({"region": left & ~left}, r"region must be bool \(H, W\) = \(12, 10\) with a pixel in it"),
        ({"region": left[1:]}, r"got torch.bool \(11, 10\) with 33"),
        ({"region": left.int()}, "got torch.int32"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"method": "grad-cam"}, "found none in a part of the model named backbone or encoder"),
        ({"method": "grad-cam", "layer": "layer9"}, "the model has no layer 'layer9'; choose a name from"),
        ({"method": "integrated-gradients", "steps": 0}, "must be at least 1 and noise at least 0, got 0, 1 and"),
        ({"across": 13}, "across must lie in 1 .. 12, the longer side, got 13"),
        ({"method": "segments", "count": 0}, "count must be at least 1, got 0"),
    ]
    for change, says in calls:
        with pytest.raises(ValueError, match=says):
            attribute(**{"model": bends, "image": image, "region": left, "target": 2, **change})
    bends.idle, bends.layers[2] = nn.Identity(), Flattened()
    for layer, says in (
        ("idle", "does not contribute to the model's logits"),
        ("layers.2.0", r"'layers.2.0' does not"),
    ):
        with pytest.raises(ValueError, match=says):
            attribute(bends, image, left, 2, "grad-cam", layer=layer)
    with pytest.raises(ValueError, match="clean and attacked must have the same size"):
        contrast(bends, image, image[:, 1:], left, 2)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        top_logits(bends, image[None], 0, 0, k=0)
    with pytest.raises(ValueError, match=r"y in 0 \.\. 11"):
        top_logits(bends, image[None], 12, 0)


def test_the_functions_are_called_by_their_names_and_take_the_arguments_of_their_generators():
    for function, generator in ((attribute, attribute_steps), (contrast, contrast_steps)):
        assert inspect.signature(function).parameters == inspect.signature(generator).parameters
        assert pydoc.plain(pydoc.render_doc(function)).count(f"{function.__name__}(model: ") == 1
