"""Why did a pixel change its class? Attribute the mean logit of a class over a region to parts of the picture.

The explained number is the mean logit of the class over the region. Seg-Grad-CAM takes the sum (Vinogradova, Dibrov and
Myers, AAAI 2020, arXiv:2002.11434); the mean can be compared between regions of different sizes. A method is a
generator that yields at the start and after each small piece of its work, and may be closed at any time. To add one,
write such a generator and add its row to `METHODS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from robviz.attacks import check_finite, check_images, checked_logits, frozen, image_generator, last_of
from robviz.files.images import to_bytes
from robviz.models.answers import answer_of, logits_of
from robviz.models.layers import device_of, resize
from robviz.types import VOID, InputError

__all__ = [
    "METHODS",
    "Attribution",
    "Contrast",
    "TopLogits",
    "attribute",
    "attribute_steps",
    "contrast",
    "contrast_steps",
    "estimate",
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "region_at",
    "segments",
    "top_logits",
]


def region_at(predictions: Tensor | np.ndarray, y: int, x: int) -> np.ndarray:
    """Return the connected pixels of one class around a pixel; neighbours share a side.

    Args:
        predictions: (H, W) int.
        y: The row of the pixel.
        x: The column of the pixel.

    Returns:
        (H, W) bool.

    Raises:
        InputError: If the pixel lies outside or is void.
    """
    labels = np.asarray(predictions)
    check_pixel(labels.shape, y, x)
    if labels[y, x] == VOID:
        raise InputError(f"pixel ({y}, {x}) is void and has no class; choose another one")
    parts, _ = scipy.ndimage.label(labels == labels[y, x])
    result: np.ndarray = parts == parts[y, x]
    return result


def check_pixel(size: Sequence[int], y: int, x: int) -> None:
    """Raise InputError unless row y and column x lie in a picture (H, W)."""
    height, width = size
    if not (0 <= y < height and 0 <= x < width):
        raise InputError(f"pixel must have y in 0 .. {height - 1} and x in 0 .. {width - 1}, got y = {y}, x = {x}")


@dataclass(frozen=True)
class Question:
    """Ask why the mean logit of a class over a region has its value; everything is checked."""

    model: nn.Module
    image: Tensor  # (1, 3, H, W)
    region: Tensor  # (H, W) bool
    target: int
    value: float  # the explained number
    batch_size: int  # images that go through the model at once
    seed: int

    def score(self, images: Tensor) -> Tensor:
        """Return the number to explain, (B,), for images (B, 3, H, W)."""
        logits = logits_of(answer_of(self.model, images), images)
        check_finite(logits)
        return logits[:, self.target, self.region].mean(1)

    @property
    def blurred(self) -> Tensor:
        """Return the image with its objects removed: blurred by a Gaussian of 1/16 of the longer side.

        Colours stay; objects and perturbations vanish.
        """
        sigma = max(self.image.shape[2:]) / 16
        smooth = scipy.ndimage.gaussian_filter(self.image.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
        return torch.from_numpy(smooth).to(self.image)


class MapPart(NamedTuple):
    """Store what a method has found so far."""

    map: Tensor  # (H, W)
    done: int  # images that went through the model, of `total`
    total: int
    delta: float | None = None


Parts = Generator[MapPart, None, None]
#: The parts of a model that Grad-CAM looks for, and the coarsest features that it uses, in pixels per cell.
BACKBONES, COARSEST = ("backbone", "encoder"), 16


def feature_layer(model: nn.Module, image: Tensor) -> nn.Module:
    """Return the backbone's last feature level that is not coarser than 1/16, or its last one if all are.

    The backbone is the first module named backbone or encoder. Its levels are the layers that return one tensor (B, C,
    h, w), except layers inside such layers. At 1/32, the share of a class depends on the whole picture, and maps miss
    the object. image: (1, 3, H, W), used to find the levels. Raises InputError if there is no such layer.
    """
    modules = dict(model.named_modules())
    backbone = next((name for name in modules if name.rpartition(".")[2] in BACKBONES), None)
    height, width = image.shape[2:]
    is_fine: dict[str, bool] = {}  # in the order in which the layers finish

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            is_fine.pop(name, None)
            is_fine[name] = output.shape[2] >= height // COARSEST and output.shape[3] >= width // COARSEST

    hooks = [
        module.register_forward_hook(partial(note, name))
        for name, module in modules.items()
        if backbone is not None and f"{name}.".startswith(f"{backbone}.")
    ]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    levels = [name for name in is_fine if not any(name.startswith(f"{other}.") for other in is_fine)]
    if not levels:
        raise InputError(
            f"Grad-CAM needs a layer that gives features (B, C, h, w), and found none in a part of the model named "
            f"{' or '.join(BACKBONES)}; name one of model.named_modules() with layer="
        )
    result: nn.Module = modules[([name for name in levels if is_fine[name]] or levels)[-1]]
    return result


def named_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name; raises InputError if the model has no such layer."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise InputError(f"the model has no layer {name!r}; choose a name from model.named_modules()") from error


def grad_cam(question: Question, layer: str | None = None) -> Parts:
    """Run Grad-CAM (Selvaraju et al., ICCV 2017) with its sign: negative where features speak against the class.

    Args:
        question: What to explain.
        layer: A name in `model.named_modules()`; by default `feature_layer` chooses.

    Yields:
        The map before and after the work.

    Raises:
        InputError: If the layer does not exist, gives no features, or does not contribute to the logits.
    """
    from captum.attr import LayerGradCam

    chosen = feature_layer(question.model, question.image) if layer is None else named_layer(question.model, layer)
    yield MapPart(torch.zeros_like(question.image[0, 0]), 0, 1)
    try:
        cells = LayerGradCam(question.score, chosen).attribute(question.image)
    except AssertionError as error:
        raise InputError(f"the layer {layer!r} does not contribute to the model's logits; choose another") from error
    if not isinstance(cells, Tensor) or cells.ndim != 4:
        raise InputError(f"Grad-CAM needs a layer that gives features (B, C, h, w), {layer!r} does not; choose another")
    # Models pad pictures at the right and the bottom: cells are square, and the last ones may reach beyond.
    height, width = question.image.shape[2:]
    side = max(height / cells.shape[2], width / cells.shape[3])
    pixels = resize(cells.detach(), torch.Size([round(side * count) for count in cells.shape[2:]]))
    yield MapPart(pixels[0, 0, :height, :width], 1, 1)


POINTS = 2  # quadrature points in each piece of the path


def integrated_gradients(question: Question, steps: int = 32, samples: int = 1, noise: float = 1 / 255) -> Parts:
    """Integrate gradients from the blurred image to the image, summed over the colours.

    Sundararajan, Taly and Yan, ICML 2017. The map sums to the explained number minus that of the blurred image; `delta`
    is the error of that sum so far.

    Args:
        question: What to explain.
        steps: Gradients along the path, rounded up to an even number.
        samples: More than one averages over noisy images (SmoothGrad, Smilkov et al., 2017).
        noise: The standard deviation of that noise; beyond an attack's eps the image may no longer be adversarial.

    Yields:
        The map after the start and after each piece of the path.

    Raises:
        InputError: For numbers out of range.
    """
    from captum.attr import IntegratedGradients

    if steps < 1 or samples < 1 or noise < 0:
        raise InputError(
            f"steps and samples must be at least 1 and noise at least 0, got {steps}, {samples} and {noise}"
        )
    pieces = -(-steps // POINTS)
    baseline, total, expected = question.blurred, torch.zeros_like(question.image[0, 0]), 0.0
    generator = image_generator(question.seed, "integrated-gradients", question.image)
    yield MapPart(total, 0, samples * pieces * POINTS)
    for sample in range(samples):
        image = question.image
        if samples > 1:
            image = image + noise * torch.randn(image.shape, generator=generator, dtype=torch.float64).to(image)
        with torch.no_grad():
            expected += (question.score(image) - question.score(baseline)).item() / samples
        # Integrals over the pieces of the path add up to that over the whole.
        path = (torch.lerp(baseline, image, piece / pieces) for piece in range(pieces + 1))
        for piece, (start, end) in enumerate(pairwise(path), sample * pieces + 1):
            found = IntegratedGradients(question.score).attribute(
                end, start, n_steps=POINTS, internal_batch_size=question.batch_size
            )
            total = total + found[0].sum(0).detach() / samples
            yield MapPart(total, piece * POINTS, samples * pieces * POINTS, total.sum().item() - expected)


Cover = Tensor | tuple[slice, slice]  # what selects pixels of (H, W)
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many there are


def ablated(question: Question, covers: Sequence[Cover]) -> Parts:
    """Measure how much the explained number falls when a part is blurred, averaged over the parts that cover a pixel.

    The order of the parts covers the whole image early. Pixels not covered yet are 0.
    """
    order = sorted(range(len(covers)), key=lambda i: i * GOLDEN % 1)
    lost, times = (torch.zeros_like(question.image[0, 0]) for _ in range(2))
    blurred = question.blurred
    yield MapPart(lost, 0, len(covers))
    for done in range(0, len(covers), question.batch_size):
        some = order[done : done + question.batch_size]
        is_hidden = torch.zeros(len(some), *lost.shape, dtype=torch.bool, device=lost.device)
        for row, i in zip(is_hidden, some):
            row[covers[i]] = True
        with torch.no_grad():
            values = question.score(torch.where(is_hidden[:, None], blurred, question.image))
        lost = lost + (is_hidden * (question.value - values).view(-1, 1, 1)).sum(0)
        times = times + is_hidden.sum(0)
        yield MapPart(lost / times.clamp_min(1), done + len(some), len(covers))


def occlusion(question: Question, across: int = 6) -> Parts:
    """Measure how much the explained number falls when a square window is blurred (Zeiler and Fergus, ECCV 2014).

    Args:
        question: What to explain.
        across: How many windows span the longer side; further windows lie between them, each shifted by half a window.

    Yields:
        The map after the start and after each batch of windows.

    Raises:
        InputError: For a number of windows out of range.
    """
    height, width = question.image.shape[2:]
    if not 1 <= across <= max(height, width):
        raise InputError(f"across must lie in 1 .. {max(height, width)}, the longer side, got {across}")
    window = -(-max(height, width) // across)
    stride = -(-window // 2)
    rows, columns = (range(0, max(side - window, 0) + stride, stride) for side in (height, width))
    yield from ablated(question, [(slice(y, y + window), slice(x, x + window)) for y in rows for x in columns])


def segments(question: Question, count: int = 64) -> Parts:
    """Measure how much the explained number falls when a superpixel (SLIC) is blurred.

    Args:
        question: What to explain.
        count: The approximate number of superpixels.

    Yields:
        The map after the start and after each batch of superpixels.

    Raises:
        InputError: For a number of superpixels below 1.
    """
    from skimage.segmentation import slic

    if count < 1:
        raise InputError(f"count must be at least 1, got {count}")
    numbers = torch.from_numpy(slic(to_bytes(question.image[0]), count)).to(question.region.device)
    yield from ablated(question, [numbers == number for number in numbers.unique()])


#: name -> generator. To add a method, write it and add its row.
METHODS: dict[str, Callable[..., Parts]] = {
    "grad-cam": grad_cam,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
    "segments": segments,
}


@dataclass(frozen=True)
class Attribution:
    """Store how much each pixel contributes to the mean logit of a class over a region, as far as it is known.

    Attributes:
        map: (H, W) float32, positive where the picture speaks for the class.
        method: A key of `METHODS`.
        target: The class.
        region: (H, W) bool.
        value: The explained number.
        done: The share of the work done, in [0, 1].
        delta: For integrated gradients, the sum of the map minus its exact value; None for other methods.
    """

    map: np.ndarray
    method: str
    target: int
    region: np.ndarray
    value: float
    done: float
    delta: float | None


def question_of(
    model: nn.Module, image: Tensor, region: Tensor | np.ndarray, target: int, batch_size: int, seed: int
) -> Question:
    """Check the arguments of `attribute_steps` and return them as a question; the model is already frozen."""
    if image.ndim != 3:
        raise InputError(f"image must be one picture (3, H, W), got {tuple(image.shape)}; take one with images[0]")
    mask = torch.as_tensor(region)
    if mask.dtype != torch.bool or mask.shape != image.shape[1:] or not mask.any():
        raise InputError(
            f"region must be bool (H, W) = {tuple(image.shape[1:])} with a pixel in it, "
            f"got {mask.dtype} {tuple(mask.shape)} with {int(mask.sum())}; region_at makes one"
        )
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    check_images(image[None], torch.full((1, *mask.shape), VOID))
    device = device_of(model)
    images, mask = image.detach()[None].to(device), mask.to(device)
    logits = checked_logits(model, images)
    if not 0 <= target < logits.shape[1]:
        raise InputError(f"target must be one of the model's classes 0 .. {logits.shape[1] - 1}, got {target}")
    value = logits[:, target, mask].mean().item()
    return Question(model, images, mask, int(target), value, batch_size, seed)


def attribute_steps(
    model: nn.Module,
    image: Tensor,
    region: Tensor | np.ndarray,
    target: int,
    method: str = "occlusion",
    batch_size: int = 1,
    seed: int = 0,
    **options: Any,
) -> Generator[Attribution, None, None]:
    """Explain the mean logit of a class over a region, yielding after the start and after each piece of the work.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored, however the work ends.
        image: (3, H, W) float RGB in [0, 1].
        region: (H, W) bool, with at least one pixel; `region_at` makes one.
        target: The class, in 0 .. K - 1.
        method: A key of `METHODS`.
        batch_size: Pictures that go through the model at once, which bounds the memory.
        seed: The seed of the noise, if the method uses noise.
        **options: Options of the method; its function in `METHODS` explains them.

    Yields:
        What is known so far.

    Raises:
        InputError: For arguments that do not fit together or are out of range; at the first `next`.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; choose from: {', '.join(METHODS)}")
    with frozen(model):
        question = question_of(model, image, region, target, batch_size, seed)
        where = question.region.cpu().numpy()
        for part in METHODS[method](question, **options):
            found = part.map.float().cpu().numpy()
            share = part.done / part.total
            yield Attribution(found, method, question.target, where, question.value, share, part.delta)


def attribute(
    model: nn.Module,
    image: Tensor,
    region: Tensor | np.ndarray,
    target: int,
    method: str = "occlusion",
    batch_size: int = 1,
    seed: int = 0,
    **options: Any,
) -> Attribution:
    """Explain the mean logit of a class over a region: run `attribute_steps` to its end.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored.
        image: (3, H, W) float RGB in [0, 1].
        region: (H, W) bool, with at least one pixel; `region_at` makes one.
        target: The class, in 0 .. K - 1.
        method: A key of `METHODS`.
        batch_size: Pictures that go through the model at once, which bounds the memory.
        seed: The seed of the noise, if the method uses noise.
        **options: Options of the method; its function in `METHODS` explains them.

    Returns:
        The attribution.

    Raises:
        InputError: For arguments that do not fit together or are out of range.
    """
    return last_of(attribute_steps(model, image, region, target, method, batch_size, seed, **options))


def estimate(model: nn.Module, method: str, image: Tensor, batch_size: int = 1, **options: Any) -> float:
    """Estimate how many seconds a method will take on this machine, by timing its first piece after a warm-up.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        method: A key of `METHODS`.
        image: (3, H, W) float RGB in [0, 1].
        batch_size: Pictures that go through the model at once.
        **options: The options of the method.

    Returns:
        Seconds.
    """
    everywhere = torch.ones(image.shape[1:], dtype=torch.bool)
    for _ in range(2):
        with closing(attribute_steps(model, image, everywhere, 0, method, batch_size, **options)) as run:
            started = time.perf_counter()
            next(run)
            ready = time.perf_counter()
            share = next(run).done
            ended = time.perf_counter()
    return ready - started + (ended - ready) / share


@dataclass(frozen=True)
class Contrast:
    """Compare the attribution of one class over one region in a picture and in its attacked version.

    Attributes:
        clean: For the picture.
        attacked: For its attacked version; None until that work has begun.
    """

    clean: Attribution
    attacked: Attribution | None

    @property
    def scale(self) -> float:
        """Return the value at which the colours of both maps end: 99 % of all pixels lie within plus and minus it."""
        maps = [one.map for one in (self.clean, self.attacked) if one is not None]
        return float(np.quantile(np.abs(maps), 0.99))

    @property
    def done(self) -> float:
        """Return the share of the work done, in [0, 1]."""
        return (self.clean.done + (self.attacked.done if self.attacked is not None else 0)) / 2


def contrast_steps(
    model: nn.Module,
    clean: Tensor,
    attacked: Tensor,
    region: Tensor | np.ndarray,
    target: int,
    method: str = "occlusion",
    batch_size: int = 1,
    seed: int = 0,
    **options: Any,
) -> Generator[Contrast, None, None]:
    """Explain the same number in a picture and then in its attacked version, yielding after each piece of the work.

    Args:
        model: As in `attribute_steps`.
        clean: (3, H, W) float RGB in [0, 1], the picture.
        attacked: Its attacked version, of the same size.
        region: As in `attribute_steps`, and so are all that follow.
        target: The class.
        method: A key of `METHODS`.
        batch_size: Pictures that go through the model at once.
        seed: The seed of the noise, the same for both.
        **options: Options of the method.

    Yields:
        What is known so far; the attacked version follows when the original is complete.

    Raises:
        ValueError: For pictures of different sizes, and as `attribute_steps`; at the first `next`.
    """
    if clean.shape != attacked.shape:
        raise InputError(
            f"clean and attacked must have the same size, got {tuple(clean.shape)} and {tuple(attacked.shape)}"
        )
    with closing(attribute_steps(model, clean, region, target, method, batch_size, seed, **options)) as run:
        for before in run:
            yield Contrast(before, None)
    with closing(attribute_steps(model, attacked, region, target, method, batch_size, seed, **options)) as run:
        for after in run:
            yield Contrast(before, after)


def contrast(
    model: nn.Module,
    clean: Tensor,
    attacked: Tensor,
    region: Tensor | np.ndarray,
    target: int,
    method: str = "occlusion",
    batch_size: int = 1,
    seed: int = 0,
    **options: Any,
) -> Contrast:
    """Explain the same number in a picture and in its attacked version: run `contrast_steps` to its end.

    Args:
        model: As in `attribute`.
        clean: (3, H, W) float RGB in [0, 1], the picture.
        attacked: Its attacked version, of the same size.
        region: As in `attribute`, and so are all that follow.
        target: The class.
        method: A key of `METHODS`.
        batch_size: Pictures that go through the model at once.
        seed: The seed of the noise, the same for both.
        **options: Options of the method.

    Returns:
        Both attributions, and the scale that they share.

    Raises:
        ValueError: For pictures of different sizes, and as `attribute`.
    """
    return last_of(contrast_steps(model, clean, attacked, region, target, method, batch_size, seed, **options))


class TopLogits(NamedTuple):
    """Store the model's highest logits at one pixel of several images."""

    classes: np.ndarray  # (n,) int64
    logits: np.ndarray  # (B, n) float32
    probabilities: np.ndarray  # (B, n) float32, among all classes


def top_logits(model: nn.Module, images: Tensor, y: int, x: int, k: int = 5) -> TopLogits:
    """Find the classes that are among the k highest at a pixel in any of the images.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        images: (B, 3, H, W), such as a picture and its attacked version.
        y: The row of the pixel.
        x: The column of the pixel.
        k: How many classes of each image count.

    Returns:
        The classes in the order of the first image, with logits and probabilities in each.

    Raises:
        InputError: For a pixel outside the picture.
    """
    check_images(images, torch.full((len(images), *images.shape[2:]), VOID))
    check_pixel(images.shape[2:], y, x)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    logits = checked_logits(model, images.to(device_of(model)))[:, :, y, x].cpu()
    order = logits[0].argsort(descending=True)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.topk(min(k, logits.shape[1])).indices, True)
    classes = order[is_top.any(0)[order]]
    return TopLogits(classes.numpy(), logits[:, classes].float().numpy(), logits.softmax(1)[:, classes].float().numpy())
