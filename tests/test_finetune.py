"""Trainings of a tiny network on a handful of tiny pictures."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from robviz import paper
from robviz.finetune import RECIPES, Recipe, TrainingImages, run, train
from robviz.finetune import loop as loop_module
from robviz.finetune.follow import start_training
from robviz.finetune.images import training_images
from robviz.finetune.initialization import initial_model
from robviz.finetune.loop import STATE, Training
from robviz.finetune.objectives import Pooled, feature_distance, noise_of, objective_of, pgd_examples, segmentation_loss
from robviz.finetune.optimisation import learning_rate_factor, optimizer_of
from robviz.finetune.recipes import changed, of_seed, recipe_of
from robviz.models import build, load_model
from robviz.paper.generated_tables import reports_in
from robviz.paper.miniature import miniature
from robviz.sea import PAPER
from robviz.types import VOID, Dataset, Sample

pytestmark = pytest.mark.slow

SMALL = "upernet-convnext-small-cvst"
#: For the network below; in float32, where two processes differ from one by rounding alone.
TINY = Recipe(
    "tiny",
    None,
    SMALL,
    batch_size=4,
    epochs=4,
    sizes=(16, (12, 20)),
    base_size=16,
    averaging=0.9,
    eps=4 / 255,
    attack_steps=2,
    precision="fp32",
)
#: Unlike AdamW, it tells a gradient from its half.
PLAIN = replace(TINY, optimizer="sgd", learning_rate=0.2, clip=None)


class Squares(Dataset):
    """Noise with a bright square, which is what the labels say; some void."""

    name, split = "squares", "train"
    classes = ("ground", "square")
    palette = ((0, 0, 0), (255, 255, 255))

    def __len__(self):
        return 9

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image, labels = 0.5 * torch.rand(3, 18, 22, generator=generator), torch.zeros(18, 22, dtype=torch.int64)
        image[:, 4 : 8 + index, 5:12] += 0.5
        labels[4 : 8 + index, 5:12] = 1
        labels[: index + 1, :3] = VOID
        return Sample(f"squares-{index}", image, labels)


class Net(nn.Module):
    """Convolutions with dropout and a second head; batch norm if asked for."""

    def __init__(self, norm: type[nn.Module] = nn.Identity, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = nn.Conv2d(3, 8, 3, padding=1)
            self.backbone = nn.Sequential(
                OrderedDict(conv=first, norm=norm(8), act=nn.GELU(), drop=nn.Dropout(dropout))
            )
            self.head, self.auxiliary = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, images):
        features = self.backbone(images)
        return (self.head(features), self.auxiliary(features)) if self.training else self.head(features)


BatchNormAndDropout = partial(Net, nn.BatchNorm2d, 0.2)


def curve(net, recipe=TINY, **options):
    """The losses of a whole training."""
    training = Training(net, recipe, 2)
    for _ in train(training, TrainingImages(recipe, Squares()), workers=0, **options):
        pass
    return training.losses


# ------------------------------------------------------------------------------------------------ the loop


def test_a_training_lowers_the_loss_and_tells_how_it_goes(tmp_path):
    recipe = replace(TINY, epochs=None, iterations=30, learning_rate=0.02)
    training, looks = Training(Net(), recipe, 2), []

    def probe(model):
        looks.append(model)
        return 0.5, 0.25

    images = TrainingImages(recipe, Squares())
    progresses = list(train(training, images, tmp_path, 10, probe, probe_every=15, workers=0))
    assert [progress.iteration for progress in progresses] == list(range(1, 31))
    assert [progress.iteration for progress in progresses if progress.saved] == [10, 20, 30]
    assert [progress.iteration for progress in progresses if progress.probe == (0.5, 0.25)] == [15, 30]
    assert looks == [training.averaged.module] * 2
    assert training.probes == [(0.5, 0.25)] * 2
    assert progresses[-1].seconds_left == 0 < progresses[0].seconds_left
    assert progresses[0].images_per_second > 0
    assert progresses[0].seconds.keys() == {"waiting", "attack", "forward", "backward", "optimiser"}
    assert sum(training.losses[-5:]) < 0.7 * sum(training.losses[:5])


def test_training_again_gives_the_same_curve_and_another_seed_another():
    first, again, other = (curve(BatchNormAndDropout(), replace(TINY, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[0] != other[0]


def test_a_training_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    curve(BatchNormAndDropout())
    assert torch.rand(3).equal(expected)


def test_a_training_that_was_stopped_goes_on_with_the_same_curve(tmp_path):
    whole, images = curve(BatchNormAndDropout()), TrainingImages(TINY, Squares())
    for stop in (3, 2):  # the second after the state of the first
        torch.manual_seed(stop)  # others draw random numbers, too
        with closing(train(Training(BatchNormAndDropout(), TINY, 2), images, tmp_path, workers=0)) as progresses:
            list(islice(progresses, stop))
    training = Training(BatchNormAndDropout(), TINY, 2)
    done = [progress.iteration for progress in train(training, images, tmp_path, workers=0)]
    assert done[0] == 6
    assert training.losses == whole
    again = Training(BatchNormAndDropout(), TINY, 2)
    assert list(train(again, images, tmp_path, workers=0)) == []  # it is over
    for key, value in again.averaged.state_dict().items():
        assert value.equal(training.averaged.state_dict()[key])


def test_a_batch_in_pieces_gives_the_curve_of_the_whole():
    assert curve(Net(), PLAIN, micro_batch=3) == pytest.approx(curve(Net(), PLAIN), rel=1e-5)


def test_the_average_is_over_weights_and_without_averaging_it_is_the_model():
    for averaging in (0.0, 0.9):
        training = Training(BatchNormAndDropout(), replace(TINY, averaging=averaging), 2)
        list(train(training, TrainingImages(TINY, Squares()), workers=0))
        weights, averages = training.model.head.weight, training.averaged.module.head.weight
        assert averages.equal(weights) == (averaging == 0)


@pytest.mark.parametrize(("trains", "moves"), [("all", {"backbone", "head"}), ("decoder", {"head"})])
def test_a_frozen_backbone_stays_as_it_was_statistics_and_all(trains, moves):
    net = BatchNormAndDropout()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    curve(net, replace(TINY, trains=trains))
    changes = {key.split(".")[0] for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert changes - {"auxiliary"} == moves


class WithFeatures(Net):
    """As a UPerNet has them."""

    def features(self, images):
        return [self.backbone(images)]


def test_features_on_attacked_images_come_closer_to_those_of_clean_ones_without_labels():
    attack = {"eps": 16 / 255, "eps_warm_up": 0.0, "attack_step_size": 0.04, "attack_steps": 3}
    recipe = replace(TINY, trains="backbone", epochs=None, iterations=40, learning_rate=2e-3, **attack)
    training = Training(WithFeatures(), recipe, 2)
    head = training.model.head.weight.clone()
    list(train(training, TrainingImages(recipe, Squares()), workers=0))
    assert sum(training.losses[-6:]) < 0.92 * sum(training.losses[:6])
    assert training.model.head.weight.equal(head)


def test_the_distance_of_features_is_relative_a_mean_over_levels_and_a_sum_over_images():
    levels = [torch.rand(4, 8, 6, 6), torch.rand(4, 16, 3, 3)]
    assert feature_distance(levels, levels) == 0
    assert feature_distance([0 * level for level in levels], levels).item() == pytest.approx(4)
    assert feature_distance([3 * levels[0], levels[1]], levels).item() == pytest.approx(8)
    with pytest.raises(ValueError, match="trains='backbone' needs a UPerNet"):
        objective_of(Net(), replace(TINY, trains="backbone"))


# ------------------------------------------------------------------------------------------------ what can go wrong


def test_a_loss_that_is_no_number_ends_the_training_with_the_last_state_intact(tmp_path):
    training, images = Training(Net(), TINY, 2), TrainingImages(TINY, Squares())
    progresses = train(training, images, tmp_path, save_every=2, workers=0)
    list(islice(progresses, 2))
    kept = (tmp_path / STATE).read_bytes()
    with torch.no_grad():
        training.model.head.bias[0] = torch.nan
    with pytest.raises(
        ValueError,
        match="the loss became nan, its gradient's norm nan, at iteration 3 of tiny; the last saved state is intact",
    ):
        next(progresses)
    assert (tmp_path / STATE).read_bytes() == kept


def test_a_full_disk_is_told_in_one_sentence_and_leaves_the_last_state(tmp_path, monkeypatch):
    training, images = Training(Net(), TINY, 2), TrainingImages(TINY, Squares())
    progresses = train(training, images, tmp_path, save_every=1, workers=0)
    next(progresses)
    kept = (tmp_path / STATE).read_bytes()

    def full(state, file):
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop_module.torch, "save", full)
    with pytest.raises(
        ValueError, match=r"cannot save the training in .*No space left on device.*is intact: make room"
    ):
        next(progresses)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    assert (tmp_path / STATE).read_bytes() == kept


def test_a_damaged_state_is_refused_in_one_sentence(tmp_path):
    (tmp_path / STATE).write_bytes(b"no state")
    with pytest.raises(ValueError, match=r"state.pt is damaged; start over with resume=False or --restart"):
        next(train(Training(Net(), TINY, 2), TrainingImages(TINY, Squares()), tmp_path, workers=0))


def test_a_class_that_no_image_shows_is_warned_of():
    class Plain(Squares):
        classes = ("ground", "square", "circle")
        palette = ((0, 0, 0),) * 3

    progresses = train(Training(Net(), TINY, 3), TrainingImages(TINY, Plain()), workers=0)
    list(islice(progresses, 2))
    with pytest.warns(UserWarning, match="the training images of squares show no circle; a model cannot learn that"):
        next(progresses)  # of nine images in batches of four, all were seen
    next(progresses)
    progresses.close()


def test_a_batch_of_one_is_too_small_for_batch_norm_after_pooling():
    recipe = replace(TINY, batch_size=1, sizes=(64,))
    progresses = train(Training(build(SMALL, 2), recipe, 2), TrainingImages(recipe, Squares()), workers=0)
    with pytest.raises(
        ValueError, match=r"batch norm cannot learn from 1 image at a time.* at least 2 images by batch_size"
    ):
        next(progresses)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; choose from: adamw, sgd"),
        ({"trains": "head"}, "unknown trains 'head'; choose from: all, decoder, backbone"),
        ({"iterations": 5}, "either iterations or epochs, at least 1, got iterations=5 and epochs=4"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **settings)


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="squares has 9 training images, too few for 4 epochs in batches of 40"):
        TrainingImages(replace(TINY, batch_size=40), Squares())
    with pytest.raises(ValueError, match="photos is endless: set iterations of tiny instead of epochs"):
        training_images(replace(TINY, dataset="photos"))


# ------------------------------------------------------------------------------------------------ kills and processes


def slow_training(folder, pause):
    """A training in its own process, on one thread: others do not survive a fork."""
    torch.set_num_threads(1)
    training = Training(BatchNormAndDropout(), TINY, 2)
    for _ in train(training, TrainingImages(TINY, Squares()), folder, save_every=2, workers=0):
        time.sleep(pause)
    (folder / "curve.json").write_text(json.dumps(training.losses))


def test_killed_and_started_again_it_has_the_same_curve(tmp_path):
    fork = multiprocessing.get_context("fork")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    process = fork.Process(target=slow_training, args=(killed, 0.2))
    process.start()
    while not (killed / STATE).exists():
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not (killed / "curve.json").exists()
    for folder in (whole, killed):
        process = fork.Process(target=slow_training, args=(folder, 0))
        process.start()
        process.join()
    assert (killed / "curve.json").read_text() == (whole / "curve.json").read_text()


SCRIPT = """
import json, sys
from pathlib import Path
from tests.test_finetune import PLAIN, Net, curve
losses = curve(Net(), PLAIN)
from accelerate import PartialState
Path(sys.argv[1], f"curve-{PartialState().process_index}.json").write_text(json.dumps(losses))
PartialState().destroy_process_group()
"""
ROOT = Path(__file__).parent.parent


@pytest.mark.long
def test_two_processes_have_the_curve_of_one(tmp_path):
    """Where neither dropout nor batch norm sees how the batch is divided."""
    (tmp_path / "run.py").write_text(SCRIPT)
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", tmp_path / "run.py", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(two, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"curve-{process}.json").read_text()) for process in (0, 1))
    assert first == second
    assert first == pytest.approx(curve(Net(), PLAIN), rel=1e-5)


# ------------------------------------------------------------------------------------------------ its parts


def test_every_image_of_an_epoch_is_seen_once_in_another_order():
    class Numbered(Squares):
        def __getitem__(self, index):
            return Sample(f"{index}", torch.full((3, 16, 16), index / 10), torch.zeros(16, 16, dtype=torch.int64))

    images = TrainingImages(TINY, Numbered())
    seen = [round(10 * images[n][0].max().item()) for n in range(18)]
    assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9))
    assert seen[:9] != seen[9:]
    assert [images[n][0].shape[1:] for n in (0, 3, 4, 8)] == [(16, 16), (16, 16), (12, 20), (16, 16)]
    assert images[5][0].equal(images[5][0])
    assert images.iterations == 9


def test_training_examples_stay_within_the_budget():
    torch.manual_seed(0)
    model = build(SMALL, 9).train()
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(-1, 9, (2, 64, 64))
    loss = partial(segmentation_loss, auxiliary_weight=0.4)
    noise = noise_of(0, range(2), images.shape[1:])
    assert -1 <= noise.min() < -0.9 < 0.9 < noise.max() <= 1
    attacked = pgd_examples(model, images, labels, loss, TINY.eps, TINY, noise)
    assert 0 < (attacked - images).abs().max() <= TINY.eps + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_the_learning_rate_warms_up_and_decays_by_its_power():
    linear = Recipe("x", iterations=100, warm_up=0.1)
    factors = [learning_rate_factor(i, linear, 100) for i in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1
    assert factors[-1] == pytest.approx(1 / 90)
    poly = replace(linear, power=0.9, warm_up_ratio=0.5)
    assert learning_rate_factor(0, poly, 100) == pytest.approx(0.55)
    assert learning_rate_factor(55, poly, 100) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(0, replace(linear, warm_up=0.0), 100) == 1


def test_norms_biases_layer_scales_positions_and_tokens_do_not_decay():
    model = build("segmenter-vit-s", 3)
    groups = optimizer_of(model, replace(TINY, weight_decay=0.1)).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = (
        {names[p] for group in groups if group["weight_decay"] == decay for p in group["params"]} for decay in (0.1, 0)
    )
    assert plain | decayed == set(names.values())
    assert {"backbone.pos_embed", "backbone.cls_token", "decoder.cls_emb", "decoder.mask_norm.weight"} <= plain
    assert not any(re.search(r"norm|bias", name) for name in decayed)
    assert {"decoder.proj_patch", "backbone.patch_embed.proj.weight"} <= decayed


def test_sgd_moves_the_decoder_at_its_own_rate():
    sgd = optimizer_of(Net(), replace(TINY, optimizer="sgd", learning_rate=0.1, decoder_rate=10.0))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["lr"] for group in sgd.param_groups} == {0.1, 1.0}
    assert all(group["momentum"] == 0.9 for group in sgd.param_groups)


def test_two_seeds_share_no_training_image():
    recipe = replace(RECIPES["photos-clean"], sizes=(64,))
    first, second = (training_images(replace(recipe, seed=seed)) for seed in (0, 1))
    assert not first[0][0].equal(second[0][0])
    assert first[0][0].equal(training_images(recipe)[0][0])


# ------------------------------------------------------------------------------------------------ where it starts


def test_a_training_may_start_from_imagenet_or_a_checkpoint_or_from_nothing(tmp_path):
    lite = replace(TINY, architecture="upernet-efficientnet-lite0")
    kernels = [
        initial_model(replace(lite, initial=initial), 9).backbone.conv_stem.weight
        for initial in (None, "imagenet", "photos-clean")
    ]
    assert kernels[1].std() > 2 * kernels[0].std()
    assert kernels[2].sub(kernels[1]).abs().mean() < kernels[1].abs().mean() / 2
    with pytest.raises(ValueError, match="no ImageNet weights for upernet-convnext-small-cvst; set initial to"):
        initial_model(replace(TINY, initial="imagenet"), 9)


def test_the_backbone_alone_of_a_checkpoint_serves_other_classes(tmp_path):
    recipe = replace(TINY, architecture="upernet-efficientnet-lite0", initial="photos-robust", backbone_only=True)
    model, robust = initial_model(recipe, 11), load_model("photos-robust")
    assert model.head.classifier.weight.shape[0] == 11
    assert all(value.equal(robust.backbone.state_dict()[key]) for key, value in model.backbone.state_dict().items())
    with pytest.raises(ValueError, match="photos-robust has 9 classes, photos 11; set backbone_only=true"):
        initial_model(replace(recipe, backbone_only=False), 11)
    with pytest.raises(ValueError, match="photos-robust is a upernet-efficientnet-lite0, tiny trains a upernet"):
        initial_model(replace(recipe, architecture=SMALL), 11)


def test_a_robust_classifier_gives_its_backbone(tmp_path, monkeypatch):
    from robviz.models import published

    source, keys = build("segmenter-vit-s", 2).backbone.state_dict(), {}
    for key, value in source.items():
        keys[f"module.base_model.{key}"] = value
    torch.save(keys, tmp_path / "vit.pt")
    recipe = replace(TINY, architecture="segmenter-vit-s", initial=str(tmp_path / "vit.pt"))
    monkeypatch.setattr(published, "download", lambda name: tmp_path / "vit.pt")
    for initial in (recipe.initial, "imagenet-vit-s-robust"):
        model = initial_model(replace(recipe, initial=initial), 2)
        assert model.backbone.blocks[3].mlp.fc1.weight.equal(source["blocks.3.mlp.fc1.weight"])


# ------------------------------------------------------------------------------------------------ from recipe to card


@pytest.fixture
def folder(tmp_path):
    """Anyone's pictures: a bright half is a class."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "own" / split / kind).mkdir(parents=True)
        for i in range(4):
            labels = torch.zeros(48, 48, dtype=torch.uint8)
            labels[:, 8 * i : 24 + 8 * i] = 1
            pixels = (100 * labels[..., None] + torch.randint(0, 100, (48, 48, 3))).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "own" / split / "images" / f"{i}.png")
            Image.fromarray(labels.numpy()).save(tmp_path / "own" / split / "masks" / f"{i}.png")
    places = "".join(f"  {s}: {{images: {s}/images, masks: {s}/masks}}\n" for s in ("train", "val"))
    (tmp_path / "own" / "dataset.yaml").write_text(f"classes: [dark, bright]\nsplits:\n{places}")
    return tmp_path / "own"


def test_a_recipe_ends_in_a_checkpoint_that_opens_and_a_card_that_tells_how(folder, tmp_path, monkeypatch, capsys):
    recipe = replace(TINY, dataset=str(folder), epochs=4, sizes=(40,), base_size=48, attack_steps=1)
    options = dict(attack_steps=2, limit=1, probe_images=1, workers=0, save_every=1)
    attempts = []

    def interrupted(*arguments, **keywords):
        for progress in train(*arguments, **keywords):
            yield progress
            attempts.append(progress)
            if len(attempts) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("robviz.finetune.follow.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path, **options)
    assert f"stopped; the same command resumes from the last good state in {tmp_path}" in capsys.readouterr().err
    so_far = tmp_path / "tiny.training" / "tiny.safetensors"
    assert load_model(so_far)(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)
    with pytest.raises(ValueError, match=r"another run .*learning_rate: 0.001 there, 0.5 asked for"):
        run(replace(recipe, learning_rate=0.5), tmp_path, **options)
    path = run(recipe, tmp_path, **options)
    assert [progress.iteration for progress in attempts] == [1, 2, 3, 4]
    assert load_model(path).card.classes == ("dark", "bright")
    assert not so_far.parent.exists()
    capsys.readouterr()
    assert run(recipe, tmp_path, **options) == path
    assert f"{path} exists already" in capsys.readouterr().err
    assert len(attempts) == 4
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["training"]["recipe"]["epochs"] == 4
    assert len(card["training"]["loss_curve"]) == len(card["training"]["val_miou_curve"]) == 4
    assert 0 <= card["metrics"]["val"]["attacked_miou"] <= card["metrics"]["val"]["clean_miou"] <= 1


def relabel(path, turned=2):
    with Image.open(path) as mask:
        labels = mask.rotate(90 * turned)
    labels.save(path)


def test_a_training_is_resumed_over_the_same_pictures_and_labels_alone(folder, tmp_path):
    recipe = replace(TINY, dataset=str(folder), epochs=2, sizes=(40,), base_size=48)
    training = tmp_path / "tiny.training"
    start_training(training, recipe, training_images(recipe), resume=True)
    start_training(training, recipe, training_images(recipe), resume=True)
    relabel(folder / "train/masks/2.png")
    with pytest.raises(ValueError, match=r"another run .*dataset.sha256: ") as refusal:
        start_training(training, recipe, training_images(recipe), resume=True)
    assert "the picture or the labels of 2 changed); give another folder, or resume=False" in str(refusal.value)
    start_training(training, recipe, training_images(recipe), resume=False)
    card = (folder / "dataset.yaml").read_text(encoding="utf-8")
    (folder / "dataset.yaml").write_text(card.replace("[dark, bright]", "[bright, dark]"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset.classes: \['dark', 'bright'\] there, \['bright', 'dark'\] asked"):
        start_training(training, recipe, training_images(recipe), resume=True)


def test_a_finished_training_of_other_labels_is_not_handed_back(folder, tmp_path):
    recipe = replace(TINY, dataset=str(folder), epochs=1, sizes=(40,), base_size=48, eps=0.0)
    options = dict(attack_steps=1, limit=1, probe_images=1, workers=0)
    path = run(recipe, tmp_path, **options)
    assert run(recipe, tmp_path, **options) == path
    relabel(folder / "train/masks/1.png")
    with pytest.raises(ValueError, match=r"was trained on other images or labels than own holds now; .* --restart"):
        run(recipe, tmp_path, **options)
    (folder / "dataset.yaml").unlink()
    assert run(recipe, tmp_path, **options) == path  # the model is here, its dataset is not


def test_a_recipe_that_starts_from_another_trains_that_one_first_and_once(folder, tmp_path, monkeypatch):
    settings = {"dataset": str(folder), "epochs": 1, "sizes": (40,), "base_size": 48, "attack_steps": 1}
    stage = replace(TINY, name="stage", trains="backbone", **settings)
    recipe = replace(TINY, name="whole", initial="stage", backbone_only=True, learning_rate=0.0, **settings)
    monkeypatch.setitem(RECIPES, "stage", stage)
    path = run(recipe, tmp_path, attack_steps=1, limit=1, probe_images=1, workers=0)
    first = tmp_path / "stages" / "stage.safetensors"
    made = first.stat().st_mtime_ns
    weights = [load_model(p).backbone.stages[0].blocks[0].mlp.fc1.weight for p in (first, path)]
    assert weights[0].equal(weights[1])
    run(recipe, tmp_path, attack_steps=1, limit=1, probe_images=1, workers=0)
    assert first.stat().st_mtime_ns == made
    assert json.loads(first.with_suffix(".json").read_text())["metrics"] == {}


def test_another_seed_is_that_of_the_first_stage_too(folder, tmp_path, monkeypatch):
    settings = {"dataset": str(folder), "epochs": 1, "sizes": (40,), "base_size": 48}
    monkeypatch.setitem(RECIPES, "stage", replace(TINY, name="stage", trains="backbone", **settings))
    recipe = of_seed(replace(TINY, name="whole", initial="stage", backbone_only=True, **settings), 3)
    path = run(recipe, tmp_path, attack_steps=1, limit=1, probe_images=1, workers=0)
    assert path.stem == "whole-seed3"
    stage = json.loads((tmp_path / "stages" / "stage-seed3.json").read_text())
    assert stage["training"]["seed"] == 3


@pytest.mark.filterwarnings("ignore:the training images of photos")  # two iterations show few classes
def test_a_classifier_sees_whole_pictures_and_lends_its_backbone(tmp_path, monkeypatch):
    tiny = {"iterations": 2, "batch_size": 2, "sizes": (32,)}
    monkeypatch.setitem(RECIPES, "mini-classifier", replace(RECIPES["mini-classifier"], **tiny))
    monkeypatch.setattr("robviz.finetune.follow.validation_metrics", lambda *_: {})
    recipe = replace(RECIPES["mini-at-2-300"], **tiny)
    evaluations = miniature(tmp_path, [recipe], [0], PAPER.with_steps(1), images=1, probe_images=1, workers=0)
    (report,) = islice(evaluations, 1)
    assert report.plan["model"]["name"] == "mini-at-2-300"
    assert report.plan["eps"] == 2 / 255
    assert {"name": "photos", "split": "val-128", "images": 1}.items() <= report.plan["dataset"].items()
    (line,) = paper.ours(3, reports_in(tmp_path / "reports")).to_dict("records")
    assert (line["Training"], line["Steps"], line["Its."], line["Seeds"]) == ("AT", 2, 300, 1)
    classifier = load_model(tmp_path / "stages" / "mini-classifier.safetensors")
    images = torch.rand(2, 3, 32, 32)
    expected = classifier(images).mean((2, 3), keepdim=True).expand(-1, -1, 32, 32)
    assert Pooled(classifier)(images).equal(expected)


# ------------------------------------------------------------------------------------------------ the table


def test_the_recipes_of_the_shipped_models_stay_as_they_were():
    for name in ("photos-clean", "photos-robust"):
        used, recipe = load_model(name).card.training["recipe"], RECIPES[name]
        for key, value in used.items():
            assert getattr(recipe, key) == (tuple(value) if isinstance(value, list) else value), key
    assert RECIPES["photos-onestep"].attack_steps == 1


#: Table 4 by hand: optimiser, learning rate, decay, power, decoder's rate, warm-up epochs of the short and long runs.
TABLE_4 = {
    "voc-pspnet-50": ("sgd", 5e-4, 0.0, 0.9, 10, {50: 5, 300: 30}),
    "voc-upernet-convnext-t": ("adamw", 1e-3, 1e-2, 1.0, 1, {50: 5, 300: 30}),
    "voc-upernet-convnext-s": ("adamw", 1e-3, 1e-2, 1.0, 1, {50: 5, 300: 30}),
    "ade20k-upernet-convnext-t": ("adamw", 1e-3, 1e-2, 1.0, 1, {32: 5, 128: 20}),
    "ade20k-upernet-convnext-s": ("adamw", 1e-3, 1e-2, 1.0, 1, {32: 5, 128: 20}),
    "ade20k-segmenter-vit-s": ("sgd", 2e-3, 1e-2, 0.9, 1, {32: 5, 128: 20}),
}


@pytest.mark.parametrize("start", TABLE_4)
def test_the_recipes_of_the_paper_are_table_4(start):
    optimizer, rate, decay, power, decoder_rate, warm_up = TABLE_4[start]
    recipes = [recipe for name, recipe in RECIPES.items() if name.startswith(start)]
    assert len(recipes) == (6 if "pspnet" in start else 10)
    for recipe in recipes:
        found = (recipe.optimizer, recipe.learning_rate, recipe.weight_decay, recipe.power, recipe.decoder_rate)
        assert found == (optimizer, rate, decay, power, decoder_rate)
        assert recipe.warm_up * recipe.epochs == pytest.approx(warm_up[recipe.epochs])
        assert recipe.batch_size == 128
        assert (recipe.sizes, recipe.base_size) == (((473,), 512) if "voc" in start else ((512,), 520))
        assert recipe.eps == (0 if "clean" in recipe.name else 4 / 255)
        assert (recipe.averaging, recipe.clip, recipe.precision, recipe.auxiliary_weight) == (0.0, None, "fp32", 0.4)


def test_pirat_differs_from_at_in_the_backbone_it_starts_from():
    at, pirat = (RECIPES[f"voc-upernet-convnext-t-{kind}-5-50"] for kind in ("at", "pirat"))
    assert replace(at, name=pirat.name, initial="imagenet-convnext-t-cvst-robust") == pirat
    assert (pirat.attack_steps, pirat.attack_step_size, pirat.epochs) == (5, 0.01, 50)


def test_an_unknown_recipe_is_answered_with_close_ones():
    with pytest.raises(ValueError, match="unknown recipe 'camvid-att'; closest are camvid-at, "):
        recipe_of("camvid-att")


def test_settings_are_changed_by_name():
    changes = ["sizes=[[240, 320], 64]", "initial=null", "learning_rate=0.5", "name=mine"]
    recipe = changed(TINY, changes)
    assert (recipe.sizes, recipe.initial, recipe.learning_rate, recipe.name) == (((240, 320), 64), None, 0.5, "mine")
    with pytest.raises(ValueError, match="cannot set 'rate=1'; expected name=value with a name among name, initial"):
        changed(TINY, ["rate=1"])


# ------------------------------------------------------------------------------------------------ on a GPU


@pytest.mark.gpu
def test_a_step_on_a_gpu_in_bfloat16_moves_the_weights():
    recipe = replace(TINY, precision="bf16", epochs=None, iterations=2, sizes=(64,))
    training = Training(build(SMALL, 2), recipe, 2)
    before = training.model.head.classifier.weight.clone()
    progresses = list(train(training, TrainingImages(recipe, Squares()), workers=0))
    assert training.model.head.classifier.weight.device.type == "cuda"
    assert all(progress.loss > 0 for progress in progresses)
    assert not training.model.head.classifier.weight.equal(before)


@pytest.mark.gpu
def test_an_attack_step_on_a_gpu_stays_within_the_budget():
    model, images, labels = build(SMALL, 9).cuda(), torch.rand(2, 3, 64, 64).cuda(), torch.randint(-1, 9, (2, 64, 64))
    loss, noise = partial(segmentation_loss, auxiliary_weight=0.4), noise_of(0, range(2), images.shape[1:])
    attacked = pgd_examples(model, images, labels.cuda(), loss, 4 / 255, replace(TINY, precision="bf16"), noise)
    assert 0 < (attacked - images).abs().max() <= 4 / 255 + 1e-6
