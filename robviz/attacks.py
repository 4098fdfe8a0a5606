"""L-infinity attacks on segmentation, as generators that can be stopped at any step.

Each attack comes twice: `apgd_steps` yields an `AttackResult` at the start and after every step, each complete and
valid, so whoever stops early keeps the best found so far; `apgd` runs it to the end. All share one signature,
explained at `attack_steps`.

Inside, an optimiser is a coroutine about one image: it yields the point it wants to know about (`Ask`) and is sent
what the model says there (`Answer`). `search` asks the model about all images of the batch at once. To add an attack,
write its optimiser and add its row to `OPTIMISERS`.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from itertools import accumulate
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robviz.losses import LOSSES, pixel_loss, tracked_loss
from robviz.metrics import pixel_accuracy
from robviz.types import VOID, InputError


class History(NamedTuple):
    """What each step found, first row the start: (T + 1, B) tensors. An image that is done repeats its last values."""

    accuracy: Tensor  # pixel accuracy of that step's images, in [0, 1]
    loss: Tensor  # what the step size follows (appendix B.1): mean cross-entropy over the aimed pixels
    radius: Tensor  # the radius allowed at that step; `red_eps_apgd` starts outside eps


@dataclass(frozen=True)
class AttackResult:
    """The best of an attack so far.

    images: (B, 3, H, W) in [0, 1], within eps of the originals: those of lowest pixel accuracy, or, with a target,
    those with most pixels at it. best_loss_images: those of highest tracked loss. accuracy: (B,) pixel accuracy on
    `images` over the aimed pixels, void left out. predictions: (B, H, W) int64, the model's on `images`. reached:
    (B,) share of the aimed pixels that are at the target, or None without a target. step: how many were made.
    gradients: (B,) int64 backward passes spent on each image.
    """

    images: Tensor
    best_loss_images: Tensor
    accuracy: Tensor
    predictions: Tensor
    reached: Tensor | None
    history: History
    step: int
    gradients: Tensor


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; everything as it was afterwards."""
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


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to (B, H, W) int64 classes."""
    with torch.no_grad(), frozen(model):
        return model(images).max(1).indices  # seven times faster on CPUs than argmax over channels


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise InputError, saying what was expected, unless the pair can be attacked."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images must be (B, 3, H, W), got {tuple(images.shape)}; add a batch axis with images[None]")
    if not images.is_floating_point():
        raise InputError(f"images must be float in [0, 1], got {images.dtype}; use images.float() / 255")
    if not images.isfinite().all():
        raise InputError("images hold NaN or infinity; expected RGB in [0, 1]")
    if images.min() < 0 or images.max() > 1:
        raise InputError(
            f"images must lie in [0, 1], got {images.min():.3g} .. {images.max():.3g}; "
            "divide by 255 and leave normalisation to the model"
        )
    if labels.dtype != torch.int64:
        raise InputError(f"labels must be int64, got {labels.dtype}; use labels.long()")
    if labels.shape != (images.shape[0], *images.shape[2:]):
        raise InputError(
            f"labels must be (B, H, W) = {(images.shape[0], *images.shape[2:])} like the images, "
            f"got {tuple(labels.shape)}"
        )


def check_eps(eps: float) -> None:
    """Raise InputError unless eps is a radius in pixel units."""
    if not 0 <= eps <= 1:
        raise InputError(f"eps must lie in [0, 1] (pixel units: 4 / 255 for four levels), got {eps}")


def check_budget(eps: float, steps: int, loss: str) -> None:
    """Raise InputError unless eps, steps and loss make an attack."""
    check_eps(eps)
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r}; choose from: {', '.join(LOSSES)}")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise InputError unless the model's answer is finite and fits the labels."""
    if logits.ndim != 4 or logits.shape[2:] != labels.shape[1:]:
        raise InputError(
            f"the model must return logits (B, K, H, W) at the labels' resolution {tuple(labels.shape[1:])}, "
            f"got {tuple(logits.shape)}"
        )
    if labels.min() < VOID or labels.max() >= logits.shape[1]:
        raise InputError(
            f"labels must lie in {VOID} (void) .. {logits.shape[1] - 1} for a model of {logits.shape[1]} classes, "
            f"got {int(labels.min())} .. {int(labels.max())}"
        )
    if not logits.isfinite().all():
        raise InputError("the model returned NaN or infinite logits; check its weights and its precision")


def image_generator(seed: int | str, attack: str, image: Tensor) -> torch.Generator:
    """A random source that depends on (seed, attack, image) alone: not on the batch, the order or the machine."""
    content = image.detach().cpu().double().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{seed}/{attack}/{tuple(image.shape)}/".encode() + content).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def project(candidates: Tensor, images: Tensor, eps: float, changeable: Tensor | None = None) -> Tensor:
    """The closest point within eps of the images, in the L-infinity norm, and within [0, 1].

    candidates, images: (..., 3, H, W). changeable: (..., H, W) bool, pixels that may differ; None for all.
    """
    within = candidates.clamp(images - eps, images + eps).clamp(0, 1)
    return within if changeable is None else torch.where(changeable.unsqueeze(-3), within, images)


class Judge(Protocol):
    """What an attacker wants to be small, where it is not the pixel accuracy; one row an image of the batch."""

    def __call__(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """(B, H, W) each to (B,), at least 0."""

    def rows(self, keep: list[int]) -> Judge:
        """The same for some of the images."""


@dataclass(frozen=True)
class Task:
    """What is to be broken and how far one may go: the arguments of an attack, checked."""

    model: nn.Module
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, H, W); void where not aimed
    target: Tensor | None  # (B, H, W); void where not aimed
    changeable: Tensor | None  # (B, H, W) bool
    eps: float
    loss: str
    class_weights: Tensor | None
    seed: int | str
    judge: Judge | None = None  # what the attacker wants at 0, if it is not the accuracy

    def rows(self, keep: list[int]) -> Task:
        """The same task for some of its images."""
        if len(keep) == len(self.images):
            return self
        named = {name: getattr(self, name) for name in ("images", "labels", "target", "changeable")}
        cut = {name: None if rows is None else rows[keep] for name, rows in named.items()}
        return replace(self, **cut, judge=None if self.judge is None else self.judge.rows(keep))

    @property
    def goal(self) -> Tensor:
        """The labels whose loss is raised, or, with a target, lowered."""
        return self.labels if self.target is None else self.target


#: Losses with a meaning towards a target; a mask of the pixels still correct has none there.
TARGETED = ("ce", "js", "tsallis")


def task_of(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int,
    loss: str,
    class_weights: Tensor | None,
    seed: int,
    target: int | Tensor | None = None,
    changeable: Tensor | None = None,
    aimed: Tensor | None = None,
) -> Task:
    """The task of an attack's arguments; raises InputError where they make none."""
    check_images(images, labels)
    check_budget(eps, steps, loss)
    for name, mask in (("changeable", changeable), ("aimed", aimed)):
        if mask is not None and (mask.dtype != torch.bool or mask.shape != labels.shape):
            raise InputError(
                f"{name} must be bool (B, H, W) = {tuple(labels.shape)}, got {mask.dtype} {tuple(mask.shape)}"
            )
    if target is not None:
        if loss not in TARGETED:
            raise InputError(f"a targeted attack takes one of the losses {', '.join(TARGETED)}; got {loss!r}")
        target = target.to(labels) if isinstance(target, Tensor) else torch.full_like(labels, target)
        if target.shape != labels.shape:
            raise InputError(f"target must be a class or (B, H, W) like the labels, got {tuple(target.shape)}")
        target = target.masked_fill(labels == VOID, VOID)
    if aimed is not None:
        labels = labels.masked_fill(~aimed, VOID)
        target = None if target is None else target.masked_fill(~aimed, VOID)
    return Task(model, images.detach(), labels, target, changeable, eps, loss, class_weights, seed)


class Probe(NamedTuple):
    """What the model says about a batch of points."""

    gradient: Tensor | None  # (B, 3, H, W) of the loss to raise
    loss: Tensor  # (B,) tracked loss, mean over the aimed pixels
    accuracy: Tensor  # (B,)
    survives: Tensor  # (B,) what the attacker wants at 0: accuracy, share of pixels not at the target, or the judge's
    predictions: Tensor  # (B, H, W)


def share_equal(predictions: Tensor, labels: Tensor) -> Tensor:
    """(B,) share of the non-void labels that are predicted."""
    is_valid = labels != VOID
    correct = ((predictions == labels) & is_valid).flatten(1).sum(1)
    return pixel_accuracy(correct, is_valid.flatten(1).sum(1))


def probe(task: Task, x: Tensor, progress: float, with_gradient: bool = True) -> Probe:
    """Run the model on x (B, 3, H, W) and measure what the attack needs to know."""
    sign = 1 if task.target is None else -1
    gradient = None
    with torch.set_grad_enabled(with_gradient):
        point = x.detach().requires_grad_(with_gradient)
        logits = task.model(point)
        check_logits(logits, task.goal)
        if with_gradient:
            total = sign * pixel_loss(task.loss, logits, task.goal, task.class_weights, progress).sum()
            (gradient,) = torch.autograd.grad(total, point)
    logits = logits.detach()
    predictions = logits.max(1).indices
    accuracy = share_equal(predictions, task.labels)
    valid = (task.goal != VOID).flatten(1).sum(1).clamp_min(1)
    if task.judge is not None:
        survives = task.judge(predictions, task.labels)
    else:
        survives = accuracy if task.target is None else 1 - share_equal(predictions, task.target)
    tracked = sign * tracked_loss(task.loss, logits, task.goal).flatten(1).sum(1) / valid
    return Probe(gradient, tracked, accuracy, survives, predictions)


class Ask(NamedTuple):
    """A point an optimiser wants to know about."""

    x: Tensor  # (3, H, W)
    radius: float  # it lies within this of the image; beyond eps it is no candidate
    step: int  # how many steps led to it


class Answer(NamedTuple):
    """What the model says about it."""

    gradient: Tensor  # (3, H, W), of the loss to raise
    loss: float  # tracked: what a step size may follow
    survives: float  # what the attacker wants at 0: pixel accuracy, or the share of pixels not at the target


Optimiser = Generator[Ask, Answer, Tensor]
Start = Callable[[float], Tensor]  # radius -> a point (3, H, W) within it
Project = Callable[[Tensor, float], Tensor]  # (point, radius) -> the closest point within it
OptimiserOf = Callable[[Start, Project, float, int], Optimiser]  # (start, project, eps, steps) -> about one image


class StepSizeChecks:
    """The steps at which APGD reconsiders its step size: after 22 % of the run, then in ever shorter spans."""

    def __init__(self, steps: int) -> None:
        self.span = max(int(0.22 * steps), 1)
        self.shortest = max(int(0.06 * steps), 1)
        self.decrease = max(int(0.03 * steps), 1)
        self.since = 0

    def due(self) -> int:
        """Count one step; the length of the span that just ended, or 0 within one."""
        self.since += 1
        if self.since < self.span:
            return 0
        ended, self.since = self.span, 0
        self.span = max(self.span - self.decrease, self.shortest)
        return ended


def oscillates(losses: list[float], span: int, share: float = 0.75) -> bool:
    """Whether the loss rose in at most `share` of the last `span` steps."""
    rises = sum(after > before for before, after in zip(losses[-span - 1 : -1], losses[-span:]))
    return rises <= span * share


def climb(start: Tensor, project: Project, radius: float, steps: int, made: int = 0) -> Optimiser:
    """APGD within one radius; returns the point where least survives. made: steps of the run before these.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks" (ICML 2020), Algorithm 1.
    """
    x = x_before = best = lowest = start
    gradient, loss, survives = yield Ask(x, radius, made)
    best_gradient, losses, best_loss, least = gradient, [loss], loss, survives
    best_loss_at_check, halved_at_check = best_loss, True
    step_size, checks = 2 * radius, StepSizeChecks(steps)
    for t in range(steps):
        momentum = 0.25 if t > 0 else 0.0
        straight = project(x + step_size * gradient.sign(), radius)
        x, x_before = project(x + (1 - momentum) * (straight - x) + momentum * (x - x_before), radius), x
        gradient, loss, survives = yield Ask(x, radius, made + t + 1)
        losses.append(loss)
        if survives <= least:
            lowest, least = x, survives
        if loss > best_loss:
            best, best_gradient, best_loss = x, gradient, loss
        span = checks.due()
        if span:
            stuck = not halved_at_check and best_loss_at_check >= best_loss
            halved_at_check, best_loss_at_check = oscillates(losses, span) or stuck, best_loss
            if halved_at_check:
                step_size, x, gradient = step_size / 2, best, best_gradient
    return lowest


Radii = tuple[tuple[float, float], ...]
#: Radius over eps, and the share of the steps spent there (section 3.5).
REDUCED_RADII: Radii = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))


def climb_within(start: Start, project: Project, eps: float, steps: int) -> Optimiser:
    """APGD within eps."""
    return climb(start(eps), project, eps, steps)


def climb_inwards(start: Start, project: Project, eps: float, steps: int, radii: Radii = REDUCED_RADII) -> Optimiser:
    """APGD within ever smaller radii, each from the projection of where least survived before (section 3.5)."""
    ends = [round(share * steps) for share in accumulate(share for _, share in radii)]
    x, made = start(radii[0][0] * eps), 0
    for (factor, _), end in zip(radii, ends):
        if end > made:
            x = yield from climb(project(x, factor * eps), project, factor * eps, end - made, made)
            made = end
    return x


#: The baselines' step sizes at these radii, both in pixel units (appendix C.4).
PGD_RADII = np.array([0.25, 0.5, 1, 2, 4, 8, 12]) / 255
PGD_STEP_SIZES = np.array([8e-4, 9e-4, 1e-3, 2e-3, 3e-3, 5e-3, 6e-3])


def walk(start: Start, project: Project, eps: float, steps: int) -> Optimiser:
    """Plain PGD with the paper's step size for the radius, interpolated between the published ones."""
    step_size, x = float(np.interp(eps, PGD_RADII, PGD_STEP_SIZES)), start(eps)
    for step in range(steps + 1):
        gradient, _, _ = yield Ask(x, eps, step)
        x = project(x + step_size * gradient.sign(), eps)
    return x


def anneal(start: Start, project: Project, eps: float, steps: int, reach: float = 2.0) -> Optimiser:
    """Sign steps with momentum while radius and step size shrink: ours, for models on which APGD stalls.

    The radius falls linearly from `reach` eps to eps over the first 60 % of the steps, the step size by a cosine from
    the radius to 2 % of it. It looks at neither loss nor accuracy, so nothing makes it settle early.
    """
    x = x_before = start(reach * eps)
    for step in range(steps + 1):
        radius = eps * max(1.0, reach - (reach - 1) * step / (0.6 * steps))
        x = project(x, radius)
        gradient, _, _ = yield Ask(x, radius, step)
        step_size = radius * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        x, x_before = project(x + step_size * gradient.sign() + 0.75 * (x - x_before), radius), x
    return x


#: name -> optimiser. To add an attack, write its optimiser and add its row.
OPTIMISERS: dict[str, OptimiserOf] = {
    "pgd": walk,
    "apgd": climb_within,
    "red-eps-apgd": climb_inwards,
    "annealed-pgd": anneal,
    "annealed-pgd-near": partial(anneal, reach=1.5),
}


@dataclass
class Best:
    """The best candidates of one image so far, and what every step found."""

    is_done: bool
    is_provisional: bool = True  # no step was within the budget yet
    x: Tensor | None = None  # (3, H, W), of lowest `survives`
    predictions: Tensor | None = None  # (H, W), on x
    accuracy: float = 1.0  # on x
    survives: float = float("inf")
    best_loss_x: Tensor | None = None
    loss: float = -float("inf")
    history: list[tuple[float, float, float]] = field(default_factory=list)  # accuracy, tracked loss, radius

    def consider(self, x: Tensor, predictions: Tensor, accuracy: float, survives: float, loss: float) -> None:
        """Keep a point within the budget if it is better in either sense."""
        if survives <= self.survives:
            self.x, self.predictions, self.accuracy, self.survives = x, predictions, accuracy, survives
            self.is_done = self.is_done or survives == 0
        if loss > self.loss:
            self.best_loss_x, self.loss = x, loss

    def enter(self) -> None:
        """The first step within the budget replaces what was seen by looking there: so the official code counts."""
        if self.is_provisional:
            self.is_provisional, self.survives, self.loss = False, float("inf"), -float("inf")


def consider(best: list[Best], x: Tensor, found: Probe) -> None:
    """Offer each image its row of a probe, a point within the budget."""
    numbers = (column.tolist() for column in (found.accuracy, found.survives, found.loss))
    for one, *row in zip(best, x, found.predictions, *numbers):
        one.consider(*row)


def collect(best: list[Best], step: int, is_targeted: bool) -> AttackResult:
    """The best of every image as one result."""
    length = max(len(one.history) for one in best)
    padded = [one.history + one.history[-1:] * (length - len(one.history)) for one in best]
    accuracy, loss, radius = torch.tensor(padded, dtype=torch.float64).permute(2, 1, 0)
    return AttackResult(
        images=torch.stack([one.x for one in best if one.x is not None]),
        best_loss_images=torch.stack([one.best_loss_x for one in best if one.best_loss_x is not None]),
        accuracy=torch.tensor([one.accuracy for one in best]),
        predictions=torch.stack([one.predictions for one in best if one.predictions is not None]),
        reached=torch.tensor([1 - one.survives for one in best]) if is_targeted else None,
        history=History(accuracy, loss, radius),
        step=step,
        gradients=torch.tensor([len(one.history) for one in best]),
    )


class Box(NamedTuple):
    """What an optimiser may know of the task: where one image lies, and how to stay around it."""

    task: Task
    row: int
    random_start: bool

    def start(self, radius: float) -> Tensor:
        """The image, or a uniform draw from the box of the radius around it that is this image's own."""
        image = self.task.images[self.row]
        if not self.random_start:
            return image
        generator = image_generator(self.task.seed, self.task.loss, image)
        draw = torch.rand(image.shape, generator=generator, dtype=torch.float64)
        return self.project(image + ((2 * draw - 1) * radius).to(image), radius)

    def project(self, x: Tensor, radius: float) -> Tensor:
        changeable = None if self.task.changeable is None else self.task.changeable[self.row]
        return project(x, self.task.images[self.row], radius, changeable)


#: How often a run looks at the projection of where it stands, while that is outside the budget.
LOOKS = 20


def search(
    task: Task, optimiser: OptimiserOf, steps: int, random_start: bool, best: list[Best], made: int = 0
) -> Generator[AttackResult, None, None]:
    """Run the optimiser of every image side by side, until each is through or has nothing left to break.

    best: of each image, goes on from what is in it. made: steps of the whole attack before these.
    """
    rows = [row for row, one in enumerate(best) if not one.is_done or one.x is None]
    boxes = [Box(task, row, random_start) for row in range(len(best))]
    runs = {row: optimiser(boxes[row].start, boxes[row].project, task.eps, steps) for row in rows}
    asks = {row: next(run) for row, run in runs.items()}
    while asks:
        live, seekers = task.rows(list(asks)), [best[row] for row in asks]
        x = torch.stack([ask.x for ask in asks.values()])
        _, radius, step = next(iter(asks.values()))  # all images are at the same step
        found = probe(live, x, step / steps)
        assert found.gradient is not None
        if radius <= task.eps:
            for one in seekers:
                one.enter()
            consider(seekers, x, found)
        elif step % max(1, steps // LOOKS) == 0:
            inside = project(x, live.images, task.eps, live.changeable)
            consider(seekers, inside, probe(live, inside, step / steps, with_gradient=False))
        answers = [Answer(*row) for row in zip(found.gradient, found.loss.tolist(), found.survives.tolist())]
        for one, accuracy, answer in zip(seekers, found.accuracy.tolist(), answers):
            one.history.append((accuracy, answer.loss, radius))
        yield collect(best, made + step, task.target is not None)
        answered, asks = dict(zip(asks, answers)), {}
        for row, answer in answered.items():
            with suppress(StopIteration):  # the optimiser is through
                if not best[row].is_done:
                    asks[row] = runs[row].send(answer)


def attack_steps(
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
) -> Generator[AttackResult, None, None]:
    """Attack a batch for the L-infinity norm, yielding after the start and after each step.

    attack: a key of `OPTIMISERS`. model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W); handed back as it came
    when the generator ends or is closed. labels: (B, H, W) int64, `VOID` never counted. eps in [0, 1]. loss: a key
    of `LOSSES`. class_weights: (K,), for the balanced losses. random_start: from a uniform draw around the image.
    target: a class, or labels (B, H, W), to be predicted instead; the loss to it is lowered. changeable: (B, H, W)
    bool, the only pixels that may change. aimed: (B, H, W) bool, the only pixels to be broken. restarts: how many runs
    of `steps` steps, each from a start of its own; the best of all counts.

    The arguments are not modified. Each image is attacked by itself: neither the batch nor its order changes the
    outcome beyond float rounding. Ends early when no image has a pixel left to break. Raises InputError
    at the first `next` for a call that makes no sense, and ValueError when the model answers NaN.
    """
    if attack not in OPTIMISERS:
        raise InputError(f"unknown attack {attack!r}; choose from: {', '.join(OPTIMISERS)}")
    task = task_of(model, images, labels, eps, steps, loss, class_weights, seed, target, changeable, aimed)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise InputError(f"restarts must be at least 1, and 1 without a random start; got {restarts}")
    yield from task_steps(task, attack, steps, random_start, restarts)


def task_steps(
    task: Task, attack: str, steps: int, random_start: bool = True, restarts: int = 1
) -> Generator[AttackResult, None, None]:
    """The steps of `attack_steps` for a checked task, which may have a judge of its own."""
    best = [Best(is_done=not is_aimed) for is_aimed in (task.goal != VOID).flatten(1).any(1).tolist()]
    with frozen(task.model):
        for restart in range(restarts):
            again = replace(task, seed=f"{task.seed}.{restart}") if restart else task
            yield from search(again, OPTIMISERS[attack], steps, random_start, best, restart * steps)


P = ParamSpec("P")
Result = TypeVar("Result")


def to_the_end(steps: Callable[P, Generator[Result, None, None]]) -> Callable[P, Result]:
    """The function that returns the last result of a generator."""

    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        return deque(steps(*args, **kwargs), maxlen=1).pop()

    run.__signature__ = signature(steps)  # type: ignore[attr-defined]
    run.__doc__ = f"Run to the end: {steps.__doc__}"
    return run


pgd_steps = partial(attack_steps, "pgd")
apgd_steps = partial(attack_steps, "apgd")
red_eps_apgd_steps = partial(attack_steps, "red-eps-apgd")
annealed_pgd_steps = partial(attack_steps, "annealed-pgd")
for _steps in (pgd_steps, apgd_steps, red_eps_apgd_steps, annealed_pgd_steps):
    _steps.__doc__ = attack_steps.__doc__
pgd, apgd, red_eps_apgd, annealed_pgd = map(to_the_end, (pgd_steps, apgd_steps, red_eps_apgd_steps, annealed_pgd_steps))
