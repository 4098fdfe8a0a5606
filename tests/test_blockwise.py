"""The attack on the mIoU of a whole set: its worths, its state, and a set whose worst mIoU is known."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from robviz.blockwise import SetState, blocks_of, labelled_miou
from robviz.metrics import counts
from robviz.results.plan import Blockwise, Run, SeaSettings
from robviz.sea import evaluate
from robviz.types import VOID, Dataset, Sample
from tests.small import Bends, Noise

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EVERY = torch.tensor([True, True, True])


def a_state(is_labelled: Tensor = EVERY) -> SetState:
    return SetState(torch.tensor([[30, 5, 0], [10, 5, 2]]), torch.tensor([[60, 10, 4], [40, 10, 6]]), is_labelled)


def test_blocks_deal_out_every_image_once_and_none_is_empty():
    assert blocks_of(7, 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert blocks_of(2, 4) == [[0], [1]]


def test_the_worths_are_what_one_pixel_takes_from_the_miou():
    worths = a_state().worths().double()
    intersection, union = torch.tensor([40.0, 10.0, 2.0]), torch.tensor([100.0, 20.0, 10.0])
    exact = torch.stack([1 / union, intersection / union**2]).double()
    torch.testing.assert_close(worths, exact / exact.max(), atol=1e-6, rtol=1e-6)
    # A pixel labelled 0 that is seen as 1 on top: first order against the quotient itself, far from rounding.
    large = SetState(*(torch.tensor([[part * 10**6 for part in row]]) for row in ([40, 10, 2], [100, 20, 10])), EVERY)
    moved = SetState(large.intersection - torch.tensor([[1, 0, 0]]), large.union + torch.tensor([[0, 1, 0]]), EVERY)
    leave, enter = large.worths().double()
    other = SetState(large.intersection - torch.tensor([[0, 0, 1]]), large.union + torch.tensor([[1, 0, 0]]), EVERY)
    ratio = (large.miou - moved.miou) / (large.miou - other.miou)
    assert ratio == pytest.approx(((leave[0] + enter[1]) / (leave[2] + enter[0])).item(), rel=1e-3)


def test_a_class_without_a_label_has_no_worth_and_does_not_count():
    state = a_state(torch.tensor([True, True, False]))
    assert state.worths()[:, 2].eq(0).all()
    assert state.miou == pytest.approx((40 / 100 + 10 / 20) / 2)
    made_up = state.adopted(0, torch.tensor([30, 5, 0]), torch.tensor([60, 10, 4000]))
    assert made_up.miou == state.miou


def test_a_set_without_any_label_has_no_worths_and_no_error():
    state = SetState(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64), ~EVERY)
    assert state.worths().eq(0).all()
    assert state.miou == 0


def test_the_state_adopts_what_lowers_the_miou_and_nothing_else():
    state = a_state()
    lower = state.adopted(1, torch.tensor([0, 0, 0]), torch.tensor([40, 10, 6]))
    assert lower.miou < state.miou
    assert lower.adopted(1, torch.tensor([40, 10, 6]), torch.tensor([40, 10, 6])) is lower
    assert state.intersection[1].tolist() == [10, 5, 2]


def test_the_judge_says_the_miou_of_the_set_with_other_predictions_of_one_image():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (2, 6, 5), generator=generator)
    first, second = (torch.randint(0, 3, (2, 6, 5), generator=generator) for _ in range(2))
    here, there = counts(first, labels, 3), counts(second, labels, 3)
    judge = SetState(here.intersection, here.union, EVERY).judge([0, 1], torch.device("cpu"))
    expected = [
        labelled_miou(there.intersection[0] + here.intersection[1], there.union[0] + here.union[1], EVERY),
        labelled_miou(there.intersection[1] + here.intersection[0], there.union[1] + here.union[0], EVERY),
    ]
    torch.testing.assert_close(judge(second, labels), torch.stack(expected))
    torch.testing.assert_close(judge.rows([1])(second[1:], labels[1:]), torch.stack(expected[1:]))


class Tilt(nn.Module):
    """Two classes and a linear model: the brighter the whole image, the more speaks for class 1, at every pixel.

    The first row holds what speaks for class 1 at mean brightness. So an image loses all its 0s or all its 1s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: Tensor) -> Tensor:
        tilt = self.slope * (images.mean((1, 2, 3), keepdim=True)[:, 0] - 0.5)
        columns = torch.arange(images.shape[3])
        zeros = torch.where(columns < SPLIT[images.shape[2]], -1.0, 1.0)
        margin = tilt + zeros.expand(images.shape[0], images.shape[2], images.shape[3])
        return torch.stack([torch.zeros_like(margin), margin], 1)


#: Pixels labelled 0 and 1 of each image; its height says which it is.
PIXELS = ((60, 50), (10, 12))
SPLIT = {128 + index: zeros for index, (zeros, _) in enumerate(PIXELS)}


class Tilted(Dataset):
    """Grey pictures whose first row is labelled, 0s before 1s."""

    name, split, classes, palette = "tilted", "val", ("zero", "one"), ((0, 0, 0), (255, 255, 255))
    class_weights = torch.tensor([1 / 70, 1 / 62])

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        labels = torch.full((128 + index, 128), VOID)
        zeros, ones = PIXELS[index]
        labels[0, :zeros], labels[0, zeros : zeros + ones] = 0, 1
        return Sample(f"tilted-{index}", torch.full((3, 128 + index, 128), 0.5), labels)


def worst_of_tilted() -> float:
    """The lowest mIoU that any choice of broken classes leaves: each image loses its 0s, its 1s or neither."""
    found = []
    for lost in product((0, 1, None), repeat=len(PIXELS)):
        broken = [sum(pixels[k] for pixels, one in zip(PIXELS, lost) if one == k) for k in (0, 1)]
        whole = [sum(pixels[k] for pixels in PIXELS) for k in (0, 1)]
        found.append(sum((whole[k] - broken[k]) / (whole[k] + broken[1 - k]) for k in (0, 1)) / 2)
    return min(found)


@pytest.mark.slow
def test_the_state_form_finds_the_worst_miou_of_a_set_where_the_static_form_does_not():
    members = (Run("expected-error", "annealed-pgd-near", 12), Run("expected-miou", "annealed-pgd-near", 12))
    static = evaluate(Tilt(), Tilted(), 0.1, SeaSettings("static", members)).rows["worst case"]["miou"]
    blockwise = evaluate(Tilt(), Tilted(), 0.1, Blockwise("state", members, blocks=2)).rows["worst case"]["miou"]
    assert blockwise == pytest.approx(worst_of_tilted()) == pytest.approx(62 / 132 / 2)
    assert static == pytest.approx((10 / 82 + 50 / 122) / 2)


SETWISE = Blockwise("setwise", (Run("js", steps=4), Run("expected-miou", "annealed-pgd-near", 4)), blocks=2)


@pytest.mark.slow
def test_attacking_the_set_never_leaves_it_a_higher_miou_than_the_runs_before_and_again_gives_the_same(tmp_path):
    model = Bends().eval()
    rows = evaluate(model, Noise(), 0.05, SETWISE, out=tmp_path / "a").rows
    assert rows["worst case"]["miou"] <= rows["js.red-eps-apgd.4"]["miou"]
    evaluate(model, Noise(), 0.05, SETWISE, out=tmp_path / "b", batch_size=3)
    written = (tmp_path / "a" / "report.json").read_bytes()
    assert written == (tmp_path / "b" / "report.json").read_bytes()
    for record in sorted((tmp_path / "a" / "records").iterdir())[1::2]:
        record.unlink()
    evaluate(model, Noise(), 0.05, SETWISE, out=tmp_path / "a")
    assert written == (tmp_path / "a" / "report.json").read_bytes()


def test_a_block_waits_for_the_records_that_its_state_is_made_of(tmp_path):
    """The first block's records decide the second's: with others there, those of the second block differ."""
    model = Bends().eval()
    evaluate(model, Noise(), 0.05, SETWISE, out=tmp_path, limit=4)
    times = {
        path.name[:6]: path.stat().st_mtime_ns
        for path in (tmp_path / "records").glob("*.expected-miou.annealed-pgd-near.4.json")
    }
    assert max(times["000000"], times["000002"]) <= min(times["000001"], times["000003"])
