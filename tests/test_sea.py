"""The ensemble on a small model and five small pictures."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robviz import cli
from robviz.files.paths import bundled_path
from robviz.models.precision import chosen_precision
from robviz.results.plan import Blockwise, Run, SeaSettings
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.summary import build_report
from robviz.sea import PAPER, PAPER_V1, QUICK, STRONG, STRONG_V1, evaluate
from robviz.types import Sample
from tests.small import Bends, Noise

TINY = SeaSettings("tiny", (Run("mask-ce-bal", steps=4), Run("mask-ce", steps=4), Run("js", "apgd", 4)))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def model():
    return Bends().eval()


def test_the_settings_are_those_of_the_paper():
    assert [(run.loss, run.attack, run.steps) for run in PAPER.runs] == [
        (loss, "red-eps-apgd", 300) for loss in ("mask-ce-bal", "mask-ce", "js")
    ]
    assert {run.loss for run in PAPER_V1.runs} == {"mask-ce", "segpgd", "js", "mask-spherical"}
    assert PAPER_V1.aggregation == "accuracy"
    assert [run.steps for run in QUICK.runs] == [30, 30, 30]


def test_an_ensemble_takes_other_steps_in_the_same_proportions():
    shorter = STRONG_V1.with_steps(30)
    assert shorter.name == "strong-v1-30"
    assert [run.steps for run in shorter.runs] == [42, 24, 24]
    assert [(run.loss, run.attack) for run in shorter.runs] == [(run.loss, run.attack) for run in STRONG_V1.runs]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        STRONG_V1.with_steps(0)


@pytest.mark.parametrize("steps", [30, 100, 300])
def test_strong_takes_three_times_the_steps_it_is_asked_for_and_aims_at_the_set_last(steps):
    strong = STRONG.with_steps(steps)
    assert sum(run.steps for run in strong.runs) == 3 * steps
    assert [run.loss in strong.setwise for run in strong.runs] == [False, False, True]


@pytest.mark.parametrize("steps", [100, 101, 150, 200, 300, 1000])
def test_a_longer_first_strong_hands_over_from_annealing_to_apgd(steps):
    longer = STRONG_V1.with_steps(steps)
    assert 3 * steps - 1 <= sum(run.steps for run in longer.runs) <= 3 * steps
    annealed = {run.loss: run.steps for run in longer.runs if run.attack == "annealed-pgd"}
    assert annealed == {"mask-ce": 80, "js": 80}
    apgd = {run.loss: run.steps for run in longer.runs if run.attack == "red-eps-apgd"}
    assert apgd["mask-ce-bal"] == min(round(1.4 * steps), 280)
    if steps > 100:
        assert apgd["mask-ce"] == apgd["js"] > 0


def test_the_worst_case_is_no_better_than_any_attack_and_every_attack_no_better_than_none(model):
    rows = evaluate(model, Noise(), 0.05, TINY).rows
    runs = [name for name in rows if name.count(".") == 2 and "+" not in name]
    assert len(runs) == 3
    for key in ("accuracy_mean", "accuracy_pooled", "miou"):
        for name in runs:
            assert rows["worst case"][key] <= rows[name][key] + 1e-12 < rows["clean"][key]
        for first in runs:
            pairs = [pair for pair in rows if "+" in pair and first in pair]
            assert len(pairs) == 2
            assert all(rows["worst case"][key] <= rows[pair][key] <= rows[first][key] for pair in pairs)


@pytest.mark.slow
def test_version_one_takes_the_miou_from_the_choice_of_lowest_accuracy(model):
    by_accuracy = SeaSettings("tiny", TINY.runs, aggregation="accuracy")
    first, second = (evaluate(model, Noise(), 0.05, settings).rows["worst case"] for settings in (TINY, by_accuracy))
    assert first["accuracy_mean"] == second["accuracy_mean"]
    assert first["miou"] <= second["miou"]


@pytest.mark.slow
def test_the_report_does_not_depend_on_batch_size_or_resuming_or_what_was_done_before(model, tmp_path):
    alone = evaluate(model, Noise(), 0.05, TINY, out=tmp_path / "a")
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path / "b", batch_size=3)
    written = (tmp_path / "a" / "report.json").read_bytes()
    assert written == (tmp_path / "b" / "report.json").read_bytes()
    for record in sorted((tmp_path / "a" / "records").iterdir())[::2]:
        record.unlink()
    (tmp_path / "a" / "report.json").unlink()
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path / "a")
    assert written == (tmp_path / "a" / "report.json").read_bytes()
    assert alone == Report.load(tmp_path / "a" / "report.json")


def test_finished_images_are_not_attacked_again(model, tmp_path):
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    handle.remove()
    assert not calls


@pytest.mark.slow
def test_a_damaged_record_is_computed_again_and_said_so(model, tmp_path):
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    written = (tmp_path / "report.json").read_bytes()
    damaged = tmp_path / "records" / f"000002.{TINY.runs[1].name}.json"
    damaged.write_text(damaged.read_text()[:-20])
    with pytest.warns(UserWarning, match="record 000002.mask-ce.red-eps-apgd.4 is damaged .* computed again"):
        evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    assert written == (tmp_path / "report.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eps": 0.06}, "eps: 0.05 there, 0.06 asked for"),
        ({"settings": SeaSettings("tiny", TINY.runs, seed=1)}, "seed: 0 there, 1 asked for"),
        ({"limit": 2}, "dataset.images: 5 there, 2 asked for"),
        ({"precision": "bf16"}, "precision: 'fp32' there, 'bf16' asked for"),
    ],
)
@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_with_the_differences(model, tmp_path, changes, says):
    arguments = {"eps": 0.05, "settings": TINY, "out": tmp_path, "precision": "fp32"}
    evaluate(model, Noise(), **arguments)
    with pytest.raises(ValueError, match=says):
        evaluate(model, Noise(), **{**arguments, **changes})
    assert evaluate(model, Noise(), **{**arguments, **changes, "resume": False}).rows


def test_a_folder_of_another_model_is_refused(model, tmp_path):
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    torch.nn.init.zeros_(model.layers[4].bias)
    with pytest.raises(ValueError, match=r"model.sha256: '.*' there, '.*' asked for"):
        evaluate(model, Noise(), 0.05, TINY, out=tmp_path)


def is_attack_step(images):
    return torch.is_grad_enabled()


def is_unattacked_look(images):
    return not torch.is_grad_enabled() and images[0].equal(Noise()[3].image)


def is_look_after_the_attack(images):
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or images[0].equal(Noise()[3].image))


@pytest.mark.parametrize(
    ("precision", "is_broken", "written"),
    [
        ("fp32", is_attack_step, 14),
        ("bf16", is_attack_step, 14),
        ("fp32", is_unattacked_look, 13),
        ("bf16", is_unattacked_look, 13),
        ("bf16", is_look_after_the_attack, 14),
    ],
)
@pytest.mark.slow
def test_a_model_that_turns_to_nan_ends_the_run_and_finished_records_stay(
    model, tmp_path, precision, is_broken, written
):
    def break_image_3(_, arguments, logits):  # the first of its width
        (images,) = arguments
        return logits * torch.nan if images.shape[-1] == 11 and is_broken(images) else logits

    handle = model.register_forward_hook(break_image_3)
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        evaluate(model, Noise(), 0.05, TINY, out=tmp_path, precision=precision)
    handle.remove()
    assert len(list((tmp_path / "records").iterdir())) == written  # the first look, images 0 to 2, and what image 3 had
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path / "whole", precision=precision)
    evaluate(model, Noise(), 0.05, TINY, out=tmp_path, precision=precision)
    assert (tmp_path / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()


def test_the_environment_decides_what_auto_means_and_nothing_else(model, tmp_path, monkeypatch):
    for forced in ("bf16", "fp32"):
        monkeypatch.setenv("ROBVIZ_PRECISION", forced)
        assert evaluate(model, Noise(), 0.05, TINY, limit=1).plan["precision"] == forced
        assert chosen_precision("fp32", torch.device("cpu")) == "fp32"
        assert chosen_precision("bf16", torch.device("cpu")) == "bf16"
    monkeypatch.setenv("ROBVIZ_PRECISION", "half")
    with pytest.raises(ValueError, match="unknown precision in ROBVIZ_PRECISION 'half'; choose from: auto, fp32, bf16"):
        evaluate(model, Noise(), 0.05, TINY, limit=1)


def test_a_full_disk_ends_the_run_with_its_error_and_finished_records_intact(model, tmp_path, monkeypatch):
    fsync, count = os.fsync, iter(range(100))

    def full(descriptor):
        if next(count) > 6:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(model, Noise(), 0.05, TINY, out=tmp_path)
    monkeypatch.undo()
    names = [path.name for path in (tmp_path / "records").iterdir()]
    assert names
    assert all(name.endswith(".json") for name in names)
    assert len(evaluate(model, Noise(), 0.05, TINY, out=tmp_path).images) == 5


def test_the_model_comes_back_as_it_was(model):
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluate(model, Noise(), 0.05, TINY, limit=1)
    assert all(module.training for module in model.modules())
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_float32_is_float32_on_gpus_too(model):
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    evaluate(model, Noise(), 4 / 255, TINY, limit=1)
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 == before


def test_bf16_gradients_still_report_fp32_predictions(model):
    report = evaluate(model, Noise(), 0.05, TINY, precision="bf16", limit=2)
    assert report.plan["precision"] == "bf16"
    assert report.rows["clean"] == evaluate(model, Noise(), 0.05, TINY, precision="fp32", limit=2).rows["clean"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eps": 4}, r"eps must lie in \[0, 1\]"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"precision": "fp8"}, "unknown precision"),
    ],
)
def test_a_bad_call_is_refused(model, changes, says):
    with pytest.raises(ValueError, match=says):
        evaluate(model, Noise(), **{"eps": 0.05, "settings": TINY, **changes})


def test_where_nothing_is_labelled_nothing_is_said_and_the_json_stays_valid(model, tmp_path):
    class Unlabelled(Noise):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.name, sample.image, torch.full_like(sample.labels, -1))

    rows = evaluate(model, Unlabelled(), 0.05, TINY, out=tmp_path).rows
    assert rows["worst case"]["miou"] is None
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_a_report_is_written_as_json_csv_and_markdown(model, tmp_path):
    report = evaluate(model, Noise(), 4 / 255, TINY, out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["rows"].keys() == report.rows.keys()
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + len(report.rows)
    seconds = json.loads((tmp_path / "seconds.json").read_text())
    assert seconds.keys() == {run.name for run in TINY.runs}
    assert all(value > 0 for value in seconds.values())
    text = (tmp_path / "report.md").read_text()
    assert "# Bends on noise (val) at 4/255, tiny" in text
    assert f"| worst case | {100 * report.rows['worst case']['accuracy_mean']:.2f} |" in text
    with pytest.raises(ValueError, match=r"written as .json, .csv, .md; got 'report.pdf'"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="is not a robviz report"):
        Report.load(tmp_path / "plan.json")


def long_evaluation(out: Path) -> None:
    """Evaluate long enough to be killed in between, on two blocks; each process leaves a file."""
    from accelerate import PartialState

    torch.set_num_threads(1)
    runs = (Run("js", steps=150), Run("expected-miou", steps=150), Run("expected-miou-soft", "annealed-pgd", steps=150))
    evaluate(Bends().eval(), Noise(), 0.05, Blockwise("longer", runs, blocks=2), out=out)
    (out / f"process-{PartialState().process_index}").touch()


@pytest.fixture(scope="module")
def apart():
    """Start an evaluation in a process of its own; all of them are copies of one that has imported torch."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.test_sea"])

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=long_evaluation, args=(out,))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def whole(apart, tmp_path_factory):
    """The report of an uninterrupted evaluation."""
    out = tmp_path_factory.mktemp("whole")
    process = apart(out)
    process.join()
    assert process.exitcode == 0
    return (out / "report.json").read_bytes()


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_bytes(apart, whole, tmp_path):
    for records in (1, 7, 12):
        process = apart(tmp_path)
        while len(list(tmp_path.glob("records/*.json"))) < records:
            assert process.is_alive()
            time.sleep(0.005)
        process.kill()
        process.join()
    assert not (tmp_path / "report.json").exists()
    last = apart(tmp_path)
    last.join()
    assert last.exitcode == 0
    assert (tmp_path / "report.json").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_give_the_same_bytes_as_one(whole, tmp_path):
    code = "import sys, pathlib; from tests.test_sea import long_evaluation; long_evaluation(pathlib.Path(sys.argv[1]))"
    (tmp_path / "run.py").write_text(code)
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", tmp_path / "run.py", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run(two, check=True, capture_output=True, env=environment)
    assert {path.name for path in tmp_path.glob("process-*")} == {"process-0", "process-1"}
    assert (tmp_path / "report.json").read_bytes() == whole


@pytest.mark.slow
def test_the_command_evaluates_a_shipped_model_and_prints_the_table(tmp_path, capsys):
    options = ["--settings", "quick", "--steps", "2", "--limit", "1", "--out", str(tmp_path)]
    cli.main(["evaluate", "photos-robust", *options])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "report.md").read_text()
    assert "# photos-robust on photos (val) at 4/255, quick-2" in printed


def test_a_wrong_command_ends_in_one_sentence():
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "photos-robust", "--settings", "sea"])
    assert ended.value.code == (
        "robviz: unknown settings 'sea'; choose from: paper, paper-v1, quick, strong, strong-v1"
    )


def test_a_record_is_there_whole_or_not_at_all(tmp_path):
    records = Records(tmp_path, {"eps": 1})
    assert records.read("x") is None
    records.write("x", {"a": [1, 2]})
    assert records.read("x") == {"a": [1, 2]}
    assert [path.name for path in records.folder.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["photos-clean", "photos-robust"])
def test_a_shipped_report_is_what_its_records_give_to_the_last_digit(name):
    folder = bundled_path("checkpoints") / "failures" / name
    written = Report.load(folder / "report.json")
    classes = tuple(written.rows["clean"]["iou_by_class"])
    assert build_report(Records(folder, written.plan), written.plan, classes) == written
