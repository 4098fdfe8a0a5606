"""Models of the transformers library, from the Hugging Face hub or a folder, with their image processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.models.pipeline import HOLDS_CODE, Pipeline, Preparation, Scores, Sides, carded, logarithm
from robviz.types import InputError

#: How Pillow numbers its filters, and torch's names of those it has.
FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def mask_scores(answer: Any, mask_size: tuple[int, int] | None) -> Tensor:
    """Return (B, K, h, w) scores of a model that predicts masks and their classes, added up as transformers does.

    The class that stands for no object is left out. mask_size: the size that masks are resized to first.
    """
    masks = answer.masks_queries_logits
    if mask_size is not None:
        masks = F.interpolate(masks, mask_size, mode="bilinear", align_corners=False)
    classes = answer.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


#: Models that return masks, and how their scores are computed.
MASK_MODELS: dict[str, Scores] = {
    "mask2former": partial(mask_scores, mask_size=(384, 384)),
    "maskformer": partial(mask_scores, mask_size=None),
}


def pixel_logits(answer: Any) -> Tensor:
    """Return the logits of a model that predicts each pixel."""
    result: Tensor = answer.logits
    return result


def opened(what: str, open_it: Callable[[], Any]) -> Any:
    """Open a part with the library, and turn its errors into one sentence that names the part."""
    try:
        return open_it()
    except UnpicklingError as error:
        raise InputError(f"transformers cannot open {what}: {HOLDS_CODE}") from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"transformers cannot open {what}: {said}") from error


def sides_of(processor: Any) -> Sides:
    """Return the size that a processor scales pictures to."""
    if not getattr(processor, "do_resize", False):
        return Sides()
    size = processor.size
    given: Mapping[str, Any] = size if isinstance(size, Mapping) else vars(size)
    divisor = getattr(processor, "size_divisor", None) or 1
    return Sides(
        given.get("shortest_edge"), given.get("longest_edge"), given.get("height"), given.get("width"), divisor
    )


def preparation_of(processor: Any) -> Preparation:
    """Return the preprocessing that a processor's settings describe, for pictures in [0, 1] instead of 0 .. 255."""
    scale = 255 * (processor.rescale_factor if getattr(processor, "do_rescale", True) else 1)
    normalises = getattr(processor, "do_normalize", False) and processor.image_mean is not None
    mean, std = (processor.image_mean, processor.image_std) if normalises else ((0.0,) * 3, (1.0,) * 3)
    resample = int(getattr(processor, "resample", None) or 2)
    if resample not in FILTERS:
        raise InputError(f"the image processor scales by Pillow's filter {resample}; robviz has {FILTERS}")
    return Preparation(
        mean=tuple(value / scale for value in mean),
        std=tuple(value / scale for value in std),
        sides=sides_of(processor),
        mode=FILTERS[resample],
        is_bgr=bool(getattr(processor, "do_flip_channel_order", False)),
    )


def require_same(pipeline: Pipeline, processor: Any, name: str) -> None:
    """Raise InputError unless the pipeline preprocesses a picture as the processor does, up to rounding."""
    coarse = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    levels = (255 * F.interpolate(coarse, (96, 80), mode="bilinear")).round()
    theirs = processor(images=[levels[0].permute(1, 2, 0).byte().numpy().astype(np.uint8)], return_tensors="pt")
    wanted, ours = theirs["pixel_values"], pipeline.prepared(levels / 255)
    # Half a level of rounding in each of the two, in units of the standard deviation.
    allowed = (1 / 255 / pipeline.std).max().item()
    if wanted.shape != ours.shape or (wanted - ours).abs().mean().item() > allowed:
        raise InputError(
            f"the image processor of {name}, {type(processor).__name__}, does more than scale and normalise; "
            "open the model yourself and give it to robviz.models.adapt"
        )


def load(folder: Path, name: str, source: str) -> nn.Module:
    """Open the model in a folder, its image processor inside, with a card. No code in the folder is executed.

    Raises InputError if the folder contains no semantic segmentation model, or no image processor.
    """
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

    safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if not (folder / "preprocessor_config.json").is_file():
        raise InputError(
            f"{name} has no preprocessor_config.json, so its mean, std and size are unknown; "
            "open the model yourself and give it to robviz.models.adapt"
        )
    config = opened(name, lambda: AutoConfig.from_pretrained(folder, **safely))
    is_mask_model = config.model_type in MASK_MODELS
    kind = AutoModelForUniversalSegmentation if is_mask_model else AutoModelForSemanticSegmentation
    module = opened(name, lambda: kind.from_pretrained(folder, dtype=torch.float32, **safely))
    processor = opened(name, lambda: AutoImageProcessor.from_pretrained(folder, **safely))
    classes = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if is_mask_model:
        pipeline = Pipeline(module, preparation_of(processor), MASK_MODELS[config.model_type], logarithm)
    else:
        pipeline = Pipeline(module, preparation_of(processor), pixel_logits)
    require_same(pipeline, processor, name)
    return carded(pipeline, classes, name, source)
