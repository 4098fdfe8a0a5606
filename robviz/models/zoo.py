"""Open models by name: those that ship with robviz, those that a user has saved, and the published ones."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from robviz.files.atomic import replacing
from robviz.files.download import Listener
from robviz.files.paths import bundled_path, cache_folder
from robviz.models import hub, published
from robviz.models.architectures import (
    build,
    load_checkpoint,
)
from robviz.models.card import Card, card_of
from robviz.types import InputError

#: The allowed names of models that a user keeps, and how many there may be.
KEPT_NAME, MAX_KEPT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}"), 50


def shipped_models() -> list[str]:
    """Return the names of the checkpoints that are part of the installation.

    Returns:
        The names, sorted.
    """
    return sorted(path.stem for path in bundled_path("checkpoints").glob("*.safetensors"))


def kept_folder() -> Path:
    """Return the folder of the models that a user has saved under a name."""
    return cache_folder() / "models"


def kept_models() -> list[str]:
    """Return the names of the models that this user has saved.

    Returns:
        The names, sorted.
    """
    cards = kept_folder().glob("*.json")
    return sorted(card.stem for card in cards if card.with_suffix(".safetensors").exists() or kept_directory(card.stem))


def kept_directory(name: str | Path) -> Path | None:
    """Return the folder of a saved model that another library wrote, or None if there is none of this name."""
    folder = kept_folder() / str(name)
    return folder if KEPT_NAME.fullmatch(str(name)) and hub.holds_model(folder) else None


def require_free_name(name: str) -> None:
    """Raise InputError unless a model can be saved under this name."""
    if not KEPT_NAME.fullmatch(name):
        raise InputError(f"a name has 1 to 40 lowercase letters, digits and dashes, such as my-model; got {name!r}")
    if name in available():
        raise InputError(f"there is a model named {name!r} already; choose another name")
    if len(kept_models()) >= MAX_KEPT:
        raise InputError(f"{MAX_KEPT} models are kept in {kept_folder()}; delete some of them first")


def keep_model(path: Path, name: str) -> Path:
    """Save a checkpoint and its card under a name that `load_model` opens from then on.

    Args:
        path: A `.safetensors` file with its card beside it.
        name: 1 to 40 lowercase letters, digits and dashes.

    Returns:
        The path of the copy.

    Raises:
        InputError: If the name is taken or not allowed, or if too many models are saved already.
    """
    require_free_name(name)
    target = kept_folder() / f"{name}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(path.read_bytes())
    replace(Card.load(path.with_suffix(".json")), name=name).save(target.with_suffix(".json"))
    return target


def added_folder() -> Path:
    """Return the folder with the cards of other libraries' models that this user has added."""
    return cache_folder() / "added"


def added_models() -> list[str]:
    """Return the names of other libraries' models that this user has added."""
    return sorted(Card.load(path).name for path in added_folder().glob("*.json"))


def card_path(name: str) -> Path:
    """Return the path of the card of an added model."""
    return added_folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def add_model(name: str, listener: Listener = hub.silent) -> Card:
    """Download another library's model, try it on a random picture, and list it in `available` from then on.

    Args:
        name: With its prefix, such as `hf/<owner>/<name>`.
        listener: Called with the bytes received so far and, if known, those of the file.

    Returns:
        Its card.

    Raises:
        InputError: For an unknown name, or a model that cannot be attacked.
    """
    card = card_of(hub.load(name, listener))
    added_folder().mkdir(parents=True, exist_ok=True)
    card.save(card_path(name))
    return card


def remove_model(name: str) -> None:
    """Remove an added model from `available`; its files stay in the cache of its library.

    Args:
        name: The name of the model.
    """
    card_path(name).unlink(missing_ok=True)


def available(offline: bool = False) -> list[str]:
    """Return the names that `load_model` opens: shipped, saved or added by this user, and published.

    Args:
        offline: Leave out the models that would have to be downloaded.

    Returns:
        The names.
    """
    here = (name for name in published.CHECKPOINTS if not offline or published.is_here(name))
    added = (name for name in added_models() if not offline or hub.is_here(name))
    return [*shipped_models(), *kept_models(), *here, *added]


def save_checkpoint(model: nn.Module, card: Card, folder: Path) -> Path:
    """Write `<name>.safetensors`, floats as float16, and its card `<name>.json`, each whole or not at all.

    Args:
        model: The model.
        card: Its card, which gives the name.
        folder: Where to write.

    Returns:
        The path of the weights.

    Raises:
        OSError: If the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card.name}.safetensors"
    halved: dict[str, Tensor] = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    with replacing(path) as file:
        file.write(save(halved))
    card.save(path.with_suffix(".json"))
    return path


def weights_path(name: str | Path) -> Path:
    """Return the path of a model's weights that need no download; raises InputError for an unknown name."""
    folder = kept_folder() if name in kept_models() else bundled_path("checkpoints")
    path = Path(name) if str(name).endswith(".safetensors") else folder / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(
            f"unknown model {str(name)!r}; choose from: {', '.join(available())}; or give a .safetensors path, "
            f"a folder that another library saved, or a name such as {hub.examples()}"
        )
    return path


def is_elsewhere(name: str | Path) -> bool:
    """Return True if a name belongs to another library's model, by its prefix or as a folder that it saved."""
    return hub.library_of(str(name)) is not None or hub.holds_model(kept_directory(name) or Path(name))


def load_elsewhere(name: str | Path) -> nn.Module:
    """Open another library's model, by its name or its folder."""
    if folder := kept_directory(name):
        model = hub.load_folder(folder)
        model.card = card_named(name)  # type: ignore[assignment]
        return model
    return hub.load_folder(Path(name)) if hub.holds_model(Path(name)) else hub.load(str(name))


def card_named(name: str | Path) -> Card:
    """Return the card of a model by its name, opening the model only if another library made it and it was not added.

    Args:
        name: As for `load_model`.

    Returns:
        The card.

    Raises:
        InputError: For an unknown name.
    """
    if name in published.CHECKPOINTS:
        return published.card(str(name))
    if folder := kept_directory(name):
        return Card.load(folder.with_suffix(".json"))
    if is_elsewhere(name):
        path = card_path(str(name))
        return Card.load(path) if path.exists() else card_of(load_elsewhere(name))
    return Card.load(weights_path(name).with_suffix(".json"))


def load_model(name: str | Path, device: str | torch.device | None = None) -> nn.Module:
    """Open a trained model, frozen and in eval mode, with its `Card` as `.card`.

    Args:
        name: One of `available()`; or the path of a `.safetensors` file with its card beside it, as `finetune` writes
            them; or another library's model: `torchvision/deeplabv3_resnet50` and the like, `hf/<owner>/<name>` or
            `smp/<owner>/<name>` from the Hugging Face hub, or a folder that transformers or segmentation_models_pytorch
            saved. Published models and those of other libraries are downloaded on first use.
        device: Where to put it; by default the CPU.

    Returns:
        A module from images (B, 3, H, W) float RGB in [0, 1] to logits (B, K, H, W).

    Raises:
        InputError: For an unknown name, a damaged file, a missing library, or a failed download.
    """
    if is_elsewhere(name):
        return load_elsewhere(name).to(device or "cpu")
    path = published.download(str(name)) if name in published.CHECKPOINTS else weights_path(name)
    card = card_named(name)
    model = build(card.architecture, len(card.classes))
    load_checkpoint(model, path)
    model.card = card  # type: ignore[assignment]
    return model.eval().requires_grad_(False).to(device or "cpu")
