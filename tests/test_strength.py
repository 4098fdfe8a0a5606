"""The ablation of `strong`, its tables and its pictures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from robviz import attacks
from robviz.losses import LOSSES
from robviz.models import adapt
from robviz.paper.strength import FIRST_AND_LAST, curves_on, expected_error_between, margin, measure, repeat
from robviz.paper.strength_tables import released_blocks, released_temperatures, seeds
from robviz.results.confusion import Confusion
from robviz.results.plan import Run, SeaSettings
from robviz.results.report import Report
from robviz.types import VOID
from tests.small import Bends, Noise

MAKE = Path(__file__).parent.parent / "docs" / "assets" / "make_strength.py"


def report(settings, seed, accuracy, miou=0.5, eps=8, runs=("a", "b", "c"), **more):
    rows = {"worst case": {"accuracy_mean": accuracy, "miou": miou}}
    rows |= {f"{run}.annealed-pgd.30": {"accuracy_mean": accuracy, "miou": miou} for run in runs}
    plan = {
        "model": {"name": "photos-robust"},
        "eps": eps / 255,
        "seed": seed,
        "settings": {
            "name": settings,
            "runs": [{"loss": run, "attack": "annealed-pgd", "steps": 30} for run in runs],
            **more,
        },
    }
    return Report(plan, rows, [], 0)


def test_seeds_are_summed_up_by_mean_and_deviation_and_compared_pair_by_pair():
    found = seeds(
        [
            report("strong-30", 0, 0.9),  # replaced by the next
            report("strong-30", 0, 0.2, 0.10),
            report("paper-30", 0, 0.3, 0.30),
            report("strong-30", 1, 0.4, 0.12),
            report("paper-30", 1, 0.6, 0.30),
            report("paper-30", 0, 0.3, eps=4),  # alone
        ]
    )
    assert found["ensemble"].tolist() == ["`paper`", "`strong`", "`paper` − `strong`"]
    assert found["accuracy"].tolist() == ["45.00 ± 21.21", "30.00 ± 14.14", "15.00 ± 7.07"]
    assert found["mIoU"].tolist() == ["30.00 ± 0.00", "11.00 ± 1.41", "19.00 ± 1.41"]
    assert set(found["radius"]) == {"8/255"}
    assert set(found["steps per image"]) == {"90"}


def test_temperatures_stand_beside_those_of_the_other_implementation():
    found = released_temperatures(
        [
            report("ablation-temperatures-30", 0, 0.25, runs=("expected-error-soft", "error-1-to-1")),
            report("ablation-1-block-30", 0, 0.25),
        ]
    )
    assert found["first"].tolist() == ["1.0", "3.0"]
    assert found["`photos-robust`, 8/255"].tolist() == ["25.00", "25.00"]
    assert found["8/255, table above"].tolist() == ["38.43", "33.02"]  # checkpoints/reports/ablation/strong.csv


def test_one_block_is_compared_with_four_of_the_same_seed():
    one, four = report("ablation-1-block-30", 1, 0.5, 0.16, blocks=1), report("strong-30", 1, 0.5, 0.15, blocks=4)
    other = report("strong-30", 2, 0.5, 0.14, blocks=4)
    found = released_blocks([one], [four, other, report("paper-30", 1, 0.5)])
    assert found[["seed", "1 block", "4 blocks"]].to_numpy().tolist() == [["1", "16.00", "15.00"]]


@pytest.mark.parametrize("name", ["expected-error", "expected-error-soft"])
def test_the_temperatures_of_the_table_are_those_of_the_losses(name):
    logits, labels = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    for progress in (0.0, 0.3, 1.0):
        expected = expected_error_between(logits, labels, None, progress, *FIRST_AND_LAST[name])
        torch.testing.assert_close(LOSSES[name](logits, labels, None, progress), expected)


def test_the_ablation_writes_a_report_for_each_name_and_takes_its_losses_away(tmp_path):
    before = dict(LOSSES)
    (found,) = measure(Bends().eval(), Noise(), 8 / 255, tmp_path, ("temperatures",), steps=1, seed=3, limit=2)
    assert before == LOSSES
    assert Report.load(tmp_path / "Bends.temperatures-1.8.seed3.json") == found
    assert (found.plan["seed"], found.plan["prepared"]) == (3, True)
    assert {run["loss"] for run in found.plan["settings"]["runs"]} < FIRST_AND_LAST.keys()


def test_an_ensemble_is_repeated_with_several_seeds_and_finished_evaluations_are_not_run_again(tmp_path):
    settings = SeaSettings("one-2", (Run("js", "pgd", 2),))
    found = repeat(Bends().eval(), Noise(), 8 / 255, settings, tmp_path / "work", tmp_path, seeds=(4, 5), limit=2)
    assert [report.plan["seed"] for report in found] == [4, 5]
    assert Report.load(tmp_path / "seeds" / "Bends.one-2.8.seed5.json") == found[1]
    assert [path.name for path in (tmp_path / "confusion").iterdir()] == ["Bends.one-2.8.seed4.json"]
    assert Confusion.load(tmp_path / "confusion" / "Bends.one-2.8.seed4.json").seed == 4
    model, passes = Bends().eval(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    again = repeat(model, Noise(), 8 / 255, settings, tmp_path / "work", tmp_path, seeds=(4, 5), limit=2)
    assert again == found
    assert passes == []


def test_curves_count_what_single_attacks_leave_after_each_step(tmp_path):
    before, runs = dict(LOSSES), (Run("error-1-to-1", "pgd", 3), Run("js", "pgd", 2))
    model = adapt(Bends().eval(), Noise.classes, mean=(0, 0, 0), std=(1, 1, 1), name="bends")
    path = curves_on(model, Noise(), 1, 0.5 / 255, tmp_path, runs, seeds=(4, 5))
    assert before == LOSSES
    found = json.loads(path.read_text())
    assert (path.name, found["image"]) == ("bends.image1.0.5.json", Noise()[1].name)
    assert [(c["loss"], c["seed"], len(c["left"])) for c in found["curves"]] == [
        ("error-1-to-1", 4, 4),
        ("error-1-to-1", 5, 4),
        ("js", 4, 3),
        ("js", 5, 3),
    ]
    sample, spent = Noise()[1], found["curves"][0]
    frames = attacks.pgd(model, sample.image[None], sample.labels[None], 0.5 / 255, steps=2, loss="js", seed=4)
    assert found["curves"][2]["left"][-1] == (frames.predictions == sample.labels).sum()
    assert 0 < spent["left"][-1] <= spent["left"][0] <= found["labelled"]


def test_a_margin_is_the_largest_lead_of_a_label():
    logits = torch.tensor([[[3.0, 1.0, 9.0]], [[1.0, 4.0, 0.0]], [[0.5, 2.0, 0.0]]])
    labels = torch.tensor([[0, 1, VOID]])
    assert margin(lambda images: logits[None], torch.zeros(3, 1, 3), labels) == 2
    assert margin(lambda images: logits[None], torch.zeros(3, 1, 3), torch.tensor([[2, 2, 1]])) == 0


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_strength", MAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_of_the_page_is_drawn_from_the_shipped_reports(make):
    page = (MAKE.parent.parent / "strength.md").read_text(encoding="utf-8")
    for name, drawn in make.PICTURES.items():
        assert f"assets/strength_{name}.svg" in page
        assert (MAKE.parent / f"strength_{name}.svg").is_file()
        assert drawn().axes
