"""Failures of a small model on five small pictures, whose masks are known."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robviz.files.images import largest_change, to_bytes
from robviz.results.failures import export, failures, flip_matrix, select, to_csv
from robviz.results.images import ImageStore
from robviz.results.plan import Run, SeaSettings, record_key
from robviz.sea import evaluate
from tests.small import Bends, Noise

RUNS = (Run("mask-ce", "apgd", 3), Run("js", "apgd", 3))
TINY = SeaSettings("tiny", RUNS)
EPS = 8 / 255


class Named(Noise):
    """Its first class bears a name that a spreadsheet or a page would act on."""

    classes = ("=<b>a</b>", "b", "c", "d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(Bends().eval(), Named(), EPS, TINY, out=folder, keep_masks=True, keep_pictures=True)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return failures(folder, Named())


def mask(folder, i, run):
    return ImageStore(folder).read("masks", record_key(i, run))


@pytest.mark.slow
def test_keeping_masks_changes_no_byte_of_the_report_and_completes_a_folder_without(folder, tmp_path):
    evaluate(Bends().eval(), Named(), EPS, TINY, out=tmp_path)
    report = (tmp_path / "report.json").read_bytes()
    assert report == (folder / "report.json").read_bytes()
    assert not (tmp_path / "masks").exists()
    evaluate(Bends().eval(), Named(), EPS, TINY, out=tmp_path, keep_masks=True)
    assert report == (tmp_path / "report.json").read_bytes()
    kept = {path.name: path.read_bytes() for path in (folder / "masks").iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    assert len(kept) == 15
    assert not (tmp_path / "pictures").exists()
    calls, model = [], Bends().eval()
    model.register_forward_hook(lambda *_: calls.append(1))
    evaluate(model, Named(), EPS, TINY, out=tmp_path, keep_masks=True)
    assert not calls
    evaluate(Bends().eval(), Named(), EPS, TINY, out=tmp_path, limit=1, resume=False)
    assert not (tmp_path / "masks").exists()


def test_a_kept_picture_stays_within_eps_and_changes_what_the_model_sees(folder):
    for i, sample in enumerate(Named()):
        attacked = ImageStore(folder).read("pictures", record_key(i, RUNS[0].name))
        assert 0 < largest_change(attacked, to_bytes(sample.image)) <= 8
    assert not ImageStore(folder).has("pictures", record_key(0, "clean"))


@pytest.mark.parametrize("classes", [4, 255, 300])
def test_masks_of_many_classes_come_back_as_they_were(tmp_path, classes):
    kept = ImageStore(tmp_path, ("masks",))
    predictions = torch.arange(12 * classes).view(12, classes) % classes
    kept.write_mask("x", predictions, ((1, 2, 3),) * classes)
    assert (kept.read("masks", "x") == predictions.numpy()).all()
    with Image.open(kept.path("masks", "x")) as image:
        assert image.mode == ("P" if classes < 300 else "I;16")
    kept.path("masks", "x").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="damaged; delete it and run the same evaluation again"):
        kept.read("masks", "x")


def test_masks_need_a_folder():
    with pytest.raises(ValueError, match="give out="):
        evaluate(Bends().eval(), Named(), EPS, TINY, keep_masks=True)


def test_rows_hold_what_the_masks_show(found, folder):
    assert len(found.rows) == 10
    for row in found.rows.itertuples():
        labels = Named()[row.index].labels.numpy()
        before, after = mask(folder, row.index, "clean"), mask(folder, row.index, row.run)
        is_valid = labels != -1
        assert row.clean == pytest.approx((before == labels)[is_valid].mean())
        assert row.attacked == pytest.approx((after == labels)[is_valid].mean())
        assert row.drop == pytest.approx(row.clean - row.attacked)
        assert row.flipped == (is_valid & (before == labels) & (after != labels)).sum()
        drops = []
        for k in range(4):
            was, said, is_k = before[is_valid] == k, after[is_valid] == k, labels[is_valid] == k
            if not is_k.any():
                assert np.isnan(found.class_drops[k][row.Index])
                continue
            expected = (was & is_k).sum() / (was | is_k).sum() - (said & is_k).sum() / (said | is_k).sum()
            drops.append(expected)
            assert found.class_drops[k][row.Index] == pytest.approx(expected)
        assert row.worst_class == found.classes[int(np.argmax(drops))]
    won = found.rows[found.rows["won"]]
    assert list(won["index"]) == [0, 1, 2, 3, 4]
    assert (won["attacked"].to_numpy() == found.rows.groupby("index")["attacked"].min().to_numpy()).all()


def test_the_flip_matrix_counts_pixels_that_were_right_by_class_and_by_what_they_became(found, folder):
    rows = select(found, worst_only=False, loss="js")
    expected = np.zeros((4, 4), int)
    for i in rows["index"]:
        labels, after = Named()[i].labels.numpy(), mask(folder, i, RUNS[1].name)
        for a, b in zip(labels[mask(folder, i, "clean") == labels], after[mask(folder, i, "clean") == labels]):
            expected[a, b] += a != b
    assert (flip_matrix(found, rows) == expected).all()
    assert expected.sum() == rows["flipped"].sum() > 0


def test_a_class_pair_selects_the_rows_where_one_became_the_other_and_sorts_by_how_many(found):
    matrix = flip_matrix(found, found.rows)
    label, seen_as = (int(n) for n in np.unravel_index(matrix.argmax(), matrix.shape))
    rows = select(found, worst_only=False, label=label, seen_as=seen_as, sort_by="flipped pixels")
    assert rows["flipped"].sum() == matrix[label, seen_as]
    assert rows["flipped"].is_monotonic_decreasing
    assert (rows["flipped"] > 0).all()
    anything = select(found, worst_only=False, seen_as=seen_as)
    assert anything["flipped"].sum() == matrix[:, seen_as].sum()


def test_a_class_a_size_and_a_loss_narrow_the_rows(found):
    rows = select(found, label=1, sort_by="class IoU drop")
    assert set(rows["worst_class"]) == {"b"}
    assert rows["class_drop"].is_monotonic_decreasing
    assert (rows["class_drop"] > 0).all()
    assert (select(found, size="large")["large"] > 0).all()
    js = select(found, loss="js")
    assert set(js["loss"]) <= {"js"}
    assert len(js) + len(select(found, loss="mask-ce")) == 5
    assert select(found)["drop"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"loss": "dice"}, "unknown loss 'dice'; choose from: js, mask-ce"),
        ({"size": "huge"}, "choose from: small, medium, large"),
        ({"label": 4}, r"0 \.\. 3, got 4"),
        ({"seen_as": -1}, r"0 \.\. 3, got -1"),
        ({"sort_by": "x"}, "unknown sort 'x'"),
    ],
)
def test_a_filter_that_there_is_not_is_refused(found, filters, says):
    with pytest.raises(ValueError, match=says):
        select(found, **filters)


def test_without_masks_the_counts_still_tell_their_part_and_one_sentence_how_to_get_the_rest(found, tmp_path):
    evaluate(Bends().eval(), Named(), EPS, TINY, out=tmp_path)
    counted = failures(tmp_path, Named())
    assert "15 of 15 masks were not kept" in counted.missing
    assert "--keep-masks" in counted.missing
    assert counted.missing.count(". ") == 0
    columns = [column for column in found.rows if column != "flipped"]
    assert counted.rows[columns].equals(found.rows[columns])
    assert counted.class_drops.equals(found.class_drops)
    assert len(select(counted, label=1))
    for refused in (lambda: flip_matrix(counted, counted.rows), lambda: select(counted, seen_as=0)):
        with pytest.raises(ValueError, match="masks were not kept"):
            refused()


def test_a_folder_of_nothing_and_a_dataset_of_another_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="contains no finished evaluation"):
        failures(tmp_path)

    class Other(Named):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, labels=sample.labels.roll(1, 0))

    with pytest.raises(ValueError, match="give the dataset that was evaluated"):
        failures(folder, Other())


def test_a_dataset_that_is_not_here_leaves_the_counts(folder, tmp_path):
    older = Path(shutil.copytree(folder, tmp_path / "older"))  # an evaluation that kept no samples
    shutil.rmtree(older / "samples")
    counted = failures(older)
    assert counted.flips is None
    assert "unknown dataset 'noise'" in counted.missing
    assert len(counted.rows) == 10


def test_the_csv_holds_rows_notes_and_class_drops_and_no_formula(found):
    rows = select(found)
    notes = {str(rows["index"].iloc[0]): "=HYPERLINK(1)"}
    table = list(csv.DictReader(io.StringIO(to_csv(found, rows, notes))))
    assert [int(line["index"]) for line in table] == list(rows["index"])
    assert float(table[0]["drop"]) == pytest.approx(rows["drop"].iloc[0], abs=1e-5)
    assert table[0]["note"] == "'=HYPERLINK(1)"
    assert all(line["worst_class"] in ("'=<b>a</b>", "b", "c", "d") for line in table)
    assert float(table[0]["IoU drop: b"]) == pytest.approx(found.class_drops[1][rows.index[0]], abs=1e-5)
    assert table[0]["IoU drop: d"] == ""  # no image shows it


def test_the_zip_holds_the_selection_under_names_of_ours(found, folder):
    rows, file = select(found, worst_only=False).head(3), io.BytesIO()
    export(found, Named(), rows, file)
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
        for index, run in zip(rows["index"], rows["run"]):
            expected = (folder / "masks" / f"{record_key(index, run)}.png").read_bytes()
            assert archive.read(f"masks/{record_key(index, run)}.png") == expected
            assert {f"pictures/{index:06d}.png", f"pictures/{record_key(index, run)}.png"} <= names
            with Image.open(io.BytesIO(archive.read(f"pictures/{index:06d}.png"))) as image:
                assert (np.array(image) == to_bytes(Named()[index].image)).all()
    assert {"selection.csv", "plan.json"} <= names
    assert all(name.count("/") <= 1 and ".." not in name for name in names)
