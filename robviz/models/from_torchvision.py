"""Open torchvision's segmentation models by name, with its weights, classes and preprocessing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robviz.files.download import Listener, fetch
from robviz.files.paths import cache_folder
from robviz.models.pipeline import Pipeline, Preparation, Sides, carded
from robviz.types import InputError


def names() -> list[str]:
    """Return the segmentation models that the installed torchvision has weights for."""
    from torchvision.models import list_models, segmentation

    result: list[str] = list_models(module=segmentation)
    return result


def weights_of(name: str) -> Any:
    """Return torchvision's default weights of a model, a member of its enum; raises InputError for an unknown model."""
    from torchvision.models import get_model_weights

    if name not in names():
        raise InputError(f"torchvision has no segmentation model {name!r}; choose from: {', '.join(names())}")
    return get_model_weights(name).DEFAULT


def url_of(name: str) -> str:
    """Return the address of the weights."""
    result: str = weights_of(name).url
    return result


def file_of(name: str) -> Path:
    """Return the path of the weights once they are downloaded."""
    return cache_folder() / "torchvision" / url_of(name).rpartition("/")[2]


def is_here(name: str) -> bool:
    """Return True if the model opens without a download."""
    return name in names() and file_of(name).exists()


def download(name: str, listener: Listener = lambda received, total: None) -> Path:
    """Download the weights into the cache on the first call, checked against the hash in torchvision's file name.

    Raises InputError if they are not available.
    """
    path, url = file_of(name), url_of(name)
    if not path.exists():
        fetch(url, path, listener)
    expected, digest = path.stem.rpartition("-")[2], hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        path.unlink()
        raise InputError(
            f"{url} gave a file of SHA-256 {digest[:16]}..., expected {expected}...; it was deleted: retry"
        )
    return path


def load(name: str) -> nn.Module:
    """Open the model with torchvision's weights and preprocessing, and a card."""
    from torchvision.models import get_model

    weights, path = weights_of(name), download(name)
    classes = tuple(weights.meta["categories"])
    # Every published file holds the auxiliary classifier, too.
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    module = get_model(name, weights=None, weights_backbone=None, num_classes=len(classes), **options)
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    preset = weights.transforms()
    (shortest,) = preset.resize_size or (None,)
    preparation = Preparation(preset.mean, preset.std, Sides(shortest=shortest), str(preset.interpolation.value))
    metrics = {"reported_by": "torchvision", **weights.meta.get("_metrics", {})}
    source = f"torchvision, {type(weights).__name__}.{weights.name}; {url_of(name)}"
    return carded(Pipeline(module, preparation), classes, f"torchvision/{name}", source, metrics=metrics)
