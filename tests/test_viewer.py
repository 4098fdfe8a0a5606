from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from robviz.app.plots import attack_curve
from robviz.attacks import AttackSpec
from robviz.datasets import load_dataset
from robviz.files.images import changed, overlay, to_tensor
from robviz.interactive.comparison import Comparison, Scores, Snapshot, Subject, compare_steps
from robviz.models import card_of, load_model
from robviz.notebook.widget import Explorer, Viewer, show, still
from robviz.viewer import viewer_data
from robviz.viewer.bundle import bundle

PALETTE = ((0, 0, 0), (255, 0, 0))


@pytest.fixture
def shown() -> Comparison:
    rng = np.random.default_rng(0)
    image = rng.integers(4, 250, (6, 8, 3), np.uint8)
    labels = rng.integers(-1, 2, (6, 8))
    confidence = rng.integers(0, 256, (6, 8), np.uint8)
    return Comparison(
        image=image,
        attacked=image + np.uint8(2),
        reference=labels,
        before=labels.clip(0),
        after=1 - labels.clip(0),
        confidence_before=confidence,
        confidence_after=255 - confidence,
        scores_before=Scores(0.5, 0.25),
        scores_after=Scores(0.25, 0.125),
        curve=(0.9, 0.5),
        losses=(0.1, 0.7),
        trail=(
            Snapshot(0, 0.9, labels.clip(0).astype(np.uint8)),
            Snapshot(1, 0.5, 1 - labels.clip(0).astype(np.uint8)),
        ),
        step=1,
        steps=20,
        eps=2 / 255,
        largest_change=2,
        is_final=True,
    )


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def test_every_picture_reaches_the_browser_exactly_and_void_as_255(shown):
    pictures = viewer_data(shown, ("a", "b"), PALETTE, "")["pictures"]
    assert decoded(pictures["reference"]).min() == 0
    assert np.array_equal(decoded(pictures["reference"]) == 255, shown.reference == -1)
    attacked = changed(shown.image, decoded(pictures["change"]))
    assert np.array_equal(attacked, shown.attacked)
    for name in set(pictures) - {"reference", "change"}:
        assert np.array_equal(decoded(pictures[name]), getattr(shown, name)), name


def test_what_the_browser_gets_is_plain_json(shown):
    data = viewer_data(shown, ("a", "b"), PALETTE, "Note.")
    assert json.loads(json.dumps(data)) == data
    assert data["scores"][0]["value"] == "50.0 % → 25.0 %"
    assert data["note"] == "Note. Scores measured on the 8-bit picture shown."


def test_more_classes_than_a_byte_holds_are_refused(shown):
    with pytest.raises(ValueError, match="at most 255 classes"):
        viewer_data(replace(shown, after=shown.after + 254), ("a", "b"), PALETTE, "")


def test_void_keeps_the_picture():
    image = np.full((1, 2, 3), 100, np.uint8)
    labels = np.array([[-1, 1]])
    assert overlay(image, labels, PALETTE)[0, 0].tolist() == [100, 100, 100]
    assert overlay(image, labels, PALETTE, opacity=1)[0, 1].tolist() == [255, 0, 0]


def test_the_curve_is_in_percent_of_pixels():
    assert list(attack_curve((1.0, 0.25), 1).data[0].y) == [100, 25]


@pytest.mark.slow
def test_the_final_scores_belong_to_the_8_bit_picture():
    model, sample = load_model("photos-clean"), load_dataset("photos", "photographs")[2]
    *_, final = compare_steps(Subject(model, sample, card_of(model)), AttackSpec(loss="ce", steps=3))
    assert final.is_final
    logits = model(to_tensor(Image.fromarray(final.attacked))[None])
    seen = logits.argmax(1)[0].numpy()
    valid = final.reference >= 0
    assert np.array_equal(final.after, seen)
    assert np.abs(final.confidence_after - 255 * logits.softmax(1).amax(1)[0].numpy()).max() <= 0.5001
    assert final.scores_after.accuracy == pytest.approx((seen == final.reference)[valid].mean())
    assert final.largest_change == 4
    assert len(final.curve) == 4


# ------------------------------------------------------------------------------------------ in notebooks


def test_the_widget_carries_the_apps_script_and_a_still_picture(shown):
    data = viewer_data(shown, ("a", "b"), PALETTE, "")
    widget = Viewer(data=data)
    mime, _ = widget._repr_mimebundle_()
    assert str(Viewer._esm) == bundle("widget.js")
    assert "application/vnd.jupyter.widget-view+json" in mime
    drawn, _ = still(data)._repr_png_()
    assert base64.b64decode(mime["image/png"]) == drawn
    assert Image.open(io.BytesIO(drawn)).width > 3 * 100


@pytest.mark.slow
def test_a_moved_control_attacks_anew():
    model, sample = load_model("photos-clean"), load_dataset("photos", "val-128")[0]
    explorer = Explorer(model, sample, eps=4 / 255, steps=2)
    before, data = explorer.comparison.scores_after.accuracy, explorer.viewer.data
    assert explorer.comparison.eps == 4 / 255
    explorer.eps_255.value = 0
    assert explorer.viewer.data != data
    assert explorer.comparison.largest_change == 0
    assert explorer.comparison.scores_after.accuracy > before
    assert "mask-ce-bal" not in explorer.loss.options
    assert "image/png" in explorer._repr_mimebundle_()[0]
    again = show(explorer.comparison, model).data
    assert again["pictures"] == explorer.viewer.data["pictures"]


def test_a_radius_in_the_units_of_the_slider_is_refused():
    model, sample = load_model("photos-clean"), load_dataset("photos", "val-128")[0]
    for eps in (4, 1):
        with pytest.raises(ValueError, match=f"eps must lie in 0 .. 16 / 255 .* got {eps}"):
            Explorer(model, sample, eps)


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_explored_with_a_sample_on_the_cpu():
    sample = load_dataset("photos", "photographs")[0]
    explorer = Explorer(load_model("photos-robust", "cuda"), sample, steps=2)
    assert explorer.comparison.is_final
    assert explorer.comparison.scores_after.accuracy <= explorer.comparison.scores_before.accuracy
