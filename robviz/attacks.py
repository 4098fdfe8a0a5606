"""L-infinity and L2 attacks on segmentation, as generators that can be stopped at any step.

Each attack comes as two functions: `apgd_steps` yields an `AttackResult` at the start and after every step, each
complete and valid, so that you can stop early and keep the best result so far; `apgd` runs it to its end. All share one
signature, explained at `attack_steps`. `spec_steps` takes the same arguments as one record, an `AttackSpec`.

Internally, an optimiser is a coroutine that attacks the images of a batch side by side: it yields the points that it
wants evaluated (`Query`) and receives what the model says there (`Feedback`). What it does to an image must not depend
on the others. To add an attack, write its optimiser and add its row to `OPTIMISERS`; both functions follow from the
row.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import Signature, getdoc, signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robviz.losses import LOSSES, pixel_loss, tracked_loss
from robviz.metrics import accuracy_per_image
from robviz.models.answers import answer_of, logits_of, require_normal
from robviz.norms import L2, LINF, Norm
from robviz.types import VOID, InputError, check_radius, check_whole

__all__ = [
    "OPTIMISERS",
    "TARGETED",
    "AttackResult",
    "AttackSpec",
    "History",
    "attack_steps",
    "check_images",
    "frozen",
    "last_of",
    "predicted",
    "share_equal",
    "spec_steps",
]


class History(NamedTuple):
    """Record every step of an attack: (T + 1, B) each, the start first; finished images repeat their last values."""

    accuracy: Tensor  # pixel accuracy of that step's images, in [0, 1]
    loss: Tensor  # tracked by the step size (appendix B.1): mean cross-entropy over the aimed pixels
    radius: Tensor  # the radius allowed at that step; `red_eps_apgd` starts outside eps
    step_size: Tensor  # of the step that led there; 0 at a start


@dataclass(frozen=True)
class AttackResult:
    """Store the best result of an attack so far.

    Attributes:
        images: (B, 3, H, W) in [0, 1], within eps of the originals in the attack's norm: the images of lowest pixel
            accuracy or, with a target, those with the most pixels predicted as the target.
        best_loss_images: (B, 3, H, W), the images of highest tracked loss.
        accuracy: (B,) pixel accuracy of `images` over the aimed pixels that are not void.
        predictions: (B, H, W) int64, the model's predictions on `images`.
        reached: (B,) share of the aimed pixels that are predicted as the target; None without a target.
        history: What each step found.
        step: The number of steps made.
        gradients: (B,) int64, the number of backward passes spent on each image.
        trouble: (B, 3) int64, the number of steps in which each of `TROUBLES` occurred; they make a model look more
            robust than it is.
    """

    images: Tensor
    best_loss_images: Tensor
    accuracy: Tensor
    predictions: Tensor
    reached: Tensor | None
    history: History
    step: int
    gradients: Tensor
    trouble: Tensor


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without parameter gradients, and restore it afterwards.

    Args:
        model: Any module.

    Yields:
        Nothing; use it in a `with` statement.
    """
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in gradients.items():
            parameter.requires_grad_(flag)


def checked_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the model's logits (B, K, H, W) without gradients; raise InputError unless predictions can be read."""
    with torch.no_grad(), frozen(model):
        logits = logits_of(answer_of(model, images), images)
    check_finite(logits)
    return logits


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Predict the class of every pixel.

    Args:
        model: maps images (B, 3, H, W) to logits (B, K, H, W); its mode is restored.
        images: (B, 3, H, W) in [0, 1], on the model's device.

    Returns:
        (B, H, W) int64 classes.

    Raises:
        ValueError: the logits are NaN or infinite, or have another size than the images.
    """
    return checked_logits(model, images).max(1).indices  # seven times faster on CPUs than argmax over channels


#: How far values may lie beyond [0, 1] after an image was normalised and converted back.
ROUNDING = 1e-5


def check_images(images: Tensor, labels: Tensor) -> None:
    """Require that images and labels can be attacked.

    Args:
        images: (B, 3, H, W) float RGB in [0, 1].
        labels: (B, H, W) int64.

    Raises:
        InputError: If they cannot; the message says what was expected.
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a torch.Tensor, got {type(value).__name__}; use torch.as_tensor({name})")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images must be (B, 3, H, W), got {tuple(images.shape)}; add a batch axis with images[None]")
    if not images.is_floating_point():
        raise InputError(f"images must be float in [0, 1], got {images.dtype}; use images.float() / 255")
    if not images.isfinite().all():
        raise InputError("images contain NaN or infinity; expected RGB in [0, 1]")
    if images.min() < -ROUNDING or images.max() > 1 + ROUNDING:
        advice = "undo the normalisation" if images.min() < 0 else "divide by 255"
        raise InputError(
            f"images must lie in [0, 1], got {images.min():.3g} .. {images.max():.3g}; {advice} and leave "
            "normalisation to the model"
        )
    if labels.dtype != torch.int64:
        raise InputError(f"labels must be int64, got {labels.dtype}; use labels.long()")
    if labels.shape != (images.shape[0], *images.shape[2:]):
        raise InputError(
            f"labels must be (B, H, W) = {(images.shape[0], *images.shape[2:])} like the images, "
            f"got {tuple(labels.shape)}"
        )


def check_eps(eps: float) -> None:
    """Raise InputError unless eps is a radius in [0, 1]."""
    check_radius("eps", eps)


def check_budget(eps: float, steps: int, loss: str) -> None:
    """Raise InputError unless eps, steps and loss are valid."""
    check_eps(eps)
    check_whole("steps", steps, 1)
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r}; choose from: {', '.join(LOSSES)}")


def check_finite(logits: Tensor) -> None:
    """Raise InputError unless every logit is a finite number."""
    lowest, highest = logits.detach().aminmax()  # NaN in either where one is NaN; one pass, no copy
    if not (lowest.isfinite() and highest.isfinite()):
        raise InputError("the model returned NaN or infinite logits; check its weights and its precision")


def check_weights(class_weights: Tensor | None) -> None:
    """Raise InputError unless class weights are finite numbers of at least 0, and one is above."""
    if class_weights is None:
        return
    if not isinstance(class_weights, Tensor):
        raise InputError(
            f"class_weights must be a torch.Tensor (K,), got {type(class_weights).__name__}; use torch.tensor(...)"
        )
    if not (class_weights.isfinite().all() and (class_weights >= 0).all()):
        raise InputError(f"class_weights must be finite and at least 0, got {class_weights.tolist()}")
    if class_weights.ndim == 1 and not class_weights.any():  # the worths of a set may all be 0, at its end
        raise InputError("class_weights are all 0, so no pixel would be attacked; expected at least one above 0")


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise InputError unless every label is void or one of the model's classes."""
    if labels.min() < VOID or labels.max() >= num_classes:
        raise InputError(
            f"labels must lie in {VOID} (void) .. {num_classes - 1} for a model of {num_classes} classes, "
            f"got {int(labels.min())} .. {int(labels.max())}"
        )


def image_generator(seed: int | str, attack: str, image: Tensor) -> torch.Generator:
    """Return a random generator that depends only on seed, attack and image, not on batch, order or machine."""
    content = image.detach().cpu().double().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{seed}/{attack}/{tuple(image.shape)}/".encode() + content).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


#: Losses that make sense with a target; those that mask the pixels already broken do not.
TARGETED = ("ce", "js", "tsallis")


@dataclass(frozen=True)
class AttackSpec:
    """Describe an attack completely, apart from the model and the images.

    Attributes:
        attack: A key of `OPTIMISERS`.
        loss: A key of `LOSSES`.
        eps: The radius, for pixel values in [0, 1]. It bounds the change of each value or, for the attacks whose names
            end in `-l2`, the root mean square of the change over all values.
        steps: The number of steps of a run, at least 1.
        seed: The seed of the random start.
        target: A class, or labels (B, H, W), to be predicted instead; None for any wrong class.
        aimed: (H, W) or (B, H, W) bool, the only pixels to break; None for all.
        changeable: (H, W) or (B, H, W) bool, the only pixels that may change; None for all.

    Raises:
        InputError: For an unknown attack or loss, a radius or number of steps out of range, and a target with a loss
            that takes none. Target and masks are checked against the labels when the attack begins.
    """

    attack: str = "apgd"
    loss: str = "mask-ce"
    eps: float = 4 / 255
    steps: int = 100
    seed: int = 0
    target: int | Tensor | None = None
    aimed: Tensor | None = None
    changeable: Tensor | None = None

    def __post_init__(self) -> None:
        if self.attack not in OPTIMISERS:
            raise InputError(f"unknown attack {self.attack!r}; choose from: {', '.join(OPTIMISERS)}")
        check_budget(self.eps, self.steps, self.loss)
        if self.target is not None and self.loss not in TARGETED:
            raise InputError(f"a targeted attack takes one of the losses {', '.join(TARGETED)}; got {self.loss!r}")

    def numbers(self) -> dict[str, Any]:
        """Return attack, loss, eps, steps and seed, ready for JSON."""
        return {name: getattr(self, name) for name in ("attack", "loss", "eps", "steps", "seed")}

    @property
    def norm(self) -> Norm:
        """Return the norm that the radius is measured in."""
        return norm_of(self.attack)


def mask_for(labels: Tensor, name: str, mask: Tensor | None) -> Tensor | None:
    """Return a mask as (B, H, W), like the labels; raises InputError if it does not fit them."""
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.shape not in (labels.shape, labels.shape[1:]):
        raise InputError(
            f"{name} must be bool (B, H, W) = {tuple(labels.shape)}, got {mask.dtype} {tuple(mask.shape)}; "
            "one mask (H, W) applies to all images"
        )
    return mask.to(labels.device).expand_as(labels)


def target_for(labels: Tensor, target: int | Tensor | None) -> Tensor | None:
    """Return the target as labels (B, H, W), void where the labels are; raises InputError if it does not fit."""
    if target is None:
        return None
    if not isinstance(target, Tensor):
        check_whole("target", target)
    wanted = target.to(labels) if isinstance(target, Tensor) else torch.full_like(labels, target)
    if wanted.shape != labels.shape:
        raise InputError(f"target must be a class or (B, H, W) like the labels, got {tuple(wanted.shape)}")
    return wanted.masked_fill(labels == VOID, VOID)


def start_for(images: Tensor, start: Tensor | None) -> Tensor | None:
    """Return the start beside the images, (B, 3, H, W); raises InputError for one that does not fit them."""
    if start is None:
        return None
    if not isinstance(start, Tensor):
        raise InputError(f"start must be a torch.Tensor, got {type(start).__name__}; use torch.as_tensor(start)")
    if start.shape != images.shape:
        raise InputError(f"start must be {tuple(images.shape)} like the images, got {tuple(start.shape)}")
    if not start.is_floating_point():
        raise InputError(f"start must be float in [0, 1], got {start.dtype}; use start.float() / 255")
    if not start.isfinite().all():
        raise InputError("start holds NaN or infinity; expected RGB in [0, 1]")
    return start.detach().to(images)


class Judge(Protocol):
    """Measure what an attacker minimises in place of the pixel accuracy; one row per image of the batch."""

    def __call__(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Map predictions and labels, (B, H, W) each, to (B,) values of at least 0."""

    def rows(self, keep: list[int]) -> Judge:
        """Return the same judge for some of the images."""


@dataclass(frozen=True)
class Task:
    """Store a checked attack and what it is applied to; `of` builds one."""

    spec: AttackSpec
    model: nn.Module
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, H, W); void where not aimed
    target: Tensor | None  # (B, H, W); void where not aimed
    changeable: Tensor | None  # (B, H, W) bool
    class_weights: Tensor | None
    start: Tensor | None = None  # (B, 3, H, W), where the search begins; None for a draw or the images
    restart: int = 0  # the number of this run, if there are several
    judge: Judge | None = None  # what the attacker minimises, if not the accuracy

    @classmethod
    def of(
        cls,
        spec: AttackSpec,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        class_weights: Tensor | None,
        start: Tensor | None = None,
    ) -> Task:
        """Build a task; raises InputError if its parts do not fit together."""
        require_normal(model)
        check_images(images, labels)
        check_weights(class_weights)
        with torch.inference_mode(False):
            task = cls.of_checked(spec, model, images, labels, class_weights)
            start = start_for(task.images, start)
            return replace(task, start=start.clone() if start is not None and start.is_inference() else start)

    @classmethod
    def of_checked(
        cls, spec: AttackSpec, model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None
    ) -> Task:
        """Build a task from checked images; tensors that were made in `torch.inference_mode` are copied."""
        images, labels = (part.clone() if part.is_inference() else part for part in (images, labels))
        changeable = mask_for(labels, "changeable", spec.changeable)
        aimed = mask_for(labels, "aimed", spec.aimed)
        target = target_for(labels, spec.target)
        if aimed is not None:
            labels = labels.masked_fill(~aimed, VOID)
            target = None if target is None else target.masked_fill(~aimed, VOID)
        return cls(spec, model, images.detach().clamp(0, 1), labels, target, changeable, class_weights)

    def rows(self, keep: list[int]) -> Task:
        """Return the same task for some of its images."""
        if len(keep) == len(self.images):
            return self
        return replace(
            self,
            images=self.images[keep],
            labels=self.labels[keep],
            target=None if self.target is None else self.target[keep],
            changeable=None if self.changeable is None else self.changeable[keep],
            start=None if self.start is None else self.start[keep],
            judge=None if self.judge is None else self.judge.rows(keep),
        )

    @property
    def goal(self) -> Tensor:
        """Return the labels whose loss is raised or, with a target, lowered."""
        return self.labels if self.target is None else self.target

    @property
    def seed(self) -> int | str:
        """Return the seed of this run; each restart has its own."""
        return f"{self.spec.seed}.{self.restart}" if self.restart else self.spec.seed


class Probe(NamedTuple):
    """Store the model's response at a batch of points."""

    gradient: Tensor | None  # (B, 3, H, W) of the loss to raise
    loss: Tensor  # (B,) tracked loss, mean over the aimed pixels
    accuracy: Tensor  # (B,)
    survives: Tensor  # (B,) what the attacker minimises: accuracy, share of pixels not at the target, or the judge's
    predictions: Tensor  # (B, H, W)
    trouble: Tensor | None = None  # (B, 3) bool, in the order of `TROUBLES`


def share_equal(predictions: Tensor, labels: Tensor) -> Tensor:
    """Compute the share of the labels that are predicted correctly, without void pixels.

    Args:
        predictions: (B, H, W) int64.
        labels: (B, H, W) int64.

    Returns:
        (B,) in [0, 1].
    """
    is_valid = labels != VOID
    correct = ((predictions == labels) & is_valid).flatten(1).sum(1)
    return accuracy_per_image(correct, is_valid.flatten(1).sum(1))


def evaluate_point(task: Task, x: Tensor, progress: float, with_gradient: bool = True) -> Probe:
    """Run the model on x (B, 3, H, W) and measure what the attack needs to know."""
    sign = 1 if task.target is None else -1
    gradient = None
    with torch.set_grad_enabled(with_gradient):
        point = x.detach().requires_grad_(with_gradient)
        logits = logits_of(answer_of(task.model, point), point)
        check_finite(logits)
        check_labels(task.goal, logits.shape[1])
        if with_gradient:
            total = sign * pixel_loss(task.spec.loss, logits, task.goal, task.class_weights, progress).sum()
            gradient = gradient_of(total, point)
    logits = logits.detach()
    predictions = logits.max(1).indices
    accuracy = share_equal(predictions, task.labels)
    valid = (task.goal != VOID).flatten(1).sum(1).clamp_min(1)
    if task.judge is not None:
        survives = task.judge(predictions, task.labels)
    else:
        survives = accuracy if task.target is None else 1 - share_equal(predictions, task.target)
    tracked = sign * tracked_loss(task.spec.loss, logits, task.goal).flatten(1).sum(1) / valid
    trouble = None if gradient is None else trouble_of(task, gradient, tracked, predictions)
    return Probe(gradient, tracked, accuracy, survives, predictions, trouble)


def gradient_of(total: Tensor, point: Tensor) -> Tensor:
    """Compute the gradient at a point; raises InputError if the graph does not reach it."""
    try:
        (gradient,) = torch.autograd.grad(total, point)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "appears to not have been used" not in str(error):
            raise
        raise InputError(
            "no gradient leads from the model's logits to the picture, so it cannot be attacked; expected none of "
            "torch.no_grad, argmax, detach or numpy on the way"
        ) from error
    return gradient


#: The faults that stall an attack, so that a model looks robust; one column of `AttackResult.trouble` each.
TROUBLES = (
    "the gradient held NaN or infinity",
    "the gradient was 0 around most pixels still to break",
    "the loss that the step size follows overflowed",
)
CELL = 8  # pixels; a model that samples the picture sparsely has gradients of 0 between its samples
FEW = 0.05  # of the pixels; if fewer are left to break, their gradients hardly change a figure
HARDLY_ANY = 0.01  # of the gradient; if no more of it is 0, it cannot be 0 around most of more pixels than FEW


def trouble_of(task: Task, gradient: Tensor, loss: Tensor, predictions: Tensor) -> Tensor:
    """Return which `TROUBLES` occur in a step, for each image; (B, 3) bool."""
    flat = gradient.flatten(1)
    zeros = flat.shape[1] - flat.count_nonzero(1)
    is_sound = flat.sum(1).isfinite() & loss.isfinite() & (zeros <= HARDLY_ANY * flat.shape[1])
    if is_sound.all():  # nearly always, and cheap to find out
        return gradient.new_zeros(len(gradient), len(TROUBLES), dtype=torch.bool)
    is_left = (task.goal != VOID) & ((predictions == task.goal) if task.target is None else predictions != task.goal)
    if task.class_weights is not None:  # pixels of weight 0 need no gradient
        weights = task.class_weights.to(task.goal.device)
        weights = weights if weights.ndim == 1 else weights[0]  # the gain if a pixel leaves its class
        is_left &= weights[task.goal.clamp_min(0)] > 0
    size = gradient.abs().amax(1, keepdim=True)
    cells = [F.max_pool2d(part, CELL, ceil_mode=True)[:, 0] > 0 for part in (size, is_left[:, None].to(size))]
    leads, is_wanted = cells
    blind, wanted = ((mask & is_wanted).flatten(1).sum(1) for mask in (~leads, is_wanted))
    share_left = is_left.flatten(1).sum(1) / (task.goal != VOID).flatten(1).sum(1).clamp_min(1)
    is_finite = gradient.isfinite().flatten(1).all(1)
    is_blind = is_finite & (2 * blind > wanted) & (share_left > FEW)
    return torch.stack([~is_finite, is_blind, ~loss.isfinite()], 1)


class Query(NamedTuple):
    """Name the points that an optimiser wants evaluated."""

    x: Tensor  # (B, 3, H, W)
    radius: float  # the points lie within this of the images; beyond eps they are not candidates
    step: int  # the number of steps that led to them
    step_size: float | Tensor  # of the step that led to them, (B,) if it differs between images


class Feedback(NamedTuple):
    """Store the model's response at those points; of no meaning for images that have nothing left to break."""

    gradient: Tensor  # (B, 3, H, W), of the loss to raise
    loss: Tensor  # (B,) float64 on the CPU: the tracked loss, which a step size may follow
    survives: Tensor  # (B,) float64 on the CPU, to be minimised: accuracy, or the share of pixels not at the target


Optimiser = Generator[Query, Feedback, Tensor]
Direction = Callable[[Tensor], Tensor]  # gradients -> steps of norm 1 along them
Start = Callable[[float], Tensor]  # radius -> points (B, 3, H, W) within it
Project = Callable[[Tensor, float], Tensor]  # (points, radius) -> the closest points within it
OptimiserOf = Callable[[Start, Project, float, int], Optimiser]  # (start, project, eps, steps) -> for a batch


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return values (B,) as (B, 1, 1, 1), of the type and on the device of a batch."""
    return values.to(like)[:, None, None, None]


def pick(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Take the images (B, 3, H, W) of one batch where `which`, (B,) bool on the CPU, and of another elsewhere."""
    if which.all():
        return yes
    return torch.where(which.to(yes.device)[:, None, None, None], yes, no) if which.any() else no


def one_by_one(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Apply a function to each image of a batch alone: a sum over an image may round differently within a batch."""
    return torch.stack([function(image) for image in batch])


class StepSizeSchedule:
    """Decide when APGD reconsiders its step size: after 22 % of the run, then after shorter and shorter spans."""

    def __init__(self, steps: int) -> None:
        self.span = max(int(0.22 * steps), 1)
        self.shortest = max(int(0.06 * steps), 1)
        self.decrease = max(int(0.03 * steps), 1)
        self.since = 0

    def due(self) -> int:
        """Count one step; return the length of the span that it ended, or 0 within a span."""
        self.since += 1
        if self.since < self.span:
            return 0
        ended, self.since = self.span, 0
        self.span = max(self.span - self.decrease, self.shortest)
        return ended


def oscillates(losses: list[Tensor], span: int, share: float = 0.75) -> Tensor:
    """Return (B,) bool: True where the loss, (B,) of each step, rose in at most `share` of the last `span` steps."""
    last = torch.stack(losses[-span - 1 :])
    return (last[1:] > last[:-1]).sum(0) <= span * share


def apgd_run(
    start: Tensor, project: Project, radius: float, steps: int, made: int = 0, direction: Direction = torch.sign
) -> Optimiser:
    """Run APGD within one radius and return the points where the fewest pixels survive.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
    (ICML 2020), Algorithm 1. made: number of steps that the run has made before.
    """
    x = x_before = best = lowest = start
    step_size = torch.zeros(len(start), dtype=torch.float64)
    gradient, loss, survives = yield Query(x, radius, made, step_size)
    best_gradient, losses, best_loss, least = gradient, [loss], loss, survives
    best_loss_at_check, halved_at_check = best_loss, torch.ones_like(step_size, dtype=torch.bool)
    step_size, checks = torch.full_like(step_size, 2 * radius), StepSizeSchedule(steps)
    for t in range(steps):
        momentum = 0.25 if t > 0 else 0.0
        straight = project(x + per_image(step_size, x) * direction(gradient), radius)
        x, x_before = project(x + (1 - momentum) * (straight - x) + momentum * (x - x_before), radius), x
        gradient, loss, survives = yield Query(x, radius, made + t + 1, step_size)
        losses.append(loss)
        lowest, least = pick(survives <= least, x, lowest), torch.where(survives <= least, survives, least)
        rises = loss > best_loss
        best, best_gradient = pick(rises, x, best), pick(rises, gradient, best_gradient)
        best_loss = torch.where(rises, loss, best_loss)
        span = checks.due()
        if span:
            stuck = ~halved_at_check & (best_loss_at_check >= best_loss)
            halved_at_check, best_loss_at_check = oscillates(losses, span) | stuck, best_loss
            step_size = torch.where(halved_at_check, step_size / 2, step_size)
            x, gradient = pick(halved_at_check, best, x), pick(halved_at_check, best_gradient, gradient)
    return lowest


Radii = tuple[tuple[float, float], ...]
#: Radius over eps, and the share of the steps spent there (section 3.5).
REDUCED_RADII: Radii = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))


def apgd_within(start: Start, project: Project, eps: float, steps: int, direction: Direction = torch.sign) -> Optimiser:
    """Run APGD within eps."""
    return apgd_run(start(eps), project, eps, steps, direction=direction)


def climb_within_l2(start: Start, project: Project, eps: float, steps: int) -> Optimiser:
    """Run APGD within a root mean square of eps, the L2 norm."""
    return apgd_within(start, project, eps, steps, partial(one_by_one, L2.direction))


def apgd_reduced_radius(
    start: Start, project: Project, eps: float, steps: int, radii: Radii = REDUCED_RADII
) -> Optimiser:
    """Run APGD within shrinking radii, each starting from the projected best point of the one before (section 3.5)."""
    ends = [round(share * steps) for share in accumulate(share for _, share in radii)]
    x, made = start(radii[0][0] * eps), 0
    for (factor, _), end in zip(radii, ends):
        if end > made:
            x = yield from apgd_run(project(x, factor * eps), project, factor * eps, end - made, made)
            made = end
    return x


#: The baselines' step sizes at these radii, both in pixel units (appendix C.4).
PGD_RADII = np.array([0.25, 0.5, 1, 2, 4, 8, 12]) / 255
PGD_STEP_SIZES = np.array([8e-4, 9e-4, 1e-3, 2e-3, 3e-3, 5e-3, 6e-3])


def pgd_run(start: Start, project: Project, eps: float, steps: int, direction: Direction = torch.sign) -> Optimiser:
    """Run plain PGD with the paper's step size for the radius, interpolated between the published ones."""
    step_size, x = float(np.interp(eps, PGD_RADII, PGD_STEP_SIZES)), start(eps)
    for step in range(steps + 1):
        gradient, _, _ = yield Query(x, eps, step, step_size if step else 0)
        x = project(x + step_size * direction(gradient), eps)
    return x


def walk_l2(start: Start, project: Project, eps: float, steps: int) -> Optimiser:
    """Run PGD within a root mean square of eps, the L2 norm, with the same step sizes, as root mean squares."""
    return pgd_run(start, project, eps, steps, partial(one_by_one, L2.direction))


def annealed_pgd_run(start: Start, project: Project, eps: float, steps: int, reach: float = 2.0) -> Optimiser:
    """Take sign steps with momentum while radius and step size shrink.

    This attack is robviz's own, for models on which APGD stalls. The radius falls linearly from `reach` eps to eps over
    the first 60 % of the steps, the step size by a cosine from the radius to 2 % of it. It ignores loss and accuracy,
    so it never settles early.
    """
    x, step_size = start(reach * eps), 0.0
    x_before = x
    for step in range(steps + 1):
        radius = eps * max(1.0, reach - (reach - 1) * step / (0.6 * steps))
        x = project(x, radius)
        gradient, _, _ = yield Query(x, radius, step, step_size)
        step_size = radius * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        x, x_before = project(x + step_size * gradient.sign() + 0.75 * (x - x_before), radius), x
    return x


#: name -> optimiser. To add an attack, write its optimiser and add its row.
OPTIMISERS: dict[str, OptimiserOf] = {
    "pgd": pgd_run,
    "apgd": apgd_within,
    "red-eps-apgd": apgd_reduced_radius,
    "annealed-pgd": annealed_pgd_run,
    "annealed-pgd-near": partial(annealed_pgd_run, reach=1.5),
    "pgd-l2": walk_l2,
    "apgd-l2": climb_within_l2,
}
#: The attacks whose radius is not measured in the L-infinity norm.
OTHER_NORMS: dict[str, Norm] = {"pgd-l2": L2, "apgd-l2": L2}


def norm_of(attack: str) -> Norm:
    """Return the norm that an attack's radius is measured in."""
    return OTHER_NORMS.get(attack, LINF)


@dataclass
class Best:
    """Store the best candidates of one image so far, and the values of every step."""

    is_done: bool
    is_provisional: bool = True  # no iterate has been within the budget yet, and no start was given
    x: Tensor | None = None  # (3, H, W), of lowest `survives`
    predictions: Tensor | None = None  # (H, W), on x
    accuracy: float = 1.0  # on x
    survives: float = float("inf")
    best_loss_x: Tensor | None = None
    loss: float = -float("inf")
    history: list[tuple[float, ...]] = field(default_factory=list)  # a row of History each
    trouble: Tensor = field(default_factory=lambda: torch.zeros(len(TROUBLES), dtype=torch.int64))  # steps in each

    def consider(self, x: Tensor, predictions: Tensor, accuracy: float, survives: float, loss: float) -> None:
        """Keep a point within the budget if it is better in either sense."""
        if survives <= self.survives:
            self.x, self.predictions, self.accuracy, self.survives = x, predictions, accuracy, survives
            self.is_done = self.is_done or survives == 0
        if loss > self.loss:
            self.best_loss_x, self.loss = x, loss

    def enter(self) -> None:
        """Discard the candidates found by projection once the first iterate lies within the budget.

        The official code does the same.
        """
        if self.is_provisional:
            self.is_provisional, self.survives, self.loss = False, float("inf"), -float("inf")


def consider(best: list[Best], x: Tensor, found: Probe) -> None:
    """Offer each image its row of a probe, a point within the budget."""
    numbers = (column.tolist() for column in (found.accuracy, found.survives, found.loss))
    for one, *row in zip(best, x, found.predictions, *numbers):
        one.consider(*row)


def collect(best: list[Best], step: int, is_targeted: bool) -> AttackResult:
    """Combine the best of every image into one result."""
    length = max(len(one.history) for one in best)
    padded = [one.history + one.history[-1:] * (length - len(one.history)) for one in best]
    history = History(*torch.tensor(padded, dtype=torch.float64).permute(2, 1, 0))
    return AttackResult(
        images=torch.stack([one.x for one in best if one.x is not None]),
        best_loss_images=torch.stack([one.best_loss_x for one in best if one.best_loss_x is not None]),
        accuracy=torch.tensor([one.accuracy for one in best]),
        predictions=torch.stack([one.predictions for one in best if one.predictions is not None]),
        reached=torch.tensor([1 - one.survives for one in best]) if is_targeted else None,
        history=history,
        step=step,
        gradients=torch.tensor([len(one.history) for one in best]),
        trouble=torch.stack([one.trouble for one in best]),
    )


class Box(NamedTuple):
    """Give an optimiser what it may know of the task: its images, and how to stay within a radius around them."""

    task: Task
    random_start: bool

    def start(self, radius: float) -> Tensor:
        """Return the given start within the radius; else the images, or random points, each of its image alone."""
        images, spec = self.task.images, self.task.spec
        if self.task.start is not None:
            return self.project(self.task.start, radius)
        if not self.random_start:
            return images
        generators = [image_generator(self.task.seed, spec.loss, image) for image in images]
        drawn = torch.stack([spec.norm.draw(generator, images.shape[1:]) for generator in generators])
        return self.project(images + (drawn * radius).to(images), radius)

    def project(self, x: Tensor, radius: float) -> Tensor:
        norm, images, changeable = self.task.spec.norm, self.task.images, self.task.changeable
        if norm is LINF:
            return norm.project(x, images, radius, changeable)
        masks = [None] * len(x) if changeable is None else changeable
        each = zip(x, images, masks)
        return torch.stack([norm.project(point, image, radius, mask) for point, image, mask in each])


class Runs:
    """Run an optimiser on those images of a batch that have something left to break.

    `ask` returns their points and `tell` passes on the model's response. An image leaves once it has nothing left to
    break, and all leave once the optimiser has ended.
    """

    def __init__(self, task: Task, best: list[Best], random_start: bool) -> None:
        self.best = best
        self.rows = [row for row, one in enumerate(best) if not one.is_done or one.x is None]
        self.live = list(range(len(self.rows)))  # positions in `rows` of the images that have not left
        if self.rows:
            box, spec = Box(task.rows(self.rows), random_start), task.spec
            self.optimiser = OPTIMISERS[spec.attack](box.start, box.project, spec.eps, spec.steps)
            self.asked = next(self.optimiser)

    def ask(self) -> tuple[list[int], Tensor, float, int]:
        """Return the active rows, their points (n, 3, H, W), and the common radius and step."""
        x, radius, step, _ = self.asked
        return [self.rows[at] for at in self.live], self.of_live(x), radius, step

    def of_live(self, values: Tensor) -> Tensor:
        """Return the rows of the images that have not left."""
        return values if len(self.live) == len(self.rows) else values[self.live]

    def of_all(self, values: Tensor) -> Tensor:
        """Return the values of the images that have not left as rows of all, 0 for the others."""
        if len(self.live) == len(self.rows):
            return values
        result = values.new_zeros(len(self.rows), *values.shape[1:])
        result[self.live] = values
        return result

    def step_sizes(self) -> list[float]:
        """Return the size of the step that led to each of these points."""
        sizes = self.asked.step_size
        return self.of_live(sizes).tolist() if isinstance(sizes, Tensor) else [sizes] * len(self.live)

    def tell(self, found: Probe) -> None:
        """Send the optimiser the probe of the points that it asked for, and receive its next points."""
        assert found.gradient is not None
        loss, survives = (self.of_all(part.double().cpu()) for part in (found.loss, found.survives))
        feedback = Feedback(self.of_all(found.gradient), loss, survives)
        self.live = [at for at in self.live if not self.best[self.rows[at]].is_done]
        if self.live:
            try:
                self.asked = self.optimiser.send(feedback)
            except StopIteration:  # it has made its steps
                self.live = []


#: Number of times per run that an iterate outside the budget is projected and evaluated.
PROJECTION_PROBES = 20


def consider_within(best: list[Best], task: Task, x: Tensor, found: Probe, radius: float, step: int) -> None:
    """Offer each image its point if that lies within the budget, or else, at intervals, the projection of its point."""
    spec = task.spec
    if radius <= spec.eps:
        for one in best:
            one.enter()
        consider(best, x, found)
    elif step % max(1, spec.steps // PROJECTION_PROBES) == 0:
        inside = spec.norm.project(x, task.images, spec.eps, task.changeable)
        consider(best, inside, evaluate_point(task, inside, step / spec.steps, with_gradient=False))


def search(task: Task, best: list[Best], random_start: bool) -> Generator[AttackResult, None, None]:
    """Run the optimiser of every image until each has ended or has nothing left to break, starting from `best`."""
    runs = Runs(task, best, random_start)
    while runs.live:
        rows, x, radius, step = runs.ask()
        live, candidates = task.rows(rows), [best[row] for row in rows]
        found = evaluate_point(live, x, step / task.spec.steps)
        consider_within(candidates, live, x, found, radius, step)
        assert found.trouble is not None
        measured = zip(found.accuracy.tolist(), found.loss.tolist(), runs.step_sizes(), found.trouble.cpu())
        for one, (accuracy, loss, step_size, trouble) in zip(candidates, measured):
            one.history.append((accuracy, loss, radius, step_size))
            one.trouble = one.trouble + trouble
        yield collect(best, task.restart * task.spec.steps + step, task.target is not None)
        runs.tell(found)


def task_steps(task: Task, random_start: bool = True, restarts: int = 1) -> Generator[AttackResult, None, None]:
    """Yield the steps of `attack_steps` for a checked task, which may have a judge of its own.

    Between two steps the caller's gradient mode applies; within a step, gradients are computed even in
    `torch.inference_mode`.
    """
    with closing(steps_of(task, random_start, restarts)) as steps:
        while True:
            with torch.inference_mode(False):
                try:
                    found = next(steps)
                except StopIteration:
                    return
            yield found


def steps_of(task: Task, random_start: bool, restarts: int) -> Generator[AttackResult, None, None]:
    """Yield the steps of `task_steps`, outside of `torch.inference_mode`."""
    if restarts < 1 or (restarts > 1 and not random_start):
        raise InputError(f"restarts must be at least 1, and 1 without a random start; got {restarts}")
    if restarts > 1 and task.start is not None:
        raise InputError(f"restarts draw starts of their own; expected 1 with a start that is given, got {restarts}")
    is_drawn = task.start is None  # what projection finds of a start that is given is kept: it never gets worse
    best = [Best(not is_aimed, is_provisional=is_drawn) for is_aimed in (task.goal != VOID).flatten(1).any(1).tolist()]
    with frozen(task.model):
        for restart in range(restarts):
            yield from search(replace(task, restart=restart), best, random_start)


def spec_steps(
    spec: AttackSpec,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    random_start: bool = True,
    restarts: int = 1,
    start: Tensor | None = None,
) -> Generator[AttackResult, None, None]:
    """Attack a batch as a spec says, yielding after the start and after each step.

    Args:
        spec: The attack.
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored, however the attack ends.
        images: (B, 3, H, W) float RGB in [0, 1].
        labels: (B, H, W) int64; pixels of `VOID` are never counted.
        class_weights: (K,), for the balanced losses.
        random_start: Start from a random point around the image instead of the image itself.
        restarts: The number of runs, each from its own random start; the best one counts.
        start: (B, 3, H, W) float in [0, 1], to begin from instead of a random draw, projected into the radius that the
            attack begins with. The result is never worse than its projection into eps. Excludes restarts.

    Yields:
        The best found so far, complete and valid at every step.

    Raises:
        InputError: For arguments that do not fit together or are out of range, and when the model returns NaN; at the
            first `next`.
    """
    yield from task_steps(Task.of(spec, model, images, labels, class_weights, start), random_start, restarts)


def attack_steps(  # noqa: PLR0913 - public and documented; `spec_steps` takes them as a record
    attack: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int = 100,
    loss: str = "mask-ce",
    class_weights: Tensor | None = None,
    random_start: bool = True,
    seed: int = 0,
    target: int | Tensor | None = None,
    changeable: Tensor | None = None,
    aimed: Tensor | None = None,
    restarts: int = 1,
    start: Tensor | None = None,
) -> Generator[AttackResult, None, None]:
    """Attack a batch, yielding after the start and after each step.

    The arguments are not modified. Each image is attacked by itself: neither the batch nor its order changes the
    outcome beyond float rounding. Ends early when no image has a pixel left to break.

    Args:
        attack: A key of `OPTIMISERS`.
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); its mode is restored, however the attack ends.
        images: (B, 3, H, W) float RGB in [0, 1].
        labels: (B, H, W) int64; pixels of `VOID` are never counted.
        eps: The radius, for pixel values in [0, 1]: `4 / 255` is four levels of 8 bits. It bounds the change of each
            value or, for the attacks whose names end in `-l2`, the root mean square of the change over all values.
        steps: The number of steps of each run.
        loss: A key of `LOSSES`.
        class_weights: (K,), for the balanced losses.
        random_start: Start from a random point around the image instead of the image itself.
        seed: The seed of the random start, which also depends on the loss and the image, and on nothing else.
        target: A class, or labels (B, H, W), to be predicted instead; the loss to it is lowered.
        changeable: (B, H, W) bool, or (H, W) for all images: the only pixels that may change.
        aimed: (B, H, W) bool, or (H, W) for all images: the only pixels to be broken.
        restarts: The number of runs, each from its own random start; the best one counts.
        start: (B, 3, H, W) float in [0, 1], to begin from instead of a random draw, projected into the radius that the
            attack begins with. The result is never worse than its projection into eps. Excludes restarts.

    Yields:
        The best found so far, complete and valid at every step.

    Raises:
        InputError: For arguments that do not fit together or are out of range, and when the model returns NaN; from a
            generator, at the first `next`.
    """
    spec = AttackSpec(attack, loss, eps, steps, seed, target, aimed, changeable)
    yield from spec_steps(spec, model, images, labels, class_weights, random_start, restarts, start)


P = ParamSpec("P")
Result = TypeVar("Result")
AttackSteps = Generator[AttackResult, None, None]


def last_of(frames: Iterable[Result]) -> Result:
    """Run a generator to its end and return the last value that it yields.

    Args:
        frames: A generator that yields at least once.

    Returns:
        The last value.
    """
    return deque(frames, maxlen=1).pop()


def attack_doc(attack: str, summary: str, outcome: str) -> str:
    """Write the docstring of an attack's own function from that of `attack_steps` and its optimiser's first words."""
    about = (getdoc(OPTIMISERS[attack]) or "").partition("\n\n")[0]
    _, notes, arguments, _, raises = (getdoc(attack_steps) or 4 * "\n\n").split("\n\n")  # empty under python -OO
    arguments = arguments.replace("    attack: A key of `OPTIMISERS`.\n", "")
    return "\n\n".join([f"Attack a batch by {attack} {summary}.", about, notes, arguments, outcome, raises])


def presented(function: Callable[P, Result], name: str, returns: str, doc: str) -> Callable[P, Result]:
    """Give a function the name, signature and docstring that `help` and tracebacks show."""
    shown: Any = function
    shown.__name__ = shown.__qualname__ = name.replace("-", "_")
    shown.__code__ = shown.__code__.replace(co_name=shown.__name__)
    _, *parameters = signature(attack_steps).parameters.values()
    shown.__signature__ = Signature(parameters, return_annotation=returns)
    shown.__doc__ = doc
    return function


def generator_function(steps: Callable[Concatenate[str, P], AttackSteps], attack: str) -> Callable[P, AttackSteps]:
    """Return the function that makes the steps of one attack: `apgd_steps` of "apgd"."""

    def function(*args: P.args, **kwargs: P.kwargs) -> AttackSteps:
        return steps(attack, *args, **kwargs)

    yields = "Yields:\n    The best found so far, complete and valid at every step."
    doc = attack_doc(attack, "and yield after the start and after each step", yields)
    return presented(function, f"{attack}_steps", "Generator[AttackResult, None, None]", doc)


def result_function(steps: Callable[Concatenate[str, P], AttackSteps], attack: str) -> Callable[P, AttackResult]:
    """Return the function that runs one attack to its end: `apgd` of "apgd"."""

    def function(*args: P.args, **kwargs: P.kwargs) -> AttackResult:
        return last_of(steps(attack, *args, **kwargs))

    doc = attack_doc(attack, "and run it to its end", "Returns:\n    The best found in all steps.")
    return presented(function, attack, "AttackResult", doc)


for _attack in OPTIMISERS:
    for _function in (generator_function(attack_steps, _attack), result_function(attack_steps, _attack)):
        globals()[_function.__name__] = _function
        __all__ += [_function.__name__]
if TYPE_CHECKING:  # created by the loop above; declared here for type checkers
    pgd_steps = apgd_steps = red_eps_apgd_steps = annealed_pgd_steps = generator_function(attack_steps, "pgd")
    pgd_l2_steps = apgd_l2_steps = generator_function(attack_steps, "pgd")
    pgd = apgd = red_eps_apgd = annealed_pgd = pgd_l2 = apgd_l2 = result_function(attack_steps, "pgd")
