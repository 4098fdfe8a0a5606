"""Keep a model of one's own under a name: a file of weights, or a folder that another library saved.

Only tensors and settings are read and kept. Code, in a pickle or beside the weights, is never executed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from robviz.files.atomic import replacing
from robviz.models import hub
from robviz.models.adapters import generated_palette
from robviz.models.answers import answer_of, logits_of
from robviz.models.architectures import ARCHITECTURES, architectures_of, build, load_checkpoint
from robviz.models.card import Card, card_of
from robviz.models.checkpoints import state_of
from robviz.models.pipeline import KNOWN, Meaning
from robviz.models.zoo import kept_folder, require_free_name
from robviz.types import Dataset, InputError

__all__ = ["MEANINGS", "keep_own", "name_for", "open_own"]

#: The endings of files of weights.
SUFFIXES = (".safetensors", ".pt", ".pth")
#: What a folder of another library needs besides its weights.
SETTINGS = ("config.json", "preprocessor_config.json")
TRIED = 64  # pixels, the side of the picture that a model is tried on


def photos() -> Dataset:
    """Return the photographs that ship with robviz."""
    from robviz.datasets import load_dataset

    return load_dataset("photos")


#: What the classes of weights without a card may mean: name -> dataset.
MEANINGS: dict[str, Callable[[], Dataset]] = {
    "photos": photos,
    **{name: partial(Meaning, name) for name in KNOWN},
}


def name_for(path: str | Path) -> str:
    """Suggest a name for the model in a file or folder.

    Args:
        path: The file or folder.

    Returns:
        Its own name in lowercase letters, digits and dashes.
    """
    path = Path(path)
    stem = path.stem if path.suffix in SUFFIXES else path.name
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "my-model"


def open_own(path: str | Path, card: Path | None = None, meaning: str | None = None) -> nn.Module:
    """Open a model from a file or folder, and try it on a random picture.

    Args:
        path: A `.safetensors`, `.pt` or `.pth` file with the weights of one of our architectures, or a folder that
            transformers or segmentation_models_pytorch saved.
        card: The card of the weights; by default, the `.json` beside them if there is one.
        meaning: What the classes of weights without a card are, a key of `MEANINGS`; None to number them.

    Returns:
        The model, frozen and in eval mode, with a card.

    Raises:
        InputError: If it is neither, if the card belongs to other weights, or if the file holds more than tensors.
    """
    path = Path(path)
    if path.is_dir():
        if not hub.holds_model(path):
            raise InputError(
                f"{path} has no config.json: expected a folder that save_pretrained of transformers or "
                "segmentation_models_pytorch wrote, or a file of weights"
            )
        return hub.load_folder(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"a file of weights ends in {', '.join(SUFFIXES)}; got {path.name}, which is not read")
    if not path.is_file():
        raise InputError(f"there is no file or folder {path}; check the path")
    beside = path.with_suffix(".json")
    card = card or (beside if beside.is_file() else None)
    described = Card.load(card) if card else written_card(path, meaning)
    check_card(described)
    model = load_checkpoint(build(described.architecture, len(described.classes)), path)
    model.card = described  # type: ignore[assignment]
    model.eval().requires_grad_(False)
    require_finite(model)
    return model


def written_card(path: Path, meaning: str | None) -> Card:
    """Write a card for weights that have none: the architecture and the number of classes follow from the tensors."""
    fitting = architectures_of(state_of(path))
    if not fitting:
        raise InputError(
            f"{path.name} fits none of {', '.join(ARCHITECTURES)}; save the model with save_pretrained of its library "
            "and give the folder, or open it in Python with robviz.models.adapt"
        )
    architecture, number = next(iter(fitting.items()))
    if meaning is None:
        classes, palette = tuple(f"class {k}" for k in range(number)), generated_palette(number)
    elif meaning not in MEANINGS:
        raise InputError(f"the classes must be those of {', '.join(MEANINGS)}, or numbered; got {str(meaning)[:40]!r}")
    else:
        dataset = MEANINGS[meaning]()
        classes, palette = dataset.classes, dataset.palette
    if len(classes) != number:
        raise InputError(f"{path.name} has {number} classes, {meaning} has {len(classes)}; choose numbered classes")
    return Card(name_for(path), architecture, meaning or "", classes, palette, f"the file {path.name}")


@torch.no_grad()
def require_finite(model: nn.Module) -> None:
    """Raise InputError if a model returns NaN or infinity for a random picture."""
    picture = torch.rand(1, 3, TRIED, TRIED, generator=torch.Generator().manual_seed(0))
    if not logits_of(answer_of(model, picture), picture).isfinite().all():
        raise InputError("the model returned NaN or infinite logits for a random picture; check its weights")


def check_card(card: Card) -> None:
    """Raise InputError unless the parts of a card of unknown origin fit each other."""
    texts = (card.name, card.architecture, card.dataset, card.source, *card.classes)
    if not all(isinstance(text, str) for text in texts) or not 2 <= len(card.classes) <= 1000:
        raise InputError("a card has texts as its name, architecture, dataset and source, and 2 to 1000 class names")
    levels = [value for colour in card.palette for value in colour]
    if [len(colour) for colour in card.palette] != [3] * len(card.classes) or not all(
        isinstance(value, int) and 0 <= value <= 255 for value in levels
    ):
        raise InputError(f"a palette has three levels of 0 .. 255 for each of the {len(card.classes)} classes")
    if card.dataset in MEANINGS and card.classes != MEANINGS[card.dataset]().classes:
        raise InputError(f"the card names {card.dataset}, whose classes are others; write another dataset on it")


def keep_own(model: nn.Module, path: str | Path, name: str) -> Card:
    """Keep a model that `open_own` opened, under a name that `load_model` opens from then on.

    Args:
        model: The model, with its card.
        path: Where it was opened from; of a folder, settings and weights are copied and nothing else.
        name: 1 to 40 lowercase letters, digits and dashes.

    Returns:
        Its card, under the new name.

    Raises:
        InputError: If the name is taken or not allowed, or if too many models are kept.
    """
    require_free_name(name)
    card, target, path = replace(card_of(model), name=name), kept_folder() / name, Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        copy_folder(path, target)
    else:
        with replacing(target.with_suffix(".safetensors")) as file:
            file.write(save({key: value.contiguous() for key, value in model.state_dict().items()}))
    card.save(target.with_suffix(".json"))
    return card


def copy_folder(source: Path, target: Path) -> None:
    """Copy the settings and the weights of a model, whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for file in files_of(source):
            shutil.copyfile(source / file, part / file)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def files_of(folder: Path) -> list[str]:
    """List the files of a model in a folder: settings and weights, which may come in several parts."""
    weights = next((name for name in hub.WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(f"{folder} has no weights that robviz can open; expected one of {', '.join(hub.WEIGHTS)}")
    parts: list[str] = []
    if weights.endswith(".json"):
        named = json.loads((folder / weights).read_text(encoding="utf-8"))["weight_map"].values()
        parts = sorted({Path(name).name for name in named})
    return [*(name for name in SETTINGS if (folder / name).is_file()), weights, *parts]
