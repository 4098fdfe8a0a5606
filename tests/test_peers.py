"""Attacks of other libraries beside robviz's."""

from __future__ import annotations

import pytest
import torch

from robviz.paper.peers import PEERS, Compared, Peer, compare, robviz_attack
from robviz.results.plan import Run
from robviz.sea import SeaSettings, evaluate
from robviz.types import InputError
from tests.small import Bends, Noise

OURS = Peer("robviz", "robviz", "pgd, ce", robviz_attack("pgd", "ce"))
MISSING = Peer("no-such-package", "no_such_package", "PGD", OURS.attack)


def test_an_attack_is_compared_by_the_figures_that_an_evaluation_gives_it():
    (found,) = compare(Bends().eval(), Noise(), 0.02, 3, 4, [OURS, MISSING])
    report = evaluate(Bends().eval(), Noise(), 0.02, SeaSettings("one", (Run("ce", "pgd", 3),)), limit=4)
    worst = report.rows["worst case"]
    assert (found.package, found.name) == ("robviz", "pgd, ce")
    assert found.accuracy == pytest.approx(worst["accuracy_mean"])
    assert found.miou == pytest.approx(worst["miou"])
    assert found.seconds > 0


def test_an_attack_that_leaves_the_radius_is_refused():
    far = OURS._replace(attack=lambda model, images, labels, eps, steps: (images + 2 * eps).clamp(0, 1))
    with pytest.raises(InputError, match="exceeds eps"):
        compare(Bends().eval(), Noise(), 0.02, 3, 1, [far])


def test_a_comparison_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    compare(Bends().eval(), Noise(), 0.02, 1, 1, [OURS])
    assert torch.rand(1) == expected


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.is_installed], ids=lambda peer: peer.name)
@pytest.mark.filterwarnings("ignore")  # other libraries warn of what they import
def test_every_installed_attack_takes_a_label_per_pixel_and_void(peer):
    (found,) = compare(Bends().eval(), Noise(), 0.1, 12, 2, [peer])
    assert isinstance(found, Compared)
    assert found.accuracy < 1
    assert 0 <= found.miou < 1
