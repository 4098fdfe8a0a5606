"""Attacks of other libraries beside robviz's."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F

from robviz import cli
from robviz.paper.peers import PEERS, AsOneImage, Compared, Peer, compare, official_attack, robviz_attack
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


def test_an_installed_package_that_lacks_another_is_named():
    def lacking(*_):
        raise ModuleNotFoundError("No module named 'visdom'")

    with pytest.raises(InputError, match=r"robviz is installed without all that it needs \(No module named 'visdom'\)"):
        compare(Bends().eval(), Noise(), 0.02, 3, 1, [OURS._replace(attack=lacking)])


def test_pixels_seen_as_one_image_have_the_gradient_signs_of_their_mean_cross_entropy():
    model, sample = Bends().eval(), Noise()[0]
    images, labels = sample.image[None].requires_grad_(), sample.labels[None]
    plain = F.cross_entropy(model(images), labels, ignore_index=-1)
    seen = AsOneImage(model, labels)(images)
    assert seen.shape == (1, 2)
    one = F.cross_entropy(seen, torch.zeros(1, dtype=torch.int64))
    signs = [torch.autograd.grad(loss, images, retain_graph=True)[0].sign() for loss in (plain, one)]
    assert torch.equal(*signs)


ATTACKER = """
def apgd_largereps(model, x, y, eps, n_iter, use_rs, loss, track_loss, early_stop):
    print("restart 1 robust accuracy")
    assert (use_rs, loss, track_loss, early_stop) == (True, "mask-ce-avg", "ce-avg", True)
    return (x + eps).clamp(0, 1), None, None
"""


def test_the_official_code_is_compared_from_its_file(tmp_path, capsys):
    path = tmp_path / "attacker.py"
    path.write_text(ATTACKER)
    (found,) = compare(Bends().eval(), Noise(), 0.02, 3, 2, [official_attack(path)])
    assert (found.package, found.name) == ("official code", "apgd_largereps, mask-ce-avg")
    assert found.version == f"attacker.py {hashlib.sha256(ATTACKER.encode()).hexdigest()[:8]}"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def other(): pass", "apgd_largereps"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_the_official_attacker_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "attacker.py").write_text(text)
    with pytest.raises(InputError, match=said):
        official_attack(tmp_path / "attacker.py")


def test_the_official_code_is_for_the_comparison_alone():
    with pytest.raises(SystemExit, match="--official is for `robviz bench peers`, got `robviz bench course`"):
        cli.main(["bench", "course", "--official", "attacker.py"])


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
