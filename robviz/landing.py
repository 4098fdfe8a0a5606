"""The app's first view: masks of a few photographs under attacks of growing radius, computed once and shipped."""

from __future__ import annotations

import base64
import io
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import attack_steps, predicted, share_equal
from robviz.datasets import load_dataset
from robviz.models import Card, fingerprint, load_model
from robviz.pictures import to_bytes
from robviz.records import Records
from robviz.report import versions
from robviz.shipped import shipped
from robviz.types import Sample
from robviz.viewer import picture

FOLDER = "checkpoints/landing"
#: name in `photos` -> how the page calls it
PHOTOS = {
    "chelsea": "cat",
    "motorcycle_right": "motorbike",
    "coffee": "cup of coffee",
    "lion": "lions",
    "astronaut": "astronaut",
}
#: name -> how the page calls it, and the colour of its curve in `style.css`
MODELS = {"photos-clean": ("ordinary model", "ordinary"), "photos-robust": ("robust model", "robust")}
EPS = (0, 0.5, 1, 2, 3, 4, 6, 8, 10, 12)  # in 1/255
ATTACK = {"attack": "red-eps-apgd", "loss": "mask-ce", "steps": 50, "seed": 0}


def attacked_mask(model: nn.Module, sample: Sample, eps: float) -> Tensor:
    """(H, W) int64: what the model sees once `ATTACK` is done. eps in [0, 1]; 0 is the picture itself."""
    images, labels = sample.image[None], sample.labels[None]
    if eps == 0:
        return predicted(model, images)[0]
    steps = attack_steps(model=model, images=images, labels=labels, eps=eps, **ATTACK)  # type: ignore[arg-type]
    return deque(steps, maxlen=1).pop().predictions[0]


def samples() -> dict[str, Sample]:
    """The photographs of the view, by name; those that the installed packages no longer carry are left out."""
    found = {sample.name: sample for sample in load_dataset("photos", "photographs")}
    return {name: found[name] for name in PHOTOS if name in found}


def compute(folder: Path, resume: bool = True) -> None:
    """Attack every photograph of both models at every radius and keep the masks; goes on where it was stopped.

    Raises ValueError where the folder holds masks of other models, settings or versions, unless resume is False.
    """
    models = {name: load_model(name) for name in MODELS}
    fingerprints = {name: fingerprint(model) for name, model in models.items()}
    records = Records(folder, {"models": fingerprints, "eps": list(EPS), **ATTACK, "versions": versions()}, resume)
    for sample in samples().values():
        for name, model in models.items():
            key = f"{sample.name}.{name}"
            if records.read(key) is None:
                masks = [attacked_mask(model, sample, eps / 255) for eps in EPS]
                accuracy = [share_equal(mask[None], sample.labels[None]).item() for mask in masks]
                strip = np.concatenate([mask.numpy() for mask in masks]).astype(np.uint8)  # one below the other
                records.write(key, {"accuracy": accuracy, "masks": picture(strip, compress_level=9)})


def photograph(image: Tensor) -> str:
    """(3, H, W) in [0, 1] as a data URL. JPEG: here it is only looked at, under the masks."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def how_made(plan: dict[str, Any]) -> str:
    """One paragraph for the page: with what these masks were computed."""
    models = ", ".join(f"{name} ({digest[:8]})" for name, digest in plan["models"].items())
    return (
        "These masks are precomputed, each by an attack of its own on the picture: "
        f"{plan['attack']} on {plan['loss']}, {plan['steps']} steps, seed {plan['seed']}, in float precision, "
        f"with robviz {plan['versions']['robviz']} and torch {plan['versions']['torch']} on {models}. Between two of "
        "the dots the masks fade into each other. Pixels are right when they agree with the drawn label mask. "
        "Attack any picture yourself below."
    )


def shipped_cell(folder: Path, plan: dict[str, Any], key: str) -> dict[str, Any]:
    """Masks and accuracy of one photograph and model. Raises ValueError where they are missing."""
    cell = Records(folder, plan).read(key)
    if cell is None:
        raise ValueError(f"{folder} holds no masks of {key}; compute them with `robviz landing`")
    return cell


def landing_data() -> dict[str, Any]:
    """What `landing` in `landing.js` shows, ready for JSON: the shipped masks over the installed photographs."""
    folder = shipped(FOLDER)
    plan = json.loads((folder / "plan.json").read_text())
    card = Card.load(shipped("checkpoints") / f"{next(iter(MODELS))}.json")
    photos = []
    for sample in samples().values():
        cells = {name: shipped_cell(folder, plan, f"{sample.name}.{name}") for name in MODELS}
        photos.append(
            {
                "title": PHOTOS[sample.name],
                "image": photograph(sample.image),
                "masks": {name: cell["masks"] for name, cell in cells.items()},
                "accuracy": {name: cell["accuracy"] for name, cell in cells.items()},
            }
        )
    models = [{"name": name, "title": title, "accent": accent} for name, (title, accent) in MODELS.items()]
    return {
        "photos": photos,
        "models": models,
        "eps": plan["eps"],
        "classes": card.classes,
        "palette": card.palette,
        "made": how_made(plan),
    }
