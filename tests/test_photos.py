from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

import robviz
from robviz.datasets import photos
from robviz.datasets.photos import CLASSES, PHOTOS
from robviz.types import VOID


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photo_has_a_mask_of_its_size_with_known_classes(name):
    image, mask = photos.read_photo(name), photos.read_mask(name)
    assert mask.shape == image.shape[:2]
    assert set(np.unique(mask)) <= {*range(len(CLASSES)), photos.VOID_INDEX}
    assert ((mask > 0) & (mask != photos.VOID_INDEX)).mean() > 0.01


def test_the_photographs_show_every_class():
    seen = set()
    for sample in robviz.load_dataset("photos", "photographs"):
        assert sample.image.dtype == torch.float32
        assert sample.labels.dtype == torch.int64
        assert max(sample.labels.shape) == 256
        assert sample.image.shape[1:] == sample.labels.shape
        seen |= set(sample.labels.unique().tolist())
    assert seen - {VOID} == set(range(len(CLASSES)))
    assert len(PHOTOS) >= 12


@pytest.mark.slow
def test_lone_objects_label_the_whole_picture_and_stay_the_same():
    objects = robviz.load_dataset("photos-objects", "train")
    samples = [objects[i] for i in range(40)]
    assert all(sample.labels.unique().numel() == 1 for sample in samples)
    assert {sample.labels[0, 0].item() for sample in samples} == set(range(len(CLASSES)))
    assert objects[7].image.equal(samples[7].image)
    assert not objects[7].image.equal(robviz.load_dataset("photos-objects", "val")[7].image)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_composites_hold_every_class_and_only_valid_values(split):
    dataset = robviz.load_dataset("photos", split)
    seen = set()
    for i in range(40):
        sample = dataset[i]
        assert sample.image.shape == (3, 256, 256)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        seen |= set(sample.labels.unique().tolist())
    assert seen - {VOID} == set(range(len(CLASSES)))


@pytest.mark.parametrize(("split", "digest"), [("train", "2c24724c1b11cf47"), ("val", "174ae6648df94def")])
def test_a_composite_is_the_same_on_any_machine(split, digest):
    image, labels = photos.composite(split, 7)
    found = hashlib.sha256(np.asarray(image).tobytes() + labels.tobytes()).hexdigest()
    assert found[:16] == digest


def test_a_composite_depends_on_its_seed_alone():
    first = photos.composite("train", 3)
    photos.composite("train", 4)
    again = photos.composite("train", 3)
    assert first[0].tobytes() == again[0].tobytes()
    assert (first[1] == again[1]).all()


def test_train_and_val_share_only_what_the_card_says():
    assert not set(photos.TEXTURES["train"]) & set(photos.TEXTURES["val"])
    assert not set(photos.SCENES["train"]) & set(photos.SCENES["val"])
    cut = {split: photos.cutouts(split) for split in ("train", "val")}
    shared = {
        CLASSES[label]
        for label in range(1, len(CLASSES))
        for a in cut["train"][label]
        for b in cut["val"][label]
        if a.image.tobytes() == b.image.tobytes()
    }
    assert shared == {"cat", "cup", "tower", "rocket"}


def test_labels_follow_the_pasted_object_exactly():
    """A red square pasted without colour change must be labelled wherever it shows, and nowhere else."""
    from PIL import Image

    class Still:  # the middle of every range, no mirroring
        def uniform(self, low, high, size=None):
            middle = (low + high) / 2
            return middle if size is None else np.full(size, middle)

        def random(self):
            return 0.9

    canvas, mask = Image.new("RGB", (64, 64)), Image.new("L", (64, 64), 0)
    cut = photos.Cutout(2, Image.new("RGB", (10, 10), (200, 10, 10)), Image.new("L", (10, 10), 255))
    photos.paste(canvas, mask, cut, Still(), varied=False)
    assert np.array_equal(np.asarray(mask) == 2, np.asarray(canvas)[..., 0] > 100)
    assert (np.asarray(mask) == 2).sum() == 38**2


@pytest.mark.slow
def test_rare_classes_weigh_more_than_the_background():
    weights = robviz.load_dataset("photos").class_weights
    assert weights.shape == (len(CLASSES),)
    pixels = sum(np.bincount(photos.composite("train", i, 64)[1].ravel(), minlength=256) for i in range(256))
    assert pixels[: len(CLASSES)].tolist() == list(photos.TRAINING_PIXELS)
    assert weights[0] == weights.min()
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


def test_a_photo_its_package_no_longer_carries_is_left_out_with_a_warning(monkeypatch):
    monkeypatch.setitem(PHOTOS, "lion", photos.Photo("gradio", "media_assets/images/gone.jpg", "train"))
    photos.present_photos.cache_clear()
    try:
        with pytest.warns(UserWarning, match="photo 'lion' is left out: gradio no longer contains it"):
            names = photos.Photographs().names
        assert "lion" not in names
        assert len(names) == len(PHOTOS) - 1
    finally:
        photos.present_photos.cache_clear()


def test_what_is_done_to_a_sample_stays_with_it():
    before = photos.load("photographs")[0]
    changed = photos.load("photographs")[0]
    changed.image.zero_()
    changed.labels.fill_(1)
    again = photos.load("photographs")[0]
    assert torch.equal(again.image, before.image)
    assert torch.equal(again.labels, before.labels)


def test_the_committed_mask_is_what_the_outline_draws():
    from robviz.datasets.photos_masks.draw import draw

    assert (draw("coffee") == photos.read_mask("coffee")).mean() > 0.999


def test_unknown_names_and_splits_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown dataset 'photo'; choose from: photos"):
        robviz.load_dataset("photo")
    with pytest.raises(ValueError, match="photos has no split 'test'; choose from: train, val, val-128, photographs"):
        robviz.load_dataset("photos", "test")


def test_the_small_split_shows_the_scenes_of_val():
    large, small = (robviz.load_dataset("photos", split) for split in ("val", "val-128"))
    assert len(small) == len(large)
    assert small.split == "val-128"
    for i in range(3):
        assert small[i].image.shape == (3, 128, 128)
        agree = small[i].labels == large[i].labels[::2, ::2]
        assert agree.float().mean() > 0.9
