"""A setting in an address, in a line of code, and in a zip; hostile ones of each."""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from robviz.attacks import AttackSpec, predicted
from robviz.files.images import to_tensor
from robviz.interactive import scenario
from robviz.interactive.bundle import load_bundle, save_bundle, unzipped
from robviz.interactive.scenario import (
    BREAK,
    CHANGE,
    UPLOAD,
    Scenario,
    cached_model,
    photos,
    run_scenario,
    scenario_steps,
    seconds_a_step,
    subject_for,
)

pytestmark = pytest.mark.slow

BOX = "40, 30, 120, 90"


@pytest.fixture(scope="module")
def setting():
    return Scenario(photo="coffee", eps_255=4, steps=3, seed=5, loss="ce", target="cat", region=BOX)


@pytest.fixture(scope="module")
def packed(setting):
    return save_bundle(setting, run_scenario(setting))


def rezipped(packed: bytes, **changes) -> io.BytesIO:
    """The zip with other contents; of None, without that file."""
    files = unzipped(io.BytesIO(packed)) | changes
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            if content is not None:
                target.writestr(name, content)
    return out


def test_an_address_holds_what_differs_from_the_defaults_and_gives_the_same_setting(setting):
    assert Scenario().query() == ""
    assert Scenario.parse(dict(parse_qsl(setting.query()))) == setting


def test_the_radius_is_eps_in_addresses_and_files_eps_255_in_python_and_in_0_to_1_for_the_attack(packed):
    setting = Scenario(eps_255=2)
    assert setting.query() == "eps=2"
    assert Scenario.parse({"eps": "2"}) == setting
    assert json.loads(unzipped(io.BytesIO(packed))["config.json"])["setting"]["eps"] == 4
    assert setting.spec() == AttackSpec("apgd", "mask-ce", 2 / 255, 20, 0)


def test_a_spec_holds_the_target_and_the_region_of_its_subject(setting):
    subject, _ = subject_for(setting.photo, None, setting.model)
    left, top, right, bottom = map(int, BOX.split(","))
    spec = setting.spec(subject)
    assert subject.card.classes[spec.target] == "cat"
    assert spec.changeable is None
    assert spec.aimed.shape == subject.sample.labels.shape
    assert spec.aimed[top:bottom, left:right].all()
    assert spec.aimed.sum() == (bottom - top) * (right - left)
    elsewhere = replace(setting, where=CHANGE).spec(subject)
    assert elsewhere.aimed is None
    assert elsewhere.changeable.equal(spec.aimed)
    with pytest.raises(ValueError, match="lies outside the picture"):
        replace(setting, region="250, 250, 255, 255").spec(subject)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"photo": "../../secret"}, "photo must be one of"),
        ({"model": "<img src=x>"}, "model must be one of"),
        ({"eps": "nan"}, "finite"),
        ({"eps": "17"}, "must lie in"),
        ({"steps": "1e9"}, "must be a number"),
        ({"steps": "9" * 5000}, "must be a number"),
        ({"seed": "-1"}, "seed in 0"),
        ({"loss": "dice"}, "loss must be one of"),
        ({"attack": "__class__"}, "attack must be one of"),
        ({"region": "1,2,3"}, "left, top, right, bottom"),
        ({"region": "5,5,5,9"}, "holds no pixel"),
        ({"where": "both"}, "where must be one of"),
    ],
)
def test_a_forged_address_is_refused_in_one_sentence(values, says):
    with pytest.raises(ValueError, match=says) as refused:
        Scenario.parse(values)
    assert len(str(refused.value)) < 400


def test_the_lines_of_python_give_the_same_result(setting):
    names: dict = {}
    exec(setting.cell(), names)
    again = run_scenario(setting)
    assert np.array_equal(names["shown"].attacked, again.attacked)
    assert names["shown"].scores_after == again.scores_after


def test_only_the_region_changes_or_only_there_the_mask_is_aimed_at():
    left, top, right, bottom = map(int, BOX.split(","))
    changed = run_scenario(Scenario(steps=3, region=BOX, where=CHANGE))
    moved = (changed.attacked != changed.image).any(-1)
    assert moved[top:bottom, left:right].any()
    moved[top:bottom, left:right] = False
    assert not moved.any()
    aimed = run_scenario(Scenario(steps=10, eps_255=2, region=BOX, where=BREAK))
    inside = (aimed.after != aimed.reference)[top:bottom, left:right].mean()
    assert inside > 0.9


def test_a_targeted_attack_leads_to_the_class_and_names_the_losses_it_takes():
    shown = run_scenario(Scenario(steps=20, eps_255=8, loss="ce", target="cup"))
    assert (shown.after == cached_model("photos-clean")[1].classes.index("cup")).mean() > 0.5
    with pytest.raises(ValueError, match="targeted attack takes one of the losses"):
        run_scenario(Scenario(target="cup"))
    with pytest.raises(ValueError, match="must be a class of the model"):
        run_scenario(Scenario(loss="ce", target="<b>"))


def test_the_moments_of_an_attack_go_from_the_clean_mask_to_the_last_and_never_get_better():
    shown = run_scenario(Scenario(steps=40))
    assert shown.trail[0].step == 0
    assert shown.trail[-1].step == shown.step
    assert np.array_equal(shown.trail[0].mask, shown.before)
    accuracies = [moment.accuracy for moment in shown.trail]
    assert accuracies == sorted(accuracies, reverse=True)
    assert 2 < len(shown.trail) <= 25
    assert len(shown.losses) == len(shown.curve) == shown.step + 1


def test_a_stopped_attack_ends_measured_and_with_its_last_moment():
    asked = []

    def is_stopped() -> bool:
        asked.append(None)
        return len(asked) == 3

    *on_the_way, last = scenario_steps(Scenario(steps=40), is_stopped=is_stopped)
    assert [shown.is_final for shown in on_the_way] == [False]
    assert last.is_final
    assert last.step == last.trail[-1].step == 2
    seen = predicted(cached_model("photos-clean")[0], to_tensor(Image.fromarray(last.attacked))[None])
    assert (seen[0].numpy() == last.after).all()


def test_a_zip_gives_back_the_setting_and_the_view_and_says_that_its_picture_fools_the_model(setting, packed):
    found, shown = load_bundle(io.BytesIO(packed)), run_scenario(setting)
    assert found.setting == setting
    assert found.agrees
    assert "still fools the model" in found.verdict
    for name in ("image", "attacked", "before", "after", "reference", "confidence_after", "curve", "losses"):
        assert np.array_equal(getattr(found.shown, name), getattr(shown, name)), name
    assert found.shown.scores_after == shown.scores_after
    assert save_bundle(setting, shown) == packed


def test_the_perturbation_in_the_zip_is_what_was_added(packed):
    files = unzipped(io.BytesIO(packed))
    image, attacked = (
        np.asarray(Image.open(io.BytesIO(files[name]))).astype(int) for name in ("picture.png", "attacked.png")
    )
    found = np.load(io.BytesIO(files["perturbation.npy"]))
    assert np.array_equal(found, attacked - image)
    assert np.abs(found).max() == 4


def test_a_zip_whose_masks_are_not_the_models_says_so(packed):
    files = unzipped(io.BytesIO(packed))
    assert not load_bundle(rezipped(packed, **{"mask_attacked.png": files["mask_clean.png"]})).agrees


def bomb(packed: bytes) -> io.BytesIO:
    return rezipped(packed, **{"config.json": b" " * 2**25})


def big_picture(packed: bytes) -> io.BytesIO:
    out = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(out, "PNG")
    return rezipped(packed, **{"picture.png": out.getvalue()})


def config(packed: bytes, **changes) -> io.BytesIO:
    values = json.loads(unzipped(io.BytesIO(packed))["config.json"])
    return rezipped(packed, **{"config.json": json.dumps(values | changes).encode()})


@pytest.mark.parametrize(
    ("hostile", "says"),
    [
        (lambda packed: io.BytesIO(b"PK no zip"), "not a zip"),
        (lambda packed: io.BytesIO(packed[: len(packed) // 2]), "not a zip"),
        (lambda packed: rezipped(packed, **{"../../evil.py": b"x"}), "not saved by robviz"),
        (lambda packed: rezipped(packed, **{"reference.png": None}), "not saved by robviz"),
        (bomb, "larger than 4 MiB"),
        (big_picture, "at most 256 pixels"),
        (lambda packed: rezipped(packed, **{"picture.png": b"GIF89a"}), "not a PNG"),
        (lambda packed: rezipped(packed, **{"perturbation.npy": b"\x93NUMPY"}), "not the difference"),
        (lambda packed: rezipped(packed, **{"config.json": b"[" * 100000}), "not what robviz saves"),
        (lambda packed: config(packed, setting={"model": "../x"}), "model must be one of"),
        (lambda packed: config(packed, setting=3), "not what robviz saves"),
        (lambda packed: config(packed, steps_made=10**9), "other steps"),
        (lambda packed: config(packed, loss_of_each_step=[float("nan")]), "not numbers"),
        (lambda packed: config(packed, setting={"eps": 1, "photo": "coffee"}), "more than its ε"),
    ],
)
def test_a_hostile_zip_is_refused_in_one_sentence(packed, hostile, says):
    with pytest.raises(ValueError, match=says):
        load_bundle(hostile(packed))


def test_an_unfinished_attack_is_not_saved(setting):
    with pytest.raises(ValueError, match="no finished attack"):
        save_bundle(setting, replace(run_scenario(setting), is_final=False))


def test_the_least_of_three_times_is_believed_and_a_step_takes_longer_on_a_larger_picture(monkeypatch):
    monkeypatch.setattr(scenario, "TIMED", defaultdict(list))
    times = iter([2.0, 0.5, 0.75])
    monkeypatch.setattr(scenario, "first_step_seconds", lambda model: next(times))
    pixels = {name: sample.labels.numel() for name, sample in photos().items()}
    first, largest = next(iter(pixels)), max(pixels, key=pixels.get)
    assert seconds_a_step(first, "photos-clean") == 2.0
    assert seconds_a_step(first, "photos-clean") == 0.5
    assert seconds_a_step(largest, "photos-clean") == pytest.approx(0.5 * pixels[largest] / pixels[first])
    assert seconds_a_step(UPLOAD, "photos-clean") == 0.5, "a fourth time would raise StopIteration"
