"""Problems reported about other projects, reproduced with inputs of our own; docs/tried.md is the list."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import nn

from robviz.attacks import apgd, pgd
from robviz.datasets import load_dataset, validate
from robviz.datasets.augment import augmented
from robviz.datasets.pairs import fit
from robviz.metrics import counts, iou, miou
from robviz.models import adapt
from robviz.models.identity import written_in_passes
from robviz.results.plan import Run, SeaSettings
from robviz.sea import evaluate
from robviz.types import VOID, Sample
from tests.small import Bends, Noise

ROOT = Path(__file__).parent.parent
EPS = 0.05
ONE = SeaSettings("one", (Run("mask-ce", "apgd", 6),))


def plain():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 1)).eval()


def worst(model, **options):
    return evaluate(model, Noise(), EPS, ONE, limit=2, **options).rows["worst case"]["accuracy_mean"]


# ------------------------------------------------------------------------------------- the list


def test_every_row_of_the_list_names_a_test_that_there_is():
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in (ROOT / "docs/tried.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| reported", "| ---"))
    ]
    tests = {}
    for path in (ROOT / "tests").glob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            tests[name] = path.stem
    assert len(rows) >= 40
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`(test_\w+)`", row[3])
        assert named, row
        assert [name for name in named if name not in tests] == []


# ------------------------------------------------------------------------------------- figures


def test_an_image_more_or_less_in_a_batch_pools_counts_and_averages_no_ratios():
    generator = torch.Generator().manual_seed(0)
    labels, found = (
        torch.randint(-1, 3, (5, 6, 6), generator=generator),
        torch.randint(0, 3, (5, 6, 6), generator=generator),
    )
    labels[0] = 0  # a class by itself, which a mean over batches would count as much as all others
    whole = counts(found, labels, 3)
    pooled = miou(whole.intersection.sum(0), whole.union.sum(0))
    for size in (1, 2, 5):
        parts = [counts(a, b, 3) for a, b in zip(found.split(size), labels.split(size))]
        added = (torch.cat([getattr(part, name) for part in parts]).sum(0) for name in ("intersection", "union"))
        assert miou(*added) == pooled
    ratios = [
        miou(one.intersection.sum(0), one.union.sum(0))
        for one in (counts(a[None], b[None], 3) for a, b in zip(found, labels))
    ]
    assert abs(sum(ratios) / 5 - pooled) > 0.01


def test_void_is_in_no_union_and_an_absent_class_in_no_mean():
    labels, found = torch.tensor([[[0, 0, 1, VOID, VOID]]]), torch.tensor([[[0, 1, 1, 1, 2]]])
    one = counts(found, labels, 4)
    assert one.union[0].tolist() == [2, 2, 0, 0]  # neither the 1 nor the 2 that are predicted on void
    assert iou(one.intersection[0].double(), one.union[0]).tolist()[:2] == [0.5, 0.5]
    assert miou(one.intersection.sum(0), one.union.sum(0)) == 0.5


@pytest.mark.parametrize("shape", [(31, 47), (64, 20)])
def test_resizing_invents_no_label(shape):
    labels = np.where(np.random.default_rng(0).random(shape) < 0.5, 3, 17)
    assert set(np.unique(fit(Image.new("RGB", shape[::-1]), labels, 24)[1])) <= {3, 17}
    sample = Sample("x", torch.rand(3, *shape), torch.from_numpy(labels))
    for seed in range(5):
        made = augmented(sample, 24, 30, torch.Generator().manual_seed(seed))
        assert set(made.labels.unique().tolist()) <= {3, 17, VOID}


# ------------------------------------------------------------------------------------- data


@pytest.fixture
def folder(tmp_path):
    for part in ("pictures", "masks"):
        (tmp_path / part).mkdir()
    for number in range(2):
        Image.fromarray(np.full((40, 40, 3), 90 * number, np.uint8)).save(tmp_path / f"pictures/{number}.png")
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / f"masks/{number}.png")

    def card(lines="classes: [a, b]", places="images: pictures, masks: masks"):
        (tmp_path / "dataset.yaml").write_text(f"{lines}\nsplits: {{val: {{{places}}}}}\n", encoding="utf-8")
        return tmp_path

    return card


@pytest.mark.parametrize(
    ("number", "says"), [(2, "contains 2: expected class numbers 0 .. 1"), (255, "contains 255: ")]
)
def test_a_number_beyond_the_classes_is_refused_by_name(folder, number, says):
    Image.fromarray(number * np.eye(40, dtype=np.uint8)).save(folder() / "masks/1.png")
    assert [(one.name, says in one.reason) for one in validate(load_dataset(folder()))] == [("sample 1", True)]


def test_a_mask_in_jpeg_is_refused(folder):
    where = folder(places='images: "pictures/*.png", masks: "masks/*.jpg"')
    for number in range(2):
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(where / f"masks/{number}.jpg")
    with pytest.raises(
        ValueError, match=r"0.jpg is a JPEG, which stores numbers near those of the classes; save masks"
    ):
        load_dataset(where)[0]


def test_a_sample_that_a_list_names_twice_is_refused(folder):
    where = folder(places="images: pictures, masks: masks, list: names.txt")
    (where / "names.txt").write_text("0\n1\n0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"names.txt lists '0' 2 times, so it would count 2 times in every figure"):
        load_dataset(where)


def test_weights_that_are_all_zero_are_refused(folder):
    with pytest.raises(ValueError, match=r"dataset.yaml: class_weights are all 0, so no pixel would be attacked"):
        load_dataset(folder("classes: [a, b]\nclass_weights: [0, 0.0]"))
    sample = Noise()[0]
    with pytest.raises(ValueError, match="class_weights are all 0, so no pixel would be attacked"):
        apgd(plain(), sample.image[None], sample.labels[None], EPS, 2, "mask-ce-bal", torch.zeros(4))


def test_a_file_whose_name_differs_in_capitals_or_accents_alone_is_pointed_out(folder):
    where = folder()
    (where / "masks/1.png").rename(where / "masks/1.PNG")
    reasons = [problem.reason for problem in validate(load_dataset(where))]
    assert [reason.partition("masks/")[2] for reason in reasons] == [
        "1.png is missing, but 1.PNG is there; rename it to 1.png"
    ]


def test_a_picture_cut_short_is_refused_though_a_library_told_pillow_to_take_it(folder, monkeypatch):
    path = folder() / "pictures/1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert ["cut short" in problem.reason for problem in validate(load_dataset(folder()))] == [True]
    assert ImageFile.LOAD_TRUNCATED_IMAGES


# ------------------------------------------------------------------------------------- models


def test_train_mode_changes_no_figure_and_is_given_back():
    model = Bends().train()
    assert worst(model) == worst(Bends().eval())
    assert all(module.training for module in model.modules())


def weight_normed():
    model = plain()
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def spectrally_normed():
    model = plain()
    nn.utils.parametrizations.spectral_norm(model[0])
    return model.eval()


WRAPPED = {
    "compiled": lambda: torch.compile(plain(), backend="eager"),
    "weight-normed": weight_normed,
    "parallel": lambda: nn.DataParallel(plain()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("prepare", [False, True])
def test_a_wrapped_module_has_the_figures_of_the_module(name, prepare):
    assert worst(WRAPPED[name](), prepare=prepare) == pytest.approx(worst(plain()), abs=1e-6)


def test_a_spectrally_normed_module_has_the_figures_of_its_weights():
    model = spectrally_normed()
    folded = plain()
    folded[0].weight.data.copy_(model[0].weight)
    assert worst(model) == pytest.approx(worst(folded), abs=1e-6)


class Remembers(nn.Module):
    """A module with a lock, a counter, a log and a cache, and a setting."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.inner, self.factor, self.lock = plain(), factor, threading.Lock()
        self.calls, self.sizes, self.grids, self.grid = 0, [], {}, None

    def forward(self, x):
        with self.lock:
            self.calls += 1
        self.log(x)
        if self.grid is None:
            self.grid = torch.linspace(0, 1, x.shape[-1])
        return self.factor * self.inner(x)

    def log(self, x):
        self.sizes.append(tuple(x.shape))
        self.grids[x.shape] = x.shape[-1]


def test_locks_and_counters_hinder_no_evaluation_and_make_no_other_model(tmp_path):
    assert written_in_passes(Remembers) == {"calls", "sizes", "grids", "grid"}
    model = Remembers()
    report = evaluate(model, Noise(), EPS, ONE, out=tmp_path, limit=2)
    assert report.rows["worst case"]["accuracy_mean"] == worst(plain())
    assert evaluate(model, Noise(), EPS, ONE, out=tmp_path, limit=2) == report
    assert evaluate(Remembers(), Noise(), EPS, ONE, out=tmp_path, limit=2) == report
    with pytest.raises(ValueError, match=r"model.settings: "):
        evaluate(Remembers(factor=2.0), Noise(), EPS, ONE, out=tmp_path, limit=2)


def test_dropout_that_ignores_the_mode_is_called_random():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain()

        def forward(self, x):
            return nn.functional.dropout(self.inner(x), 0.5, training=True)

    with pytest.warns(UserWarning, match="the model is random"):
        worst(Drops())


@pytest.mark.parametrize("change", [lambda x: (255 * x).byte().float(), lambda x: torch.from_numpy(x.detach().numpy())])
def test_bytes_and_numpy_on_the_way_are_refused(change):
    class Through(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain()

        def forward(self, x):
            return self.inner(change(x))

    with pytest.raises(ValueError, match="no gradient leads from the model's logits to the picture"):
        worst(Through())


@pytest.mark.parametrize("last", [lambda z: z.clamp(-1e-4, 1e-4), lambda z: 1e5 * z])
def test_logits_that_are_cut_off_or_far_apart_are_doubted(last):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Bends().eval()

        def forward(self, x):
            return last(self.inner(x))

    with pytest.warns(UserWarning, match="the gradient was 0 around most pixels still to break"):
        worst(Flat())


def test_colours_of_0_to_255_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"mean and std must be those of colours in \[0, 1\], .*; divide by 255"):
        adapt(plain(), list("abcd"), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


# ------------------------------------------------------------------------------------- attacks


def test_an_attack_of_tiny_gradients_moves_as_far_as_one_of_large_ones():
    sample = Noise()[0]
    images, labels = sample.image[None], sample.labels[None]

    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.inner, self.factor = Bends().eval(), factor

        def forward(self, x):
            return self.factor * self.inner(x)

    for attack in (apgd, pgd):
        found = attack(Scaled(1e-9), images, labels, EPS, 5, "ce")
        assert (found.images - images).abs().max() == pytest.approx(EPS, abs=1e-6)
        assert found.trouble.sum() == 0
