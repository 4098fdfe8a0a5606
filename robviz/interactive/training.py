"""Make it robust: a short adversarial training, and one attacked picture as the model sees it while it learns.

`training_steps` trains here; `train_in_subprocess` in a process of its own, which ends when the generator is closed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

import robviz
from robviz.attacks import apgd
from robviz.datasets import load_dataset
from robviz.finetune import TrainingImages, train
from robviz.finetune.follow import history, prepare, validation_probe
from robviz.finetune.images import training_images
from robviz.finetune.loop import Training
from robviz.finetune.recipes import PHOTOS, RECIPES, Recipe
from robviz.metrics import accuracy_per_image, counts
from robviz.models import Card, save_checkpoint, shipped_models
from robviz.models.precision import chosen_precision
from robviz.types import InputError, Sample

PROBE_SPLIT, PROBE_IMAGES = "val-128", 4
PICTURE_STEPS = 10  # of the attack on the picture in each round
POLL_SECONDS = 0.2  # seconds between two looks at the other process


def small_recipes() -> list[str]:
    """Return the names of the recipes that start from a shipped model."""
    return [recipe.name for recipe in PHOTOS if recipe.initial in shipped_models()]


def small(name: str, iterations: int, eps: float, attack_steps: int) -> Recipe:
    """Return a short version of one of `small_recipes` for interactive use: small images and a shorter weight average.

    The attack's step size follows from eps, in [0, 1], and steps. Raises InputError for what cannot be trained.
    """
    if name not in small_recipes():
        raise InputError(f"unknown recipe {name!r}; choose from: {', '.join(small_recipes())}")
    recipe = RECIPES[name]
    return replace(
        recipe,
        iterations=iterations,
        eps=eps,
        attack_steps=attack_steps,
        attack_step_size=1.25 * eps if attack_steps == 1 else 2 * eps / attack_steps,
        averaging=max(0.0, min(recipe.averaging, 1 - 4 / iterations)),  # as photos-onestep has it
        sizes=(128,),
        precision=chosen_precision("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    )


@dataclass(frozen=True)
class TrainingRound:
    """Describe the state of the training at one look; iteration 0 is the model that it starts from.

    Attributes:
        miou: Of a few held-out images.
        attacked_miou: Of the same images under attack.
        mask: (H, W) int64, the prediction on the picture, attacked again.
        accuracy: The pixel accuracy of that mask.
        path: The current weights, with their card.
    """

    miou: float
    attacked_miou: float
    mask: np.ndarray
    accuracy: float
    path: Path


@dataclass(frozen=True)
class TrainingFrame:
    """Describe one finished iteration.

    Attributes:
        loss: NaN before the first iteration.
        seconds_left: NaN before the first iteration.
        round: The state of the model, if it was measured at this iteration.
    """

    iteration: int
    iterations: int
    loss: float
    seconds_left: float
    round: TrainingRound | None


def training_steps(
    recipe: Recipe, sample: Sample, folder: Path, rounds: int = 8
) -> Generator[TrainingFrame, None, None]:
    """Train by a recipe of `photos`, and measure the model before it and about `rounds` times, in equal steps.

    sample: the picture that is attacked each round, at the recipe's radius. folder: where the weights are stored, each
    round in place of the last. Raises InputError for what cannot be trained.
    """
    images, eps = training_images(recipe), recipe.eps
    training = prepare(recipe, images, recipe.initial)
    probe = validation_probe(recipe, load_dataset(images.name, PROBE_SPLIT), PROBE_IMAGES, eps)

    def look() -> TrainingRound:
        model = training.averaged.module.eval()
        training.probes.append(probe(model))
        image, labels = (part[None].to(training.accelerator.device) for part in (sample.image, sample.labels))
        mask = apgd(model, image, labels, eps, PICTURE_STEPS, "mask-ce").predictions.cpu()
        right = counts(mask, sample.labels[None], len(images.classes))
        accuracy = accuracy_per_image(right.correct, right.valid).item()
        path = save_checkpoint(model, training_card(training, images), folder)
        return TrainingRound(*training.probes[-1], mask[0].numpy(), accuracy, path)

    yield TrainingFrame(0, images.iterations, float("nan"), float("nan"), look())
    due = {round(images.iterations * number / rounds) for number in range(1, rounds + 1)}
    with closing(train(training, images, workers=0)) as progresses:
        for progress in progresses:
            done = look() if progress.iteration in due else None
            yield TrainingFrame(progress.iteration, progress.iterations, progress.loss, progress.seconds_left, done)


def training_card(training: Training, images: TrainingImages) -> Card:
    """Return the card of the model as it is at this point of the training."""
    recipe = training.recipe
    return Card(
        name=recipe.name,
        architecture=recipe.architecture,
        dataset=images.name,
        classes=images.classes,
        palette=images.palette,
        source=f"trained for {training.iteration} iterations from {recipe.initial} by robviz {robviz.__version__}",
        training=history(training, PROBE_IMAGES) | {"command": "robviz app, Train"},
    )


def send(connection: Connection, recipe: Recipe, sample: Sample, folder: Path, rounds: int) -> None:
    """Send every step from the training process, then None, or a sentence in place of either."""
    try:
        for step in training_steps(recipe, sample, folder, rounds):
            connection.send(step)
        connection.send(None)
    except InputError as error:
        connection.send(str(error))
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody listens any more


def train_in_subprocess(
    recipe: Recipe,
    sample: Sample,
    folder: Path,
    rounds: int = 8,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Generator[TrainingFrame, None, None]:
    """Run `training_steps` in a process of its own, whose memory is returned and whose crash stays its own.

    is_stopped is called a few times a second. Once it returns True, or when the generator is closed, the process is
    ended and the weights of the last round stay. Raises InputError if it could not train or crashed.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(theirs, recipe, sample, folder, rounds), daemon=True)
    process.start()
    theirs.close()
    try:
        while not is_stopped():
            if not ours.poll(POLL_SECONDS):
                continue
            step = ours.recv()
            if step is None:
                process.join()
                return
            if isinstance(step, str):
                raise InputError(step)
            yield step
    except EOFError as error:
        process.join()
        raise InputError(
            f"the training process died (exit code {process.exitcode}); possibly out of memory; try again"
        ) from error
    finally:
        process.terminate()
        process.join()
        ours.close()
