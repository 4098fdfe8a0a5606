"""A training of a few iterations, in a process of its own, and the models that a user keeps."""

from __future__ import annotations

import json
import math
import os
import signal
from contextlib import suppress
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from robviz.attacks import apgd
from robviz.datasets import load_dataset
from robviz.interactive.training import PICTURE_STEPS, small, small_recipes, train_in_subprocess, training_steps
from robviz.models import available, card_of, fingerprint, keep_model, load_model
from robviz.models.zoo import kept_folder
from robviz.types import Sample

# Of three iterations, not every class shows in the images.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:the training images of photos show no"),
]
NO_NAMES = ["", "../x", "A", "a/b", "x" * 41, "-a", "a\n", "photos-clean", "my-model.safetensors"]
RECIPE = replace(small("photos-onestep", 3, 4 / 255, 1), batch_size=2, sizes=(64,))


@pytest.fixture(scope="module")
def sample():
    chelsea = load_dataset("photos", "photographs")[2]
    return Sample("part", chelsea.image[:, 40:104, 60:124].contiguous(), chelsea.labels[40:104, 60:124].contiguous())


@pytest.fixture(scope="module")
def healed(sample, tmp_path_factory):
    return list(training_steps(RECIPE, sample, tmp_path_factory.mktemp("healed"), rounds=2))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBVIZ_CACHE", str(tmp_path / "cache"))


def children() -> set[int]:
    alive = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "resource_tracker" not in " ".join(child.cmdline()):
                alive.add(child.pid)
    return alive


def test_small_recipes_start_from_a_model_that_is_here_and_are_short():
    assert small_recipes() == ["photos-robust", "photos-onestep"]
    assert small("photos-onestep", 200, 4 / 255, 1).averaging == pytest.approx(0.98)
    assert small("photos-robust", 2, 4 / 255, 2).averaging == 0
    with pytest.raises(ValueError, match="unknown recipe 'photos-clean'; choose from: photos-robust, photos-onestep"):
        small("photos-clean", 10, 4 / 255, 1)


def test_it_looks_at_the_start_in_between_and_at_the_end(healed, sample):
    assert [step.iteration for step in healed] == [0, 1, 2, 3]
    assert [step.round is not None for step in healed] == [True, False, True, True]
    assert math.isnan(healed[0].loss)
    assert all(math.isfinite(step.loss) for step in healed[1:])
    start = healed[0].round
    result = apgd(
        load_model("photos-clean"), sample.image[None], sample.labels[None], RECIPE.eps, PICTURE_STEPS, "mask-ce"
    )
    assert np.array_equal(start.mask, result.predictions[0].numpy())
    is_valid = sample.labels.numpy() >= 0
    assert start.accuracy == pytest.approx((start.mask == sample.labels.numpy())[is_valid].mean())


def test_the_last_weights_are_those_of_the_last_round(healed, sample):
    model, last = load_model(healed[-1].round.path), healed[-1].round
    assert card_of(model).training["recipe"]["iterations"] == 3
    assert len(card_of(model).training["attacked_val_miou_curve"]) == 3
    result = apgd(model, sample.image[None], sample.labels[None], RECIPE.eps, PICTURE_STEPS, "mask-ce")
    assert (result.predictions[0].numpy() == last.mask).mean() > 0.9  # kept as float16


@pytest.mark.long
def test_apart_it_goes_the_same_way_and_the_process_ends(healed, sample, tmp_path):
    before = children()
    apart = list(train_in_subprocess(RECIPE, sample, tmp_path, rounds=2))
    assert children() <= before
    assert [step.loss for step in apart[1:]] == pytest.approx([step.loss for step in healed[1:]], rel=1e-3)
    assert (tmp_path / "photos-onestep.safetensors").exists()


@pytest.mark.long
def test_closing_or_stopping_ends_the_process_at_once(sample, tmp_path):
    endless = replace(RECIPE, iterations=10_000)
    before = children()
    run = train_in_subprocess(endless, sample, tmp_path, rounds=2)
    next(run)
    assert children() - before
    run.close()
    assert children() <= before
    stops = iter([False, False, True])
    assert list(train_in_subprocess(endless, sample, tmp_path, is_stopped=lambda: next(stops))) == []
    assert children() <= before


@pytest.mark.long
def test_a_process_that_is_killed_is_one_sentence_here(sample, tmp_path):
    before = children()
    run = train_in_subprocess(replace(RECIPE, iterations=10_000), sample, tmp_path, rounds=2)
    next(run)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"the training process died \(exit code -9\)"):
        list(run)


def test_what_cannot_be_trained_is_one_sentence_here(sample, tmp_path):
    with pytest.raises(ValueError, match="unknown model 'nothing'"):
        list(train_in_subprocess(replace(RECIPE, initial="nothing"), sample, tmp_path))


def test_a_kept_model_opens_by_its_name_and_is_listed(healed):
    path = keep_model(healed[-1].round.path, "my-model")
    assert path.parent == kept_folder()
    assert "my-model" in available(offline=True)
    model = load_model("my-model")
    assert card_of(model).name == "my-model"
    assert fingerprint(model) == fingerprint(load_model(healed[-1].round.path))
    assert json.loads(path.with_suffix(".json").read_text())["dataset"] == "photos"
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 9, 64, 64)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_or_taken_is_refused(healed, name):
    with pytest.raises(ValueError, match=r"a name has 1 to 40|there is a model named"):
        keep_model(healed[-1].round.path, name)
    assert not kept_folder().exists()
