"""L-infinity attacks on segmentation, as generators that can be stopped at any step.

`apgd_steps` yields an `AttackResult` at the start and after every step; each is complete and valid, so whoever
stops early keeps the best found so far. `apgd` runs it to the end.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robviz.losses import LOSSES, pixel_loss
from robviz.metrics import pixel_accuracy
from robviz.types import VOID


class History(NamedTuple):
    """What each step found, first row the start: two (T + 1, B) tensors."""

    accuracy: Tensor  # pixel accuracy of that step's images, in [0, 1]
    loss: Tensor  # mean cross-entropy over their valid pixels: what the step size follows (appendix B.1)


@dataclass(frozen=True)
class AttackResult:
    """The best of an attack so far.

    images: (B, 3, H, W) in [0, 1], within eps of the originals: those of lowest pixel accuracy.
    best_loss_images: those of highest cross-entropy. accuracy: (B,) pixel accuracy on `images`, void left out.
    predictions: (B, H, W) int64, the model's on `images`. step: how many steps were made.
    """

    images: Tensor
    best_loss_images: Tensor
    accuracy: Tensor
    predictions: Tensor
    history: History
    step: int


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; everything as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in gradients.items():
            parameter.requires_grad_(flag)


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError or TypeError, saying what was expected, unless the pair can be attacked."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}; add a batch axis with images[None]")
    if not images.is_floating_point():
        raise TypeError(f"images must be float in [0, 1], got {images.dtype}; use images.float() / 255")
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinity; expected RGB in [0, 1]")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images must lie in [0, 1], got {images.min():.3g} .. {images.max():.3g}; "
            "divide by 255 and leave normalisation to the model"
        )
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}; use labels.long()")
    if labels.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"labels must be (B, H, W) = {(images.shape[0], *images.shape[2:])} like the images, "
            f"got {tuple(labels.shape)}"
        )


def check_budget(eps: float, steps: int, loss: str) -> None:
    """Raise ValueError unless eps, steps and loss make an attack."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must lie in [0, 1] (pixel units: 4 / 255 for four levels), got {eps}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; choose from: {', '.join(LOSSES)}")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless the model's answer fits the labels."""
    if logits.ndim != 4 or logits.shape[2:] != labels.shape[1:]:
        raise ValueError(
            f"the model must return logits (B, K, H, W) at the labels' resolution {tuple(labels.shape[1:])}, "
            f"got {tuple(logits.shape)}"
        )
    if labels.min() < VOID or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels must lie in {VOID} (void) .. {logits.shape[1] - 1} for a model of {logits.shape[1]} classes, "
            f"got {int(labels.min())} .. {int(labels.max())}"
        )
    if not logits.isfinite().all():
        raise ValueError("the model returned NaN or infinite logits on the clean images; check its weights")


def image_generator(seed: int, attack: str, image: Tensor) -> torch.Generator:
    """A random source that depends on (seed, attack, image) alone: not on the batch, the order or the machine."""
    content = image.detach().cpu().double().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{seed}/{attack}/{tuple(image.shape)}/".encode() + content).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def random_offsets(images: Tensor, eps: float, seed: int, attack: str) -> Tensor:
    """Uniform in [-eps, eps], one independent draw an image, shape and dtype of `images`."""
    draws = [torch.rand(x.shape, generator=image_generator(seed, attack, x), dtype=torch.float64) for x in images]
    return ((2 * torch.stack(draws) - 1) * eps).to(images)


def project(candidates: Tensor, images: Tensor, eps: float) -> Tensor:
    """The closest point within eps of the images, in the L-infinity norm, and within [0, 1]."""
    return candidates.clamp(images - eps, images + eps).clamp(0, 1)


class Probe(NamedTuple):
    """One forward and backward pass."""

    gradient: Tensor  # (B, 3, H, W)
    loss: Tensor  # (B,) mean cross-entropy over valid pixels
    accuracy: Tensor  # (B,)
    predictions: Tensor  # (B, H, W)


def probe(
    model: nn.Module, images: Tensor, labels: Tensor, loss: str, class_weights: Tensor | None, progress: float
) -> Probe:
    """Gradient of the summed pixel loss, and what the step rules need to know."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        logits = model(point)
        total = pixel_loss(loss, logits, labels, class_weights, progress).sum()
        (gradient,) = torch.autograd.grad(total, point)
    logits = logits.detach()
    is_valid = labels != VOID
    valid = is_valid.flatten(1).sum(1)
    predictions = logits.max(1).indices  # seven times faster on CPUs than argmax over channels
    correct = ((predictions == labels) & is_valid).flatten(1).sum(1)
    tracked = pixel_loss("ce", logits, labels).flatten(1).sum(1) / valid.clamp_min(1)
    return Probe(gradient, tracked, pixel_accuracy(correct, valid), predictions)


def choose(choice: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """new for the images chosen, old for the others; choice: (B,) bool."""
    return torch.where(choice.view(-1, *[1] * (new.ndim - 1)), new, old)


class StepSizeChecks:
    """The steps at which APGD reconsiders its step size: after 22 % of the run, then in ever shorter spans."""

    def __init__(self, steps: int) -> None:
        self.span = max(int(0.22 * steps), 1)
        self.shortest = max(int(0.06 * steps), 1)
        self.decrease = max(int(0.03 * steps), 1)
        self.since = 0

    def due(self) -> int:
        """Count one step; the length of the span that just ended, or 0 within one."""
        self.since += 1
        if self.since < self.span:
            return 0
        ended, self.since = self.span, 0
        self.span = max(self.span - self.decrease, self.shortest)
        return ended


def oscillates(losses: Tensor, span: int, share: float = 0.75) -> Tensor:
    """(B,) bool: in the last `span` steps the loss rose in at most `share` of them. losses: (T, B), oldest first."""
    rises = (losses[-span:] > losses[-span - 1 : -1]).sum(0)
    return rises <= span * share


def apgd_steps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int = 100,
    loss: str = "mask-ce",
    class_weights: Tensor | None = None,
    random_start: bool = True,
    seed: int = 0,
) -> Generator[AttackResult, None, None]:
    """APGD for the L-infinity norm, yielding after the start and after each step (section 3.5, appendix B.1).

    model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); handed back as it came when the generator ends
    or is closed. labels: (B, H, W) int64, `VOID` never counted. eps in [0, 1]. The arguments are not modified.
    Each image is attacked by itself: neither the batch nor its order changes the outcome beyond float rounding.
    Raises ValueError or TypeError at the first `next` for a call that makes no sense.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (ICML 2020), Algorithm 1, here with a loss a pixel. The step size follows the plain
    cross-entropy whatever the loss is (arXiv:2306.12941, appendix B.1).
    """
    check_images(images, labels)
    check_budget(eps, steps, loss)
    images = images.detach()
    with frozen(model):
        with torch.no_grad():
            check_logits(model(images[:1]), labels)
        x = project(images + random_offsets(images, eps, seed, "apgd"), images, eps) if random_start else images
        now = probe(model, x, labels, loss, class_weights, 0.0)
        lowest_images, lowest_accuracy, lowest_predictions = x, now.accuracy, now.predictions
        best_images, best_loss, best_gradient = x, now.loss, now.gradient
        accuracies, losses = [now.accuracy], [now.loss]

        def result() -> AttackResult:
            history = History(torch.stack(accuracies), torch.stack(losses))
            return AttackResult(
                lowest_images, best_images, lowest_accuracy, lowest_predictions, history, len(losses) - 1
            )

        yield result()
        step_size = torch.full((len(x), 1, 1, 1), 2 * eps, dtype=x.dtype, device=x.device)
        checks = StepSizeChecks(steps)
        best_loss_at_check, halved_at_check = best_loss, torch.ones_like(best_loss, dtype=torch.bool)
        x_before, gradient = x, now.gradient
        for t in range(steps):
            momentum = 0.25 if t > 0 else 0.0
            straight = project(x + step_size * gradient.sign(), images, eps)
            x, x_before = project(x + (1 - momentum) * (straight - x) + momentum * (x - x_before), images, eps), x
            now = probe(model, x, labels, loss, class_weights, (t + 1) / steps)
            gradient = now.gradient
            accuracies.append(now.accuracy)
            losses.append(now.loss)

            is_lowest = now.accuracy <= lowest_accuracy
            lowest_images = choose(is_lowest, x, lowest_images)
            lowest_predictions = choose(is_lowest, now.predictions, lowest_predictions)
            lowest_accuracy = torch.minimum(now.accuracy, lowest_accuracy)
            improved = now.loss > best_loss
            best_images = choose(improved, x, best_images)
            best_gradient = choose(improved, gradient, best_gradient)
            best_loss = torch.maximum(now.loss, best_loss)

            span = checks.due()
            if span:
                stuck = ~halved_at_check & (best_loss_at_check >= best_loss)
                halve = oscillates(torch.stack(losses[-span - 1 :]), span) | stuck
                halved_at_check, best_loss_at_check = halve, best_loss
                step_size = choose(halve, step_size / 2, step_size)
                x, gradient = choose(halve, best_images, x), choose(halve, best_gradient, gradient)
            yield result()


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int = 100,
    loss: str = "mask-ce",
    class_weights: Tensor | None = None,
    random_start: bool = True,
    seed: int = 0,
) -> AttackResult:
    """`apgd_steps` run to its end."""
    results = apgd_steps(model, images, labels, eps, steps, loss, class_weights, random_start, seed)
    return deque(results, maxlen=1).pop()
