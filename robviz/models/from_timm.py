"""Build our UPerNet on timm's backbones: `upernet/<name>`, such as `upernet/resnet18`."""

from __future__ import annotations

from functools import partial
from typing import Any

from robviz.models.upernet import UPerNet
from robviz.types import InputError

PREFIX = "upernet/"
#: Channels of the decoder and of the auxiliary head: between the small models and the published ones.
CHANNELS, AUXILIARY_CHANNELS = 128, 64
LEVELS = 4


def pyramid(name: str, is_pretrained: bool = False) -> Any:
    """Build a backbone of timm that returns its four coarsest levels; raises InputError if it has none."""
    import timm

    if name not in timm.list_models():
        near = timm.list_models(f"*{name.split('.')[0][:8]}*")[:5]
        hint = f"; there are {', '.join(near)}" if near else ""
        raise InputError(f"timm has no backbone {name!r}{hint}")
    try:
        backbone: Any = timm.create_model(name, pretrained=is_pretrained, features_only=True)
        reductions = backbone.feature_info.reduction()
        if len(reductions) > LEVELS:
            indices = tuple(range(len(reductions) - LEVELS, len(reductions)))
            backbone = timm.create_model(name, pretrained=is_pretrained, features_only=True, out_indices=indices)
            reductions = backbone.feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError, ValueError) as error:
        raise InputError(f"timm's {name} yields no features at several resolutions: {error}") from error
    is_channels_first = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NCHW")
    if reductions != sorted(set(reductions)) or len(reductions) != LEVELS or not is_channels_first:
        raise InputError(
            f"timm's {name} does not yield four levels of features (B, C, H, W), each coarser than the last; "
            "choose a convolutional one, such as resnet18"
        )
    return backbone


def upernet_on(name: str, num_classes: int) -> UPerNet:
    """Build a UPerNet on one of timm's backbones with fresh weights and the backbone's normalisation."""
    import timm

    backbone = pyramid(name)
    colours = timm.get_pretrained_cfg(name)
    mean, std = (colours.mean, colours.std) if colours else ((0.5,) * 3, (0.5,) * 3)
    dims = tuple(backbone.feature_info.channels())
    return UPerNet(backbone, dims, CHANNELS, AUXILIARY_CHANNELS, num_classes, mean, std)


def load_imagenet(name: str, model: UPerNet) -> None:
    """Fill the backbone with timm's own weights, which timm downloads. Raises InputError if it has none."""
    try:
        state = pyramid(name, is_pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"timm cannot fetch the weights of {name}: {said}") from error
    model.backbone.load_state_dict(state)


def parts(architecture: str) -> tuple[partial[UPerNet], partial[None]] | None:
    """Return the functions that build `upernet/<name>` and fill its backbone, or None for any other architecture."""
    if not architecture.startswith(PREFIX):
        return None
    name = architecture.removeprefix(PREFIX)
    return partial(upernet_on, name), partial(load_imagenet, name)
