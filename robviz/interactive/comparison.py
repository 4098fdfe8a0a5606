"""One picture before and after an attack: the record that the app and the notebooks show."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import AttackResult, AttackSpec, checked_logits, last_of, share_equal, spec_steps
from robviz.files.images import largest_change, quantise, to_bytes, to_tensor
from robviz.metrics import accuracy_per_image, counts, miou
from robviz.models import Card
from robviz.models.layers import device_of
from robviz.norms import LINF
from robviz.types import Sample


def never() -> bool:
    """Return False: nobody stops the work."""
    return False


@dataclass(frozen=True)
class Subject:
    """Describe who is attacked: a model, and a picture with its labels in the classes of that model.

    Attributes:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        sample: The picture; its labels lie in -1 (void) .. K - 1.
        card: The model's, with its K classes.
        class_weights: (K,), for the balanced losses; None where nobody counted the classes.
    """

    model: nn.Module
    sample: Sample
    card: Card
    class_weights: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.card.classes)


@dataclass(frozen=True)
class Scores:
    """Of one prediction against the reference, in [0, 1]; mIoU over the classes that occur in either."""

    accuracy: float
    miou: float


class Moment(NamedTuple):
    """A step on the way: the pixel accuracy of the best so far, and what the model sees in it."""

    step: int
    accuracy: float
    mask: np.ndarray  # (H, W) uint8


#: How many moments of an attack are kept.
MOMENTS = 24


@dataclass(frozen=True)
class Comparison:
    """A picture, its attacked version and what a model sees in both.

    image, attacked: (H, W, 3) uint8. reference, before, after: (H, W) int64 labels. confidence_before,
    confidence_after: (H, W) uint8, the largest softmax value in 1/255. largest_change: L-infinity distance of the two
    pictures in levels of 0 .. 255. `after`, its confidence and its scores belong to the 8-bit picture shown once
    `is_final`, to the float one while the attack runs. curve: pixel accuracy of every step so far. losses: what
    its step size follows. trail: moments from the start to `after`, evenly spread over the steps.
    """

    image: np.ndarray
    attacked: np.ndarray
    reference: np.ndarray
    before: np.ndarray
    after: np.ndarray
    confidence_before: np.ndarray
    confidence_after: np.ndarray
    scores_before: Scores
    scores_after: Scores
    curve: tuple[float, ...]
    losses: tuple[float, ...]
    trail: tuple[Moment, ...]
    step: int
    steps: int
    eps: float
    largest_change: int
    is_final: bool
    norm: str = LINF.name


def scores(predictions: Tensor, reference: Tensor, num_classes: int) -> Scores:
    found = counts(predictions[None], reference[None], num_classes)
    return Scores(accuracy_per_image(found.correct, found.valid).item(), miou(found.intersection[0], found.union[0]))


def seen(model: nn.Module, image: Tensor) -> tuple[Tensor, np.ndarray]:
    """(3, H, W) in [0, 1] to (H, W) int64 labels and (H, W) uint8 confidence, the largest softmax value in 1/255.

    The labels lie on the CPU, wherever the model is.
    """
    logits = checked_logits(model, image[None].to(device_of(model)))[0].cpu()
    largest, labels = logits.max(0)
    confidence = (largest - logits.logsumexp(0)).exp()
    return labels, (255 * confidence).round().byte().numpy()


def unattacked(subject: Subject, spec: AttackSpec) -> Comparison:
    """The comparison before the first step of an attack: nothing changed yet."""
    sample = subject.sample
    before, confidence = seen(subject.model, sample.image)
    found = scores(before, sample.labels, subject.num_classes)
    image, labels = to_bytes(sample.image), before.numpy()
    return Comparison(
        image=image,
        attacked=image,
        reference=sample.labels.numpy(),
        before=labels,
        after=labels,
        confidence_before=confidence,
        confidence_after=confidence,
        scores_before=found,
        scores_after=found,
        curve=(),
        losses=(),
        trail=(),
        step=0,
        steps=spec.steps,
        eps=spec.eps,
        largest_change=0,
        is_final=False,
        norm=spec.norm.name,
    )


def finalise(subject: Subject, shown: Comparison) -> Comparison:
    """Measure a comparison: take `after`, its confidence and its scores from the 8-bit picture that is shown."""
    after, confidence = seen(subject.model, to_tensor(Image.fromarray(shown.attacked)))
    found = scores(after, subject.sample.labels, subject.num_classes)
    return replace(shown, after=after.numpy(), confidence_after=confidence, scores_after=found, is_final=True)


class Trail:
    """The moments of an attack so far, evenly spread over its steps."""

    def __init__(self, start: Comparison) -> None:
        self.reference = torch.from_numpy(start.reference)
        self.moments = [Moment(0, start.scores_before.accuracy, start.before.astype(np.uint8))]
        self.wanted = set(np.linspace(0, start.steps, MOMENTS, dtype=int).tolist()) - {0}

    def pass_by(self, result: AttackResult) -> None:
        """Keep this step if it is one of the evenly spread ones."""
        if result.step in self.wanted:
            self.keep(result)

    def end(self, result: AttackResult) -> None:
        """Keep the last step."""
        if result.step > self.moments[-1].step:
            self.keep(result)

    def keep(self, result: AttackResult) -> None:
        predictions = result.predictions.cpu()
        accuracy = share_equal(predictions, self.reference[None]).item()
        self.moments.append(Moment(result.step, accuracy, predictions[0].numpy().astype(np.uint8)))


def progressed(subject: Subject, start: Comparison, result: AttackResult, trail: Trail) -> Comparison:
    """The comparison with the picture of this step, at which the model is still to look."""
    is_mean_square = start.norm != LINF.name
    attacked = quantise(result.images[0].cpu(), subject.sample.image, start.eps, is_mean_square)
    return replace(
        start,
        attacked=attacked,
        curve=tuple(result.history.accuracy[:, 0].tolist()),
        losses=tuple(result.history.loss[:, 0].tolist()),
        trail=tuple(trail.moments),
        step=result.step,
        largest_change=largest_change(attacked, start.image),
    )


def frame_of(subject: Subject, start: Comparison, result: AttackResult, trail: Trail) -> Comparison:
    """The comparison on the way: what the model sees in the float picture, which the attack knows already."""
    predictions = result.predictions[0].cpu()
    return replace(
        progressed(subject, start, result, trail),
        after=predictions.numpy(),
        confidence_after=seen(subject.model, result.images[0])[1],
        scores_after=scores(predictions, subject.sample.labels, subject.num_classes),
    )


def compare_steps(
    subject: Subject,
    spec: AttackSpec,
    *,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Comparison, None, None]:
    """Attack one sample and yield the best so far, and in the end the best of all, measured on its 8-bit picture.

    Args:
        subject: Who is attacked; its sample lies on the CPU, its model anywhere.
        spec: How; its masks are (H, W).
        frame_seconds: The least time between two comparisons on the way.
        is_stopped: Asked at every step; once it returns True, the attack ends there.

    Yields:
        Comparisons on the way, which show the float picture, and last, also of a stopped attack, the one that
        `is_final`.
    """
    device, start = device_of(subject.model), unattacked(subject, spec)
    trail, due = Trail(start), 0.0
    images, labels = (part[None].to(device) for part in (subject.sample.image, subject.sample.labels))
    with closing(spec_steps(spec, subject.model, images, labels, subject.class_weights)) as running:
        for result in running:
            trail.pass_by(result)
            if is_stopped() or result.step == spec.steps:
                break
            if result.step > 0 and time.monotonic() >= due:
                yield frame_of(subject, start, result, trail)
                due = time.monotonic() + frame_seconds
    trail.end(result)
    yield finalise(subject, progressed(subject, start, result, trail))


def compare(subject: Subject, spec: AttackSpec) -> Comparison:
    """Attack one sample and return the measured comparison at the end of `compare_steps`."""
    return last_of(compare_steps(subject, spec, frame_seconds=float("inf")))


def step_seconds(model: nn.Module, sample: Sample, steps: int = 2) -> float:
    """Seconds of one step of an attack on this picture, here and now."""
    spec = AttackSpec(loss="ce", eps=1 / 255, steps=steps)
    with closing(spec_steps(spec, model, sample.image[None], sample.labels[None])) as running:
        next(running)
        started = time.perf_counter()
        made = sum(1 for _ in running)
    return (time.perf_counter() - started) / max(1, made)
