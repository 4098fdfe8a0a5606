"""Compare attacks of other libraries with robviz's on the same model, images, radius and number of steps.

The others are optional: whichever is installed is measured. `robviz bench peers` writes the table.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robviz.attacks import AttackSpec, frozen, last_of, predicted, spec_steps
from robviz.checks import require_within
from robviz.metrics import accuracy_per_image, counts, miou
from robviz.norms import project_linf
from robviz.types import VOID, Dataset

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


def adv_lib_alma_prox(model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
    """Attack with ALMA prox of adversarial-library, which looks for the smallest change, and clip that to the radius.

    Its attacks with a fixed radius take one label per image.
    """
    from adv_lib.attacks.segmentation import alma_prox

    found = alma_prox(model, images, labels.clamp_min(0), masks=labels != VOID, num_steps=steps)
    return project_linf(found.detach(), images, eps)


class Peer(NamedTuple):
    """Describe one attack: the package that has it, the module to import, its name, and how to run it."""

    package: str
    module: str
    name: str
    attack: Attack

    @property
    def is_installed(self) -> bool:
        """Return True if the package can be imported."""
        return importlib.util.find_spec(self.module) is not None


#: To add an attack, write a function like those above and add its row.
PEERS: tuple[Peer, ...] = (
    Peer("torchattacks", "torchattacks", "PGD, cross-entropy", torchattacks_pgd),
    Peer("foolbox", "foolbox", "PGD, cross-entropy", foolbox_pgd),
    Peer("adv-lib", "adv_lib", "ALMA prox, clipped", adv_lib_alma_prox),
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
        return peer.attack(model, images, labels, eps, steps)


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
        InputError: If an attack leaves the radius or [0, 1].
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
        Compared(peer.package, version(peer.package), peer.name, right, miou(i, u), cost)
        for peer, right, i, u, cost in zip(
            there, accuracy, intersection.sum(0).unbind(), union.sum(0).unbind(), seconds.mean(0).tolist()
        )
    ]
