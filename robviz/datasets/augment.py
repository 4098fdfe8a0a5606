"""The paper's augmentation of training images (Table 4)."""

from __future__ import annotations

import torch

from robviz.types import VOID, Sample


def augmented(sample: Sample, size: int | tuple[int, int], base_size: int, generator: torch.Generator) -> Sample:
    """Draw a random crop of a sample, as the paper augments training images.

    The sample is mirrored half of the time; scaled so that its shorter side lies between half and twice `base_size`
    (bilinear with antialiasing, labels by nearest neighbours); cropped at a random place; and blurred half of the time
    by a Gaussian of up to 1 pixel. A scaled image that is smaller than the crop is padded at the right and below, in
    black and void; the official code labels its padding as background. Colours stay, as Table 4 lists no jitter.

    Args:
        sample: A labelled picture.
        size: The side of a square, or (H, W), of the crop.
        base_size: The shorter side that the scale refers to.
        generator: The source of randomness; the same state gives the same crop.

    Returns:
        The crop.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    def uniform() -> float:
        return torch.rand((), generator=generator).item()

    def integer(lowest: int, highest: int) -> int:
        return int(torch.randint(lowest, highest + 1, (), generator=generator))

    image, labels = sample.image, sample.labels
    rows, columns = (size, size) if isinstance(size, int) else size
    if uniform() < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    scale = integer(base_size // 2, 2 * base_size) / min(labels.shape)
    height, width = (max(1, round(side * scale)) for side in labels.shape)
    image = F.resize(image, [height, width], InterpolationMode.BILINEAR, antialias=True).clamp(0, 1)
    labels = F.resize(labels[None], [height, width], InterpolationMode.NEAREST_EXACT)[0]
    padding = [0, 0, max(0, columns - width), max(0, rows - height)]  # left, top, right, bottom
    image, labels = F.pad(image, padding), F.pad(labels, padding, fill=VOID)
    top, left = integer(0, labels.shape[0] - rows), integer(0, labels.shape[1] - columns)
    image, labels = (part[..., top : top + rows, left : left + columns] for part in (image, labels))
    if uniform() < 0.5:
        image = F.gaussian_blur(image, [7, 7], [1 - uniform()]).clamp(0, 1)  # a deviation of 0 is refused
    return Sample(sample.name, image.contiguous(), labels.contiguous())
