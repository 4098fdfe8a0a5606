"""Segmenter: a ViT backbone and a transformer that predicts one mask per class (Strudel et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.models.checkpoints import State, renamed, without_normalisation
from robviz.models.layers import resize

PATCH = 16
GRID = 32  # of the position embeddings: 512 x 512 pixels
#: From the keys of the published checkpoint to ours; it contains an ImageNet head that is not used.
PUBLISHED_KEYS = ((r"^encoder\.head\..*", ""), (r"^encoder\.", "backbone."))
#: From the keys of the published ImageNet classifier.
IMAGENET_KEYS = ((r"^base_model\.head\..*", ""), (r"^base_model\.", "backbone."))


class MaskTransformer(nn.Module):
    """Let patches and one learned query per class attend to each other; their similarities are the masks."""

    def __init__(self, dim: int, heads: int, depth: int, num_classes: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.proj_dec = nn.Linear(dim, dim)
        self.cls_emb = nn.Parameter(torch.randn(1, num_classes, dim))
        self.blocks = nn.Sequential(
            *(
                Block(dim, heads, qkv_bias=True, proj_drop=0.1, attn_drop=0.1, norm_layer=nn.LayerNorm)
                for _ in range(depth)
            )
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.proj_classes = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.mask_norm = nn.LayerNorm(num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, h, w) to masks (B, K, h, w)."""
        patches = self.proj_dec(features.flatten(2).transpose(1, 2))
        tokens = torch.cat([patches, self.cls_emb.expand(len(patches), -1, -1)], 1)
        tokens = self.decoder_norm(self.blocks(tokens))
        patches, classes = tokens.split([patches.shape[1], self.cls_emb.shape[1]], 1)
        patches = F.normalize(patches @ self.proj_patch, dim=-1)
        classes = F.normalize(classes @ self.proj_classes, dim=-1)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # (B, h * w, K)
        result: Tensor = masks.transpose(1, 2).unflatten(2, features.shape[2:])
        return result


class Segmenter(nn.Module):
    """Map images (B, 3, H, W) in [0, 1], not normalised, to logits (B, K, H, W), for any H and W.

    It has no auxiliary head, so training mode also returns only the logits.
    """

    def __init__(self, backbone: nn.Module, decoder: MaskTransformer) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for images (B, 3, H, W) in [0, 1]."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        logits = resize(self.decoder(self.backbone(padded)), padded.shape[2:])
        return logits[:, :, :height, :width]


def vit_small(num_classes: int) -> Segmenter:
    """Build the paper's Segmenter, with 26 M parameters."""
    from robviz.models.vit import ViT

    backbone = ViT(
        img_size=GRID * PATCH,
        patch_size=PATCH,
        embed_dim=384,
        depth=12,
        num_heads=6,
        num_classes=0,
        drop_path_rate=0.1,
        norm_layer=nn.LayerNorm,
        dynamic_img_size=True,
    )
    return Segmenter(backbone, MaskTransformer(384, 6, 2, num_classes))


def from_imagenet(state: State) -> State:
    """Rename the tensors of a published ViT-S classifier to the backbone's keys; resample its position embeddings."""
    from robviz.models.vit import positions

    state = without_normalisation(renamed(state, IMAGENET_KEYS), "backbone.patch_embed.proj")
    key = "backbone.pos_embed"
    return {**state, key: positions(state[key], GRID, GRID)} if key in state else state
