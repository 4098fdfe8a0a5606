"""PSPNet: a dilated ResNet-50 and pyramid pooling (Zhao et al., 2017), as in the paper's PSPNets."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from robviz.models.layers import ConvNormAct, resize

STRIDE = 8
_AFTER_THE_STEM = (
    (r"^layer(\d)\.", r"backbone.layer\1."),
    (r"^ppm\.features\.(\d)\.1\.", r"pools.\1.0."),
    (r"^ppm\.features\.(\d)\.2\.", r"pools.\1.1."),
    (r"^(cls|aux)\.([01])\.", r"\1.0.\2."),
    (r"^(cls|aux)\.4\.", r"\1.2."),
    (r"^cls\.", "head."),
    (r"^aux\.", "auxiliary."),
)
#: From the keys of the published checkpoints to ours: each pattern that matches applies, in turn.
PUBLISHED_KEYS = ((r"^layer0\.0\.", "backbone.conv1."), (r"^layer0\.1\.", "backbone.bn1."), *_AFTER_THE_STEM)
PUBLISHED_DEEPSTEM_KEYS = ((r"^layer0\.7\.", "backbone.bn1."), (r"^layer0\.", "backbone.conv1."), *_AFTER_THE_STEM)


#: Resizing leaves the corner pixels where they are, unlike in the other architectures.
ALIGN_CORNERS = True


def classifier(inputs: int, channels: int, num_classes: int) -> nn.Sequential:
    """Build the layers from features to logits."""
    return nn.Sequential(ConvNormAct(inputs, channels, 3), nn.Dropout2d(0.1), nn.Conv2d(channels, num_classes, 1))


class PSPNet(nn.Module):
    """Map images (B, 3, H, W) in [0, 1], not normalised, to logits (B, K, H, W), for any H and W.

    In training mode it returns (logits, auxiliary logits), both at the size of the input.
    """

    POOL_SCALES = (1, 2, 3, 6)

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        """Build the head. backbone: from images to features of 1024 and of 2048 channels, both at 1/8."""
        super().__init__()
        self.backbone = backbone
        self.pools = nn.ModuleList(ConvNormAct(2048, 512, 1) for _ in self.POOL_SCALES)
        self.head = classifier(2048 + len(self.POOL_SCALES) * 512, 512, num_classes)
        self.auxiliary = classifier(1024, 256, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, K, H, W) for images in [0, 1]; in training mode, with those of the auxiliary head."""
        height, width = images.shape[2:]
        # Features sit on every eighth pixel from the first; with one on the last, the grids meet in the corners.
        padded = F.pad(images, (0, (1 - width) % STRIDE, 0, (1 - height) % STRIDE))
        middle, coarsest = self.backbone(padded)
        pooled = [conv(F.adaptive_avg_pool2d(coarsest, scale)) for scale, conv in zip(self.POOL_SCALES, self.pools)]
        conv, dropout, to_logits = self.head
        assert isinstance(conv, ConvNormAct)
        logits = to_logits(dropout(conv.over([coarsest, *pooled], ALIGN_CORNERS)))
        logits = resize(logits, padded.shape[2:], ALIGN_CORNERS)[:, :, :height, :width]
        if not self.training:
            return logits
        auxiliary = resize(self.auxiliary(middle), padded.shape[2:], ALIGN_CORNERS)
        return logits, auxiliary[:, :, :height, :width]


def resnet50(timm_name: str, num_classes: int) -> PSPNet:
    """Build a PSPNet with 49 M parameters. timm_name: resnet50, or resnet50s for the stem of three convolutions."""
    import timm

    backbone: Any = timm.create_model(timm_name, features_only=True, out_indices=(3, 4), output_stride=STRIDE)
    # The published models dilate every block of a stage; timm gives the first block the dilation of the stage before.
    for stage, dilation in ((backbone.layer3, 2), (backbone.layer4, 4)):
        stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
    return PSPNet(backbone, num_classes)
