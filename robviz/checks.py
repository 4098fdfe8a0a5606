"""Is this number believable? Signs that an attack seemed weak for another reason than a robust model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robviz.attacks import (
    AttackSpec,
    check_images,
    checked_logits,
    frozen,
    image_generator,
    last_of,
    predicted,
    share_equal,
    spec_steps,
)
from robviz.losses import pixel_loss
from robviz.models.adapters import look_like_probabilities
from robviz.norms import LINF, Norm, project_linf
from robviz.types import InputError


def require_within(attacked: Tensor, images: Tensor, eps: float, norm: Norm = LINF) -> None:
    """Raise InputError unless attacked lies within eps of images, by the norm, and within [0, 1]."""
    largest = norm.size(attacked - images).max().item()
    if not largest <= eps + 1e-6:  # also catches NaN
        raise InputError(f"perturbation {largest:.5f} exceeds eps {eps:.5f} ({norm.name}, images in [0, 1])")
    if not 0 <= attacked.min() <= attacked.max() <= 1:
        raise InputError(f"attacked images must lie in [0, 1], got {attacked.min():.5f} .. {attacked.max():.5f}")


class Case(NamedTuple):
    """Hold what a check examines."""

    model: nn.Module
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, H, W)
    spec: AttackSpec  # the white-box attack that should beat the others

    def accuracy(self, attacked: Tensor) -> float:
        """Return the mean pixel accuracy on attacked images (B, 3, H, W)."""
        return share_equal(predicted(self.model, attacked), self.labels).mean().item()

    def attacked(self, spec: AttackSpec) -> float:
        """Return the mean pixel accuracy under an attack."""
        return last_of(spec_steps(spec, self.model, self.images, self.labels)).accuracy.mean().item()


def train_mode(case: Case) -> str | None:
    """Report a model in training mode: dropout and batch statistics make an attack seem weak."""
    training = [name or type(module).__name__ for name, module in case.model.named_modules() if module.training]
    return f"the model is in train mode ({training[0]}, ...); call model.eval()" if training else None


def random_outputs(case: Case) -> str | None:
    """Report a model with random outputs, which needs an attack on its expectation."""
    first, second = checked_logits(case.model, case.images), checked_logits(case.model, case.images)
    change = (first - second).abs().max().item()
    if change <= 1e-4 * max(1.0, first.abs().max().item()):
        return None
    return f"two passes over the same images differ by {change:.3g} in the logits; attack the mean of several"


def probabilities(case: Case) -> str | None:
    """Report outputs that are probabilities: a softmax applied twice flattens every gradient."""
    if not look_like_probabilities(checked_logits(case.model, case.images)):
        return None
    return "the outputs sum to 1 like probabilities; return logits, before the softmax"


def vanishing_gradient(case: Case) -> str | None:
    """Report a loss that passes no gradient to the image, where gradient-based attacks cannot make progress."""
    with frozen(case.model):
        point = case.images.clone().requires_grad_()
        loss = pixel_loss("ce", case.model(point), case.labels).sum()
        (gradient,) = torch.autograd.grad(loss, point, allow_unused=True)
    share = 1.0 if gradient is None else (gradient == 0).float().mean().item()
    return f"{100 * share:.0f} % of the input gradient is exactly 0; is it masked?" if share > 0.1 else None


def huge_radius(case: Case) -> str | None:
    """Report a model that survives a radius of half the colour range, at which any model must break."""
    left = case.attacked(replace(case.spec, eps=0.5, steps=3 * case.spec.steps))
    return (
        f"{100 * left:.1f} % of the pixels are still correct at eps 128/255; expected about 0" if left > 0.05 else None
    )


def noise(case: Case) -> str | None:
    """Report an attack that is not stronger than random noise of the same size."""
    spec, draws = case.spec, []
    attacked = case.attacked(spec)
    for draw in range(5):
        signs = [
            torch.rand(x.shape, generator=image_generator(spec.seed, f"noise {draw}", x)) < 0.5 for x in case.images
        ]
        step = spec.eps * (2.0 * torch.stack(signs) - 1).to(case.images)
        draws.append(case.accuracy((case.images + step).clamp(0, 1)))
    if attacked < min(draws) or min(draws) == 0:
        return None
    return f"noise of the same size leaves {100 * min(draws):.1f} % pixel accuracy, the attack {100 * attacked:.1f} %"


def squares(case: Case) -> str | None:
    """Report a white-box attack that is weaker than a score-based black-box attack with random squares.

    After Andriushchenko et al., "Square Attack" (ECCV 2020), with as many queries as the white-box attack has steps.
    """
    spec, size, found = case.spec, case.images.shape[-2:], []
    attacked = case.attacked(spec)
    for image, labels in zip(case.images, case.labels):
        generator = image_generator(spec.seed, "squares", image)
        stripes = 2.0 * (torch.rand(3, 1, size[1], generator=generator) < 0.5) - 1
        best = project_linf(image + spec.eps * stripes.to(image), image, spec.eps)
        least = share_equal(predicted(case.model, best[None]), labels[None]).item()
        for query in range(spec.steps):
            side = max(1, round(0.5 * min(size) * (1 - query / spec.steps)))
            top, left = (int(torch.randint(0, length - side + 1, (1,), generator=generator)) for length in size)
            sign = 2.0 * (torch.rand(3, 1, 1, generator=generator) < 0.5) - 1
            x = best.clone()
            box = (slice(None), slice(top, top + side), slice(left, left + side))
            x[box] = project_linf(image[box] + spec.eps * sign.to(image), image[box], spec.eps)
            left_right = share_equal(predicted(case.model, x[None]), labels[None]).item()
            if left_right <= least:
                best, least = x, left_right
        found.append(least)
    mean = sum(found) / len(found)
    if mean >= attacked:
        return None
    return f"random squares leave {100 * mean:.1f} % pixel accuracy, the white-box attack {100 * attacked:.1f} %"


#: name -> check; each returns a sentence about what is suspicious, or None. To add a check, write it and add its row.
CHECKS: dict[str, Callable[[Case], str | None]] = {
    "train mode": train_mode,
    "random outputs": random_outputs,
    "probabilities": probabilities,
    "vanishing gradient": vanishing_gradient,
    "huge radius": huge_radius,
    "noise": noise,
    "squares": squares,
}


def check(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int = 20, seed: int = 0
) -> dict[str, str]:
    """Look for signs that attacks on this model are weak for another reason than its robustness.

    An empty result proves nothing.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        images: (B, 3, H, W) float RGB in [0, 1]; a few images are enough.
        labels: (B, H, W) int64.
        eps: The radius, in [0, 1].
        steps: Steps of each APGD run on mask-ce (three times as many at the huge radius), and queries of the black-box
            attack.
        seed: Of all random draws.

    Returns:
        A sentence for each suspicious check, by its name. Each is also given as a warning.

    Raises:
        InputError: For images and labels that cannot be attacked.
    """
    check_images(images, labels)
    case = Case(model, images, labels, AttackSpec("apgd", "mask-ce", eps, steps, seed))
    found = {name: said for name, test in CHECKS.items() if (said := test(case)) is not None}
    for name, said in found.items():
        warnings.warn(f"{name}: {said}", stacklevel=2)
    return found
