"""Follow a recipe from its initial weights to a checkpoint with its card."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

import robviz
from robviz.attacks import AttackSpec
from robviz.datasets import load_dataset
from robviz.datasets.identity import digests_of, identity
from robviz.files.progress import Bar
from robviz.files.provenance import versions
from robviz.finetune.evaluation import measure_attacked, measure_clean
from robviz.finetune.images import TrainingImages, order, training_images
from robviz.finetune.initialization import initial_model
from robviz.finetune.loop import Progress, Training, must_fit, train
from robviz.finetune.objectives import answering
from robviz.finetune.recipes import RECIPES, Recipe, of_seed
from robviz.models import Card, available, load_model, save_checkpoint
from robviz.results.records import Records
from robviz.types import Dataset, InputError, Sample

DIGESTED = 16  # training images, the first of the first pass, whose content is compared when a training is resumed
PROBES = 20  # evaluations on the val split during a training
PROBE_STEPS = 5  # of the attack in these


def run(  # noqa: PLR0913 - public and documented
    recipe: Recipe,
    out: str | Path,
    attack_steps: int = 50,
    eps: float = 4 / 255,
    limit: int = 64,
    root: str | Path | None = None,
    resume: bool = True,
    save_every: int = 100,
    probe_images: int = 8,
    micro_batch: int | None = None,
    workers: int = 1,
) -> Path:
    """Train, measure on held-out images and write `<out>/<recipe.name>.safetensors` with its card.

    While it trains, the state and the current checkpoint, which `load_model` opens too, are in
    `<out>/<recipe.name>.training`. The same call resumes from there, and returns at once if this recipe was already
    trained. The figures in the card belong to the weights as written (float16).

    Args:
        recipe: What to train and how; `RECIPES` has those of the paper and of this project.
        out: The folder of the checkpoint.
        attack_steps: Steps of the attack that the card reports (APGD, mask-ce).
        eps: Its radius, in [0, 1].
        limit: Measure on at most this many images of each split.
        root: The folder that holds the dataset.
        resume: Resume an interrupted training; False starts over.
        save_every: Iterations between two saved states.
        probe_images: Images of the val split that the model is measured on, 20 times during the training.
        micro_batch: Images per process at a time; see `train`.
        workers: Processes that read images.

    Returns:
        The path of the weights, written by the main process.

    Raises:
        InputError: If the recipe cannot be trained (the last good checkpoint stays intact), and if `out` contains its
            training on other images or labels.
    """
    out, root = Path(out), Path(root) if root is not None else None
    path = out / f"{recipe.name}.safetensors"
    if resume and is_trained(path, recipe, root):
        print(f"{path} exists already; resume=False or --restart trains it again", file=sys.stderr)
        return path
    spec = AttackSpec(eps=eps, steps=attack_steps)
    initial = first_stage(recipe, out, root=root, micro_batch=micro_batch, workers=workers)
    images, held_out = training_images(recipe, root), held_out_of(recipe, root)
    training = prepare(recipe, images, initial)
    is_main = training.accelerator.is_main_process
    folder = out / f"{recipe.name}.training"
    with training.accelerator.main_process_first():
        plan = start_training(folder, recipe, images, resume or not is_main)
    probe = (
        validation_probe(recipe, held_out["val"], probe_images, eps)
        if recipe.trains != "backbone" and is_main
        else None
    )
    card = Card(
        name=recipe.name,
        architecture=recipe.architecture,
        dataset=recipe.held_out or images.name,
        classes=images.classes,
        palette=images.palette,
        source=f"trained on {images.name} by robviz {robviz.__version__}",
    )
    every = max(1, images.iterations // PROBES)
    progresses = train(training, images, folder, save_every, probe, every, micro_batch, workers)
    with telling_of_a_stop(folder), closing(progresses):
        follow(progresses, training, images.iterations, card, folder)
    if is_main:
        with must_fit(out):
            save_checkpoint(training.averaged.module, card, out)
        metrics = validation_metrics(recipe, path, held_out, spec, limit) if recipe.trains != "backbone" else {}
        told = history(training, probe_images) | {"dataset": plan["dataset"]}
        publish(replace(card, metrics=metrics, training=told), path, folder)
    return path


def is_trained(path: Path, recipe: Recipe, root: Path | None = None) -> bool:
    """Return True if a training with exactly this recipe has finished there; its card is written last.

    Raises:
        InputError: If it used other images than the dataset contains now.
    """
    card = path.with_suffix(".json")
    history = Card.load(card).training if card.exists() else {}
    if history.get("recipe") != as_json(recipe):
        return False
    trained = history.get("dataset")
    if trained is not None:
        try:
            images = training_images(recipe, root)
        except InputError:  # the model is here and its dataset is not
            return True
        if trained != dataset_plan(images)[0]:
            raise InputError(
                f"{path} was trained on other images or labels than {images.name} holds now; give another folder, or "
                "resume=False or --restart to train it again"
            )
    return True


def dataset_plan(images: TrainingImages) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what identifies the images of a training: a part of its plan, and digests of a few samples by name."""
    indices = order(images.recipe.seed, 0, len(images))[:DIGESTED]
    digests = digests_of(images.dataset, indices)
    plan = {"name": images.name, "images": len(images), **identity(images.dataset, digests, with_weights=False)}
    return plan, digests


def as_json(recipe: Recipe) -> dict[str, Any]:
    """Return the settings as JSON returns them: lists instead of tuples."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return result


@contextmanager
def telling_of_a_stop(folder: Path) -> Iterator[None]:
    """Print how to resume after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes from the last good state in {folder}", file=sys.stderr)
        raise


def first_stage(recipe: Recipe, out: Path, **options: Any) -> str | None:
    """Return what to start from: if it is another recipe, its checkpoint in `out`, trained first if necessary.

    A seed other than the table's also applies to the first stage and becomes part of its name.
    """
    if recipe.initial not in RECIPES or recipe.initial in available():
        return recipe.initial
    stage, stages = of_seed(RECIPES[recipe.initial], recipe.seed), out / "stages"  # separate from what was asked for
    path = next((p for p in (folder / f"{stage.name}.safetensors" for folder in (out, stages)) if p.exists()), None)
    if path is None:
        path = run(stage, stages, **options)
        PartialState().wait_for_everyone()
    return str(path)


def held_out_of(recipe: Recipe, root: Path | None) -> dict[str, Dataset]:
    """Open the splits that a model is measured on; raises InputError if there is no `val`."""
    splits = ("val", "photographs") if recipe.dataset == "photos" else ("val",)
    return {split: load_dataset(recipe.held_out or recipe.dataset, split, root) for split in splits}


def start_training(folder: Path, recipe: Recipe, images: TrainingImages, resume: bool) -> dict[str, Any]:
    """Create the folder of a training, or check that it belongs to this one, and return the plan in it.

    Raises InputError if it belongs to another training.
    """
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    dataset, digests = dataset_plan(images)
    with must_fit(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return Records.claim(folder / "plan.json", {"recipe": as_json(recipe), "dataset": dataset}, digests)


def first(dataset: Dataset, count: int) -> list[Sample]:
    """Return at most `count` samples from the start of a dataset."""
    return [dataset[i] for i in range(min(len(dataset), count))]


def validation_probe(
    recipe: Recipe, dataset: Dataset, count: int, eps: float
) -> Callable[[nn.Module], tuple[float, float]]:
    """Return a function that measures clean and robust mIoU of a model on a few images."""
    samples, classes = first(dataset, count), len(dataset.classes)
    spec = AttackSpec(eps=eps, steps=PROBE_STEPS)

    def probe(model: nn.Module) -> tuple[float, float]:
        model = answering(model, recipe)
        clean = measure_clean(model, samples, classes)["clean_miou"]
        return clean, measure_attacked(model, samples, classes, spec)["attacked_miou"]

    return probe


def validation_metrics(
    recipe: Recipe, path: Path, held_out: dict[str, Dataset], spec: AttackSpec, limit: int
) -> dict[str, Any]:
    """Measure the figures of a card with the weights as written: by split, clean and attacked."""
    model = answering(load_model(path, PartialState().device), recipe)
    metrics: dict[str, Any] = {"attack": spec.numbers()}
    for split, dataset in held_out.items():
        samples, classes = first(dataset, limit), len(dataset.classes)
        metrics[split] = measure_clean(model, samples, classes)
        metrics[split] |= measure_attacked(model, samples, classes, spec)
    return metrics


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or `CPU`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def history(training: Training, probe_images: int) -> dict[str, Any]:
    """Describe how a model was made, for its card."""
    recipe, losses = training.recipe, training.losses
    length = max(1, len(losses) // 100)
    return {
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "command": f"robviz finetune {recipe.name}",
        "training_seconds": round(training.seconds),
        "loss_curve": [round(fmean(losses[i : i + length]), 4) for i in range(0, len(losses), length)],
        "val_miou_curve": [clean for clean, _ in training.probes],
        "attacked_val_miou_curve": [robust for _, robust in training.probes],
        "probe": {"images": probe_images, "attack_steps": PROBE_STEPS},
        "versions": versions(),
        "device": device_name(training.accelerator.device),
        "threads": torch.get_num_threads(),
        "processes": training.accelerator.num_processes,
    }


def prepare(recipe: Recipe, images: TrainingImages, initial: str | None) -> Training:
    """Prepare a recipe's training before its first iteration. initial: what its weights start from."""
    classes = len(images.classes)
    with torch.random.fork_rng([]):  # the model is built on the CPU
        torch.manual_seed(recipe.seed)
        return Training(initial_model(replace(recipe, initial=initial), classes), recipe, classes)


def follow(progresses: Iterator[Progress], training: Training, iterations: int, card: Card, folder: Path) -> None:
    """Run a training to its end, show its progress, and save the current checkpoint whenever its state is saved."""
    is_main = training.accelerator.is_main_process
    with Bar(card.name, iterations, "iterations", is_shown=is_main, logs=True) as bar:
        for progress in progresses:
            bar.advance(progress.iteration - bar.done, f"loss {fmean(training.losses[-50:]):.3f}")
            if progress.probe is not None:
                clean, robust = progress.probe
                bar.log(f"iteration {progress.iteration}: val mIoU {clean}, attacked {robust}")
            if progress.saved and is_main:
                with must_fit(folder):
                    save_checkpoint(training.averaged.module, card, folder)


def publish(card: Card, path: Path, folder: Path) -> None:
    """Write the card beside the weights, as the last step, and remove the folder of the training."""
    with must_fit(path.parent):
        card.save(path.with_suffix(".json"))
    shutil.rmtree(folder)
    print(f"{path}: {card.metrics}", file=sys.stderr)
