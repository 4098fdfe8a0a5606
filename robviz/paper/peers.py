"""Compare attacks of other libraries with robviz's on the same model, images, radius and number of steps.

The others are optional: whichever is installed is measured, and the official code of the paper if its file is given.
`robviz bench peers` writes the table.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robviz.attacks import AttackSpec, frozen, last_of, predicted, spec_steps
from robviz.checks import require_within
from robviz.metrics import accuracy_per_image, counts, miou
from robviz.norms import project_linf
from robviz.types import VOID, Dataset, InputError

#: From model, images (1, 3, H, W), labels (1, H, W), radius and steps to attacked images.
Attack = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]
#: The label that torch's cross-entropy leaves out.
IGNORED = -100


def robviz_attack(attack: str, loss: str) -> Attack:
    """Return one of robviz's attacks."""

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
        return last_of(spec_steps(AttackSpec(attack, loss, eps, steps), model, images, labels)).images

    return attacked


def torchattacks_pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with PGD of torchattacks and its own step size, 2/255."""
    import torchattacks

    result: Tensor = torchattacks.PGD(model, eps=eps, steps=steps)(images, labels.where(labels != VOID, IGNORED))
    return result


def foolbox_pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with PGD of foolbox and its own step size, eps / 30.

    Its cross-entropy takes one label per image, so it is given torch's, which takes one per pixel.
    """
    import eagerpy
    import foolbox

    def loss_for(network: Callable[[Tensor], Any], _: Tensor) -> Callable[[Tensor], Tensor]:
        wanted = labels.where(labels != VOID, IGNORED)
        return lambda inputs: eagerpy.astensor(cross_entropy(network(inputs).raw, wanted, reduction="sum"))

    attack = foolbox.attacks.LinfPGD(steps=steps)
    attack.get_loss_fn = loss_for
    network = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    result: Tensor = attack.run(network, images, labels, epsilon=eps)
    return result


def srf_pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with PGD of segmentation-robustness-framework and its own step size, 2/255."""
    from segmentation_robustness_framework.attacks import PGD

    result: Tensor = PGD(model, eps=eps, iters=steps)(images, labels)
    return result


class AsOneImage(nn.Module):
    """Turn a segmentation into a classification whose cross-entropy with label 0 grows with the mean of the pixels'.

    The signs of its gradients are those of the mean cross-entropy.
    """

    def __init__(self, model: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.model, self.labels = model, labels.where(labels != VOID, IGNORED)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (1, 2): minus the mean cross-entropy, and 0."""
        loss = cross_entropy(self.model(images), self.labels)
        return torch.stack([-loss, torch.zeros_like(loss)])[None]


def adv_lib_pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with PGD of adversarial-library and its own step size, eps / 30.

    It takes one label per image, so it sees the pixels through `AsOneImage`.
    """
    from adv_lib.attacks import pgd_linf

    result: Tensor = pgd_linf(AsOneImage(model, labels), images, torch.zeros_like(labels[:, 0, 0]), eps, steps=steps)
    return result


def adv_lib_alma_prox(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with ALMA prox of adversarial-library, which looks for the smallest change, clipped to the radius."""
    from adv_lib.attacks.segmentation import alma_prox

    found = alma_prox(model, images, labels.clamp_min(0), masks=labels != VOID, num_steps=steps)
    return project_linf(found.detach(), images, eps)


class Peer(NamedTuple):
    """Describe one attack: the package that has it, the module to import, its name, and how to run it.

    Code that is not a package has no module, but a release.
    """

    package: str
    module: str
    name: str
    attack: Attack
    release: str = ""

    @property
    def is_installed(self) -> bool:
        """Return True if the package can be found."""
        return not self.module or importlib.util.find_spec(self.module) is not None


def official_attack(path: Path) -> Peer:
    """Return the attack of the paper's official code on one of its losses, mask-ce, with the options it is run with.

    Args:
        path: `semseg/utils/attacker.py` of the official repository. It needs the package autoattack.

    Raises:
        InputError: If the file is missing, or does not load.
    """
    try:
        spec = importlib.util.spec_from_file_location("robviz_official_attacker", path)
        assert spec is not None, "not a .py file"
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        attack = module.apgd_largereps
        release = f"attacker.py {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    except Exception as error:  # whatever the code of others raises
        raise InputError(
            f"{path} does not load as semseg/utils/attacker.py of the official code: {type(error).__name__}: {error}"
        ) from error

    def attacked(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
        with redirect_stdout(io.StringIO()):  # it logs
            found = attack(
                model,
                images,
                labels,
                eps=eps,
                n_iter=steps,
                use_rs=True,
                loss="mask-ce-avg",
                track_loss="ce-avg",
                early_stop=True,
            )
        result: Tensor = found[0]
        return result

    return Peer("official code", "", "apgd_largereps, mask-ce-avg", attacked, release)


#: To add an attack, write a function like those above and add its row.
PEERS: tuple[Peer, ...] = (
    Peer("torchattacks", "torchattacks", "PGD, cross-entropy", torchattacks_pgd),
    Peer("foolbox", "foolbox", "PGD, cross-entropy", foolbox_pgd),
    Peer("adv-lib", "adv_lib", "PGD, cross-entropy", adv_lib_pgd),
    Peer("adv-lib", "adv_lib", "ALMA prox, clipped", adv_lib_alma_prox),
    Peer("segmentation-robustness-framework", "segmentation_robustness_framework", "PGD, cross-entropy", srf_pgd),
    Peer("robviz", "robviz", "pgd, ce", robviz_attack("pgd", "ce")),
    Peer("robviz", "robviz", "red-eps-apgd, mask-ce", robviz_attack("red-eps-apgd", "mask-ce")),
    Peer("robviz", "robviz", "annealed-pgd-near, expected-error", robviz_attack("annealed-pgd-near", "expected-error")),
)


class Compared(NamedTuple):
    """Hold what one attack leaves, and its cost."""

    package: str
    version: str
    name: str
    accuracy: float  # mean over the images, in [0, 1]
    miou: float  # of all images, in [0, 1]
    seconds: float  # per image


def attacked_alone(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Run an attack with seed 0, and leave the model's mode and torch's random numbers as they were."""
    with frozen(model), torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            return peer.attack(model, images, labels, eps, steps)
        except ImportError as error:
            raise InputError(
                f"{peer.package} is installed without all that it needs ({error}); install that, or uninstall it"
            ) from error


def compare(
    model: nn.Module, dataset: Dataset, eps: float, steps: int, limit: int, peers: Sequence[Peer] = PEERS
) -> list[Compared]:
    """Run every installed attack on the first images, each with the same number of steps.

    All attack one image before any attacks the next, so that a busy machine slows them alike.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored.
        dataset: Labelled pictures in its classes.
        eps: The radius, in [0, 1].
        steps: Steps of each attack.
        limit: The number of images.
        peers: The attacks.

    Returns:
        A row for each installed attack, in order.

    Raises:
        InputError: If an attack leaves the radius or [0, 1], or an installed package lacks another one.
    """
    there = [peer for peer in peers if peer.is_installed]
    found, seconds = [], torch.zeros(limit, len(there))
    for index in range(limit):
        images, labels = dataset[index].image[None], dataset[index].labels[None]
        for number, peer in enumerate(there):
            if index == 0:
                attacked_alone(peer, model, images, labels, eps, 2)  # some compile their code at the first call
            started = time.perf_counter()
            attacked = attacked_alone(peer, model, images, labels, eps, steps)
            seconds[index, number] = time.perf_counter() - started
            require_within(attacked, images, eps)
            found.append(counts(predicted(model, attacked), labels, len(dataset.classes)))
    intersection, union, correct, valid = (torch.cat(part).unflatten(0, (limit, -1)) for part in zip(*found))
    accuracy = accuracy_per_image(correct.double(), valid).mean(0).tolist()
    return [
        Compared(peer.package, peer.release or version(peer.package), peer.name, right, miou(i, u), cost)
        for peer, right, i, u, cost in zip(
            there, accuracy, intersection.sum(0).unbind(), union.sum(0).unbind(), seconds.mean(0).tolist()
        )
    ]
