"""Adapt any segmentation model to robviz's conventions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.datasets.photos import PALETTE
from robviz.models.answers import require_normal, told
from robviz.models.card import Card
from robviz.models.devices import device_named
from robviz.models.layers import device_of, resize
from robviz.types import Dataset, InputError

Output = str | int | Callable[[Any], Any] | None
Classes = Sequence[str] | Mapping[Any, str]
#: `output` for a network with a single logit, for the foreground.
BINARY = "binary"
#: Where a dictionary keeps its logits: transformers, torchvision.
KEYS = ("logits", "out")
#: How far the logit of a class that is never predicted lies below the others: e^-30 adds nothing to a float32 softmax.
FAR = 30.0


def chosen_output(answer: Any, output: Output) -> Any:
    """Return what `output` selects from a module's result; raises InputError if it is not there."""
    if callable(output):
        return output(answer)
    if output == BINARY:
        return background_and(chosen_output(answer, None))
    if output is not None:
        try:
            return answer[output]
        except (LookupError, TypeError) as error:
            raise InputError(f"output={output!r} is not in what the module returned, {told(answer)}") from error
    if isinstance(answer, Mapping):
        return next((answer[key] for key in KEYS if key in answer), answer)
    return answer


def background_and(logit: Any) -> Any:
    """Turn a single logit for the foreground into two classes, with 0 for the background."""
    if not (isinstance(logit, Tensor) and logit.ndim == 4 and logit.shape[1] == 1):
        raise InputError(f'output="binary" is for one logit a pixel, (B, 1, h, w); the module returned {told(logit)}')
    return torch.cat([torch.zeros_like(logit), logit], 1)


def names_of(classes: Any, channels: str = "channel") -> tuple[str, ...]:
    """Return the names of the classes in order: of a sequence, or of a mapping such as id2label by its numbers.

    Raises InputError for anything else.
    """
    given = classes
    if isinstance(classes, Mapping):
        try:
            given = [classes[key] for key in sorted(classes, key=int)]
            is_whole = sorted(map(int, classes)) == list(range(len(classes)))
        except (TypeError, ValueError):
            is_whole = False
        if not is_whole:
            raise InputError(
                f"classes as a mapping must go from the numbers 0 .. K - 1 to names, as id2label does, "
                f"got the keys {', '.join(map(repr, list(classes)[:5]))}; label2id is the other way round"
            )
    is_list = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not is_list or not given or not all(isinstance(name, str) for name in given):
        raise InputError(f"classes must be a list of names, one for each {channels}, got {classes!r}")
    return tuple(given)


def checked(logits: Any, channels: int) -> Tensor:
    """Return a module's logits (B, C, h, w); raises InputError if it returned anything else."""
    if not (isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 4):
        raise InputError(
            "the module must return logits, a float tensor (B, K, h, w) or a dictionary with one under "
            f"{' or '.join(map(repr, KEYS))}; got {told(logits)}; output= selects them, by a key or a function"
        )
    if logits.shape[1] == 1:
        raise InputError(
            "the module returned one channel, in which the largest is always class 0 and nothing can break; one logit "
            'for the foreground becomes two classes by classes=("background", "its name") and output="binary"'
        )
    if logits.shape[1] != channels:
        raise InputError(
            f"the module returned {logits.shape[1]} channels, but {channels} classes were given; "
            "name each channel, that of void_index included"
        )
    return logits


def look_like_probabilities(outputs: Tensor) -> bool:
    """Return True if outputs (B, K, H, W) are at least 0 and sum to 1 over the classes."""
    return outputs.min().item() >= 0 and (outputs.sum(1) - 1).abs().max().item() <= 1e-3


class Adapted(nn.Module):
    """Map images (B, 3, H, W) in [0, 1] to logits (B, K, H, W) with a module of other conventions; built by `adapt`."""

    mean: Tensor
    std: Tensor
    targets: Tensor

    def __init__(
        self,
        module: Callable[[Tensor], Any],
        targets: Sequence[int],
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        output: Output,
        multiple_of: int,
    ) -> None:
        """Wrap a module. targets: the class that each of its channels stands for, -1 for none."""
        super().__init__()
        self.module = module
        device = device_of(self)
        # Buffers, so that the fingerprint covers them.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1))
        self.register_buffer("targets", torch.tensor(targets, device=device))
        self.channels = len(targets)
        self.sources = [[i for i, target in enumerate(targets) if target == k] for k in range(num_classes)]
        self.output = output
        self.multiple_of = multiple_of

    def describe(self) -> dict[str, Any]:
        """Return the options that `adapt` was given, ready for JSON; functions by name."""
        output = getattr(self.output, "__qualname__", type(self.output).__name__)
        return {
            "output": output if callable(self.output) else self.output,
            "multiple_of": self.multiple_of,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "class_of_channel": self.targets.tolist(),
        }

    def own_logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) of the module's own classes, before the class map."""
        height, width = images.shape[2:]
        # Padded with the mean colour.
        x = F.pad((images - self.mean) / self.std, (0, -width % self.multiple_of, 0, -height % self.multiple_of))
        logits = checked(chosen_output(self.module(x), self.output), self.channels)
        if logits.shape[2:] != x.shape[2:]:
            logits = resize(logits, x.shape[2:])
        return logits[:, :, :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) in the dataset's classes for images in [0, 1]."""
        logits = self.own_logits(images)
        if self.sources == [[i] for i in range(self.channels)]:
            return logits
        own = logits.unbind(1)
        answered = {
            k: own[sources[0]] if len(sources) == 1 else torch.stack([own[i] for i in sources], 1).logsumexp(1)
            for k, sources in enumerate(self.sources)
            if sources
        }
        if not all(self.sources):
            lowest = torch.stack(list(answered.values()), 1).amin(1) - FAR
            answered |= {k: lowest for k, sources in enumerate(self.sources) if not sources}
        return torch.stack([answered[k] for k in range(len(self.sources))], 1)


def opened(path: Path) -> nn.Module:
    """Open the module in a TorchScript or torch.export file; raises InputError for other files."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a module, or a TorchScript or .pt2 (torch.export) file")
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        result: nn.Module = torch.jit.load(path, map_location="cpu")
        return result
    except (RuntimeError, BadZipFile, KeyError) as error:
        kind = "torch.export" if path.suffix == ".pt2" else "TorchScript"
        raise InputError(
            f"{path} is not a {kind} file: {str(error).splitlines()[0]}; "
            "open a state dict or a pickled module yourself and give the module"
        ) from error


def put_in_eval(model: Adapted) -> None:
    """Put the model in eval mode, permanently if the module was exported: its graph cannot change its mode."""
    try:
        model.eval()
    except NotImplementedError:
        for part in model.modules():
            part.training = False
        model.module.train = lambda mode=True: model.module  # type: ignore[attr-defined]


def channels_of(key: str | int, names: Mapping[int, str], whose: str) -> list[int]:
    """Return the channels that a key of a class map refers to: that index, or all with that name."""
    found = [i for i, name in names.items() if key in (i, name)]
    if not found:
        raise InputError(
            f"class_map contains {key!r}, which is not a class of {whose}; it has {', '.join(names.values())}"
        )
    return found


def targets_of(
    classes: Sequence[str],
    void_index: int | None,
    dataset: Dataset | None,
    class_map: Mapping[str | int, str | int] | None,
) -> list[int]:
    """Return the class that each channel stands for, -1 for none."""
    if void_index is not None and not 0 <= void_index < len(classes):
        raise InputError(
            f"void_index must be one of the {len(classes)} channels, counted from 0, got {void_index}; "
            "leave it out when the module does not predict void"
        )
    names = {i: name for i, name in enumerate(classes) if i != void_index}
    targets = [-1] * len(classes)
    if dataset is None and class_map is not None:
        raise InputError("class_map maps to the classes of a dataset; give dataset= too")
    if dataset is None or (class_map is None and list(names.values()) == list(dataset.classes)):
        for k, i in enumerate(names):
            targets[i] = k
        return targets
    there = dict(enumerate(dataset.classes))
    if class_map is None:
        class_map = {name: name for name in names.values() if name in dataset.classes}
        unmatched = [name for name in dataset.classes if name not in class_map]
        if class_map and unmatched:
            warnings.warn(
                f"the model has no class named {', '.join(unmatched)} and will never predict them; "
                "class_map= can map others to it (if given, it must be complete)",
                stacklevel=3,
            )
    if not class_map:
        raise InputError(
            f"no class of the model is mapped to one of {dataset.name}'s; the model has {', '.join(names.values())}, "
            f"{dataset.name} has {', '.join(dataset.classes)}; give class_map="
        )
    for key, value in class_map.items():
        for i in channels_of(key, names, "the model"):
            targets[i] = channels_of(value, there, dataset.name)[0]
    return targets


def generated_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours that are distinguishable without colour vision, darker on each round through them."""
    rounds = -(-num_classes // len(PALETTE))
    shades = [1 - 0.75 * (k // len(PALETTE)) / rounds for k in range(num_classes)]
    return tuple(
        (round(red * shade), round(green * shade), round(blue * shade))
        for shade, (red, green, blue) in zip(shades, PALETTE * rounds)
    )


def check_colours(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise InputError unless mean and std belong to colours in [0, 1]."""
    if not len(mean) == len(std) == 3:
        raise InputError(f"mean and std must have 3 numbers each, for R, G and B; got {mean} and {std}")
    if not all(value <= 1 for value in (*mean, *std)):
        raise InputError(f"mean and std must be those of colours in [0, 1], got {mean} and {std}; divide by 255")
    if not min(std) > 0:
        raise InputError(f"std must be above 0, got {std}; (1, 1, 1) leaves the colours as they are")


def try_out(model: Adapted, size: tuple[int, int]) -> None:
    """Run a random picture (H, W) through the model to report early what would make an attack fail or mislead."""
    draw = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    require_normal(model)
    gradient = None
    try:
        with torch.inference_mode(False), torch.enable_grad():
            picture = draw.clone().to(model.mean).requires_grad_()
            logits = model.own_logits(picture)
            if logits.requires_grad:
                (gradient,) = torch.autograd.grad(logits.float().logsumexp(1).sum(), picture, allow_unused=True)
    except InputError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"the module failed on a picture of {size[0]} x {size[1]}: {type(error).__name__}: {said}; "
            "size= is the picture's size, multiple_of= pads every picture"
        ) from error
    if not logits.isfinite().all():
        raise InputError("the module returned NaN or infinite logits for a random picture; check its weights")
    if look_like_probabilities(logits):
        raise InputError(
            "the module's outputs sum to 1 like probabilities; return logits, before the softmax, "
            "or take the logarithm with output="
        )
    if not logits.requires_grad:
        raise InputError(
            "no gradient flows from the module's logits to the picture, so no attack can start; "
            "remove any torch.no_grad, argmax, detach or numpy from it"
        )
    if gradient is not None and not gradient.isfinite().all():
        warnings.warn(
            "the gradient of the module's logits contains NaN or infinity for a random picture: attacks stall, and "
            "the model looks robust; is there a root or a norm of 0 in the forward pass? add a small number inside it",
            stacklevel=3,
        )


def adapt(  # noqa: PLR0913 - public and documented
    module: Callable[[Tensor], Any] | str | Path,
    classes: Classes,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dataset: Dataset | None = None,
    class_map: Mapping[str | int, str | int] | None = None,
    void_index: int | None = None,
    output: Output = None,
    multiple_of: int = 1,
    palette: Sequence[tuple[int, int, int]] | None = None,
    name: str | None = None,
    size: tuple[int, int] = (64, 64),
    device: str | torch.device | None = None,
) -> nn.Module:
    """Adapt any model to robviz: from images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), with a card.

    A TorchScript or `torch.export` file is a program, so open only files from people you trust: TorchScript runs in its
    own interpreter and contains no pickled Python, but `torch.export.load` also unpickles what the file asks for, which
    may execute anything. The weights inside a function are not visible, so two versions of it can only be distinguished
    by name: if possible, give the module that it calls, and `output`.

    Args:
        module: From normalised images to logits of any resolution, which are resized to that of the image (bilinear): a
            torchvision, transformers or segmentation_models_pytorch model, any nn.Module (wrapped, not copied, and put
            in eval mode), any function, or the path of a TorchScript or `torch.export` (`.pt2`) file.
        classes: The name of each channel; a dictionary maps the index to the name.
        mean: Mean of the colours in [0, 1] that the module was trained with; (0, 0, 0) if it normalises by itself.
        std: Their standard deviation; (1, 1, 1) if the module normalises by itself.
        dataset: Predict the classes of this dataset.
        class_map: Maps every model class to a dataset class, each by name or index. By default, equal names are mapped,
            with a warning if the dataset has others. The probabilities of classes that are mapped to the same one are
            added. A class that is left out is dropped. A dataset class to which nothing is mapped is never
            predicted: its logit is 30 below the lowest.
        void_index: The channel that predicts void, if there is one; it is dropped, and its pixels go to the best of the
            other classes.
        output: Selects the logits from the result of the module: a key, a function, or "binary", which makes two
            classes of a single logit for the foreground. By default, the result itself, or its "logits" or "out".
        multiple_of: Pad pictures with the mean colour to sides that are multiples of this number, and crop the logits.
        palette: Colours of the resulting classes; by default the dataset's, or generated ones.
        name: The name of the model; by default that of its class or file.
        size: (H, W) of the random picture on which the module is tried.
        device: Where to put the model; by default, it stays where it is.

    Returns:
        The model, whose `.card` holds its name and classes.

    Raises:
        InputError: If the parts do not fit together, or if the module fails, gives no logits or passes no gradient
            back.
    """
    classes = names_of(classes)
    check_colours(mean, std)
    if multiple_of < 1:
        raise InputError(f"multiple_of must be at least 1, got {multiple_of}")
    targets = targets_of(classes, void_index, dataset, class_map)
    resulting = (
        dataset.classes if dataset is not None else tuple(name for name, target in zip(classes, targets) if target >= 0)
    )
    colours = palette or (dataset.palette if dataset is not None else generated_palette(len(resulting)))
    if len(colours) != len(resulting):
        raise InputError(f"the palette has {len(colours)} colours for {len(resulting)} classes; give one for each")
    if isinstance(module, (str, Path)):
        path, module = Path(module), opened(Path(module))
        kind, origin = path.stem, path.name
    else:
        known = module if hasattr(module, "__qualname__") else type(module)
        kind, origin = known.__name__, f"{known.__module__}.{known.__qualname__}"
    model = Adapted(module, targets, len(resulting), mean, std, output, multiple_of)
    if device is not None:
        model.to(device_named(device))
    put_in_eval(model)
    try_out(model, size)
    model.card = Card(  # type: ignore[assignment]
        name=name or kind,
        architecture=kind,
        dataset=dataset.name if dataset is not None else "",
        classes=tuple(resulting),
        palette=tuple(colours),
        source=f"adapted from {origin}",
    )
    return model
