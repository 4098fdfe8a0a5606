"""UPerNet: the paper's family with a ConvNeXt backbone and a convolution stem (section 4, Table 5), and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.models.checkpoints import State, renamed, without_normalisation
from robviz.models.layers import ConvNormAct, resize
from robviz.types import InputError


@dataclass(frozen=True)
class ConvNeXtSizes:
    """Store the sizes that distinguish the members of the family."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    channels: int  # of the decoder
    auxiliary_channels: int
    layer_scale: float = 1e-6  # initial value; large ones learn faster in short trainings
    drop_path: float = 0.0
    normalises: bool = True  # by ImageNet's mean and deviation; the published models take [0, 1] directly


#: 2.6 M parameters: can be trained on a CPU.
SMALL = ConvNeXtSizes((2, 2, 6, 2), (32, 64, 128, 256), channels=48, auxiliary_channels=32, layer_scale=0.1)
#: The paper's two sizes (Table 5), 60 M and 82 M parameters.
TINY_512 = ConvNeXtSizes((3, 3, 9, 3), (96, 192, 384, 768), channels=512, auxiliary_channels=256, normalises=False)
SMALL_512 = ConvNeXtSizes((3, 3, 27, 3), (96, 192, 384, 768), channels=512, auxiliary_channels=256, normalises=False)
#: From the keys of the published checkpoints to ours: each pattern that matches applies, in turn.
PUBLISHED_KEYS = (
    (r"^backbone\.downsample_layers\.0\.stem\.", "backbone.stem."),
    (r"^backbone\.downsample_layers\.(\d)\.", r"backbone.stages.\1.downsample."),
    (r"^backbone\.stages\.(\d)\.(\d+)\.", r"backbone.stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^backbone\.norm(\d)\.", r"backbone.norms.\1."),
    (r"^decode_head\.psp_modules\.(\d)\.1\.", r"head.pools.\1."),
    (r"^decode_head\.lateral_convs\.", "head.laterals."),
    (r"^decode_head\.fpn_convs\.", "head.smooth."),
    (r"^decode_head\.fpn_bottleneck\.", "head.fuse."),
    (r"^decode_head\.", "head."),
    (r"^auxiliary_head\.convs\.", "auxiliary."),
    (r"^auxiliary_head\.classifier\.", "auxiliary.1."),
    (r"^(head|auxiliary)\.(.*)\bconv\.", r"\1.\g<2>0."),
    (r"\bbatch_norm\.", "1."),
)
#: From the keys of the published ImageNet classifiers.
IMAGENET_KEYS = (
    (r"^base_model\.head\..*", ""),
    (r"^base_model\.stem\.stem\.", "backbone.stem."),
    (r"^base_model\.", "backbone."),
)


class ConvStem(nn.Sequential):
    """Apply two strided 3x3 convolutions instead of ConvNeXt's 4x4 patches, which is more robust (paper, Table 5)."""

    def __init__(self, dim: int) -> None:
        from timm.layers import LayerNorm2d  # type: ignore[attr-defined]

        super().__init__(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            LayerNorm2d(dim // 2),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            LayerNorm2d(dim),
            nn.GELU(),
        )


class ConvNeXtPyramid(nn.Module):
    """Run timm's ConvNeXt stages behind the convolution stem; returns features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, sizes: ConvNeXtSizes) -> None:
        from timm.layers import LayerNorm2d  # type: ignore[attr-defined]
        from timm.models.convnext import ConvNeXt

        super().__init__()
        net = ConvNeXt(
            depths=sizes.depths,
            dims=sizes.dims,
            num_classes=0,
            drop_path_rate=sizes.drop_path,
            ls_init_value=sizes.layer_scale,
        )
        self.stem = ConvStem(sizes.dims[0])
        self.stages = net.stages
        self.norms = nn.ModuleList(LayerNorm2d(dim) for dim in sizes.dims)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the normalised features of the four stages, finest first."""
        x = self.stem(x)
        features = []
        for stage, norm in zip(self.stages, self.norms):
            x = stage(x)
            features.append(norm(x))
        return features


class UPerNetHead(nn.Module):
    """Pool the coarsest features, then build a feature pyramid down to 1/4 (Xiao et al., 2018)."""

    POOL_SCALES = (1, 2, 3, 6)

    def __init__(self, dims: tuple[int, ...], channels: int, num_classes: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(ConvNormAct(dims[-1], channels, 1) for _ in self.POOL_SCALES)
        self.bottleneck = ConvNormAct(dims[-1] + len(self.POOL_SCALES) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvNormAct(dim, channels, 1) for dim in dims[:-1])
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in dims[:-1])
        self.fuse = ConvNormAct(len(dims) * channels, channels, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K, H / 4, W / 4) from the features of the four stages, finest first."""
        coarsest = features[-1]
        pooled = [conv(F.adaptive_avg_pool2d(coarsest, scale)) for scale, conv in zip(self.POOL_SCALES, self.pools)]
        levels = [lateral(x) for lateral, x in zip(self.laterals, features)]
        levels.append(self.bottleneck.over([coarsest, *pooled]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        levels = [conv(x) for conv, x in zip(self.smooth, levels)] + levels[-1:]
        result: Tensor = self.classifier(self.dropout(self.fuse.over(levels)))
        return result


class UPerNet(nn.Module):
    """Map images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), for any H and W of at least 32.

    In training mode it returns (logits, auxiliary logits), both at the size of the input.
    """

    smallest_side = 32
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        dims: tuple[int, ...],
        channels: int,
        auxiliary_channels: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Build the head. backbone: from images to `dims` channels at 1/4 to 1/32. mean, std: of the colours."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.backbone = backbone
        self.head = UPerNetHead(dims, channels, num_classes)
        self.auxiliary = nn.Sequential(
            ConvNormAct(dims[2], auxiliary_channels, 3), nn.Conv2d(auxiliary_channels, num_classes, 1)
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's features at 1/4, 1/8, 1/16 and 1/32."""
        if min(images.shape[2:]) < self.smallest_side:
            raise InputError(
                f"UPerNet needs images of at least {self.smallest_side} x {self.smallest_side} pixels, "
                f"got {images.shape[2]} x {images.shape[3]}; enlarge them first"
            )
        result: list[Tensor] = self.backbone((images - self.mean) / self.std)
        return result

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, K, H, W) for images in [0, 1]; in training mode, with those of the auxiliary head."""
        size = images.shape[2:]
        features = self.features(images)
        logits = resize(self.head(features), size)
        if not self.training:
            return logits
        return logits, resize(self.auxiliary(features[2]), size)


def convnext(sizes: ConvNeXtSizes, num_classes: int) -> UPerNet:
    """Build a member of the paper's family."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if sizes.normalises else ((0.0,) * 3, (1.0,) * 3)
    backbone = ConvNeXtPyramid(sizes)
    return UPerNet(backbone, sizes.dims, sizes.channels, sizes.auxiliary_channels, num_classes, mean, std)


def from_imagenet(state: State) -> State:
    """Rename the tensors of a published ConvNeXt classifier with convolution stem to the backbone's keys."""
    return without_normalisation(renamed(state, IMAGENET_KEYS), "backbone.stem.0")
