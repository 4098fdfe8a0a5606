"""Find one perturbation for many images, which also breaks pictures that it was not made for.

Moosavi-Dezfooli et al., "Universal adversarial perturbations" (CVPR 2017); the search is the projected gradient ascent
of Shafahi et al., "Universal adversarial training" (AAAI 2020). `universal_steps` yields a `UniversalResult` after
every pass over the images, each complete and valid; `universal` runs it to the end.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robviz.attacks import (
    check_budget,
    check_finite,
    check_images,
    check_labels,
    frozen,
    last_of,
    predicted,
    share_equal,
)
from robviz.losses import pixel_loss
from robviz.models.answers import answer_of, logits_of
from robviz.types import InputError

__all__ = ["UniversalResult", "universal", "universal_steps"]


@dataclass(frozen=True)
class UniversalResult:
    """Store the best perturbation found so far.

    Attributes:
        perturbation: (3, H, W), each value within eps; added to an image, the sum is clipped to [0, 1].
        accuracy: (N,) pixel accuracy of each image under it, without void pixels.
        passes: The number of passes over the images.
    """

    perturbation: Tensor
    accuracy: Tensor
    passes: int


def disturbed(images: Tensor, perturbation: Tensor) -> Tensor:
    """Add one perturbation (3, H, W) to images (N, 3, H, W), clipped to [0, 1]."""
    return (images + perturbation).clamp(0, 1)


def accuracy_under(model: nn.Module, images: Tensor, labels: Tensor, perturbation: Tensor, batch_size: int) -> Tensor:
    """Return the pixel accuracy, (N,), of each image under a perturbation."""
    parts = zip(disturbed(images, perturbation).split(batch_size), labels.split(batch_size))
    return torch.cat([share_equal(predicted(model, x), y) for x, y in parts])


def universal_steps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    passes: int = 10,
    loss: str = "mask-ce",
    batch_size: int = 8,
    seed: int = 0,
) -> Generator[UniversalResult, None, None]:
    """Search for one perturbation that breaks all images, yielding at the start and after each pass over them.

    Each batch moves the perturbation by a signed step, which shrinks from eps / 4 to eps / 40 over the passes.

    Args:
        model: Maps images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored at the end.
        images: (N, 3, H, W) in [0, 1], all of the same size.
        labels: (N, H, W) int64; `VOID` never counts.
        eps: The largest change of a value, in [0, 1] pixel units.
        passes: The number of passes over the images.
        loss: A key of `LOSSES` that needs no class weights.
        batch_size: Images that determine one step together.
        seed: The seed of the order of the images.

    Yields:
        The best result so far by the mean pixel accuracy, `passes + 1` times; the first is without a perturbation.

    Raises:
        InputError: For invalid arguments, and when the model returns NaN; at the first `next`.
    """
    check_images(images, labels)
    check_budget(eps, passes, loss)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    zero = torch.zeros_like(images[0])
    perturbation = zero
    best = UniversalResult(zero, accuracy_under(model, images, labels, zero, batch_size), 0)
    yield best
    generator = torch.Generator().manual_seed(seed)
    for made in range(1, passes + 1):
        step_size = eps / 4 * 0.1 ** ((made - 1) / max(1, passes - 1))
        with frozen(model):
            for rows in torch.randperm(len(images), generator=generator).split(batch_size):
                point = perturbation.clone().requires_grad_()
                shown = disturbed(images[rows], point)
                logits = logits_of(answer_of(model, shown), shown)
                check_finite(logits)
                check_labels(labels, logits.shape[1])
                total = pixel_loss(loss, logits, labels[rows], None, made / passes).sum()
                (gradient,) = torch.autograd.grad(total, point)
                perturbation = (perturbation + step_size * gradient.sign()).clamp(-eps, eps)
        accuracy = accuracy_under(model, images, labels, perturbation, batch_size)
        is_better = accuracy.mean() < best.accuracy.mean()
        best = UniversalResult(perturbation, accuracy, made) if is_better else best
        yield UniversalResult(best.perturbation, best.accuracy, made)


def universal(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    passes: int = 10,
    loss: str = "mask-ce",
    batch_size: int = 8,
    seed: int = 0,
) -> UniversalResult:
    """Search for one perturbation that breaks all images: run `universal_steps` to its end.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored.
        images: (N, 3, H, W) in [0, 1], all of the same size.
        labels: (N, H, W) int64; `VOID` never counts.
        eps: The largest change of a value, in [0, 1] pixel units.
        passes: The number of passes over the images.
        loss: A key of `LOSSES` that needs no class weights.
        batch_size: Images that determine one step together.
        seed: The seed of the order of the images.

    Returns:
        The best found in all passes.

    Raises:
        InputError: For invalid arguments, and when the model returns NaN.
    """
    return last_of(universal_steps(model, images, labels, eps, passes, loss, batch_size, seed))
