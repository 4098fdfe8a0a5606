from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest

from robviz import paper
from robviz.results.report import Report


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


def report(eps: float, settings: str = "paper", miou: float = 0.5, model: str = "ours") -> Report:
    """Of an ensemble of three losses on four pictures, every figure a made-up one."""
    runs = [{"loss": loss, "attack": "red-eps-apgd", "steps": 300} for loss in ("mask-ce-bal", "mask-ce", "js")]
    names = [f"{run['loss']}.red-eps-apgd.300" for run in runs]
    rows = ["clean", *names, *(" + ".join(pair) for pair in combinations(names, 2)), "worst case"]
    figures = {"accuracy_mean": 0.7, "accuracy_pooled": 0.8, "miou": miou}
    plan = {
        "model": {"name": model, "sha256": "0"},
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
    with pytest.raises(ValueError, match="make Tables 1, 2, 3, 6, 7, 8, not 4"):
        paper.ours(4, [])


CONVNEXT_T = {"Model": "UPerNet ConvNeXt-T, PIR-AT, 50 epochs, Pascal-Voc"}


def test_published_and_own_figures_stand_side_by_side():
    found = paper.beside(6, [report(8 / 255, miou=0.25), report(5 / 255)], CONVNEXT_T, differences=True)
    assert list(found.frame.columns) == ["Model", "eps", "figure", "paper", "ours", "difference"]
    assert set(found.frame.eps) == {"8/255"}  # the paper has no 5/255
    line = found.frame[found.frame.figure == "js mIoU"].iloc[0]
    assert (line.paper, line.ours, line.difference) == (41.3, 25.0, -16.3)
    assert "deviate by up to 0.4 points" in found.caption


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_table_beside_itself_differs_nowhere(number):
    published = paper.table(number)
    against = {"Model": published.Model[0]} if number in (1, 6) else None
    lines = published[published.Model == published.Model[0]] if against else published
    found = paper.beside(number, lines, against, differences=True).frame
    assert len(found) > 0
    assert not found.difference.any(skipna=True)
    assert found.difference.notna().any()


def test_lines_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="share their eps; choose some"):
        paper.beside(6, [report(8 / 255)])
    with pytest.raises(ValueError, match="has no line with 'x' under 'Model'"):
        paper.beside(6, [report(8 / 255)], {"Model": "x"})
    with pytest.raises(ValueError, match="1 lines of ours and 12 of Table 2"):
        paper.beside(2, [report(8 / 255)])
    with pytest.raises(ValueError, match="no line of ours"):
        paper.beside(6, [report(5 / 255)], CONVNEXT_T)


def test_differences_are_signed_and_coloured_by_their_sign(tmp_path):
    lines = pd.DataFrame({"Loss pair": ["SEA"], "4/255 mIoU": [70.9], "8/255 mIoU": [30.6], "4/255 Acc": [None]})
    found = paper.beside(7, lines, differences=True)
    for suffix in ("md", "tex", "csv"):
        found.save(tmp_path / f"table.{suffix}")
        text = (tmp_path / f"table.{suffix}").read_text()
        assert "+6.0" in text
        assert "-4.0" in text
    assert pd.read_csv(tmp_path / "table.csv").difference.dropna().tolist() == [6.0, -4.0]
    assert r"SEA & 4/255 mIoU & 64.9 & 70.9 & +6.0 \\" in found.to_latex()
    html = found._repr_html_()
    assert "background:#e69f004c'>+6.0" in html
    assert "background:#56b4e933'>-4.0" in html
    with pytest.raises(ValueError, match=r"written as \.md, \.tex, \.csv; got 'a\.txt'"):
        found.save("a.txt")


def test_figures_of_another_model_are_not_subtracted_but_ranked():
    found = paper.beside(6, [report(8 / 255, miou=0.25)], CONVNEXT_T)
    assert not found.has_differences
    mious = found.frame[found.frame.figure.str.endswith("mIoU")]
    assert mious["our place"].tolist() == [1] * len(mious)  # all alike
    assert sorted(mious["paper's place"]) == list(range(1, len(mious) + 1))
    assert "a difference would mean nothing" in found.caption
    assert "our place" in found._repr_html_()


def test_figures_with_a_radius_are_ranked_among_the_lines_and_not_among_the_radii():
    pairs = ["mask-ce+js", "SEA"]
    lines = pd.DataFrame({"Loss pair": pairs, "4/255 mIoU": [46.0, 45.4], "8/255 mIoU": [20.0, 20.4]})
    found = paper.beside(7, lines)
    assert found.frame["our place"].tolist() == [2, 1, 1, 2]
    assert "the places of lines by the same figure are compared" in found.caption
    (one,) = [paper.beside(7, lines[1:])]
    assert "our place" not in one.shown().columns
    assert one.caption.endswith("a difference would mean nothing.")
    assert one.to_latex().count(r"\\") == 3


def test_a_published_model_on_enough_images_is_subtracted():
    one = report(8 / 255, model="voc-upernet-convnext-t-pirat")
    one.plan["dataset"]["images"] = 1449
    assert paper.beside(6, [one], CONVNEXT_T).has_differences
    one.plan["dataset"]["images"] = 3
    assert not paper.beside(6, [one], CONVNEXT_T).has_differences


def test_the_column_of_ours_can_be_called_what_it_is():
    found = paper.beside(5, paper.table(5), name="as its authors say")
    assert "as its authors say" in found.to_markdown()
    assert "ours" not in found.shown().columns


def test_table_1_joins_ensembles_and_table_8_spreads_seeds():
    baselines = report(4 / 255, "baselines", miou=0.3)
    baselines.plan["settings"]["runs"] = [{"loss": "segpgd", "attack": "red-eps-apgd", "steps": 300}]
    baselines.rows["segpgd.red-eps-apgd.300"] = baselines.rows["clean"]
    (line,) = paper.ours(1, [baselines, report(4 / 255)]).to_dict("records")
    assert (line["SegPGD mIoU"], line["SEA mIoU"], line["Clean (Acc / mIoU)"]) == (30.0, 50.0, "80.0 / 30.0")
    (line,) = paper.ours(8, [report(4 / 255, miou=miou) for miou in (0.4, 0.5, 0.6)]).to_dict("records")
    assert line["js mIoU"] == "50.0±10.0"
    assert paper.ours(8, [report(4 / 255)])["js mIoU"].tolist() == ["50.0"]


def test_table_3_tells_trainings_by_their_start_and_spreads_their_seeds():
    names = ["mini-at-5-300", "mini-at-5-300-seed1", "mini-pirat-2-900", "mini-pirat-2-900-seed2", "camvid-at"]
    mious = dict(zip(names, (0.2, 0.4, 0.5, 0.5, 0.3)))
    reports = [report(eps / 255, miou=miou / eps, model=name) for name, miou in mious.items() for eps in (1, 2)]
    long = report(1 / 255, model="voc-upernet-convnext-t-pirat-5-300")
    assert paper.ours(3, [long])[["Training", "Init.", "Ep."]].values.tolist() == [["PIR-AT", "robust", 300]]
    others = [report(8 / 255, model=name) for name in ("mini-classifier", "camvid-clean", "anyone's")]
    lines = paper.ours(3, reports + others)
    assert lines[["Training", "Init.", "Steps", "Its.", "Seeds"]].values.tolist() == [
        ["AT", "clean", 5, 300, 2],
        ["PIR-AT", "robust", 2, 900, 2],
        ["AT", "clean", 5, 2000, 1],
    ]
    assert lines["1/255 mIoU"].tolist() == ["30.0±14.1", "50.0±0.0", "30.0"]
    assert lines["2/255 mIoU"].tolist() == ["15.0±7.1", "25.0±0.0", "15.0"]
    against = {"Setting": "Pascal-Voc: UPerNet with ConvNeXt-T backbone", "Training": "AT", "Steps": 5, "Ep.": 300}
    assert set(paper.beside(3, reports, against).frame.figure) == {"0 Acc", "0 mIoU"}  # the paper has no 1 or 2/255
