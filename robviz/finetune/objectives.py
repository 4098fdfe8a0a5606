"""The quantity that a training minimises, and the attacked images on which it is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.attacks import frozen
from robviz.finetune.images import NOISE, generator_of
from robviz.finetune.recipes import Recipe
from robviz.norms import project_linf
from robviz.types import VOID, InputError


def segmentation_loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, auxiliary_weight: float) -> Tensor:
    """Sum the cross-entropy over valid pixels, plus that of the auxiliary head if the model has one."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    main, *auxiliary = (F.cross_entropy(logits.float(), labels, ignore_index=VOID, reduction="sum") for logits in heads)
    return main + auxiliary_weight * sum(auxiliary)


def feature_distance(features: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Compute squared distance over squared length of the targets, averaged over levels and summed over images."""
    levels = [
        (level.float() - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1)
        for level, target in zip(features, targets)
    ]
    return torch.stack(levels).mean(0).sum()


class Features(nn.Module):
    """Map images (B, 3, H, W) to the features of a model's backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's features of images (B, 3, H, W), finest first."""
        result: list[Tensor] = self.model.features(images)  # type: ignore[operator]
        return result


class Pooled(nn.Module):
    """Turn a segmentation model into a classifier: every pixel gets the mean of the logits, for each head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return pooled logits (B, K, H, W), for each head."""
        outputs = self.model(images)
        if isinstance(outputs, tuple):
            return tuple(map(self.pooled, outputs))
        return self.pooled(outputs)

    @staticmethod
    def pooled(logits: Tensor) -> Tensor:
        """Give every pixel of (B, K, H, W) the mean over all pixels."""
        return logits.mean((2, 3), keepdim=True).expand_as(logits)


def answering(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Wrap the model as the recipe trains it."""
    return Pooled(model) if recipe.trains == "classifier" else model


@dataclass(frozen=True)
class Objective:
    """Describe what a training minimises.

    Attributes:
        network: From images to outputs.
        targets: From clean images and labels to targets.
        loss: From outputs and targets to a summed loss.
        count: From labels to the number of terms in that sum.
    """

    network: nn.Module
    targets: Callable[[Tensor, Tensor], Any]
    loss: Callable[[Any, Any], Tensor]
    count: Callable[[Tensor], Tensor]


def objective_of(model: nn.Module, recipe: Recipe) -> Objective:
    """Return the recipe's objective; raises InputError if the architecture lacks what it needs."""
    if recipe.trains != "backbone":
        loss = partial(segmentation_loss, auxiliary_weight=recipe.auxiliary_weight)
        network = answering(model, recipe)
        return Objective(network, lambda images, labels: labels, loss, lambda labels: (labels != VOID).sum())
    if not hasattr(model, "features"):
        raise InputError(f"trains='backbone' needs a UPerNet, got {recipe.architecture}; choose another architecture")
    network = Features(model)
    teacher = deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def targets(images: Tensor, labels: Tensor) -> list[Tensor]:
        return [level.float() for level in teacher(images)]

    return Objective(network, targets, feature_distance, lambda labels: torch.tensor(len(labels), device=labels.device))


def noise_of(seed: int, numbers: Iterable[int], shape: torch.Size) -> Tensor:
    """Draw uniform noise in -1 .. 1, (B, *shape), that depends only on the number of each image."""
    return torch.stack([2 * torch.rand(shape, generator=generator_of(seed, NOISE, number)) - 1 for number in numbers])


def pgd_examples(
    network: nn.Module,
    images: Tensor,
    targets: Any,
    loss: Callable[[Any, Any], Tensor],
    eps: float,
    recipe: Recipe,
    noise: Tensor,
) -> Tensor:
    """Attack training images: a few plain PGD steps on `loss(outputs, targets)`, from images + eps * noise.

    images: (B, 3, H, W) in [0, 1]. noise: the same shape, in -1 .. 1.
    """
    x = project_linf(images + eps * noise.to(images), images, eps)
    with frozen(network):
        for _ in range(recipe.attack_steps):
            x.requires_grad_()
            with autocast(x, recipe):
                value = loss(network(x), targets)
            (gradient,) = torch.autograd.grad(value, x)
            x = project_linf(x.detach() + recipe.attack_step_size * gradient.sign(), images, eps)
    return x


def autocast(images: Tensor, recipe: Recipe) -> torch.autocast:
    """Return the recipe's precision as a context, on the device of the images."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
