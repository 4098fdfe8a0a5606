"""Measure perturbations: the L-infinity norm, and the L2 norm as a root mean square.

Both give a radius in pixel units, so that 4 / 255 means the same for a picture of any size: no value changes by
more than four levels (L-infinity), or values change by four levels on average (root mean square, which is the L2 norm
over the square root of the number of values). A change within a radius in L-infinity is also within it in L2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["L2", "LINF", "Norm"]

#: Pixels (..., H, W) bool that may differ; None for all.
Changeable = Tensor | None


@dataclass(frozen=True)
class Norm:
    """Describe everything that an attack needs to know about a norm.

    Attributes:
        name: Its name.
        size: From changes (..., 3, H, W) to their norms (...).
        project: From (candidates, images, radius, changeable) to points within the radius of the images, in [0, 1].
        direction: From a gradient (..., 3, H, W) to the step of norm 1 that follows it.
        draw: From a generator and a shape (3, H, W) to a random change of norm at most 1, float64.
    """

    name: str
    size: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Tensor, float, Changeable], Tensor]
    direction: Callable[[Tensor], Tensor]
    draw: Callable[[torch.Generator, torch.Size], Tensor]


def largest(change: Tensor) -> Tensor:
    """Measure changes (..., 3, H, W) by their largest value."""
    return change.abs().amax((-3, -2, -1))


def project_linf(candidates: Tensor, images: Tensor, eps: float, changeable: Changeable = None) -> Tensor:
    """Move points to the closest ones within eps of the images, in the L-infinity norm, and within [0, 1].

    candidates, images: (..., 3, H, W).
    """
    within = candidates.clamp(images - eps, images + eps).clamp(0, 1)
    return within if changeable is None else torch.where(changeable.unsqueeze(-3), within, images)


def uniform_box(generator: torch.Generator, shape: torch.Size) -> Tensor:
    """Draw each value from [-1, 1]."""
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1


def root_mean_square(change: Tensor) -> Tensor:
    """Measure changes (..., 3, H, W) by the root of the mean of their squares."""
    return change.square().mean((-3, -2, -1)).sqrt()


def project_l2(candidates: Tensor, images: Tensor, eps: float, changeable: Changeable = None) -> Tensor:
    """Shrink changes to a root mean square of at most eps, within [0, 1].

    candidates, images: (..., 3, H, W). Clipping to the colour range comes first, as it only brings points closer.
    """
    change = candidates.clamp(0, 1) - images
    if changeable is not None:
        change = change * changeable.unsqueeze(-3)
    size = root_mean_square(change)[..., None, None, None]
    return (images + change * (eps / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)).clamp(0, 1)


def unit(gradient: Tensor) -> Tensor:
    """Scale a gradient (..., 3, H, W) to a root mean square of 1; a gradient of 0 stays 0."""
    size = root_mean_square(gradient)[..., None, None, None]
    return torch.where(size > 0, gradient / size.clamp_min(torch.finfo(size.dtype).tiny), 0)


def uniform_ball(generator: torch.Generator, shape: torch.Size) -> Tensor:
    """Draw uniformly from the ball of root mean square 1."""
    direction = unit(torch.randn(shape, generator=generator, dtype=torch.float64))
    return direction * torch.rand((), generator=generator, dtype=torch.float64) ** (1 / direction.numel())


LINF = Norm("L-infinity", largest, project_linf, torch.sign, uniform_box)
L2 = Norm("L2", root_mean_square, project_l2, unit, uniform_ball)
