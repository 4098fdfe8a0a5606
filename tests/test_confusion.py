"""Where the pixels of an evaluation went, counted from its masks."""

from __future__ import annotations

import pytest

from robviz.results.confusion import Confusion, confusion_of, shares_by_class
from robviz.results.plan import Run, SeaSettings
from robviz.sea import evaluate
from robviz.types import InputError
from tests.small import Bends, Noise

TWO = SeaSettings("two-3", (Run("mask-ce", "pgd", 3), Run("js", "pgd", 3)), seed=5)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, evaluate(Bends().eval(), Noise(), 8 / 255, TWO, out=folder, limit=3, keep_masks=True)


def test_counts_of_an_evaluation_give_the_ious_of_its_report(evaluated):
    folder, report = evaluated
    found = confusion_of(folder, Noise())
    for pixels, row in ((found.clean, "clean"), (found.worst, "worst case")):
        assert shares_by_class(pixels)["IoU"] == pytest.approx(
            [iou or 0 for iou in report.rows[row]["iou_by_class"].values()]
        )


def test_counts_say_how_to_repeat_the_evaluation_and_come_back_from_their_file(evaluated, tmp_path):
    found = confusion_of(evaluated[0], Noise())
    assert "--limit 3 --eps 8 --settings two --steps 3 --seed 5 " in found.command
    assert set(found.by) <= {run.name for run in TWO.runs}
    found.save(tmp_path / "folder" / "found.json")
    assert Confusion.load(tmp_path / "folder" / "found.json") == found


def test_another_dataset_than_the_evaluated_one_is_refused(evaluated):
    class Other(Noise):
        def __getitem__(self, index):
            return super().__getitem__(2 - index)

    with pytest.raises(InputError, match="give the dataset that was evaluated"):
        confusion_of(evaluated[0], Other())


def test_an_evaluation_without_masks_is_refused(tmp_path):
    evaluate(Bends().eval(), Noise(), 8 / 255, TWO, out=tmp_path, limit=1)
    with pytest.raises(InputError, match="masks were not kept"):
        confusion_of(tmp_path, Noise())


def test_errors_are_shares_of_the_labelled_pixels_of_a_class():
    found = shares_by_class([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    assert found["false negatives"] == [0.25, 0.5, 0]
    assert found["false positives"] == [0.125, 1, 0]
    assert found["IoU"] == pytest.approx([6 / 9, 1 / 4, 0])
