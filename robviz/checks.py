"""Is this number believable? Look for signs that an attack was weak for another reason than the model's robustness."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robviz.attacks import (
    AttackSpec,
    check_finite,
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
from robviz.models.answers import ADAPT, answer_of, logits_of, require_normal
from robviz.norms import LINF, Norm, project_linf
from robviz.types import VOID, InputError

__all__ = ["CHECKS", "check", "require_within"]


def require_within(attacked: Tensor, images: Tensor, eps: float, norm: Norm = LINF) -> None:
    """Require that attacked images lie within the budget.

    Args:
        attacked: (B, 3, H, W).
        images: (B, 3, H, W), the originals.
        eps: The radius, in [0, 1].
        norm: The norm that it is measured in.

    Raises:
        InputError: If an image leaves the radius or [0, 1].
    """
    largest = norm.size(attacked - images).max().item()
    if not largest <= eps + 1e-6:  # also catches NaN
        raise InputError(f"perturbation {largest:.5f} exceeds eps {eps:.5f} ({norm.name}, images in [0, 1])")
    if not 0 <= attacked.min() <= attacked.max() <= 1:
        raise InputError(f"attacked images must lie in [0, 1], got {attacked.min():.5f} .. {attacked.max():.5f}")


class Case(NamedTuple):
    """Store what a check examines."""

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


#: The change of the largest logit between two passes that rounding explains.
SAME = 1e-4
#: The change that another order of sums explains when a picture lies in a larger batch.
BESIDE = 1e-2


def relative_change(first: Tensor, second: Tensor) -> float:
    """Return the largest change between two passes' logits, relative to the largest logit if that is above 1."""
    return (first - second).abs().max().item() / max(1.0, first.abs().max().item())


def random_outputs(case: Case) -> str | None:
    """Report a model with random outputs, which needs an attack on its expectation."""
    first, second = (checked_logits(case.model, case.images) for _ in range(2))
    if relative_change(first, second) <= SAME:
        return None
    change = (first - second).abs().max().item()
    return f"two passes over the same images differ by {change:.3g} in the logits; attack the mean of several"


def batch_dependence(case: Case) -> str | None:
    """Report a model whose output for a picture depends on the others in the batch, as with batch statistics."""
    beside = torch.cat([case.images[:1], 1 - case.images[:1]])
    alone, together = checked_logits(case.model, case.images[:1]), checked_logits(case.model, beside)[:1]
    change = relative_change(alone, together)
    if change <= BESIDE:
        return None
    return (
        f"the logits of a picture change by {100 * change:.2g} % when another one lies beside it in the batch; is "
        "there a batch norm without running statistics?"
    )


def probabilities(case: Case) -> str | None:
    """Report outputs that are probabilities: a softmax applied twice flattens every gradient."""
    if not look_like_probabilities(checked_logits(case.model, case.images)):
        return None
    return "the outputs sum to 1 like probabilities; return logits, before the softmax"


def vanishing_gradient(case: Case) -> str | None:
    """Report a loss that passes no gradient to the image, where gradient-based attacks cannot make progress."""
    with frozen(case.model):
        point = case.images.clone().requires_grad_()
        logits = logits_of(answer_of(case.model, point), point)
        loss = pixel_loss("ce", logits, case.labels).sum()
        (gradient,) = torch.autograd.grad(loss, point, allow_unused=True) if loss.requires_grad else (None,)
    if gradient is not None and not gradient.isfinite().all():
        return (
            f"{100 * (~gradient.isfinite()).float().mean():.0f} % of the input gradient is NaN or infinite, so "
            "an attack stands still there; is there a root, a norm or a division of 0 on the way?"
        )
    share = 1.0 if gradient is None else (gradient == 0).float().mean().item()
    return f"{100 * share:.0f} % of the input gradient is exactly 0; is it masked?" if share > 0.1 else None


#: A radius at which any model must break, and the share of correct pixels above which a model is suspicious.
HUGE, UNBROKEN = 0.5, 0.5


def with_noise(images: Tensor, eps: float, seed: int, draw: int) -> Tensor:
    """Add random signs times eps to images (B, 3, H, W); they depend on the image, the seed and the draw."""
    signs = [torch.rand(x.shape, generator=image_generator(seed, f"noise {draw}", x)) < 0.5 for x in images]
    return (images + eps * (2.0 * torch.stack(signs) - 1).to(images)).clamp(0, 1)


def huge_radius(case: Case) -> str | None:
    """Report a model that survives a radius of half the colour range, at which any model must break."""
    left = case.attacked(replace(case.spec, eps=HUGE, steps=3 * case.spec.steps))
    return (
        f"{100 * left:.1f} % of the pixels are still correct at eps 128/255; expected about 0" if left > 0.05 else None
    )


def noise(case: Case) -> str | None:
    """Report an attack that is not stronger than random noise of the same size."""
    spec, attacked = case.spec, case.attacked(case.spec)
    draws = [case.accuracy(with_noise(case.images, spec.eps, spec.seed, draw)) for draw in range(5)]
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
    "batch dependence": batch_dependence,
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
        seed: The seed of all random draws.

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


# ------------------------------------------------------------------------------------------ before an evaluation


def require_answer(model: nn.Module, image: Tensor, num_classes: int) -> Tensor:
    """Run a model on one picture and report what would make an attack fail or mislead.

    Args:
        model: The model, on the image's device.
        image: (1, 3, H, W) in [0, 1].
        num_classes: How many channels are expected.

    Returns:
        The logits (1, K, H, W), without their graph.

    Raises:
        InputError: If the model fails, returns anything but logits of the classes, or passes no gradient. The message
            names the argument of `robviz.models.adapt` that helps.
    """
    require_normal(model)
    with frozen(model), torch.inference_mode(False), torch.enable_grad():
        point = image.clone().requires_grad_()
        try:
            answer = answer_of(model, point)
        except InputError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            advice = (
                "it changes the picture in place; expected a copy, such as x = x - mean"
                if "in-place" in said
                else f"it should accept pictures of any size: {ADAPT}, multiple_of=32) pads them"
            )
            raise InputError(
                f"the model failed on a picture of {image.shape[2]} x {image.shape[3]}: {type(error).__name__}: "
                f"{said}; {advice}"
            ) from error
        logits = logits_of(answer, point, num_classes)
    check_finite(logits)
    if look_like_probabilities(logits):
        raise InputError(
            "the model returned probabilities, which sum to 1 over the classes and flatten every gradient; expected "
            f"logits, before the softmax: {ADAPT}, output=torch.log) undoes it"
        )
    if not logits.requires_grad:
        raise InputError(
            "no gradient leads from the model's logits to the picture, so it cannot be attacked; expected none of "
            "torch.no_grad, argmax, detach or numpy on the way"
        )
    return logits.detach()


#: The passes that `look` may take, as a share of those of the evaluation.
SHARE = 0.02
#: The fewest and the most steps of its attack with a huge radius, and the number of its pictures with noise.
FEWEST_STEPS, MOST_STEPS, DRAWS = 6, 20, 3


def look(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    num_classes: int,
    passes: float,
    for_gradients: nn.Module | None = None,
) -> dict[str, float]:
    """Make the cheap checks before an evaluation: can the model be attacked, and does it answer the same twice?

    Args:
        model: The model, on the images' device.
        images: (1, 3, H, W) in [0, 1], the first picture.
        labels: (1, H, W).
        eps: The radius of the evaluation.
        num_classes: How many channels are expected.
        passes: How many passes through the model it may take; two are always made.
        for_gradients: What the attack takes its gradients of, such as `robviz.models.prepared` of the model; None for
            the model. Every figure comes from the model's own predictions.

    Returns:
        `change`, by how much the logits of two passes differ, relative to the largest; where `passes` allow it,
        `noise`, the pixel accuracy under signs of noise, and `huge`, that under an attack of radius 128/255.

    Raises:
        InputError: See `require_answer`.
    """
    first = require_answer(model, images, num_classes)
    found = {"change": relative_change(first, checked_logits(model, images))}
    left = int(passes) - 2 if (labels != VOID).any() else 0
    draws = min(DRAWS, left // 4 if left >= 4 else left) if eps > 0 else 0
    if draws > 0:
        noisy = (predicted(model, with_noise(images, eps, 0, draw)) for draw in range(draws))
        found["noise"] = min(share_equal(one, labels).item() for one in noisy)
    attacked = model if for_gradients is None else for_gradients
    steps = min(MOST_STEPS, left - draws - (1 if attacked is model else 2))  # the start, and the model's own prediction
    if steps >= FEWEST_STEPS:
        result = last_of(spec_steps(AttackSpec(eps=HUGE, steps=steps), attacked, images, labels))
        own = result.predictions if attacked is model else predicted(model, result.images)
        found["huge"] = share_equal(own, labels).item()
    return found


def doubts_about(found: dict[str, float], attacked: float) -> list[str]:
    """Say what a `look` found suspicious. attacked: the pixel accuracy of its picture in the worst case."""
    said = []
    if found["change"] > SAME:
        said.append(
            f"the model is random: the logits of two passes over one picture differ by "
            f"{100 * found['change']:.2g} %; eot=20 attacks the mean of 20 passes"
        )
    if found.get("huge", 0) > UNBROKEN:
        said.append(
            f"{100 * found['huge']:.1f} % of the pixels of the first picture are still correct under an attack at "
            "128/255; expected about 0, so its gradients are useless or its prediction never changes"
        )
    if found.get("noise", 1) < attacked - 1e-6:
        said.append(
            f"noise leaves {100 * found['noise']:.1f} % of the pixels of the first picture right, all attacks of the "
            f"same size {100 * attacked:.1f} %; expected the attacks to find more"
        )
    return said
