"""Put yardsticks beside the curves of a sweep: corruptions of the same size, and the smallest radius that breaks it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from PIL import Image

from robviz.attacks import predicted
from robviz.corruptions import corrupted
from robviz.files.images import largest_change, quantise, to_bytes, to_tensor
from robviz.interactive.comparison import Subject, never, scores
from robviz.interactive.sweep import Corrupted, Smallest, Sweep
from robviz.minimal import MinimalResult, alma_prox_steps
from robviz.models.layers import device_of

__all__ = ["LUCK", "SHARE", "with_luck", "with_smallest"]

#: The corruptions that a sweep shows, keys of `CORRUPTIONS`.
LUCK = ("noise", "blur", "JPEG", "contrast")
#: The share of the pixels that the smallest radius breaks.
SHARE = 0.99


def with_luck(
    sweep: Sweep,
    name: str,
    subject: Subject,
    corruptions: Sequence[str] = LUCK,
    *,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Sweep, None, None]:
    """Add what common corruptions within the radii of a sweep leave of a model's accuracy; yield after each radius.

    Args:
        sweep: To add to.
        name: Of the model.
        subject: The model and the picture.
        corruptions: Keys of `CORRUPTIONS`.
        is_stopped: Called before every radius; once it returns True, no other begins.

    Yields:
        The sweep so far. The pictures have 8 bits, as those of the attacks.

    Raises:
        InputError: For an unknown corruption.
    """
    for eps in sweep.radii:
        if is_stopped():
            return
        sweep = replace(sweep, luck=(*sweep.luck, *(measured(name, subject, one, eps) for one in corruptions)))
        yield sweep


def measured(name: str, subject: Subject, corruption: str, eps: float) -> Corrupted:
    """Corrupt the picture within a radius, round it to 8 bits, and score the model on it."""
    image = subject.sample.image
    shown = quantise(corrupted(corruption, image[None], eps)[0], image, eps)
    picture = to_tensor(Image.fromarray(shown))[None].to(device_of(subject.model))
    found = scores(predicted(subject.model, picture)[0].cpu(), subject.sample.labels, subject.num_classes)
    return Corrupted(name, corruption, eps, found, largest_change(shown, to_bytes(image)))


def with_smallest(
    sweep: Sweep,
    subjects: Mapping[str, Subject],
    steps: int,
    *,
    share: float = SHARE,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Sweep, None, None]:
    """Search for the smallest radius at which most pixels of the picture are wrong, on each model in turn.

    ALMA prox searches (`robviz.minimal`), so the radius is an upper bound. It belongs to a picture of floats: with 8
    bits, fewer pixels may be wrong.

    Args:
        sweep: To add to.
        subjects: The models and the picture, by name.
        steps: The number of steps on each model.
        share: The share of the pixels.
        frame_seconds: The least time between two frames.
        is_stopped: Called at every step; once it returns True, the search ends with its best so far.

    Yields:
        The sweep with the smallest radius so far of each model.

    Raises:
        InputError: For steps and shares that are out of range.
    """
    for name, subject in subjects.items():
        if is_stopped():
            return
        device, due = device_of(subject.model), 0.0
        images, labels = (part[None].to(device) for part in (subject.sample.image, subject.sample.labels))
        with closing(alma_prox_steps(subject.model, images, labels, steps, share)) as running:
            for result in running:
                found = replace(sweep, smallest={**sweep.smallest, name: smallest_of(result, steps, share)})
                if is_stopped():
                    break
                if time.monotonic() >= due:
                    yield found
                    due = time.monotonic() + frame_seconds
        last = found.smallest[name]
        sweep = replace(found, smallest={**found.smallest, name: replace(last, steps=last.step)})  # it is over
        yield sweep


def smallest_of(result: MinimalResult, steps: int, share: float) -> Smallest:
    """Return what a search has found so far."""
    radius = result.radius.item()
    return Smallest(radius if math.isfinite(radius) else None, result.flipped.item(), share, result.step, steps)
