"""A dataset evaluated while somebody watches: a small model and five small pictures."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from robviz.interactive.evaluation import EvaluationProgress, Pace, evaluation_steps
from robviz.results.plan import CLEAN, Run, SeaSettings
from robviz.sea import STRONG, Standing, evaluate
from robviz.types import InputError
from tests.small import Bends, Noise

SETTINGS = SeaSettings("tiny", (Run("mask-ce-bal", steps=4), Run("js", "apgd", 3)))
TOTAL = 5 * 3
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Asked:
    """Count the calls of a model; kept outside of it, as its attributes are part of its identity."""

    times, breaks_at = 0, -1


class Watched(Bends):
    """A model that counts what it is asked, and may break at a number."""

    def forward(self, images):
        Asked.times += 1
        if Asked.times == Asked.breaks_at:
            raise RuntimeError("the machine is on fire")
        return super().forward(images)


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch):
    monkeypatch.setattr(Asked, "times", 0)
    monkeypatch.setattr(Asked, "breaks_at", -1)


def steps(folder: Path, model: torch.nn.Module | None = None, settings: SeaSettings = SETTINGS, **options):
    return evaluation_steps(model or Bends().eval(), Noise(), 0.05, settings, folder, **options)


def reports(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("report.*")}


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "evaluation"]


def test_progress_counts_up_from_the_start_to_the_report(tmp_path):
    seen = list(steps(tmp_path))
    assert seen[0] == replace(seen[0], done=0, total=TOTAL, run=None, image=None, report=None)
    assert all(0 <= after.done - before.done <= 1 for before, after in pairwise(seen))
    assert {one.done for one in seen} == set(range(TOTAL + 1))
    assert {one.run for one in seen[1:]} == {CLEAN, *(run.name for run in SETTINGS.runs)}
    assert {one.image for one in seen[1:]} == {f"noise-{i}" for i in range(5)}
    *before, last = seen
    assert [one.report for one in before] == [None] * len(before)
    assert last.report == evaluate(Bends().eval(), Noise(), 0.05, SETTINGS)
    assert len(list(tmp_path.rglob("*.png"))) >= TOTAL
    assert workers() == []


@pytest.mark.parametrize("settings", [SETTINGS, STRONG.with_steps(4)], ids=["alone", "blocks"])
@pytest.mark.parametrize("after", [1, 6])
@pytest.mark.slow
def test_stopped_and_resumed_it_gives_the_same_report_to_the_byte(tmp_path, settings, after):
    *_, whole = steps(tmp_path / "whole", settings=settings, limit=3)
    seen: list[EvaluationProgress] = []
    with closing(
        steps(tmp_path / "parts", settings=settings, limit=3, is_stopped=lambda: len(seen) > after)
    ) as running:
        for one in running:
            seen.append(one)
    assert seen[-1].report is None or after >= len(seen)
    first, *_, last = steps(tmp_path / "parts", settings=settings, limit=3)
    assert first.done >= seen[-1].done
    assert last.report == whole.report
    assert reports(tmp_path / "parts") == reports(tmp_path / "whole") != {}


def test_the_step_that_is_told_to_stop_is_the_last(tmp_path):
    calls: list[int] = []

    def is_stopped() -> bool:
        calls.append(Asked.times)
        return len(calls) == 20

    assert all(one.report is None for one in steps(tmp_path, Watched().eval(), is_stopped=is_stopped))
    assert len(calls) == 20
    assert Asked.times == calls[-1]
    assert workers() == []
    assert 0 < next(steps(tmp_path, Watched().eval())).done < TOTAL


def test_closing_ends_the_work(tmp_path):
    model = Watched().eval()
    running = steps(tmp_path, model, settings=SETTINGS.with_steps(300))
    assert next(running).done == 0
    assert len(workers()) == 1
    running.close()
    assert workers() == []
    assert Asked.times < 5 * 2 * 300
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert next(steps(tmp_path, model, settings=SETTINGS.with_steps(300))).done < TOTAL


def test_a_finished_evaluation_answers_at_once_with_its_report(tmp_path):
    *_, whole = steps(tmp_path, Watched().eval())
    asked = Asked.times
    first, last = steps(tmp_path, Watched().eval())
    assert (first.done, first.total) == (last.done, last.total) == (TOTAL, TOTAL)
    assert last.report == whole.report
    assert Asked.times == asked


def test_what_cannot_be_evaluated_is_said_in_the_generator(tmp_path):
    with pytest.raises(InputError, match=r"eps must lie in \[0, 1\]"):
        list(evaluation_steps(Bends().eval(), Noise(), 8, SETTINGS, tmp_path))
    list(steps(tmp_path))
    with pytest.raises(InputError, match="holds the records of another run"):
        list(steps(tmp_path, limit=2))
    assert workers() == []


def test_another_error_comes_through_too_and_finished_records_stay(tmp_path):
    Asked.breaks_at = 60
    with pytest.raises(RuntimeError, match="on fire"):
        list(steps(tmp_path, Watched().eval()))
    assert workers() == []
    assert 0 < next(steps(tmp_path, Watched().eval())).done < TOTAL


def test_the_time_left_follows_the_attacks_of_this_session(monkeypatch):
    now = iter([0.0, 30.0, 50.0])
    monkeypatch.setattr("robviz.interactive.evaluation.time.monotonic", lambda: next(now))
    pace = Pace(runs=3)
    standings = [
        Standing(20, 40),
        Standing(20, 40, "js", "a"),
        Standing(21, 40, "js", "a"),
        Standing(22, 40, CLEAN, "b"),
        Standing(23, 40, "js", "b"),
    ]
    left = [pace.progress(one).seconds_left for one in standings]
    assert left[2:] == pytest.approx([30 * 0.75 * 19, 30 * 0.75 * 18, 25 * 0.75 * 17])
    assert [str(seconds) for seconds in left[:2]] == ["nan", "nan"]


@pytest.mark.slow
def test_whoever_watches_hears_of_every_step_and_may_end_it(tmp_path):
    seen: list[Standing] = []

    def watch(standing: Standing) -> None:
        seen.append(standing)
        if standing.done == 4:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        evaluate(Bends().eval(), Noise(), 0.05, SETTINGS, out=tmp_path, watch=watch)
    assert len(list(dict.fromkeys(seen))) < len(seen)  # several steps of one attack
    assert seen[-1].done == 4
    assert evaluate(Bends().eval(), Noise(), 0.05, SETTINGS, out=tmp_path) == evaluate(
        Bends().eval(), Noise(), 0.05, SETTINGS
    )
