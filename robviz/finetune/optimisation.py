"""The weights that a training changes, its learning rate and its weight decay."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch import nn

from robviz.finetune.recipes import Recipe

MOMENTUM = 0.9  # Table 4
NOT_DECAYED = re.compile(r"(pos_embed|cls_token|cls_emb)$")  # nor norms, biases and layer scales


def choose_trained(model: nn.Module, recipe: Recipe) -> None:
    """Require gradients of exactly those parameters that the recipe trains."""
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith("backbone.")
        parameter.requires_grad_(recipe.trains in ("all", "classifier") or in_backbone == (recipe.trains == "backbone"))


def into_training_mode(model: nn.Module, recipe: Recipe) -> None:
    """Put the model in training mode, except for a frozen backbone, whose batch norms stay as they are."""
    model.train()
    if recipe.trains == "decoder":
        model.backbone.eval()  # type: ignore[union-attr]


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build AdamW or SGD, without decay on norms, biases, layer scales, position embeddings and tokens."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 and not NOT_DECAYED.search(name) else 0.0
            rate = recipe.learning_rate * (1.0 if name.startswith("backbone.") else recipe.decoder_rate)
            groups[decay, rate].append(parameter)
    rows = [
        {"params": parameters, "weight_decay": decay, "lr": rate, "initial_lr": rate}
        for (decay, rate), parameters in groups.items()
    ]
    return torch.optim.SGD(rows, momentum=MOMENTUM) if recipe.optimizer == "sgd" else torch.optim.AdamW(rows)


def learning_rate_factor(iteration: int, recipe: Recipe, iterations: int) -> float:
    """Warm up linearly from the ratio to 1, then decay polynomially to zero.

    The warm-up is one iteration ahead of the official code, whose first iteration hardly moves.
    """
    warm_up = round(recipe.warm_up * iterations)
    if iteration < warm_up:
        return recipe.warm_up_ratio + (1 - recipe.warm_up_ratio) * (iteration + 1) / warm_up
    result: float = ((iterations - iteration) / (iterations - warm_up)) ** recipe.power
    return result
