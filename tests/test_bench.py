"""What `robviz bench` measures; how long it takes is for the command to say, on a machine that does nothing else."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from robviz import bench
from robviz.attacks import apgd
from robviz.bench import (
    BENCHES,
    Measured,
    beside_another,
    busy_process,
    evaluation_seconds,
    in_turn,
    load,
    operations,
    product_speed,
    selection_seconds,
    step_ratios,
    step_seconds,
    training_seconds,
)
from robviz.datasets import load_dataset
from robviz.finetune.recipes import RECIPES
from robviz.models import load_model
from robviz.paper.generated_tables import measured_table
from robviz.paper.peers import Compared
from robviz.results.plan import Run, SeaSettings
from robviz.sea import evaluate
from tests.small import Bends, Noise


def test_an_attack_step_is_one_pass_through_the_model_and_back(bends, batch):
    passes = []
    bends.register_forward_hook(lambda *_: passes.append("forward"))
    bends.layers[0].register_full_backward_hook(lambda *_: passes.append("backward"))
    images, labels = batch
    images.requires_grad_()  # of no use to the attack, but the hook needs it
    result = apgd(bends, images, labels, 1e-9, steps=7)
    assert result.step == 7
    assert passes == ["forward", "backward"] * 8  # of the start, too


@pytest.mark.slow
def test_a_step_and_a_bare_pass_are_timed_side_by_side():
    sample = load_dataset("photos", "val-128")[0]
    attack, bare = step_seconds(load_model("photos-robust"), sample.image[None], 2)
    assert min(attack, bare) > 0


def test_the_search_for_the_worst_miou_is_timed():
    assert selection_seconds(attacks=2, images=20, classes=5) > 0


def test_operations_are_those_of_both_passes_and_products_have_a_speed():
    pointwise = torch.nn.Conv2d(3, 2, 1)  # a product and a sum for each weight and pixel, forward and for the input
    assert operations(pointwise, torch.rand(1, 3, 4, 5)) == 2 * 2 * 3 * 2 * 20
    assert product_speed(size=64) > 0


def test_evaluations_with_and_without_checks_are_timed_in_turn_and_checks_come_back(monkeypatch):
    monkeypatch.setenv("ROBVIZ_PRECISION", "fp32")  # attacks in bfloat16 look once more, in float32
    model, passes = Bends().eval(), []
    settings = SeaSettings("one", (Run("mask-ce", "apgd", 2),))
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    found = evaluation_seconds(model, Noise(), settings, limit=2, pairs=2)
    hook.remove()
    assert len(found) == 2
    assert min(seconds for pair in found for seconds in pair) > 0
    own = 2 * (1 + 3)  # the clean pictures, and an attack's start and steps
    looks = 2  # passes of a look
    assert len(passes) == (own // 2 + looks) + 2 * own + 2 * (own + looks)  # one image first, then two pairs
    assert evaluate(model, Noise(), 0.1, settings, limit=2).plan["model"]["settings"]


def test_measures_are_taken_in_turn_until_one_ends_and_the_first_round_does_not_count():
    order = []

    def giving(name, seconds):
        values = iter(seconds)

        def measure():
            order.append(name)
            return next(values, None)

        return measure

    found = in_turn([giving("a", [9.0, 1.0, 2.0, 4.0]), giving("b", [9.0, 3.0, 4.0, 4.0])], 10)
    assert "".join(order) == "ab" * 5
    assert found.seconds == [2.0, 4.0]
    assert found.ratios == [1.0, 2.0]  # the median of 3, 2 and 1


def test_a_step_is_timed_beside_a_process_that_runs_only_meanwhile(monkeypatch):
    happened = []

    class Other:
        def resume(self):
            happened.append("resume")

        def suspend(self):
            happened.append("suspend")

    @contextmanager
    def never_busy():
        yield Other()

    monkeypatch.setattr(bench, "busy_process", never_busy)
    found = beside_another(lambda: happened.append("step") or 1.0, 1)
    assert happened == ["step", "resume", "step", "suspend"] * 2
    assert found.ratios == [1.0, 1.0]


@pytest.mark.slow
def test_the_busy_process_is_suspended_until_it_is_wanted_and_ends():
    def becomes(*states):
        return any(other.status() in states or time.sleep(0.05) for _ in range(400))  # a signal takes a moment

    with busy_process() as other:
        assert becomes("stopped")
        other.resume()
        assert becomes("running", "sleeping")
    assert not other.is_running()


def test_a_step_on_every_form_of_a_model_is_compared_with_the_plain_one():
    found = step_ratios(Bends().eval(), Noise()[0].image[None], 2, is_bfloat16_fast=True)
    assert found.keys() == {"plain", "prepared fp32", "bf16", "prepared bf16"}
    assert found["plain"] == 1
    assert min(found.values()) > 0
    assert all(aims.keys() < found.keys() for aims in bench.STEP_AIMS.values())


def test_a_measurement_names_its_machine_and_comes_into_the_documentation(tmp_path):
    found = Measured([("one step", "3 ms", ""), ("  over another", "2.00 x", "at most 3 x")])
    assert f"torch {torch.__version__}, {torch.get_num_threads()} threads" in found.machine
    assert "GOMP_SPINCOUNT" in found.machine
    assert "bfloat16" in found.machine
    assert str(found).splitlines()[1:] == [
        "measured         value    aim",
        "one step         3 ms",
        "  over another   2.00 x   at most 3 x",
    ]
    found.save(tmp_path / "bench" / "attacks.json")
    assert json.loads((tmp_path / "bench" / "attacks.json").read_text())["machine"] == found.machine
    table = measured_table(tmp_path / "bench", "attacks")
    assert "|   over another | 2.00 x | at most 3 x |\n" in table
    assert found.machine in table
    assert "robviz bench app --out" in measured_table(tmp_path / "bench", "app")


def test_peers_are_measured_at_two_radii(monkeypatch):
    rows = [Compared("foolbox", "3.3.4", "PGD", 0.5, 0.25, 0.3)]
    monkeypatch.setattr(bench, "compare", lambda model, dataset, eps, steps, limit, peers: rows)
    found = bench.bench_peers(limit=1, steps=30)
    assert found.rows == [(r, "foolbox 3.3.4", "PGD", "50.00 %", "25.00 %", "10 ms") for r in ("4/255", "8/255")]


def test_every_measure_has_its_command():
    from robviz.cli.serve import bench as command

    (what,) = (hint for name, hint in get_type_hints(command).items() if name == "what")
    assert set(get_args(what)) == BENCHES.keys()


@pytest.mark.slow
def test_an_iteration_of_a_training_is_timed_in_its_parts_which_make_no_more_than_the_whole():
    recipe = replace(RECIPES["photos-onestep"], sizes=(64,), batch_size=2, eps_warm_up=0.0)
    for parts, whole in training_seconds(recipe, 4):
        assert parts.keys() == {"waiting", "attack", "forward", "backward", "optimiser"}
        assert min(parts.values()) > 0
        assert sum(parts.values()) <= whole


@pytest.mark.long
def test_twenty_visitors_at_once_all_get_an_answer_and_attacks_leave_nothing_behind():
    """`robviz bench load` makes 50 attacks; fewer show a leak of results, of some MiB each, as well."""
    found = load(visitors=20, attacks=24, steps=2, warm=12)
    assert found.errors == []
    assert len(found.waits) == 20
    assert found.idle < 1200
    assert found.after - found.warm < 8  # a leak of 0.7 MiB an attack
    assert found.files_after == found.files_warm
