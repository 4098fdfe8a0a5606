"""Values of the official code, with the weights and images they belong to; `README.md` says where they come from."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent

#: Mean and deviation of a tensor, by the last part of its key: they keep activations in range.
RANGES = {
    "num_batches_tracked": (0.0, 0.0),
    "running_mean": (0.0, 0.1),
    "bias": (0.0, 0.1),
    "gamma": (0.3, 0.1),
    "pos_embed": (0.0, 0.5),
    "cls_token": (0.0, 0.5),
    "cls_emb": (0.0, 0.5),
}


def golden(name: str) -> dict[str, Tensor]:
    """Open a file of values."""
    return {key: torch.from_numpy(value) for key, value in np.load(HERE / f"{name}.npz").items()}


def published_shapes(name: str) -> dict[str, torch.Size]:
    """Read the keys of a published checkpoint and their shapes."""
    lines = gzip.decompress((HERE / f"{name}.keys.gz").read_bytes()).decode().splitlines()
    return {key: torch.Size(map(int, shape)) for key, *shape in map(str.split, lines)}


def published(name: str) -> dict[str, Tensor]:
    """Make empty tensors under the keys of a published checkpoint."""
    return {key: torch.empty(shape) for key, shape in published_shapes(name).items()}


def drawn(key: str, shape: torch.Size, seed: int = 0) -> Tensor:
    """Draw a tensor that depends on its key and its shape alone."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed}:{key}".encode())))
    leaf = key.rpartition(".")[2]
    if leaf == "running_var":
        return 1 + 0.2 * noise.abs()
    if leaf not in RANGES and len(shape) > 1:
        fan_in = noise[0].numel() if leaf == "weight" else shape[0]
        return noise / fan_in**0.5
    mean, deviation = RANGES.get(leaf, (1.0, 0.1))
    return mean + deviation * noise


def filled(name: str) -> dict[str, Tensor]:
    """Make the weights under which the official model gave the golden logits."""
    return {key: drawn(key, shape) for key, shape in published_shapes(name).items()}


def images_of(values: dict[str, Tensor]) -> Tensor:
    """Draw the images (1, 3, H, W) that the official model saw."""
    generator = torch.Generator().manual_seed(int(values["x_seed"]))
    images = torch.rand(*values["x_shape"].tolist(), generator=generator)
    assert images.flatten()[:4].equal(values["x_start"]), "torch draws other random numbers than it used to"
    return images
