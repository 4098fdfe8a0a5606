"""Minimal perturbations: find the smallest L-infinity radius at which nearly every pixel changes its class.

The attacks of `robviz.attacks` break as many pixels as they can within a radius. This one asks the opposite question,
as in the paper's Figure 6: which radius breaks 99 % of them? `alma_prox_steps` yields a `MinimalResult` at the start
and after every step, each complete and valid; `alma_prox` runs it to the end.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robviz.attacks import check_finite, check_images, check_labels, frozen, last_of, share_equal
from robviz.models.answers import answer_of, logits_of
from robviz.types import VOID, InputError

__all__ = ["AlmaProxSettings", "MinimalResult", "alma_prox", "alma_prox_steps"]


@dataclass(frozen=True)
class MinimalResult:
    """Store the smallest perturbations found so far.

    Attributes:
        images: (B, 3, H, W) in [0, 1], those of the smallest radius or, where none flips enough pixels yet, those that
            flip most.
        radius: (B,) float, the L-infinity distance of `images` from the originals; infinite where too few pixels are
            flipped.
        flipped: (B,) share of the aimed pixels that are not predicted as labelled on `images`, without void pixels.
        predictions: (B, H, W) int64, the model's predictions on `images`.
        step: The number of steps made.
    """

    images: Tensor
    radius: Tensor
    flipped: Tensor
    predictions: Tensor
    step: int


@dataclass(frozen=True)
class AlmaProxSettings:
    """Store the parameters of ALMA prox, by the paper's symbols, with its authors' defaults for L-infinity."""

    step_size: float = 1e-3  # lambda, in pixel units
    last_step_size: float = 0.1  # share of it that is left at the end
    penalty: float = 0.01  # rho at the start
    penalty_growth: float = 2.0  # gamma
    check_every: int = 10  # M, steps between two checks whether a pixel's constraint improves
    enough_progress: float = 0.95  # tau
    smoothing: float = 0.8  # alpha, of the multipliers and of the squared gradients
    least_scale: float = 0.1  # w_min
    scale_rate: float = 0.02
    tolerance: float = 1e-4  # by how much another class must win: a tie is not a flip


def margin_ratio(logits: Tensor, labels: Tensor, tolerance: float) -> Tensor:
    """Measure how far the label's logit exceeds the best other, relative to the gap between first and third.

    Returns (B, H, W), at most 0 where the pixel is flipped. logits: (B, K, H, W). labels: (B, H, W), none void. With
    two classes there is no third, and the margin is not scaled.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    lead = logits.gather(1, labels[:, None]).squeeze(1) - others.amax(1) + tolerance
    if logits.shape[1] < 3:
        return lead
    top = logits.topk(3, dim=1).values
    return lead / (top[:, 0] - top[:, 2] + 1e-8)


def penalty_slope(constraints: Tensor, penalty: Tensor, multipliers: Tensor) -> Tensor:
    """Compute the weight of each constraint: by how much the penalty-Lagrangian function P2 grows with it.

    Above 0, P2 is m c + m p c^2 + p^2 c^3 / 6. As in the authors' code, the first term contributes m c instead of its
    slope m, so pixels close to the boundary have less influence. With m, 99 % flip sooner, but at much larger radii.
    """
    above = multipliers * constraints * (1 + 2 * penalty) + (penalty * constraints) ** 2 / 2
    below = multipliers / (1 - penalty.clamp_min(1) * constraints.clamp_max(0)) ** 2
    return torch.where(constraints >= 0, above, below)


def proximal(change: Tensor, images: Tensor, step_size: Tensor, metric: Tensor) -> Tensor:
    """Find the z that minimises step_size |z|_inf + 1/2 sum metric (z - change)^2 while images + z stays in [0, 1].

    change, images, metric: (B, 3, H, W). step_size: (B,). For a bound t on |z| the best z is known: the change, clipped
    to the box and to t. The objective is convex in t, so t is found by bisection of its slope.
    """
    boxed = change.clamp(-images, 1 - images)
    size, weight = boxed.abs().flatten(1), metric.flatten(1)
    pull = (change * boxed.sign()).flatten(1)
    low, high = torch.zeros_like(step_size), size.amax(1)
    for _ in range(BISECTIONS):
        bound = (low + high) / 2
        is_cut = size > bound[:, None]
        slope = step_size - (weight * (pull - bound[:, None]) * is_cut).sum(1)
        low, high = torch.where(slope < 0, bound, low), torch.where(slope < 0, high, bound)
    bound = high.view(-1, 1, 1, 1)
    return boxed.clamp(-bound, bound)


#: Halvings of [0, 1]: below the rounding of float32.
BISECTIONS = 25


def hardest_left_out(constraints: Tensor, is_valid: Tensor, allowed: Tensor) -> Tensor:
    """Mark the valid pixels, (B, H, W) bool, without those of the largest constraint, which need not flip.

    allowed: (B,) int64, how many need not flip; ties with the last of them count as valid.
    """
    ordered = constraints.masked_fill(~is_valid, -torch.inf).flatten(1).sort(1, descending=True).values
    limit = ordered.gather(1, (allowed - 1).clamp_min(0)[:, None])
    return is_valid & (constraints <= limit.view(-1, 1, 1))


def better(new: MinimalResult, old: MinimalResult, needed: float) -> MinimalResult:
    """Take the new point if it flips enough within a smaller radius or, before any point does, flips more."""
    is_better = torch.where(
        new.flipped >= needed,
        new.radius <= old.radius,
        old.radius.isinf() & (new.flipped >= old.flipped),
    )

    def chosen(name: str) -> Tensor:
        values = getattr(new, name)
        return torch.where(is_better.view(-1, *[1] * (values.ndim - 1)), values, getattr(old, name))

    return MinimalResult(chosen("images"), chosen("radius"), chosen("flipped"), chosen("predictions"), step=new.step)


def rated(x: Tensor, change: Tensor, predictions: Tensor, labels: Tensor, needed: float) -> MinimalResult:
    """Evaluate one point. labels: (B, H, W), void where not aimed."""
    flipped = 1 - share_equal(predictions, labels)
    radius = change.abs().flatten(1).amax(1)
    return MinimalResult(x, radius.masked_fill(flipped < needed, torch.inf), flipped, predictions, step=0)


class Multipliers:
    """Store one Lagrange multiplier and one penalty parameter per pixel, both (B, H, W) float64."""

    def __init__(self, constraints: Tensor, settings: AlmaProxSettings) -> None:
        self.settings = settings
        self.values = torch.ones_like(constraints, dtype=torch.float64)
        self.penalty = torch.full_like(self.values, settings.penalty)
        self.before = constraints
        self.was_flipped = torch.zeros_like(constraints, dtype=torch.bool)

    def update(self, step: int, constraints: Tensor, is_flipped: Tensor, counts: Tensor) -> Tensor:
        """Update both from the constraints of one step.

        Returns the weight (B, H, W) of each pixel in the gradient, 0 where it does not count.
        """
        self.was_flipped = self.was_flipped | is_flipped
        if (step + 1) % self.settings.check_every == 0:
            improved = constraints * counts <= self.settings.enough_progress * self.before
            grown = self.settings.penalty_growth * self.penalty
            self.penalty = torch.where(self.was_flipped | improved, self.penalty, grown)
            self.before, self.was_flipped = constraints, torch.zeros_like(is_flipped)
        if step > 0:
            wanted = penalty_slope(constraints, self.penalty, self.values) * counts
            self.values = self.values.lerp(wanted, 1 - self.settings.smoothing).clamp(1e-12, 1)
        return penalty_slope(constraints, self.penalty, self.values).to(constraints) * counts


def check_minimal(images: Tensor, labels: Tensor, steps: int, share: float, aimed: Tensor | None) -> None:
    """Raise InputError unless the arguments are valid."""
    check_images(images, labels)
    if steps < 2:
        raise InputError(f"steps must be at least 2, got {steps}")
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], such as 0.99 for 99 % of the pixels; got {share}")
    if aimed is not None and (aimed.dtype != torch.bool or aimed.shape != labels.shape):
        raise InputError(
            f"aimed must be bool (B, H, W) = {tuple(labels.shape)}, got {aimed.dtype} {tuple(aimed.shape)}"
        )


def alma_prox_steps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int = 500,
    share: float = 0.99,
    aimed: Tensor | None = None,
    settings: AlmaProxSettings = AlmaProxSettings(),
) -> Generator[MinimalResult, None, None]:
    """Search for the smallest L-infinity perturbation that flips a share of the pixels; yield at every step.

    ALMA prox (Rony, Pesquet and Ben Ayed, "Proximal Splitting Adversarial Attack for Semantic Segmentation", CVPR
    2023): one augmented Lagrangian term per pixel pushes it over the decision boundary, and a proximal step shrinks the
    perturbation. Nothing is random, and each image is attacked by itself, so the batch changes nothing beyond rounding.

    Args:
        model: Maps images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored at the end.
        images: (B, 3, H, W) in [0, 1].
        labels: (B, H, W) int64; a pixel is flipped where the model predicts another class. `VOID` never counts.
        steps: The number of steps; each takes a forward and a backward pass.
        share: The share of the aimed pixels that must flip.
        aimed: (B, H, W) bool, the only pixels that must flip; None for all.
        settings: Parameters of the method.

    Yields:
        The best result so far, `steps + 1` times; the first is for the unchanged images.

    Raises:
        InputError: For invalid arguments, and when the model returns NaN; at the first `next`.
    """
    check_minimal(images, labels, steps, share, aimed)
    labels = labels if aimed is None else labels.masked_fill(~aimed, VOID)
    is_valid, known = labels != VOID, labels.clamp_min(0)
    spare = (1 - share) * is_valid.flatten(1).sum(1).double()
    needed = share - 1e-6  # shares are float32
    images = images.detach()
    change, squares = torch.zeros_like(images), torch.zeros_like(images)
    scale, found_at = (torch.full((len(images),), value, device=images.device) for value in (1.0, steps // 2))
    best, multipliers = None, None
    with frozen(model):
        for step in range(steps + 1):
            point = change.clone().requires_grad_(step < steps)
            logits = logits_of(answer_of(model, images + point), images)
            check_finite(logits)
            check_labels(labels, logits.shape[1])
            predictions = logits.detach().max(1).indices
            now = replace(rated(images + change, change, predictions, labels, needed), step=step)
            best = now if best is None else better(now, best, needed)
            yield best
            if step == steps:
                return
            is_enough = now.flipped >= needed
            found_at = torch.where(is_enough & (found_at > step), step, found_at)
            scale = (scale / torch.where(is_enough, 1 + settings.scale_rate, 1 - settings.scale_rate)).clamp(
                settings.least_scale, 1
            )
            constraints = scale.view(-1, 1, 1) * margin_ratio(logits, known, settings.tolerance)
            seen = constraints.detach()
            counts = hardest_left_out(seen, is_valid, (spare * step / (steps - 1) + 1e-6).long())
            if multipliers is None:
                multipliers = Multipliers(seen, settings)
            weights = multipliers.update(step, seen, predictions != labels, counts)
            (gradient,) = torch.autograd.grad((weights * constraints).sum(), point)
            # From step_size down to a share of it, hyperbolically, once enough pixels have flipped.
            tangent = settings.last_step_size / (1 - settings.last_step_size) * (steps - found_at)
            step_size = settings.step_size * tangent / ((step - found_at).clamp_min(0) + tangent)
            squares = settings.smoothing * squares + (1 - settings.smoothing) * gradient**2
            metric = (squares / (1 - settings.smoothing ** (step + 1))).sqrt().clamp_min(1e-8)
            moved = change - step_size.view(-1, 1, 1, 1) / metric * gradient
            change = proximal(moved, images, step_size, metric)


def alma_prox(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int = 500,
    share: float = 0.99,
    aimed: Tensor | None = None,
    settings: AlmaProxSettings = AlmaProxSettings(),
) -> MinimalResult:
    """Search for the smallest L-infinity perturbation that flips a share of the pixels, and return it.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored.
        images: (B, 3, H, W) in [0, 1].
        labels: (B, H, W) int64; a pixel is flipped where the model predicts another class. `VOID` never counts.
        steps: The number of steps; each takes a forward and a backward pass.
        share: The share of the aimed pixels that must flip.
        aimed: (B, H, W) bool, the only pixels that must flip; None for all.
        settings: Parameters of the method.

    Returns:
        The best found in all steps.

    Raises:
        InputError: For invalid arguments, and when the model returns NaN.
    """
    return last_of(alma_prox_steps(model, images, labels, steps, share, aimed, settings))
