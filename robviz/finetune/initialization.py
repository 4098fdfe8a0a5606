"""The weights that a training starts from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from robviz.finetune.recipes import Recipe
from robviz.models import architecture_of, build, card_of, load_backbone, load_checkpoint, load_model, published
from robviz.models.checkpoints import state_of
from robviz.types import InputError


def initial_model(recipe: Recipe, num_classes: int) -> nn.Module:
    """Build the model that a training starts from; raises InputError if its weights are not available."""
    model, initial = build(recipe.architecture, num_classes), recipe.initial
    if initial is None:
        return model
    if initial == "imagenet":
        load_imagenet = architecture_of(recipe.architecture).load_imagenet
        if load_imagenet is None:
            raise InputError(
                f"there are no ImageNet weights for {recipe.architecture}; set initial to the path of a classifier's "
                "checkpoint, or to null to start from scratch"
            )
        load_imagenet(model)
        return model
    if initial in published.BACKBONES:
        return load_backbone(model, published.download(initial))
    if Path(initial).is_file() and not Path(initial).with_suffix(".json").exists():
        state = state_of(initial)
        is_classifier = any(key.startswith("base_model.") for key in state)
        return load_backbone(model, state) if is_classifier else load_checkpoint(model, state)
    found = load_model(initial)
    card = card_of(found)
    if card.architecture != recipe.architecture:
        raise InputError(
            f"{initial} is a {card.architecture}, {recipe.name} trains a {recipe.architecture}; set architecture to it"
        )
    if recipe.backbone_only:
        model.backbone.load_state_dict(found.backbone.state_dict())  # type: ignore[union-attr]
        return model
    if len(card.classes) != num_classes:
        raise InputError(
            f"{initial} has {len(card.classes)} classes, {recipe.dataset} {num_classes}; "
            "set backbone_only=true to use only its backbone"
        )
    return found
