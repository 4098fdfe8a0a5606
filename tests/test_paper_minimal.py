"""The curve of the smallest radii."""

from __future__ import annotations

import pytest

from robviz.cli import main
from robviz.models import adapt
from robviz.paper.generated_tables import minimal_table
from robviz.paper.minimal import Minimal, centre, curve, measured, shipped_minimal
from robviz.types import InputError
from tests.small import Bends
from tests.test_adapt import Streets


def test_the_curve_is_the_share_of_images_that_hold():
    found = Minimal({}, (1.0, 2.0, 2.0, None))
    assert curve(found, (0, 1, 1.5, 2, 100)) == [1, 0.75, 0.75, 0.25, 0.25]
    with pytest.raises(InputError, match="at least one"):
        curve(Minimal({}, ()), (1,))


def test_radii_are_recorded_image_by_image_and_read_back(tmp_path):
    model = adapt(Bends(), Streets.classes, mean=(0, 0, 0), std=(1, 1, 1), name="tiny")
    *_, last = frames = list(measured(model, Streets(), 5, steps=4, share=0.2, crop=16))
    assert [len(frame.radii_255) for frame in frames] == [1, 2]
    assert (last.plan["model"]["name"], last.plan["images"], last.plan["crop"]) == ("tiny", 2, 16)
    last.save(tmp_path / "tiny.json")
    assert Minimal.load(tmp_path / "tiny.json") == last
    (tmp_path / "tiny.json").write_text("{}")
    with pytest.raises(InputError, match="no minimal radii"):
        Minimal.load(tmp_path / "tiny.json")


def test_the_command_writes_what_it_has_after_every_image(tmp_path, capsys):
    out = tmp_path / "radii.json"
    words = ["minimal", "photos-clean", "--split", "val-128", "--limit", "2", "--crop", "32", "--steps", "2"]
    main([*words, "--out", str(out)])
    found = Minimal.load(out)
    assert (found.plan["images"], found.plan["crop"], found.plan["steps"]) == (2, 32, 2)
    assert len(capsys.readouterr().out.splitlines()) == len(found.radii_255) == 2


def test_the_table_counts_an_image_that_was_never_broken_at_every_radius():
    plan = {"crop": 64, "images": 3, "steps": 5, "dataset": {"name": "photos", "split": "val-128"}}
    table = minimal_table({"a": Minimal(plan, (1.5, 3.0, None)), "b": Minimal(plan, (None, None, 1.0))})
    assert list(table["median radius"]) == ["3.0/255", "not found"]
    assert list(table["withstand 2/255"]) == ["67 %", "67 %"]
    assert list(table["withstand 16/255"]) == ["33 %", "67 %"]


def test_the_middle_of_a_side_is_cut():
    assert centre(128, 64) == slice(32, 96)
    assert centre(41, None) == centre(16, 64) == slice(None)


def test_the_robust_model_that_ships_holds_at_larger_radii_than_the_clean_one():
    found = shipped_minimal()
    radii = (1, 2, 4, 8)
    clean, robust = (curve(found[name], radii) for name in ("photos-clean", "photos-robust"))
    assert all(a <= b for a, b in zip(clean, robust))
    assert clean < robust
