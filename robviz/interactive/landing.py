"""The app's first view: masks of a few photographs under attacks of growing radius, computed once and shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from robviz.attacks import AttackSpec, last_of, predicted, share_equal, spec_steps
from robviz.datasets import load_dataset
from robviz.files.images import png_url
from robviz.files.provenance import versions
from robviz.models import fingerprint, load_model
from robviz.results.records import Records
from robviz.types import Sample

FOLDER = "checkpoints/landing"
#: name in `photos` -> how the page calls it
LANDING_PHOTOS = {
    "chelsea": "cat",
    "motorcycle_right": "motorbike",
    "coffee": "cup of coffee",
    "lion": "lions",
    "astronaut": "astronaut",
}
#: name -> how the page calls it, and the colour of its curve in `style.css`
LANDING_MODELS = {"photos-clean": ("ordinary model", "ordinary"), "photos-robust": ("robust model", "robust")}
EPS_255 = (0, 0.5, 1, 2, 3, 4, 6, 8, 10, 12)
ATTACK = AttackSpec("red-eps-apgd", "mask-ce", steps=50)  # at each of these radii


def attacked_mask(model: nn.Module, sample: Sample, eps: float) -> Tensor:
    """Return the prediction (H, W) int64 after `ATTACK`; eps in [0, 1], where 0 is the picture itself."""
    images, labels = sample.image[None], sample.labels[None]
    if eps == 0:
        return predicted(model, images)[0]
    return last_of(spec_steps(replace(ATTACK, eps=eps), model, images, labels)).predictions[0]


def samples() -> dict[str, Sample]:
    """Return the photographs of the view by name, without those that the installed packages no longer have."""
    found = {sample.name: sample for sample in load_dataset("photos", "photographs")}
    return {name: found[name] for name in LANDING_PHOTOS if name in found}


def compute(folder: Path, resume: bool = True) -> None:
    """Attack every photograph of both models at every radius and store the masks; resumes after an interruption.

    Raises InputError if the folder holds masks of other models, settings or versions, unless resume is False.
    """
    models = {name: load_model(name) for name in LANDING_MODELS}
    fingerprints = {name: fingerprint(model) for name, model in models.items()}
    plan = {**ATTACK.numbers(), "models": fingerprints, "eps": list(EPS_255), "versions": versions()}
    records = Records(folder, plan, resume)
    for sample in samples().values():
        for name, model in models.items():
            key = f"{sample.name}.{name}"
            if records.read(key) is None:
                masks = [attacked_mask(model, sample, eps / 255) for eps in EPS_255]
                accuracy = [share_equal(mask[None], sample.labels[None]).item() for mask in masks]
                strip = np.concatenate([mask.numpy() for mask in masks]).astype(np.uint8)  # one below the other
                records.write(key, {"accuracy": accuracy, "masks": png_url(strip, compress_level=9)})
