"""Models of segmentation_models_pytorch, from the Hugging Face hub or a folder."""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from robviz.models.adapters import chosen_output
from robviz.models.pipeline import HOLDS_CODE, Pipeline, Preparation, carded
from robviz.types import InputError

#: Every encoder of the library accepts sides that are multiples of this.
MULTIPLE_OF = 32


def two_classes(answer: Any) -> Tensor:
    """Return logits (B, 2, h, w) of a module that returns a single one, for the foreground."""
    foreground = chosen_output(answer, None)
    return torch.cat([torch.zeros_like(foreground), foreground], 1)


def logits_of(answer: Any) -> Tensor:
    """Return the logits without the label that a classification head may add."""
    result: Tensor = chosen_output(answer[0] if isinstance(answer, tuple) else answer, None)
    return result


def preparation_of(encoder: str, weights: str | None) -> Preparation:
    """Return the normalisation that an encoder was trained with, or none if it was not pretrained."""
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    if weights is None:
        return Preparation((0.0,) * 3, (1.0,) * 3, padded_to=MULTIPLE_OF)
    try:
        found = get_preprocessing_params(encoder, weights)
    except (KeyError, ValueError) as error:
        raise InputError(f"segmentation_models_pytorch has no weights {weights!r} of {encoder!r}: {error}") from error
    scale = found["input_range"][1] if found.get("input_range") else 1
    mean, std = found["mean"] or (0.0,) * 3, found["std"] or (1.0,) * 3
    return Preparation(
        tuple(value / scale for value in mean),
        tuple(value / scale for value in std),
        padded_to=MULTIPLE_OF,
        is_bgr=found.get("input_space") == "BGR",
    )


def load(folder: Path, name: str, source: str) -> nn.Module:
    """Open the model in a folder, with a card. The library stores no class names, so classes are numbered.

    Raises InputError if the folder contains no model.
    """
    import segmentation_models_pytorch as smp

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds: dict[str, Any] = {
        kind.__name__: kind for kind in vars(smp).values() if isinstance(kind, type) and kind is not nn.Module
    }
    kind = kinds.get(str(config.get("_model_class")))
    if kind is None or not issubclass(kind, smp.base.SegmentationModel):
        raise InputError(
            f"{name} is a {config.get('_model_class')!r}, which the installed segmentation_models_pytorch "
            "does not have; is there a newer one?"
        )
    try:
        # The weights are in the folder: the encoder's own need not be fetched first.
        module = kind.from_pretrained(folder, encoder_weights=None, strict=True)
    except UnpicklingError as error:
        raise InputError(f"segmentation_models_pytorch cannot open {name}: {HOLDS_CODE}") from error
    except (OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"segmentation_models_pytorch cannot open {name}: {said}") from error
    module.segmentation_head[-1] = nn.Identity()  # logits, whatever activation the model ends with
    number = int(config.get("classes", 1))
    classes = ("background", "foreground") if number == 1 else tuple(f"class {k}" for k in range(number))
    preparation = preparation_of(config["encoder_name"], config.get("encoder_weights"))
    pipeline = Pipeline(module, preparation, two_classes if number == 1 else logits_of)
    return carded(pipeline, classes, name, source)
