"""One picture before and after an attack: the record that the app and the notebooks show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import AttackResult, attack_steps, frozen, share_equal
from robviz.files.images import largest_change, quantise, to_bytes, to_tensor
from robviz.metrics import counts, miou, pixel_accuracy
from robviz.models.layers import device_of
from robviz.types import Sample


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


def scores(predictions: Tensor, reference: Tensor, num_classes: int) -> Scores:
    found = counts(predictions[None], reference[None], num_classes)
    return Scores(pixel_accuracy(found.correct, found.valid).item(), miou(found.intersection[0], found.union[0]))


def seen(model: nn.Module, image: Tensor) -> tuple[Tensor, np.ndarray]:
    """(3, H, W) in [0, 1] to (H, W) int64 labels and (H, W) uint8 confidence, the largest softmax value in 1/255.

    The labels lie on the CPU, wherever the model is.
    """
    with torch.no_grad(), frozen(model):
        logits = model(image[None].to(device_of(model)))[0].cpu()
    largest, labels = logits.max(0)
    confidence = (largest - logits.logsumexp(0)).exp()
    return labels, (255 * confidence).round().byte().numpy()


def unattacked(model: nn.Module, sample: Sample, num_classes: int, eps: float, steps: int) -> Comparison:
    """The comparison before the first step: nothing changed yet."""
    before, confidence = seen(model, sample.image)
    found = scores(before, sample.labels, num_classes)
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
        steps=steps,
        eps=eps,
        largest_change=0,
        is_final=False,
    )


def compare_steps(
    model: nn.Module,
    sample: Sample,
    num_classes: int,
    eps: float,
    steps: int,
    loss: str,
    class_weights: Tensor | None = None,
    seed: int = 0,
    frame_seconds: float = 0.0,
    is_stopped: Callable[[], bool] = lambda: False,
    attack: str = "apgd",
    target: int | None = None,
    aimed: Tensor | None = None,
    changeable: Tensor | None = None,
) -> Generator[Comparison, None, None]:
    """Attack one sample and yield the best so far: at most every `frame_seconds`, and at the end.

    The sample lies on the CPU, the model anywhere. is_stopped is asked at every step; once it says so, the last
    comparison follows. `finish` turns that one into the evidence. attack: a key of `OPTIMISERS`. target: a class.
    aimed, changeable: (H, W) bool, the only pixels to break, the only ones to change.
    """
    device, start = device_of(model), unattacked(model, sample, num_classes, eps, steps)
    trail = [Moment(0, start.scores_before.accuracy, start.before.astype(np.uint8))]
    moments = set(np.linspace(0, steps, MOMENTS, dtype=int).tolist()) - {0}

    def pass_by(result: AttackResult) -> None:
        predictions = result.predictions.cpu()
        accuracy = share_equal(predictions, sample.labels[None]).item()
        trail.append(Moment(result.step, accuracy, predictions[0].numpy().astype(np.uint8)))

    def compare(result: AttackResult) -> Comparison:
        predictions = result.predictions[0].cpu()
        attacked = quantise(result.images[0].cpu(), sample.image, eps)
        return replace(
            start,
            attacked=attacked,
            after=predictions.numpy(),
            confidence_after=seen(model, result.images[0])[1],
            scores_after=scores(predictions, sample.labels, num_classes),
            curve=tuple(result.history.accuracy[:, 0].tolist()),
            losses=tuple(result.history.loss[:, 0].tolist()),
            trail=tuple(trail),
            step=result.step,
            largest_change=largest_change(attacked, start.image),
        )

    def batch(part: Tensor) -> Tensor:
        return part[None].to(device)

    due = 0.0
    running = attack_steps(
        attack,
        model,
        batch(sample.image),
        batch(sample.labels),
        eps,
        steps,
        loss,
        None if class_weights is None else class_weights.to(device),
        seed=seed,
        target=target,
        changeable=None if changeable is None else batch(changeable),
        aimed=None if aimed is None else batch(aimed),
    )
    with closing(running):
        for result in running:
            if result.step in moments:
                pass_by(result)
            if is_stopped() or result.step == steps:
                break
            if result.step > 0 and time.monotonic() >= due:
                yield compare(result)
                due = time.monotonic() + frame_seconds
    if trail[-1].step < result.step:
        pass_by(result)
    yield compare(result)


def finish(model: nn.Module, sample: Sample, last: Comparison, num_classes: int) -> Comparison:
    """The same comparison with `after`, confidence and scores taken anew from the 8-bit picture that is shown."""
    after, confidence = seen(model, to_tensor(Image.fromarray(last.attacked)))
    found = scores(after, sample.labels, num_classes)
    return replace(last, after=after.numpy(), confidence_after=confidence, scores_after=found, is_final=True)


def step_seconds(model: nn.Module, sample: Sample, steps: int = 2) -> float:
    """Seconds of one step of an attack on this picture, here and now."""
    running = attack_steps("apgd", model, sample.image[None], sample.labels[None], 1 / 255, steps, "ce")
    with closing(running):
        next(running)
        started = time.perf_counter()
        made = sum(1 for _ in running)
    return (time.perf_counter() - started) / max(1, made)


def compare(
    model: nn.Module,
    sample: Sample,
    num_classes: int,
    eps: float,
    steps: int,
    loss: str = "mask-ce",
    class_weights: Tensor | None = None,
    seed: int = 0,
) -> Comparison:
    """The measured comparison at the end of `compare_steps`. eps in [0, 1]."""
    frames = compare_steps(model, sample, num_classes, eps, steps, loss, class_weights, seed, float("inf"))
    return finish(model, sample, deque(frames, maxlen=1).pop(), num_classes)
