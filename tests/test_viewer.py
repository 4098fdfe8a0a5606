from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from robviz.comparison import Comparison, Scores, compare_steps, finish
from robviz.datasets import load_dataset
from robviz.figures import amplified, attack_curve, broken, overlay
from robviz.models import card_of, load_model
from robviz.viewer import render

PALETTE = ((0, 0, 0), (255, 0, 0))


@pytest.fixture
def shown() -> Comparison:
    rng = np.random.default_rng(0)
    image = rng.integers(4, 250, (6, 8, 3), np.uint8)
    labels = rng.integers(0, 2, (6, 8))
    scores = Scores(0.5, 0.25)
    return Comparison(
        image, image + np.uint8(2), labels, labels, 1 - labels, scores, scores, (0.9, 0.5), 1, 20, 2 / 255, 2, True
    )


def test_class_names_cannot_inject_html(shown):
    html = render(shown, ("<script>alert(1)</script>", "b"), PALETTE, "<b>note</b>")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>note</b>" not in html


def test_the_pictures_shown_are_exact_to_the_level(shown):
    html = render(shown, ("a", "b"), PALETTE, "")
    pictures = re.findall(r'data-tile="(\w+)"><img alt="[^"]*" src="data:image/png;base64,([^"]+)"', html)
    decoded = {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for name, data in pictures}
    assert list(decoded) == ["image", "attacked", "perturbation", "before", "after", "broken"]
    assert np.array_equal(decoded["image"], shown.image)
    assert np.array_equal(decoded["attacked"], shown.attacked)


def test_the_amplified_perturbation_fills_the_range_at_eps():
    image = np.full((2, 2, 3), 100, np.uint8)
    picture, factor = amplified(image + np.uint8(4), image, 4 / 255)
    assert factor == 32
    assert picture.min() == 255
    assert amplified(image, image, 4 / 255)[0].max() <= 128


def test_void_keeps_the_picture_and_is_never_marked_broken():
    image = np.full((1, 2, 3), 100, np.uint8)
    labels = np.array([[-1, 1]])
    assert overlay(image, labels, PALETTE)[0, 0].tolist() == [100, 100, 100]
    assert overlay(image, labels, PALETTE, opacity=1)[0, 1].tolist() == [255, 0, 0]
    marked = broken(image, labels, np.array([[0, 1]]), np.array([[1, 0]]))
    assert marked[0, 0].tolist() == [45, 45, 45]
    assert marked[0, 1, 0] > marked[0, 1, 2]


def test_the_curve_is_in_percent_of_pixels():
    assert list(attack_curve((1.0, 0.25), 1).data[0].y) == [100, 25]


def test_the_final_scores_belong_to_the_8_bit_picture():
    model, sample = load_model("photos-clean"), load_dataset("photos", "photographs")[2]
    classes = len(card_of(model).classes)
    *_, last = compare_steps(model, sample, classes, 4 / 255, 3, "ce")
    final = finish(model, sample, last, classes)
    from robviz.pictures import to_tensor

    seen = model(to_tensor(Image.fromarray(final.attacked))[None]).argmax(1)[0].numpy()
    valid = final.reference >= 0
    assert np.array_equal(final.after, seen)
    assert final.scores_after.accuracy == pytest.approx((seen == final.reference)[valid].mean())
    assert final.largest_change == 4
    assert len(final.curve) == 4
