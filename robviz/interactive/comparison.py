"""One picture before and after an attack: the record that the app and the notebooks show."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
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

__all__ = [
    "Comparison",
    "Scores",
    "Snapshot",
    "Subject",
    "clean_comparison",
    "compare",
    "compare_steps",
    "continued",
    "finalise",
    "predict_with_confidence",
    "scores",
    "step_seconds",
]


def never() -> bool:
    """Return False: nobody stops the work.

    Returns:
        False.
    """
    return False


@dataclass(frozen=True)
class Subject:
    """Describe who is attacked: a model, and a picture with its labels in the classes of that model.

    Attributes:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W).
        sample: The picture; its labels lie in -1 (void) .. K - 1.
        card: The model's card, with its K classes.
        class_weights: (K,), for the balanced losses; None if unknown.
        for_gradients: What an attack takes its gradients of, such as `robviz.models.prepared` of it; None for the
            model itself. Everything that is reported at the end is the model's own.
    """

    model: nn.Module
    sample: Sample
    card: Card
    class_weights: Tensor | None = None
    for_gradients: nn.Module | None = None

    @cached_property
    def clean(self) -> tuple[Tensor, np.ndarray]:
        """Return what the model predicts on the unattacked picture, as `predict_with_confidence` does."""
        return predict_with_confidence(self.model, self.sample.image)

    @property
    def num_classes(self) -> int:
        """Return K, the number of classes."""
        return len(self.card.classes)


@dataclass(frozen=True)
class Scores:
    """Hold pixel accuracy and mIoU of one prediction, in [0, 1]; the mIoU is over the classes that occur."""

    accuracy: float
    miou: float


class Snapshot(NamedTuple):
    """Hold one step on the way: the best pixel accuracy so far, and the prediction there."""

    step: int
    accuracy: float
    mask: np.ndarray  # (H, W) uint8


#: How many moments of an attack are kept.
SNAPSHOTS = 24


@dataclass(frozen=True)
class Comparison:
    """Hold a picture, its attacked version and the model's predictions on both.

    `after`, its confidence and its scores belong to the 8-bit picture once `is_final`, and to the float picture while
    the attack runs.

    Attributes:
        image: (H, W, 3) uint8.
        attacked: (H, W, 3) uint8.
        reference: (H, W) int64 labels.
        before: (H, W) int64, the prediction on the picture.
        after: (H, W) int64, the prediction on the attacked picture.
        confidence_before: (H, W) uint8, the largest softmax value in 1/255.
        confidence_after: (H, W) uint8; None while the attack runs.
        scores_before: Of `before` against the reference.
        scores_after: Of `after` against the reference.
        curve: Pixel accuracy of every step so far.
        losses: The loss that the step size follows, of every step so far.
        trail: Moments from the start to `after`, evenly spread over the steps.
        step: The number of steps made.
        steps: The number of steps of the whole attack.
        eps: The radius, in [0, 1].
        largest_change: L-infinity distance of the two pictures, in levels of 0 .. 255.
        is_final: True once the attack has ended and is measured.
    """

    image: np.ndarray
    attacked: np.ndarray
    reference: np.ndarray
    before: np.ndarray
    after: np.ndarray
    confidence_before: np.ndarray
    confidence_after: np.ndarray | None
    scores_before: Scores
    scores_after: Scores
    curve: tuple[float, ...]
    losses: tuple[float, ...]
    trail: tuple[Snapshot, ...]
    step: int
    steps: int
    eps: float
    largest_change: int
    is_final: bool
    norm: str = LINF.name


def scores(predictions: Tensor, reference: Tensor, num_classes: int) -> Scores:
    """Score a prediction.

    Args:
        predictions: (H, W) int64.
        reference: (H, W) int64 labels.
        num_classes: K.

    Returns:
        Pixel accuracy and mIoU in [0, 1].
    """
    found = counts(predictions[None], reference[None], num_classes)
    return Scores(accuracy_per_image(found.correct, found.valid).item(), miou(found.intersection[0], found.union[0]))


def predict_with_confidence(model: nn.Module, image: Tensor) -> tuple[Tensor, np.ndarray]:
    """Predict labels and their confidence.

    Args:
        model: On any device.
        image: (3, H, W) in [0, 1].

    Returns:
        (H, W) int64 labels on the CPU, and (H, W) uint8 confidence, the largest softmax value in 1/255.
    """
    logits = checked_logits(model, image[None].to(device_of(model)))[0].cpu()
    largest, labels = logits.max(0)
    confidence = (largest - logits.logsumexp(0)).exp()
    return labels, (255 * confidence).round().byte().numpy()


def clean_comparison(subject: Subject, spec: AttackSpec) -> Comparison:
    """Return the comparison before the first step of an attack, with nothing changed.

    Args:
        subject: Who will be attacked.
        spec: How.

    Returns:
        The comparison.
    """
    sample = subject.sample
    before, confidence = subject.clean
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
    """Measure a comparison: take `after`, its confidence and its scores from the 8-bit picture that is shown.

    Args:
        subject: Who was attacked.
        shown: The comparison so far.

    Returns:
        The comparison that `is_final`.
    """
    after, confidence = predict_with_confidence(subject.model, to_tensor(Image.fromarray(shown.attacked)))
    found = scores(after, subject.sample.labels, subject.num_classes)
    return replace(shown, after=after.numpy(), confidence_after=confidence, scores_after=found, is_final=True)


class Trail:
    """Collect moments of an attack, evenly spread over its steps."""

    def __init__(self, start: Comparison) -> None:
        self.reference = torch.from_numpy(start.reference)
        self.moments = [Snapshot(0, start.scores_before.accuracy, start.before.astype(np.uint8))]
        self.wanted = set(np.linspace(0, start.steps, SNAPSHOTS, dtype=int).tolist()) - {0}

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
        self.moments.append(Snapshot(result.step, accuracy, predictions[0].numpy().astype(np.uint8)))


def progressed(subject: Subject, start: Comparison, result: AttackResult, trail: Trail) -> Comparison:
    """Return the comparison with the picture of this step, not yet predicted by the model."""
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
    """Return the comparison on the way, with the prediction on the float picture, which the attack already knows."""
    predictions = result.predictions[0].cpu()
    return replace(
        progressed(subject, start, result, trail),
        after=predictions.numpy(),
        confidence_after=None,
        scores_after=scores(predictions, subject.sample.labels, subject.num_classes),
    )


def compare_steps(
    subject: Subject,
    spec: AttackSpec,
    *,
    start: Tensor | None = None,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = never,
) -> Generator[Comparison, None, None]:
    """Attack one sample; yield the best so far, and finally the best of all, measured on its 8-bit picture.

    Args:
        subject: Who is attacked; its sample lies on the CPU, its model anywhere.
        spec: How; its masks are (H, W).
        start: (3, H, W) in [0, 1], to begin from instead of a random draw, such as what `continued` returns.
        frame_seconds: The least time between two comparisons on the way.
        is_stopped: Called at every step; once it returns True, the attack ends there.

    Yields:
        Comparisons on the way, which show the float picture, and last, also of a stopped attack, the one that
            `is_final`.
    """
    device, clean = device_of(subject.model), clean_comparison(subject, spec)
    trail, due = Trail(clean), 0.0
    images, labels = (part[None].to(device) for part in (subject.sample.image, subject.sample.labels))
    first = None if start is None else start[None]
    attacked = subject.for_gradients or subject.model
    with closing(spec_steps(spec, attacked, images, labels, subject.class_weights, start=first)) as running:
        for result in running:
            trail.pass_by(result)
            if is_stopped() or result.step == spec.steps:
                break
            if result.step > 0 and time.monotonic() >= due:
                yield frame_of(subject, clean, result, trail)
                due = time.monotonic() + frame_seconds
    trail.end(result)
    yield finalise(subject, progressed(subject, clean, result, trail))


def compare(subject: Subject, spec: AttackSpec) -> Comparison:
    """Attack one sample and return the measured comparison at the end of `compare_steps`.

    Args:
        subject: Who is attacked.
        spec: How.

    Returns:
        The comparison that `is_final`.
    """
    return last_of(compare_steps(subject, spec, frame_seconds=float("inf")))


def continued(shown: Comparison, eps: float) -> Tensor:
    """Scale the perturbation that a comparison has found to another radius, to begin an attack from.

    Args:
        shown: The comparison.
        eps: The other radius, in [0, 1].

    Returns:
        (3, H, W) float32 in [0, 1]; the picture itself if the comparison's radius is 0.
    """
    image, attacked = (to_tensor(Image.fromarray(part)) for part in (shown.image, shown.attacked))
    if shown.eps == 0:
        return image
    change = (attacked - image).double() * eps / shown.eps  # float64, and in this order: a radius may be tiny
    return (image + change).clamp(0, 1).float()


def step_seconds(model: nn.Module, sample: Sample, steps: int = 2) -> float:
    """Time one step of an attack on this picture, on this machine.

    Args:
        model: The model.
        sample: The picture.
        steps: How many steps to time.

    Returns:
        Seconds per step.
    """
    spec = AttackSpec(loss="ce", eps=1 / 255, steps=steps)
    with closing(spec_steps(spec, model, sample.image[None], sample.labels[None])) as running:
        next(running)
        started = time.perf_counter()
        made = sum(1 for _ in running)
    return (time.perf_counter() - started) / max(1, made)
