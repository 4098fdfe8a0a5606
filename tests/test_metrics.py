from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robviz.metrics import counts, miou, pixel_accuracy


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
    assert pixel_accuracy(found.correct, found.valid).item() == 1


def test_values_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"labels must lie in -1 .. 2, got 255 .. 255; check num_classes and the void"):
        counts(torch.zeros(1, 1, 1, dtype=torch.int64), torch.full((1, 1, 1), 255), 3)
