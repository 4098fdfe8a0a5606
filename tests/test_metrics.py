from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robviz.attacks import AttackSpec
from robviz.finetune.evaluation import measure_clean
from robviz.interactive.comparison import Subject, clean_comparison
from robviz.interactive.ensemble import ACCURACY, breakdown
from robviz.metrics import (
    accuracy_per_image,
    balanced_accuracy,
    counts,
    iou,
    label_counts,
    miou,
    size_counts,
    worst_case_accuracy,
    worst_case_miou,
)
from robviz.models import Card
from robviz.results.failures import failures
from robviz.results.plan import Run, SeaSettings
from robviz.results.report import Report
from robviz.sea import evaluate
from robviz.types import Sample
from tests.golden import golden
from tests.small import Bends, Noise


class HalfVoid(Noise):
    """Two of the pictures; the second without a label."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return Sample(sample.name, sample.image, torch.full_like(sample.labels, -1) if index else sample.labels)


def test_counts_of_a_case_done_by_hand():
    labels = torch.tensor([[[0, 0, 1], [1, -1, 2]]])
    predictions = torch.tensor([[[0, 1, 1], [2, 2, 2]]])
    found = counts(predictions, labels, 4)
    assert found.intersection.tolist() == [[1, 1, 1, 0]]
    assert found.union.tolist() == [[2, 3, 2, 0]]
    assert found.correct.tolist() == [3]
    assert found.valid.tolist() == [5]
    assert miou(found.intersection[0], found.union[0]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 6))
def test_counts_agree_with_a_loop_over_classes(seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes, (images, 5, 4), generator=generator)
    predictions = torch.randint(0, classes, (images, 5, 4), generator=generator)
    found = counts(predictions, labels, classes)
    for image in range(images):
        valid = labels[image] != -1
        for k in range(classes):
            p, y = (predictions[image] == k) & valid, (labels[image] == k) & valid
            assert found.intersection[image, k] == (p & y).sum()
            assert found.union[image, k] == (p | y).sum()


def test_void_pixels_never_count():
    labels = torch.full((1, 3, 3), -1)
    found = counts(torch.ones(1, 3, 3, dtype=torch.int64), labels, 2)
    assert found.union.sum() == 0
    assert found.valid.item() == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_accuracy_is_a_ratio_of_counts_and_one_where_nothing_is_labelled(dtype):
    ratios = accuracy_per_image(torch.tensor([1, 0, 4, 0], dtype=dtype), torch.tensor([3, 2, 4, 0]))
    assert ratios.tolist() == [pytest.approx(1 / 3), 0, 1, 1]
    assert ratios.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_iou_is_the_same_for_arrays_and_tensors_and_zero_where_a_class_does_not_occur():
    intersection, union = torch.tensor([[1, 0, 0], [7, 2, 3]]), torch.tensor([[3, 0, 5], [11, 2, 7]])
    ratios = iou(intersection.double(), union)
    assert ratios.tolist() == [[1 / 3, 0, 0], [7 / 11, 1, 3 / 7]]
    assert (iou(intersection.numpy(), union.numpy()) == ratios.numpy()).all()
    assert miou(intersection[0], union[0]) == pytest.approx((1 / 3 + 0) / 2)  # over two classes, not three
    assert math.isnan(miou(torch.zeros(3), torch.zeros(3)))


def test_an_image_of_void_alone_counts_in_no_mean_and_reads_the_same_everywhere(tmp_path):
    """Its accuracy is 1 in the attack, in the report's list of images, among the failures and on a picture."""
    runs = SeaSettings("tiny", (Run("mask-ce", "apgd", 2),))
    evaluate(Bends().eval(), HalfVoid(), 0.05, runs, out=tmp_path, keep_masks=True)
    report, broken = Report.load(tmp_path / "report.json"), failures(tmp_path, HalfVoid())
    name = runs.runs[0].name
    labelled, void = report.images
    assert (void["clean"], void["worst"]) == (1, 1)
    assert list(broken.rows["attacked"]) == [labelled["worst"], 1]
    assert list(broken.rows["drop"]) == [pytest.approx(labelled["clean"] - labelled["worst"]), 0]
    assert report.rows[name]["accuracy_mean"] == labelled["worst"] == report.rows[name]["accuracy_pooled"]
    card = Card("bends", "", HalfVoid.name, HalfVoid.classes, HalfVoid.palette, "")
    shown = clean_comparison(Subject(Bends().eval(), HalfVoid()[1], card), AttackSpec(eps=0.05, steps=2))
    assert shown.scores_before.accuracy == 1
    table = breakdown({name: shown}, HalfVoid.classes)
    assert set(table[ACCURACY]) == {1}
    with pytest.raises(ValueError, match="none of 1 images has a labelled pixel"):
        measure_clean(Bends().eval(), [HalfVoid()[1]], 4)


def test_values_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"labels must lie in -1 .. 2, got 255 .. 255; check num_classes and the void"):
        counts(torch.zeros(1, 1, 1, dtype=torch.int64), torch.full((1, 1, 1), 255), 3)


def test_balanced_accuracy_gives_every_labelled_class_the_same_say():
    labels = torch.tensor([[[0, 0, 0, 0, 1, -1]]])
    predictions = torch.tensor([[[0, 0, 0, 1, 0, 2]]])
    found = counts(predictions, labels, 3)
    labelled = label_counts(labels, 3)[0]
    assert labelled.tolist() == [4, 1, 0]
    assert balanced_accuracy(found.intersection[0], labelled) == pytest.approx((3 / 4 + 0) / 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_balanced_accuracy_bounds_the_miou_where_every_class_is_labelled(seed):
    """Section 3.2: IoU = TP / (TP + FP + FN) <= TP / (TP + FN)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(4), torch.randint(-1, 4, (26,), generator=generator)]).view(1, 5, 6)
    found = counts(torch.randint(0, 4, (1, 5, 6), generator=generator), labels, 4)
    assert miou(found.intersection[0], found.union[0]) <= balanced_accuracy(
        found.intersection[0], label_counts(labels, 4)[0]
    )


def test_objects_count_by_their_size_and_a_stray_pixel_belongs_to_the_nearest():
    labels = torch.zeros(1, 20, 20, dtype=torch.int64)
    labels[0, 2, 2] = 1  # 1 of 400 pixels: small
    labels[0, 10:15, 10:16] = 1  # 30: medium
    predictions = labels.clone()
    predictions[0, 2, 2] = 0  # the small one is missed
    predictions[0, 2, 4] = 1  # and this is taken for a part of it
    predictions[0, 10, 10] = 0
    intersection, union = size_counts(predictions, labels, 2)
    # The background is one large object of 369 pixels: one is called 1, two of others are called 0.
    assert intersection.tolist() == [[0, 29, 368]]
    assert union.tolist() == [[1 + 1, 30, 369 + 2]]


def test_void_pixels_are_strays_of_nothing():
    labels = torch.full((1, 4, 4), -1)
    labels[0, 0] = 0
    intersection, union = size_counts(torch.zeros(1, 4, 4, dtype=torch.int64), labels, 2)
    assert intersection.sum() == union.sum() == 4


# ------------------------------------------------------------------------------------------ worst cases


def test_worst_accuracy_is_pooled_over_pixels_and_averaged_over_images():
    correct = torch.tensor([[5, 50, 0], [3, 80, 0]])
    worst = worst_case_accuracy(correct, torch.tensor([10, 100, 0]))
    assert worst.choice.tolist() == [1, 0, 0]
    assert worst.pooled == pytest.approx(53 / 110)
    assert worst.mean == pytest.approx((0.3 + 0.5) / 2)  # an image of void alone takes no part


@pytest.mark.parametrize("problem", range(3))
@pytest.mark.parametrize("seed", range(3))
def test_worst_miou_is_within_a_tenth_of_a_point_of_the_exhaustive_minimum(problem, seed):
    values = golden("worst_case_miou")
    worst = worst_case_miou(values["intersection"][problem], values["union"][problem], seed)
    assert -1e-12 <= worst.miou - values["exhaustive_minimum"][problem].item() < 1e-3


def problems():
    """Counts of a few images under a few attacks, with classes that do not occur."""
    return st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))


def drawn(attacks, images, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    union = torch.randint(0, 30, (attacks, images, classes), generator=generator)
    union *= torch.rand(1, 1, classes, generator=generator) < 0.8
    return (union * torch.rand(union.shape, generator=generator)).long(), union


@settings(deadline=None, max_examples=60)
@given(problems())
def test_worst_miou_is_what_its_choice_gives_and_no_higher_than_any_attack_alone(problem):
    intersection, union = drawn(*problem)
    worst = worst_case_miou(intersection, union)
    each = torch.arange(len(worst.choice))
    total = [part[worst.choice, each].sum(0) for part in (intersection, union)]
    if total[1].sum():
        assert worst.miou == pytest.approx(miou(*total))
        for attack in range(len(union)):
            if union[attack].sum():
                assert worst.miou <= miou(intersection[attack].sum(0), union[attack].sum(0)) + 1e-12


@settings(deadline=None, max_examples=40)
@given(problems())
@pytest.mark.slow
def test_another_attack_never_raises_the_worst_miou_by_more_than_the_search_may_miss(problem):
    """Exact minima fall with every attack; for problems this small the search finds them, checked by trying all."""
    intersection, union = drawn(*problem)
    if union.sum(2).min() == 0:
        return
    attacks, images, _ = union.shape
    every = torch.cartesian_prod(*[torch.arange(attacks)] * images).view(-1, images)
    each = torch.arange(images)
    exact = min(miou(intersection[c, each].sum(0), union[c, each].sum(0)) for c in every)
    assert worst_case_miou(intersection, union).miou <= exact + 0.02


def test_worst_case_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"correct \(A, N\) and valid \(N,\), got \(2, 3\) and \(4,\)"):
        worst_case_accuracy(torch.zeros(2, 3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"one shape \(A, N, C\), got \(2, 3\) and \(2, 3\)"):
        worst_case_miou(torch.zeros(2, 3), torch.zeros(2, 3))
