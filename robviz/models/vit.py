"""timm's ViT for images of any size, the backbone of Segmenter."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def positions(embeddings: Tensor, height: int, width: int) -> Tensor:
    """Resample position embeddings (1, 1 + h * w, C), of the class token and a square grid, to another grid."""
    result: Tensor = resample_abs_pos_embed(embeddings, [height, width], interpolation="bilinear", antialias=False)
    return result


class ViT(VisionTransformer):
    """Extend timm's ViT to images of any multiple of 16; returns the patch features (B, C, H / 16, W / 16)."""

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the tokens of normalised images (B, 3, H, W) as a map (B, C, H / 16, W / 16)."""
        x = self.patch_embed(x)  # (B, h, w, C)
        height, width = x.shape[1:3]
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], 1)
        tokens = self.norm(self.blocks(tokens + positions(self.pos_embed, height, width)))
        result: Tensor = tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return result
