from __future__ import annotations

import pytest
import torch

import robviz
from robviz.models import ARCHITECTURES, available, build, load_model, save_checkpoint


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (61, 100)])
def test_logits_come_at_the_images_resolution(name, size):
    model = build(name, 5).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_the_small_variant_has_at_most_six_million_parameters():
    parameters = sum(p.numel() for p in build("upernet-convnext-small-cvst", 9).parameters())
    assert parameters <= 6e6


def test_the_shipped_models_are_the_clean_and_the_robust_one():
    assert available() == ["photos-clean", "photos-robust"]


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
    assert {"seed", "recipe", "training_seconds", "loss_curve", "versions"} <= card.training.keys()
    assert card.metrics["attack"] == {"attack": "apgd", "loss": "mask-ce", "eps": 4 / 255, "steps": 50, "seed": 0}


def test_the_clean_model_breaks_and_the_robust_one_holds():
    clean, robust = (load_model(name).card.metrics["val"] for name in ("photos-clean", "photos-robust"))
    assert clean["attacked_miou"] <= 0.1 < clean["clean_miou"]
    assert robust["attacked_miou"] >= 2 * clean["attacked_miou"]
    assert robust["attacked_miou"] >= 0.5 * robust["clean_miou"]


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
    with pytest.raises(ValueError, match="does not hold a upernet-convnext-small-cvst"):
        load_model(path)


def test_an_image_too_small_for_the_model_is_refused():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 8 x 40; enlarge"):
        load_model("photos-clean")(torch.rand(1, 3, 8, 40))
