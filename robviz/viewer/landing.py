"""The payload of the app's first view: shipped masks over the installed photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robviz.files.images import jpeg_url, to_bytes
from robviz.files.paths import bundled_path
from robviz.interactive.landing import FOLDER, LANDING_MODELS, LANDING_PHOTOS, samples
from robviz.models import Card
from robviz.results.records import Records
from robviz.types import InputError
from robviz.viewer.payloads import LandingData, LandingModel, LandingPhoto


def how_made(plan: dict[str, Any]) -> str:
    """Say in one paragraph how these masks were computed."""
    models = ", ".join(f"{name} ({digest[:8]})" for name, digest in plan["models"].items())
    return (
        "These masks are precomputed, each by an attack of its own on the picture: "
        f"{plan['attack']} on {plan['loss']}, {plan['steps']} steps, seed {plan['seed']}, in float precision, "
        f"with robviz {plan['versions']['robviz']} and torch {plan['versions']['torch']} on {models}. Between two of "
        "the dots the masks fade into each other. Pixels are right when they agree with the drawn label mask. "
        "The other views attack any picture live."
    )


def shipped_cell(folder: Path, plan: dict[str, Any], key: str) -> dict[str, Any]:
    """Return masks and accuracy of one photograph and model; raises InputError if they are missing."""
    cell = Records(folder, plan).read(key)
    if cell is None:
        raise InputError(f"{folder} holds no masks of {key}; compute them with `robviz landing`")
    return cell


def landing_data() -> LandingData:
    """Return the payload of `landing`, ready for JSON: the shipped masks over the installed photographs."""
    folder = bundled_path(FOLDER)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    card = Card.load(bundled_path("checkpoints") / f"{next(iter(LANDING_MODELS))}.json")
    photos: list[LandingPhoto] = []
    for sample in samples().values():
        cells = {name: shipped_cell(folder, plan, f"{sample.name}.{name}") for name in LANDING_MODELS}
        photos.append(
            {
                "name": sample.name,
                "title": LANDING_PHOTOS[sample.name],
                "image": jpeg_url(to_bytes(sample.image), quality=92),  # enough under the masks
                "masks": {name: cell["masks"] for name, cell in cells.items()},
                "accuracy": {name: cell["accuracy"] for name, cell in cells.items()},
            }
        )
    models: list[LandingModel] = [
        {"name": name, "title": title, "accent": accent} for name, (title, accent) in LANDING_MODELS.items()
    ]
    return {
        "photos": photos,
        "models": models,
        "eps": plan["eps"],
        "classes": list(card.classes),
        "palette": [list(colour) for colour in card.palette],
        "made": how_made(plan),
    }
