"""The training loop: attack, forward, backward, step."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robviz.files.atomic import replacing
from robviz.finetune.images import (
    DROPOUT,
    TrainingImages,
    generator_of,
    loader,
    numbers_of,
    passes_after,
    read_by_workers,
)
from robviz.finetune.objectives import autocast, noise_of, objective_of, pgd_examples
from robviz.finetune.optimisation import choose_trained, into_training_mode, learning_rate_factor, optimizer_of
from robviz.finetune.recipes import Recipe
from robviz.types import InputError

STATE = "state.pt"
TOO_FEW = "more than 1 value per channel"  # torch's message about batch norm


@dataclass(frozen=True)
class Progress:
    """Describe one finished iteration of a training.

    Attributes:
        iteration: Its number, from 1.
        iterations: The length of the training.
        loss: The mean over all processes.
        images_per_second: The speed of this session, including probes.
        seconds_left: The remaining time at that speed.
        probe: Clean and robust mIoU of the averaged model, if it was measured at this iteration.
        seconds: The time spent on each part of the iteration.
        saved: True if the state was saved at this iteration.
    """

    iteration: int
    iterations: int
    loss: float
    images_per_second: float
    seconds_left: float
    probe: tuple[float, float] | None
    seconds: dict[str, float]
    saved: bool


class Training:
    """Store what a training carries from one iteration to the next.

    Random numbers and data follow from the number of the iteration.

    Attributes:
        model: Trained in place, on `accelerator.device`.
        averaged: Its running average, which is the result.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, num_classes: int) -> None:
        # accelerate ignores the launcher's environment on CPUs unless `cpu` is set. It fixes the precision once per
        # process, so recipes of different precision need their own autocast.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
        model.to(self.accelerator.device)
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        choose_trained(model, recipe)
        self.recipe = recipe
        self.model = model
        self.objective = objective_of(model, recipe)
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
        self.optimizer = optimizer_of(model, recipe)
        self.losses: list[float] = []
        self.probes: list[tuple[float, float]] = []  # clean and robust mIoU of each probe
        self.seconds = 0.0
        self.seen = torch.zeros(num_classes, dtype=torch.bool, device=self.accelerator.device)

    @property
    def iteration(self) -> int:
        """Return the number of finished iterations."""
        return len(self.losses)

    def save(self, folder: Path) -> None:
        """Replace the state in a folder; raises InputError if the disk is full, and the old state stays intact."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "probes": self.probes,
            "seconds": self.seconds,
            "seen": self.seen,
        }
        with must_fit(folder), replacing(folder / STATE) as file:
            torch.save(state, file)

    def load(self, folder: Path) -> None:
        """Resume from the state in a folder, if there is one; raises InputError if it is damaged."""
        if not (folder / STATE).exists():
            return
        try:
            state = torch.load(folder / STATE, map_location=self.accelerator.device, weights_only=True)
        except Exception as error:  # a damaged file can raise any exception
            raise InputError(f"{folder / STATE} is damaged; start over with resume=False or --restart") from error
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses, self.probes, self.seconds = state["losses"], state["probes"], state["seconds"]
        self.seen = state["seen"]


@contextmanager
def must_fit(folder: Path) -> Iterator[None]:
    """Turn a failed write into an InputError with advice."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot save the training in {folder} ({error}); the last saved state is intact: make room and resume"
        ) from error


class Stopwatch:
    """Measure the seconds spent on each part of an iteration."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start()

    def start(self) -> None:
        """Set all times to zero and start the clock."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to this part."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global random generator (dropout) inside, and restore it afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


def train(
    training: Training,
    images: TrainingImages,
    folder: Path | None = None,
    save_every: int = 100,
    probe: Callable[[nn.Module], tuple[float, float]] | None = None,
    probe_every: int = 100,
    micro_batch: int | None = None,
    workers: int = 1,
) -> Generator[Progress, None, None]:
    """Train until the recipe's last iteration; may be closed after any.

    Args:
        training: The state to start from.
        images: The training images.
        folder: Where the state is saved, every `save_every` iterations and when closed, and from where it is resumed.
        save_every: Iterations between two saved states.
        probe: Computes clean and robust mIoU of a model.
        probe_every: Iterations between two probes.
        micro_batch: Images per process at a time. Gradients are accumulated over the whole batch, but batch norm sees
            only these.
        workers: Processes that read images.

    Yields:
        The progress after each iteration.

    Raises:
        InputError: If loss or gradient become infinite or NaN, the disk is full, or a batch is too small; the last
            saved state stays intact.
    """
    accelerator, recipe, model = training.accelerator, training.recipe, training.model
    device, process, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    if recipe.batch_size < processes:
        raise InputError(f"a batch of {recipe.batch_size} images is too small for {processes} processes; raise it")
    if folder is not None:
        training.load(folder)
    network = accelerator.prepare(training.objective.network)
    resumed, before, started = training.iteration, training.seconds, time.perf_counter()
    watch = Stopwatch(device)
    for batch, labels in read_by_workers(loader(images, resumed, process, processes, workers)):
        watch.lap("waiting")
        into_training_mode(model, recipe)
        part = StepPart(batch.to(device), labels.to(device), numbers_of(training.iteration, recipe, process, processes))
        with seeded(generator_of(recipe.seed, DROPOUT, training.iteration, process), device):
            loss = backpropagate(training, network, part, images.iterations, micro_batch, watch)
        update(training, loss, images.iterations)
        if recipe.trains != "backbone" and training.iteration == passes_after(images):
            warn_of_missing(images, training.seen)
        watch.lap("optimiser")

        done = training.iteration
        looked = None
        if probe is not None and done % probe_every == 0:
            looked = probe(training.averaged.module.eval())
            training.probes.append(looked)
        elapsed = time.perf_counter() - started
        training.seconds = before + elapsed
        saved = folder is not None and (done % save_every == 0 or done == images.iterations)
        if folder is not None and saved:
            training.save(folder)
        pace = elapsed / (done - resumed)
        try:
            yield Progress(
                done,
                images.iterations,
                loss,
                recipe.batch_size / pace,
                pace * (images.iterations - done),
                looked,
                dict(watch.seconds),
                saved,
            )
        except GeneratorExit:
            if folder is not None and not saved:
                training.save(folder)
            raise
        watch.start()


class StepPart(NamedTuple):
    """Store the share of a batch that one process handles."""

    images: Tensor
    labels: Tensor
    numbers: range


def backpropagate(
    training: Training, network: nn.Module, part: StepPart, iterations: int, micro_batch: int | None, watch: Stopwatch
) -> float:
    """Accumulate the gradients of the mean loss over the batch of all processes, and return that loss."""
    accelerator, recipe, objective = training.accelerator, training.recipe, training.objective
    eps = recipe.eps * min(1, (training.iteration + 1) / max(1, recipe.eps_warm_up * iterations))
    # Over all processes: how many images or pixels the loss is the mean of, and which classes they show.
    labelled = torch.bincount(part.labels.flatten() + 1, minlength=len(training.seen) + 1)[1:]  # void, -1, comes first
    both = accelerator.reduce(torch.cat([objective.count(part.labels)[None], labelled]), "sum")
    count, training.seen = both[0].clamp_min(1), training.seen | (both[1:] > 0)
    noise = noise_of(recipe.seed, part.numbers, part.images.shape[1:]) if eps else part.images
    total = torch.zeros((), device=accelerator.device)
    pieces = ceil(len(part.images) / (micro_batch or len(part.images)))
    split = zip(*(tensor.tensor_split(pieces) for tensor in (part.images, part.labels, noise)))
    for k, (images, labels, start) in enumerate(split):
        with autocast(images, recipe):
            targets = objective.targets(images, labels)
        if eps:
            images = pgd_examples(objective.network, images, targets, objective.loss, eps, recipe, start)
        watch.lap("attack")
        with nullcontext() if k == pieces - 1 else accelerator.no_sync(network):  # they synchronise once, at the end
            with autocast(images, recipe):
                loss = objective.loss(answers(network, images), targets)
            watch.lap("forward")
            accelerator.backward(loss * accelerator.num_processes / count)  # which takes the mean over processes
            watch.lap("backward")
        total += loss.detach()
    result: float = (accelerator.reduce(total, "sum") / count).item()
    return result


def answers(network: nn.Module, images: Tensor) -> Any:
    """Return outputs in training mode; raises InputError if batch norm has only one value per channel."""
    try:
        return network(images)
    except ValueError as error:
        if TOO_FEW not in str(error):
            raise
        raise InputError(
            f"batch norm cannot learn from {len(images)} image at a time, of which pooling leaves one value per "
            "channel; give each process at least 2 images by batch_size or micro_batch"
        ) from error


def update(training: Training, loss: float, iterations: int) -> None:
    """Update weights and average; raises InputError before any change if loss or gradient are not finite."""
    recipe, parameters = training.recipe, [p for group in training.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.clip or inf).item()
    if not (isfinite(loss) and isfinite(norm)):
        raise InputError(
            f"the loss became {loss:.3g}, its gradient's norm {norm:.3g}, at iteration {training.iteration + 1} of "
            f"{recipe.name}; the last saved state is intact: lower the learning rate or set precision=fp32"
        )
    factor = learning_rate_factor(training.iteration, recipe, iterations)
    for group in training.optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.averaged.update_parameters(training.model)
    training.losses.append(loss)


def warn_of_missing(images: TrainingImages, seen: Tensor) -> None:
    """Warn about classes that occur in no training image."""
    missing = [name for name, is_there in zip(images.classes, seen.tolist()) if not is_there]
    if missing:
        warnings.warn(
            f"the training images of {images.name} show no {', '.join(missing)}; a model cannot learn that",
            stacklevel=3,
        )
