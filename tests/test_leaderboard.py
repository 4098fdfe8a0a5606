"""Results compared: what is comparable, what is published, and one self-contained page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from robviz.files.paths import bundled_path
from robviz.paper.leaderboard import (
    PAPER_RUNS,
    frame_of,
    groups_of,
    lettered,
    line_of,
    lines_of,
    published_lines,
    reports_at,
    save,
    to_html,
    to_markdown,
)
from robviz.results.report import Report
from robviz.sea import PAPER
from robviz.types import InputError


def report(model="m", eps=4, images=16, steps=30, miou=0.4, name="mine") -> Report:
    figures = {
        "accuracy_mean": miou + 0.2,
        "accuracy_pooled": miou + 0.2,
        "miou": miou,
        "balanced_accuracy": miou,
        "iou_by_size": {"small": None, "medium": miou, "large": miou},
        "iou_by_class": {"sky": miou, "<road>": miou / 2},
    }
    plan = {
        "model": {"name": model, "sha256": 64 * "0"},
        "dataset": {"name": "streets", "split": "val", "images": images},
        "eps": eps / 255,
        "settings": {
            "name": name,
            "runs": [{"loss": "mask-ce", "attack": "apgd", "steps": steps}],
            "aggregation": "each",
            "seed": 0,
        },
        "seed": 0,
        "precision": "fp32",
        "device": "cpu",
        "versions": {},
    }
    return Report(plan, {"clean": figures, "worst case": figures}, [], 0)


def test_lines_are_comparable_when_images_radius_and_attacks_agree_whatever_the_ensemble_is_called():
    lines = lines_of([report("a"), report("b", name="other"), report(eps=8), report(images=8), report(steps=100)])
    letters = groups_of(lines)
    by_model = {line.model: letters[line.conditions] for line in lines if line.conditions.eps_255 == 4}
    assert by_model["a"] == by_model["b"]
    assert len(set(letters.values())) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"eps": 8}, ["radius 4.0 and 8.0"]),
        ({"images": 8}, ["number of images 16 and 8"]),
        ({"steps": 100, "eps": 8}, ["radius 4.0 and 8.0", "ensemble"]),
        ({"miou": 0.9, "model": "another"}, []),
    ],
)
def test_what_makes_two_lines_incomparable_is_said(change, says):
    assert line_of(report()).conditions.differences(line_of(report(**change)).conditions) == says


def test_the_most_robust_model_of_a_group_comes_first():
    assert [line.model for line in lines_of([report("weak", miou=0.1), report("strong", miou=0.6)])] == [
        "strong",
        "weak",
    ]


def test_published_figures_are_those_of_the_paper_and_marked():
    lines = published_lines()
    (pirat,) = [
        line
        for line in lines
        if line.conditions.dataset == "voc"
        and line.conditions.eps_255 == 8
        and "PSPNet" in line.model
        and "PIR-AT" in line.model
    ]
    assert (pirat.accuracy, pirat.miou) == (pytest.approx(0.506), pytest.approx(0.112))
    assert all(line.is_published for line in lines)
    assert "published" in to_markdown([pirat])
    assert 'class="published"' in to_html([pirat])


def test_the_papers_ensemble_is_ours_so_that_the_same_images_are_comparable():
    ours = report()
    ours.plan["settings"] = {
        "name": "paper",
        "runs": [{"loss": run.loss, "attack": run.attack, "steps": run.steps} for run in PAPER.runs],
        "aggregation": PAPER.aggregation,
    }
    assert line_of(ours).conditions.ensemble == PAPER_RUNS


class Page(HTMLParser):
    """Collect what a browser would fetch, and what the page contains."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.heads: list[dict[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.fetched += [named[key] for key in ("src", "href") if key in named]
        if tag == "th":
            self.heads.append(named)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        """Handle a tag of SVG that opens and closes at once."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_well_formed_file_that_fetches_nothing_and_runs_nothing_foreign():
    text = to_html(lines_of([report("<script>alert(1)</script>"), report(eps=8), report(eps=2)]) + published_lines())
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert "<script>alert" not in text
    assert "&lt;road&gt;" in text
    assert all("scope" in head for head in page.heads)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def test_a_model_at_several_radii_has_a_curve():
    assert "<polyline" in to_html(lines_of([report(eps=2), report(eps=8)]))
    assert "<polyline" not in to_html(lines_of([report()]))


def test_the_shipped_reports_make_a_leaderboard(tmp_path):
    lines = lines_of(reports_at([bundled_path("checkpoints") / "reports"]))
    frame = frame_of(lines)
    assert set(frame["model"]) >= {"camvid-at", "photos-robust"}
    for suffix in (".html", ".md"):
        save(lines, tmp_path / f"results{suffix}")
        assert "photos-robust" in (tmp_path / f"results{suffix}").read_text(encoding="utf-8")


def test_reports_are_found_in_files_and_folders(tmp_path):
    for name in ("a", "b"):
        report(name).save(tmp_path / name / "report.json")
    report("c").save(tmp_path / "c.json")
    assert [one.plan["model"]["name"] for one in reports_at([tmp_path / "a", tmp_path / "c.json"])] == ["a", "c"]
    assert sorted(one.plan["model"]["name"] for one in reports_at([tmp_path])) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda folder: reports_at([folder]), "there is no report in"),
        (lambda folder: reports_at([folder / "none.json"]), "there is no report"),
        (lambda folder: save([line_of(report())], folder / "results.txt"), r"written as \.html or \.md"),
        (lambda folder: to_html([]), "nothing to compare"),
        (lambda folder: line_of(replace(report(), rows={})), "lacks 'clean'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path, call, says):
    with pytest.raises(InputError, match=says):
        call(tmp_path)


def test_groups_are_lettered_beyond_z():
    assert [lettered(number) for number in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
