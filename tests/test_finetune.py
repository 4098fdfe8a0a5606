from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from robviz.finetune import RECIPES, Recipe, TrainingImages, initial_model, learning_rate_factor, pgd_examples, run
from robviz.models import build, load_model

TINY = Recipe(
    "tiny", None, "upernet-convnext-small-cvst", iterations=3, batch_size=2, sizes=(64,), eps=4 / 255, attack_steps=1
)


def test_a_training_ends_in_a_checkpoint_that_opens_and_a_card_that_tells_how(tmp_path):
    path = run(TINY, tmp_path, attack_steps=2, limit=1)
    model = load_model(path)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 9, 64, 64)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["training"]["recipe"]["iterations"] == 3
    assert len(card["training"]["loss_curve"]) == len(card["training"]["val_miou_curve"]) == 3
    assert 0 <= card["metrics"]["val"]["attacked_miou"] <= card["metrics"]["val"]["clean_miou"] <= 1


def test_a_training_may_start_from_imagenet_or_a_checkpoint_or_from_nothing():
    lite = dataclasses.replace(TINY, architecture="upernet-efficientnet-lite0")
    kernels = [
        initial_model(dataclasses.replace(lite, initial=initial), 9).backbone.conv_stem.weight
        for initial in (None, "imagenet", "photos-clean")
    ]
    assert kernels[1].std() > 2 * kernels[0].std()
    assert kernels[2].sub(kernels[1]).abs().mean() < kernels[1].abs().mean() / 2
    with pytest.raises(ValueError, match="no ImageNet weights for upernet-convnext-small-cvst; set initial=None"):
        initial_model(dataclasses.replace(TINY, initial="imagenet"), 9)


def test_training_examples_stay_within_the_budget():
    torch.manual_seed(0)
    model = build(TINY.architecture, 9).train()
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(-1, 9, (2, 64, 64))
    attacked = pgd_examples(model, images, labels, TINY.eps, TINY, torch.Generator().manual_seed(0))
    assert 0 < (attacked - images).abs().max() <= TINY.eps + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_the_learning_rate_warms_up_and_ends_near_zero():
    recipe = Recipe("x", iterations=100, warm_up=0.1)
    factors = [learning_rate_factor(i, recipe) for i in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1
    assert factors[-1] == pytest.approx(1 / 90)


def test_two_seeds_share_no_training_image():
    first, second = (TrainingImages(dataclasses.replace(TINY, seed=seed)) for seed in (0, 1))
    assert not first[0][0].equal(second[0][0])
    assert first[0][0].equal(TrainingImages(TINY)[0][0])


def test_the_recipes_are_the_shipped_models():
    assert set(RECIPES) == {"photos-clean", "photos-robust", "photos-onestep"}
    assert RECIPES["photos-robust"].eps == 4 / 255
