from __future__ import annotations

import functools
from collections import OrderedDict

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import nn

from robviz.finetune import Recipe, train
from robviz.finetune.images import training_images
from robviz.finetune.loop import Training
from robviz.finetune.objectives import segmentation_loss
from robviz.models import ARCHITECTURES, build, load_backbone, load_checkpoint
from tests.golden import filled, golden, images_of, published

pytestmark = pytest.mark.slow


def model_for(published_name):
    """A new model of the architecture and the number of classes in the name of a published checkpoint."""
    architecture, _, num_classes = published_name.replace("_", "-").rpartition("-")
    return build(architecture, int(num_classes))


@pytest.mark.parametrize("name", ["upernet_convnext_t_cvst_21", "segmenter_vit_s_151", "pspnet_50_deepstem_21"])
def test_a_published_model_answers_like_the_official_one(name):
    values = golden(name)
    model = load_checkpoint(model_for(name), filled(name)).eval()
    with torch.no_grad():
        logits = model(images_of(values))[0]
    part = logits[values["classes"]][:, values["rows"]][:, :, values["columns"]]
    torch.testing.assert_close(part, values["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["upernet_convnext_s_cvst_151", "pspnet_50_21"])
def test_a_published_model_has_the_official_keys_and_shapes(name):
    with torch.device("meta"):
        load_checkpoint(model_for(name), published(name))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (61, 80)])
def test_logits_come_at_the_images_resolution(name, size):
    with torch.device("meta"):
        model = build(name, 5)
        assert model.eval()(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", ["segmenter-vit-s", "pspnet-50"])
def test_a_model_without_a_smallest_size_takes_a_single_pixel(name):
    with torch.no_grad():
        assert build(name, 5).eval()(torch.rand(1, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(("name", "whole"), [("segmenter-vit-s", (48, 64)), ("pspnet-50", (41, 57))])
def test_other_sizes_are_answered_as_parts_of_a_black_canvas(name, whole):
    images = torch.rand(1, 3, 37, 51)
    canvas = F.pad(images, (0, whole[1] - 51, 0, whole[0] - 37))
    model = build(name, 5).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(canvas)[:, :, :37, :51])


@pytest.mark.parametrize("name", ["upernet-convnext-small-cvst", "upernet-efficientnet-lite0"])
def test_the_small_variants_have_at_most_six_million_parameters(name):
    assert sum(p.numel() for p in build(name, 9).parameters()) <= 6e6


@pytest.mark.parametrize("name", ["segmenter-vit-s", "pspnet-50"])
def test_a_training_reaches_every_parameter(name):
    model = build(name, 5).train()
    labels = torch.randint(-1, 5, (2, 40, 32))
    segmentation_loss(model(torch.rand(2, 3, 40, 32)), labels, 0.4).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_only_the_auxiliary_head_adds_to_the_loss():
    labels = torch.tensor([[[0, -1]]])
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]])
    main = segmentation_loss(logits, labels, 0.4)
    assert main.item() == pytest.approx(0.126928, abs=1e-6)  # log(1 + exp(-2))
    assert segmentation_loss((logits, logits), labels, 0.4).item() == pytest.approx(1.4 * main.item())


def test_adversarial_training_moves_a_segmenter():
    recipe = Recipe("x", None, "segmenter-vit-s", iterations=1, batch_size=2, sizes=(32,), eps=4 / 255, attack_steps=1)
    training = Training(build(recipe.architecture, 9), recipe, 9)
    before = training.model.decoder.cls_emb.clone()
    with pytest.warns(UserWarning, match="the training images of photos show no "):
        (progress,) = train(training, training_images(recipe), workers=0)
    assert progress.loss > 0
    assert not training.model.decoder.cls_emb.equal(before)


def with_convolution_stem(convnext):
    first, second = nn.Conv2d(3, 48, 3, 2, 1), nn.Conv2d(48, 96, 3, 2, 1)
    stem = nn.Sequential(first, LayerNorm2d(48), nn.GELU(), second, LayerNorm2d(96), nn.GELU())
    convnext.stem = nn.Sequential(OrderedDict(stem=stem))
    return convnext


@functools.cache
def classifier(name):
    """timm's, every tensor of some size."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    if name.startswith("convnext"):
        with_convolution_stem(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
NORMALISATION = {"module.base_normalize.mean": MEAN, "module.base_normalize.std": STD}


def as_published(classifier):
    return {f"module.base_model.{key}": value for key, value in classifier.state_dict().items()}


def test_a_robust_convnext_gives_the_backbone_its_features(tmp_path):
    reference = classifier("convnext_tiny")
    torch.save(as_published(reference), tmp_path / "robust.pt")
    model = build("upernet-convnext-t-cvst", 3).eval()
    head = model.head.classifier.weight.clone()
    assert load_backbone(model, tmp_path / "robust.pt") is model
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = nn.Sequential(model.backbone.stem, *model.backbone.stages)(images)
        torch.testing.assert_close(features, reference.forward_features(images))
    assert model.head.classifier.weight.equal(head)


def test_a_backbone_for_the_larger_convnext_is_told_from_the_smaller():
    with torch.device("meta"):
        state = as_published(with_convolution_stem(timm.create_model("convnext_small")))
        load_backbone(build("upernet-convnext-s-cvst", 3), state)
        with pytest.raises(ValueError, match=r"backbone for upernet-convnext-t-cvst: backbone.stages.2.blocks.10"):
            load_backbone(build("upernet-convnext-t-cvst", 3), state)


def test_a_robust_vit_gives_the_backbone_its_features():
    """Its position embeddings go from 14 x 14 patches to 32 x 32, and in the forward pass to the image's 4 x 4."""
    reference = classifier("vit_small_patch16_224")
    model = load_backbone(build("segmenter-vit-s", 3).eval(), {**as_published(reference), **NORMALISATION})
    grid = reference.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    for side in (32, 4):
        grid = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    small = timm.create_model("vit_small_patch16_224", img_size=64).eval()
    positions = torch.cat([reference.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    small.load_state_dict({**reference.state_dict(), "pos_embed": positions})
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = small.forward_features((images - MEAN) / STD)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(model.backbone(images), expected, atol=1e-3, rtol=1e-3)


def test_a_convnext_that_normalises_is_exact_inside_the_border():
    reference = classifier("convnext_tiny")
    model = load_backbone(build("upernet-convnext-t-cvst", 3), {**as_published(reference), **NORMALISATION})
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = model.backbone.stem[0](images), reference.stem.stem[0]((images - MEAN) / STD)
    torch.testing.assert_close(ours[:, :, 1:, 1:], theirs[:, :, 1:, 1:], atol=1e-5, rtol=1e-4)


def test_a_backbone_is_loaded_whole_or_not_at_all():
    state = as_published(classifier("vit_small_patch16_224"))
    model = build("segmenter-vit-s", 3)
    kernel = model.backbone.patch_embed.proj.weight.clone()
    bias = state.pop("module.base_model.blocks.3.mlp.fc1.bias")
    with pytest.raises(ValueError, match=r"backbone.blocks.3.mlp.fc1.bias is missing \(1 in all\)"):
        load_backbone(model, state)
    state["module.base_model.blocks.3.mlp.fc1.bias"] = bias[1:]
    with pytest.raises(ValueError, match=r"blocks.3.mlp.fc1.bias is \(1535,\) instead of \(1536,\) \(1 in all\)"):
        load_backbone(model, state)
    state["module.base_model.blocks.3.mlp.fc1.bias"] = bias
    state["module.base_model.blocks.3.ls1.gamma"] = bias
    with pytest.raises(ValueError, match=r"backbone.blocks.3.ls1.gamma is unknown \(1 in all\)"):
        load_backbone(model, state)
    assert model.backbone.patch_embed.proj.weight.equal(kernel)


def test_a_backbone_for_another_architecture_is_refused():
    with torch.device("meta"):
        state = as_published(timm.create_model("vit_small_patch16_224"))
        with pytest.raises(ValueError, match="choose from: upernet-convnext-t-cvst, upernet-convnext-s-cvst, segm"):
            load_backbone(build("pspnet-50", 3), state)
        with pytest.raises(ValueError, match="has no ImageNet backbone for upernet-convnext-t-cvst: back"):
            load_backbone(build("upernet-convnext-t-cvst", 3), state)
