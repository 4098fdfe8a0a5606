"""Beside the curves of a sweep: corruptions of the same size, and the smallest radius that breaks the picture."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from robviz.attacks import last_of
from robviz.corruptions import corrupted
from robviz.files.images import quantise
from robviz.interactive.sweep import Sweep, sweep_steps, sweep_table
from robviz.interactive.yardsticks import LUCK, measured, with_luck, with_smallest
from robviz.types import InputError
from robviz.viewer.sharing import yardsticks_said
from robviz.viewer.sweep import sweep_data
from tests.test_sweep import RADII, SPEC, SUBJECTS

SHARE, STEPS = 0.05, 500
CARDS = {name: one.card for name, one in SUBJECTS.items()}


def as_image(picture: np.ndarray) -> torch.Tensor:
    """A picture of 8 bits as (1, 3, H, W)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def swept() -> Sweep:
    return last_of(sweep_steps(SUBJECTS, SPEC, RADII))


@pytest.fixture(scope="module")
def lucky(swept) -> list[Sweep]:
    return list(with_luck(swept, "bends", SUBJECTS["bends"]))


@pytest.fixture(scope="module")
def smallest(swept) -> list[Sweep]:
    return list(with_smallest(swept, SUBJECTS, STEPS, share=SHARE))


def test_every_corruption_is_measured_at_every_radius_and_stays_within_it(lucky, swept):
    assert [len(frame.luck) for frame in lucky] == [len(LUCK) * count for count in range(1, len(RADII) + 1)]
    found = lucky[-1].luck
    assert [(one.corruption, one.eps) for one in found] == [(name, eps) for eps in RADII for name in LUCK]
    assert all(one.largest_change <= 255 * one.eps + 1e-9 for one in found)
    clean = swept.found["bends"][0].scores_after
    assert {one.scores for one in found if one.eps in RADII[:2]} == {clean}, "within half a level nothing changes"
    noise = [one.scores.accuracy for one in found if one.corruption == "noise"]
    assert noise[-1] < noise[0]
    assert lucky[-1].found is swept.found


def test_a_corruption_is_scored_on_the_picture_of_8_bits():
    one, eps = SUBJECTS["bends"], 24 / 255
    found = measured("bends", one, "contrast", eps)
    image = one.sample.image
    shown = quantise(corrupted("contrast", image[None], eps)[0], image, eps)
    predicted = one.model(as_image(shown))[0].argmax(0)
    is_valid = one.sample.labels >= 0
    expected = (predicted == one.sample.labels)[is_valid].double().mean().item()
    assert found.scores.accuracy == pytest.approx(expected)


@pytest.mark.slow
def test_the_smallest_radius_of_a_linear_model_is_found(smallest):
    one = SUBJECTS["linear"]  # one value of a pixel decides, with weight 1
    ordered = one.model(one.sample.image[None])[:, 1].abs().flatten().sort().values
    least = ordered[-1 - int((1 - SHARE) * len(ordered) + 1e-6)].item()
    found = smallest[-1].smallest["linear"]
    assert found.flipped >= SHARE - 1e-6
    assert least * (1 - 1e-5) <= found.eps <= 1.5 * least


@pytest.mark.slow
def test_the_search_streams_model_by_model_and_its_radius_only_shrinks(smallest):
    names = [list(frame.smallest) for frame in smallest]
    assert names[0] == ["bends"]
    assert names[-1] == ["bends", "linear"]
    for name in SUBJECTS:
        radii = [frame.smallest[name].eps for frame in smallest if name in frame.smallest]
        found = [radius for radius in radii if radius is not None]
        assert found == sorted(found, reverse=True)
        assert found
    assert {one.step for one in smallest[-1].smallest.values()} == {STEPS}


def test_stop_ends_the_search_with_its_best_and_begins_no_other(swept):
    seen: list[Sweep] = []
    for frame in with_smallest(swept, SUBJECTS, STEPS, share=SHARE, is_stopped=lambda: len(seen) >= 3):
        seen.append(frame)
    assert list(seen[-1].smallest) == ["bends"]
    assert seen[-1].smallest["bends"].step < STEPS
    assert list(with_smallest(swept, SUBJECTS, STEPS, is_stopped=lambda: True)) == []
    assert list(with_luck(swept, "bends", SUBJECTS["bends"], is_stopped=lambda: True)) == []


def test_impossible_yardsticks_are_refused(swept):
    with pytest.raises(InputError, match="unknown corruption 'rain'"):
        next(with_luck(swept, "bends", SUBJECTS["bends"], ["rain"]))
    with pytest.raises(InputError, match="steps must be at least 2"):
        next(with_smallest(swept, SUBJECTS, 1))


def test_table_and_page_get_both(lucky, smallest):
    both = with_smallest(lucky[-1], SUBJECTS, 3, share=1.0)
    *_, missed = both
    assert missed.smallest["bends"].eps is None
    found = replace(lucky[-1], smallest=smallest[-1].smallest)
    table = sweep_table(found)
    assert list(dict.fromkeys(table["by"])) == ["attack", *LUCK, "smallest for 5 %"]
    row = table[table["by"] == "smallest for 5 %"].iloc[0]
    assert (row.model, row.steps) == ("bends", STEPS)
    assert row.accuracy <= 0.95 + 1e-6
    assert not (sweep_table(missed)["by"] == "smallest for 100 %").any()
    notes = dict.fromkeys(CARDS, "")
    data = json.loads(json.dumps(sweep_data(found, CARDS, notes), allow_nan=False))
    assert [(curve["model"], curve["corruption"], len(curve["points"])) for curve in data["luck"]] == [
        ("bends", name, len(RADII)) for name in LUCK
    ]
    assert [one["model"] for one in data["smallest"]] == ["bends", "linear"]
    assert data["state"] == ""
    assert sweep_data(smallest[1], CARDS, notes)["state"] == f"bends, smallest radius: step 1 of {STEPS}"


def test_a_shared_page_says_how_the_yardsticks_are_made_again(swept, lucky):
    assert yardsticks_said(swept) == ({}, "", "")
    found = last_of(with_smallest(lucky[-1], SUBJECTS, 4, share=SHARE))
    said, imports, lines = yardsticks_said(found)
    assert said["Corruptions"] == "noise, blur, JPEG, contrast, each within the radius, on bends, seed 0"
    assert said["Smallest radius"] == "ALMA prox, 4 steps, for 5 % of the pixels"
    scope = {"found": swept, "subjects": SUBJECTS, "last_of": last_of}
    exec(imports + lines, scope)
    assert scope["found"].luck == found.luck
    assert scope["found"].smallest == found.smallest
