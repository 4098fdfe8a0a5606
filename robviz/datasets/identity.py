"""Distinguish two datasets by their contents: a digest of every picture with its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from robviz.types import Dataset, Sample


def sample_digest(sample: Sample) -> str:
    """Return the SHA-256 of a sample's picture and labels."""
    digest = hashlib.sha256()
    for part in (sample.image, sample.labels):
        digest.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digests_of(dataset: Dataset, indices: Iterable[int]) -> dict[str, str]:
    """Return the digests of these samples by `number name`, in order; reads each sample once."""
    samples = ((index, dataset[index]) for index in indices)
    return {f"{index} {sample.name}": sample_digest(sample) for index, sample in samples}


def identity(dataset: Dataset, digests: dict[str, str], with_weights: bool) -> dict[str, Any]:
    """Describe everything in a dataset that influences figures, ready for JSON.

    Args:
        dataset: The dataset.
        digests: The result of `digests_of`.
        with_weights: Include the class weights.
    """
    content = "\n".join(f"{name} {digest}" for name, digest in digests.items())
    weights = dataset.class_weights if with_weights else None
    return {
        "classes": list(dataset.classes),
        "class_weights": None if weights is None else weights.tolist(),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
    }
