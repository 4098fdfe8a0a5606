"""Common corruptions of the same size as an attack: how much worse is an attacker than bad luck?

Each corruption is applied at full strength, and its changes are clipped to eps, so that no value changes by more than
under the attack. After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), whose corruptions have no such bound.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from robviz.norms import project_linf
from robviz.types import InputError

__all__ = ["CORRUPTIONS", "corrupted"]

#: From an image (3, H, W) in [0, 1], eps and a random source to the corrupted image, not yet within eps.
Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def signs(image: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Add or subtract eps at random for each value: the largest possible noise."""
    coins = torch.rand(image.shape, generator=generator) < 0.5
    return image + eps * (2 * coins - 1).to(image)


def gaussian_noise(image: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise with eps as its deviation."""
    return image + eps * torch.randn(image.shape, generator=generator).to(image)


def blur(image: Tensor, eps: float, generator: torch.Generator, sigma: float = 2.0) -> Tensor:
    """Blur with a Gaussian of two pixels."""
    reach = int(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).to(image)
    weights = weights / weights.sum()
    channels = F.pad(image[:, None], (reach,) * 4, mode="replicate")  # (3, 1, H + 2 reach, W + 2 reach)
    return F.conv2d(F.conv2d(channels, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]


def jpeg(image: Tensor, eps: float, generator: torch.Generator, quality: int = 10) -> Tensor:
    """Save as JPEG of quality 10."""
    levels = (255 * image.detach().cpu()).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).to(image) / 255


def contrast(image: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Halve the contrast around the mean colour."""
    mean = image.mean((1, 2), keepdim=True)
    return mean + (image - mean) / 2


def fog(image: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Add white fog whose thickness varies at random over the picture."""
    coarse = torch.rand(1, 1, 4, 4, generator=generator)
    veil = 0.5 * F.interpolate(coarse, image.shape[1:], mode="bicubic", align_corners=True)[0].clamp(0, 1).to(image)
    return image * (1 - veil) + veil


#: name -> corruption. To add one, write it and add its row.
CORRUPTIONS: dict[str, Corruption] = {
    "noise": signs,
    "Gaussian noise": gaussian_noise,
    "blur": blur,
    "JPEG": jpeg,
    "contrast": contrast,
    "fog": fog,
}


def corrupted(name: str, images: Tensor, eps: float, seed: int = 0) -> Tensor:
    """Corrupt images as strongly as eps allows.

    Args:
        name: A key of `CORRUPTIONS`.
        images: (B, 3, H, W) in [0, 1], each corrupted by itself.
        eps: The largest change of a value, in [0, 1].
        seed: The seed of the random corruptions; every image of a batch gets the same draw.

    Returns:
        (B, 3, H, W) in [0, 1], within eps of the images.

    Raises:
        InputError: For an unknown corruption.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"unknown corruption {name!r}; choose from: {', '.join(CORRUPTIONS)}")
    changed = [CORRUPTIONS[name](image, eps, torch.Generator().manual_seed(seed)) for image in images]
    return project_linf(torch.stack(changed), images, eps)
