"""Reproduce the paper's Figure 6 for our models: the share of images that withstand each radius.

An image withstands a radius as long as no perturbation within it flips 99 % of the pixels. ALMA prox searches for the
smallest one that does (`robviz.minimal`), so its results are upper bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from robviz.files.atomic import write_atomically
from robviz.files.paths import bundled_path
from robviz.files.provenance import versions
from robviz.minimal import alma_prox
from robviz.models import card_of, fingerprint
from robviz.models.layers import device_of
from robviz.types import Dataset, InputError


@dataclass(frozen=True)
class Minimal:
    """Store the smallest radii found for some images of a dataset.

    Attributes:
        plan: Everything that determines them: model, dataset, number of images, their crop, steps, share and versions.
        radii_255: The radius of each image, in 1/255; None if no perturbation was found.
    """

    plan: dict[str, Any]
    radii_255: tuple[float | None, ...]

    def save(self, path: Path) -> None:
        """Write the radii to a JSON file, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Minimal:
        """Read the radii; raises InputError if the file contains none."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["plan"], tuple(values["radii_255"]))
        except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} contains no minimal radii: {error!r}") from error


def measured(
    model: torch.nn.Module, dataset: Dataset, limit: int, steps: int = 500, share: float = 0.99, crop: int | None = None
) -> Iterator[Minimal]:
    """Find the smallest radius of each of the first images; yields all results so far after each image.

    Args:
        model: A model with a card.
        dataset: In the classes of the model.
        limit: How many images.
        steps: The number of steps of ALMA prox.
        share: The share of the valid pixels that must flip.
        crop: Attack a centred square of this many pixels of each image instead of all of it.
    """
    card, radii = card_of(model), []
    plan = {
        "model": {"name": card.name, "sha256": fingerprint(model)},
        "dataset": {"name": dataset.name, "split": dataset.split},
        "crop": crop,
        "attack": "alma-prox",
        "steps": steps,
        "share": share,
        "device": device_of(model).type,
        "versions": versions(),
    }
    for i in range(min(limit, len(dataset))):
        sample = dataset[i]
        rows, columns = (centre(side, crop) for side in sample.labels.shape)
        image, labels = sample.image[:, rows, columns], sample.labels[rows, columns]
        found = alma_prox(model, image[None].to(device_of(model)), labels[None].to(device_of(model)), steps, share)
        radius = found.radius.item()
        radii.append(round(255 * radius, 4) if radius < float("inf") else None)
        yield Minimal({**plan, "images": len(radii)}, tuple(radii))


def centre(side: int, crop: int | None) -> slice:
    """Return the middle of a side."""
    if crop is None or crop >= side:
        return slice(None)
    return slice((side - crop) // 2, (side - crop) // 2 + crop)


def curve(found: Minimal, radii_255: Sequence[float]) -> list[float]:
    """Return the share of images, in [0, 1], that withstand each radius.

    An image withstands a radius if 99 % of its pixels were not flipped within it.
    """
    if not found.radii_255:
        raise InputError("there is no image; expected the radii of at least one")
    return [
        sum(radius is None or radius > limit for radius in found.radii_255) / len(found.radii_255)
        for limit in radii_255
    ]


def shipped_minimal() -> dict[str, Minimal]:
    """Return the radii that ship with robviz, by model."""
    return {path.stem: Minimal.load(path) for path in sorted(bundled_path("checkpoints/minimal").glob("*.json"))}
