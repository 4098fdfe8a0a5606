from __future__ import annotations

from itertools import combinations

import pytest

from robviz import paper
from robviz.report import Report


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_published_table_opens(number):
    table = paper.table(number)
    assert len(table) > 0
    assert table.columns.is_unique


def test_table_6_says_what_the_paper_says():
    table = paper.table(6)
    row = table[table.Model.str.startswith("UPerNet ConvNeXt-T") & (table.eps == "8/255")].iloc[0]
    assert row["SEA Acc"] == 71.7
    assert row["SEA mIoU"] == 34.6


def test_a_table_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="Tables 1 to 9, got 10"):
        paper.table(10)


def report(eps: float, settings: str = "paper", miou: float = 0.5) -> Report:
    """Of an ensemble of three losses on four pictures, every figure a made-up one."""
    runs = [{"loss": loss, "attack": "red-eps-apgd", "steps": 300} for loss in ("mask-ce-bal", "mask-ce", "js")]
    names = [f"{run['loss']}.red-eps-apgd.300" for run in runs]
    rows = ["clean", *names, *(" + ".join(pair) for pair in combinations(names, 2)), "worst case"]
    figures = {"accuracy_mean": 0.7, "accuracy_pooled": 0.8, "miou": miou}
    plan = {
        "model": {"name": "ours", "sha256": "0"},
        "dataset": {"name": "photos", "split": "val", "images": 4},
        "eps": eps,
        "settings": {"name": settings, "runs": runs},
    }
    return Report(plan, {row: figures for row in rows}, [], 0)


def test_our_lines_stand_under_the_published_headings():
    reports = [report(8 / 255, miou=0.25), report(4 / 255), report(4 / 255, "strong", miou=0.0)]
    components, pairs, radii = (paper.ours(number, reports) for number in (6, 7, 2))
    assert set(components.columns) == set(paper.table(6).columns)
    assert components.eps.tolist() == ["4/255", "8/255"]
    assert components["js mIoU"].tolist() == [50.0, 25.0]
    assert components["js Acc"].tolist() == [80.0, 80.0]  # pooled
    assert components["SEA Acc"].tolist() == [70.0, 70.0]  # mean over the images, as the official code has it
    assert set(pairs["Loss pair"]) == set(paper.table(7)["Loss pair"])
    assert pairs["8/255 mIoU"].tolist() == [25.0] * 4
    assert radii[["0 mIoU", "4/255 mIoU", "8/255 mIoU"]].values.tolist() == [[50.0, 50.0, 25.0]]


def test_the_same_ensemble_with_other_steps_has_lines_of_its_own():
    lines = paper.ours(2, [report(4 / 255), report(4 / 255, "paper-30"), report(4 / 255, "paper-v1")])
    assert [line.rpartition(", ")[2] for line in lines.Setting] == ["paper", "paper-30"]


def test_a_table_no_evaluation_makes_is_refused():
    with pytest.raises(ValueError, match="make Tables 2, 6, 7, not 4"):
        paper.ours(4, [])
