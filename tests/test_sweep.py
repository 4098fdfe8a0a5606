"""One picture over the radius: the library, and what the page gets."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robviz.attacks import AttackSpec
from robviz.interactive import sweep as sweeping
from robviz.interactive.comparison import Subject, clean_comparison, compare, compare_steps, continued, finalise
from robviz.interactive.sweep import COLUMNS, RADII_255, Sweep, sweep_steps, sweep_table
from robviz.models import Card
from robviz.norms import LINF
from robviz.types import InputError, Sample
from robviz.viewer.sweep import sweep_data
from tests.small import Bends, PixelwiseLinear

CLASSES = ("a", "b", "c", "d")
CARD = Card("", "", "noise", CLASSES, ((0, 0, 0), (9, 9, 9), (90, 90, 90), (200, 200, 200)), "")
SPEC = AttackSpec(steps=5)
RADII = tuple(levels / 255 for levels in (0, 0.5, 2, 8, 24))


def subject(seed: int = 0) -> Subject:
    """An 8-bit picture, labelled by the model itself but for two rows of void."""
    pixels = torch.randint(0, 256, (3, 12, 14), generator=torch.Generator().manual_seed(seed))
    image, model = pixels.float() / 255, Bends().eval()
    labels = model(image[None])[0].argmax(0)
    labels[:2] = -1
    return Subject(model, Sample("noise", image, labels), CARD)


def linear() -> Subject:
    model = PixelwiseLinear((1.0, 0.0, 0.0), bias=-0.5).float().eval()
    image = subject().sample.image
    card = replace(CARD, classes=CLASSES[:2], palette=CARD.palette[:2])
    return Subject(model, Sample("noise", image, model(image[None])[0].argmax(0)), card)


SUBJECTS = {"bends": subject(), "linear": linear()}


@pytest.fixture(scope="module")
def frames() -> list[Sweep]:
    return list(sweep_steps(SUBJECTS, SPEC, RADII))


# ---------------------------------------------------------------------------------------------- another radius


def test_a_perturbation_is_scaled_to_another_radius():
    shown = compare(SUBJECTS["bends"], replace(SPEC, eps=8 / 255))
    image, change = shown.image.astype(int), shown.attacked.astype(int) - shown.image.astype(int)
    for eps, factor in ((16 / 255, 2.0), (2 / 255, 0.25), (0.0, 0.0)):
        expected = (image + factor * change).clip(0, 255) / 255
        np.testing.assert_allclose(continued(shown, eps).permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert continued(replace(shown, eps=0.0), 4 / 255).equal(SUBJECTS["bends"].sample.image)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_what_is_scaled_lies_within_the_other_radius(eps, other, seed):
    one = subject(seed)
    levels = int(255 * eps)
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, (12, 14, 3))
    shown = clean_comparison(one, replace(SPEC, eps=eps))
    shown = replace(shown, attacked=(shown.image + noise).clip(0, 255).astype(np.uint8))
    start = continued(shown, other)
    assert LINF.size(start - one.sample.image) <= other + 1e-6
    assert 0 <= start.min() <= start.max() <= 1


def test_a_comparison_begins_from_a_start_and_keeps_the_budget():
    one = SUBJECTS["bends"]
    found = compare(one, replace(SPEC, eps=8 / 255, steps=20))
    first = next(compare_steps(one, replace(SPEC, eps=8 / 255), start=continued(found, 8 / 255)))
    assert first.scores_after.accuracy <= found.scores_after.accuracy
    *_, last = compare_steps(one, replace(SPEC, eps=2 / 255), start=torch.ones_like(one.sample.image))
    assert last.largest_change <= 2
    with pytest.raises(InputError, match=r"start must be \(1, 3, 12, 14\) like the images"):
        next(compare_steps(one, SPEC, start=torch.rand(3, 4, 4)))


# ---------------------------------------------------------------------------------------------- the sweep


def test_all_models_are_attacked_at_a_radius_before_the_next(frames):
    points = [sum(map(len, frame.found.values())) for frame in frames if frame.running is None]
    assert points == list(range(2 * len(RADII) + 1))
    for frame in frames:
        assert 0 <= len(frame.found["bends"]) - len(frame.found["linear"]) <= 1
        assert frame.radii == RADII
    assert [shown.eps for shown in frames[-1].found["linear"]] == list(RADII)


def test_every_point_is_measured_and_keeps_its_budget(frames):
    for name, points in frames[-1].found.items():
        for shown in points:
            assert shown.is_final
            assert shown.largest_change <= 255 * shown.eps + 1e-6
            assert (shown.after == finalise(SUBJECTS[name], shown).after).all()


def test_a_larger_radius_never_leaves_more(frames):
    for points in frames[-1].found.values():
        assert all(after.scores_after.accuracy <= before.scores_after.accuracy for before, after in pairwise(points))
        assert points[-1].scores_after.accuracy < points[0].scores_after.accuracy


def test_the_picture_of_a_smaller_radius_counts_where_an_attack_finds_less(monkeypatch):
    def worse_at_last(one, spec, **options):
        stuck = replace(spec, eps=0.0) if spec.eps > 0.05 else spec
        for shown in compare_steps(one, stuck, **options):
            yield replace(shown, eps=spec.eps)

    monkeypatch.setattr(sweeping, "compare_steps", worse_at_last)
    *_, last = sweep_steps({"bends": SUBJECTS["bends"]}, SPEC, (0.0, 0.04, 0.1))
    _, before, after = last.found["bends"]
    assert before.scores_after.accuracy < 1
    assert (after.attacked == before.attacked).all()
    assert after.eps == 0.1
    assert after.scores_after == before.scores_after


def test_each_attack_begins_from_the_radius_before(monkeypatch):
    starts = {}

    def noted(one, spec, *, start=None, **options):
        starts[spec.eps] = start
        return compare_steps(one, spec, start=start, **options)

    monkeypatch.setattr(sweeping, "compare_steps", noted)
    *_, last = sweep_steps({"bends": SUBJECTS["bends"]}, SPEC, RADII)
    before = last.found["bends"]
    assert list(starts) == list(RADII[2:])  # within half a level there is one 8-bit picture
    assert starts[RADII[2]] is None
    assert starts[RADII[3]].equal(continued(before[2], RADII[3]))
    assert starts[RADII[4]].equal(continued(before[3], RADII[4]))


def test_where_no_value_can_change_the_picture_is_the_unattacked_one(frames):
    for points in frames[-1].found.values():
        for shown in points[:2]:
            assert (shown.attacked == shown.image).all()
            assert shown.curve == ()


def test_an_l2_sweep_keeps_its_budget_too():
    *_, last = sweep_steps({"bends": SUBJECTS["bends"]}, replace(SPEC, attack="apgd-l2"), RADII)
    for shown in last.found["bends"]:
        change = shown.attacked.astype(float) - shown.image
        assert np.sqrt(np.mean(change**2)) <= 255 * shown.eps + 1e-6


def test_stop_ends_the_attack_and_begins_no_other():
    seen: list[Sweep] = []
    for frame in sweep_steps(SUBJECTS, SPEC, RADII, is_stopped=lambda: any(one.running for one in seen)):
        seen.append(frame)
    assert seen[-1].running is None
    assert [len(points) for points in seen[-1].found.values()] == [3, 2]
    assert seen[-1].found["bends"][-1].is_final
    (only,) = sweep_steps(SUBJECTS, SPEC, RADII, is_stopped=lambda: True)
    assert only.found == {"bends": (), "linear": ()}


@pytest.mark.parametrize(
    ("radii", "says"),
    [
        ((), "a sweep takes 1 .. 24 radii, got 0"),
        ([i / 255 for i in range(25)], "a sweep takes 1 .. 24 radii, got 25"),
        ((0, 2 / 255, 1 / 255), "must ascend, got 0, 2, 1 in 1/255"),
        ((0, 1 / 255, 1 / 255), "must ascend, got 0, 1, 1 in 1/255"),
        ((0, 4), r"every radius of a sweep must lie in \[0, 1\].* got 4; did you mean 4/255\?"),
        ((float("nan"),), r"must lie in \[0, 1\]"),
    ],
)
def test_other_radii_are_refused(radii, says):
    with pytest.raises(InputError, match=says):
        next(sweep_steps(SUBJECTS, SPEC, radii))
    with pytest.raises(InputError, match="expected at least one"):
        next(sweep_steps({}, SPEC, RADII))


def test_the_radii_of_a_sweep_are_good_ones():
    sweeping.check_radii([levels / 255 for levels in RADII_255])


def test_the_table_has_a_row_for_each_point(frames):
    table = sweep_table(frames[-1])
    assert list(table) == list(COLUMNS)
    assert set(table["by"]) == {"attack"}
    assert list(table["eps_255"]) == 2 * [0, 0.5, 2, 8, 24]
    last = table.iloc[4]
    shown = frames[-1].found["bends"][-1]
    assert (last.model, last.accuracy, last.miou) == ("bends", shown.scores_after.accuracy, shown.scores_after.miou)
    assert (last.largest_change, last.steps) == (shown.largest_change, 5)
    assert sweep_table(frames[0]).empty


# ---------------------------------------------------------------------------------------------- the page


def test_the_page_gets_every_view_once_it_is_measured(frames):
    cards = {name: one.card for name, one in SUBJECTS.items()}
    sent = [sweep_data(frame, cards, dict.fromkeys(cards, "Labels."), "noise, 5 steps") for frame in frames]
    json.dumps(sent, allow_nan=False)
    assert sent[0]["last"] is None
    assert sent[0]["views"] == {}
    assert sent[0]["eps"] == [0, 0.5, 2, 8, 24]
    known: dict[str, bool] = {}
    for data, frame in zip(sent, frames):
        known |= {name: view["is_final"] for name, view in data["views"].items()}
        assert all(known[point["name"]] for curve in data["curves"] for point in curve["points"])
        assert data["last"] is None or data["last"] in data["views"]
        assert len(data["views"]) <= (2 if frame.running is None else 1)
    running = next(data for data in sent if data["state"])
    assert running["state"] == "bends at 2/255: step 1 of 5"
    assert list(running["views"]) == ["bends/2"]
    assert sent[-1]["views"]["linear/24"]["note"].startswith("linear at 24/255. Labels. Scores measured")
    assert sent[-1]["last"] == "linear/24"
