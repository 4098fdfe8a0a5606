"""Clean and adversarial training of segmentation models (paper, section 4), and the recipes that made the shipped ones.

`train` is the loop, a generator of its own progress; `run` drives it, measures the result and writes the checkpoint
with its card.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import robviz
from robviz.attacks import apgd, frozen, project
from robviz.datasets.photos import Composites
from robviz.metrics import Counts, counts, miou
from robviz.models import ARCHITECTURES, Card, build, card_of, load_model, save_checkpoint
from robviz.report import versions
from robviz.types import VOID, Sample


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training."""

    name: str
    initial: str | None = "imagenet"  # a checkpoint to start from; None starts from scratch
    architecture: str = "upernet-efficientnet-lite0"
    iterations: int = 2000
    batch_size: int = 8
    sizes: tuple[int, ...] = (128, 160, 192, 224)  # of the square images, batch by batch in turn
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.05  # share of the iterations
    auxiliary_weight: float = 0.4  # official configuration
    averaging: float = 0.998  # decay of the running average of the weights, which is what is kept
    eps: float = 0.0  # radius of the adversarial training, L-infinity; 0 trains cleanly
    eps_warm_up: float = 0.2  # share of the iterations over which the radius grows to eps
    attack_steps: int = 2
    attack_step_size: float = 0.01  # official configuration
    seed: int = 0


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("photos-clean", iterations=1000, averaging=0.995),
        Recipe("photos-robust", initial="photos-clean", iterations=1300, averaging=0.995, eps=4 / 255, attack_steps=3),
        # Too cheap an adversarial training, as a lesson: it looks more robust than it is, to APGD above all.
        Recipe(
            "photos-onestep",
            initial="photos-clean",
            iterations=200,
            averaging=0.98,
            eps=4 / 255,
            attack_steps=1,
            attack_step_size=0.02,
            sizes=(128,),
        ),
    )
}


@dataclass(frozen=True)
class Progress:
    """One iteration of a training, done."""

    iteration: int
    iterations: int
    loss: float
    images_per_second: float


class TrainingImages(Dataset[tuple[Tensor, Tensor]]):
    """The composites a recipe sees, in order; one size a batch."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.length = recipe.iterations * recipe.batch_size
        # Seeds shift the stretch of the endless training set, so two seeds share no image.
        self.offset = recipe.seed * self.length
        self.splits = [Composites("train", self.offset + self.length, size) for size in recipe.sizes]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        composites = self.splits[index // self.recipe.batch_size % len(self.splits)]
        sample = composites[self.offset + index]
        return sample.image, sample.labels


def segmentation_loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, auxiliary_weight: float) -> Tensor:
    """Mean cross-entropy over valid pixels, plus the auxiliary head's where the model has one."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    main, *auxiliary = (F.cross_entropy(logits.float(), labels, ignore_index=VOID) for logits in heads)
    return main + auxiliary_weight * sum(auxiliary)


def pgd_examples(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Adversarial images for training: a few plain PGD steps on the cross-entropy from a random start."""
    noise = torch.rand(images.shape, generator=generator) * 2 - 1
    x = project(images + eps * noise.to(images), images, eps)
    with frozen(model):
        for _ in range(recipe.attack_steps):
            x.requires_grad_()
            with autocast(x):
                loss = F.cross_entropy(model(x).float(), labels, ignore_index=VOID, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = project(x.detach() + recipe.attack_step_size * gradient.sign(), images, eps)
    return x


def autocast(images: Tensor) -> torch.autocast:
    """bfloat16 where the images are."""
    return torch.autocast(images.device.type, torch.bfloat16)


def optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW without decay on norms, biases and layer scales."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate_factor(iteration: int, recipe: Recipe) -> float:
    """Linear warm-up, then linear decay to zero."""
    warm_up = max(1, round(recipe.warm_up * recipe.iterations))
    return min((iteration + 1) / warm_up, (recipe.iterations - iteration) / max(1, recipe.iterations - warm_up))


def train(model: nn.Module, recipe: Recipe, averaged: AveragedModel) -> Iterator[Progress]:
    """Train `model` in place by the recipe, its running average into `averaged`; yields after every iteration."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(recipe.seed)
    loader = DataLoader(TrainingImages(recipe), recipe.batch_size, num_workers=1, prefetch_factor=4)
    update = optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(update, lambda i: learning_rate_factor(i, recipe))
    for iteration, (images, labels) in enumerate(loader):
        started = time.perf_counter()
        images, labels = images.to(device), labels.to(device)
        if recipe.eps:
            eps = recipe.eps * min(1, (iteration + 1) / max(1, recipe.eps_warm_up * recipe.iterations))
            images = pgd_examples(model, images, labels, eps, recipe, generator)
        model.train()
        with autocast(images):
            outputs = model(images)
        loss = segmentation_loss(outputs, labels, recipe.auxiliary_weight)
        update.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        update.step()
        schedule.step()
        averaged.update_parameters(model)
        rate = len(images) / (time.perf_counter() - started)
        yield Progress(iteration + 1, recipe.iterations, loss.item(), rate)


def rates(prefix: str, per_image: list[Counts]) -> dict[str, float]:
    """mIoU and pixel accuracy, in [0, 1], pooled over the images."""
    pooled = Counts(*(torch.cat(column).sum(0) for column in zip(*per_image)))
    return {
        f"{prefix}_miou": round(miou(pooled.intersection, pooled.union), 4),
        f"{prefix}_pixel_accuracy": round((pooled.correct / pooled.valid).item(), 4),
    }


def measure_clean(model: nn.Module, samples: list[Sample]) -> dict[str, float]:
    """`clean_miou` and `clean_pixel_accuracy` over the samples."""
    found = []
    for sample in samples:
        with torch.no_grad():
            logits = model(sample.image[None])
        found.append(counts(logits.argmax(1), sample.labels[None], logits.shape[1]))
    return rates("clean", found)


def measure_attacked(model: nn.Module, samples: list[Sample], eps: float, steps: int) -> dict[str, float]:
    """`attacked_miou` and `attacked_pixel_accuracy` under APGD on mask-ce, each image at its lowest accuracy."""
    found = []
    for sample in tqdm(samples, desc="attacking", disable=None):
        result = apgd(model, sample.image[None], sample.labels[None], eps, steps, "mask-ce")
        found.append(counts(result.predictions, sample.labels[None], len(card_of(model).classes)))
    return rates("attacked", found)


def initial_model(recipe: Recipe, num_classes: int) -> nn.Module:
    """The model that a training starts from. Raises ValueError where it cannot be had."""
    if recipe.initial not in (None, "imagenet"):
        return load_model(recipe.initial)
    model, load_imagenet = build(recipe.architecture, num_classes), ARCHITECTURES[recipe.architecture].load_imagenet
    if recipe.initial == "imagenet":
        if load_imagenet is None:
            raise ValueError(f"there are no ImageNet weights for {recipe.architecture}; set initial=None")
        load_imagenet(model)
    return model


def run(
    recipe: Recipe, out: str | Path, attack_steps: int = 50, eps: float = 4 / 255, limit: int | None = None
) -> Path:
    """Train, measure on `photos` and write `<out>/<recipe.name>.safetensors` with its card.

    The figures in the card belong to the weights as written (float16). Returns the path of the weights, which
    `load_model` opens. attack_steps, eps: the attack that the card reports (APGD, mask-ce). limit: measure on the
    first so many pictures of each split only.
    """
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    data = {split: robviz.load_dataset("photos", split) for split in ("val", "photographs")}
    val = data["val"]
    model = initial_model(recipe, len(val.classes)).requires_grad_(True)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    curve, val_curve = [], []
    held_out = [val[i] for i in range(min(len(val), limit or len(val)))]
    bar = tqdm(train(model, recipe, averaged), total=recipe.iterations, desc=recipe.name)
    for progress in bar:
        curve.append(progress.loss)
        if progress.iteration % max(1, recipe.iterations // 20) == 0:
            val_curve.append(measure_clean(averaged.module.eval(), held_out)["clean_miou"])
            bar.write(f"iteration {progress.iteration}: val mIoU {val_curve[-1]}", file=sys.stderr)
        bar.set_postfix(loss=f"{sum(curve[-50:]) / len(curve[-50:]):.3f}")
    trained = time.perf_counter() - started

    card = Card(
        name=recipe.name,
        architecture=recipe.architecture,
        dataset="photos",
        classes=val.classes,
        palette=val.palette,
        source=f"trained on photos by robviz {robviz.__version__}",
    )
    path = save_checkpoint(averaged.module, card, Path(out))
    written = load_model(path)
    metrics = {}
    for split, dataset in data.items():
        samples = [dataset[i] for i in range(min(len(dataset), limit or len(dataset)))]
        metrics[split] = measure_clean(written, samples) | measure_attacked(written, samples, eps, attack_steps)
    training = {
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "command": f"robviz finetune {recipe.name}",
        "training_seconds": round(trained),
        "loss_curve": [round(sum(part) / len(part), 4) for part in chunks(curve, max(1, len(curve) // 100))],
        "val_miou_curve": val_curve,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    attack = {"attack": "apgd", "loss": "mask-ce", "eps": eps, "steps": attack_steps, "seed": 0}
    Card(**{**asdict(card), "metrics": {**metrics, "attack": attack}, "training": training}).save(
        path.with_suffix(".json")
    )
    print(f"{path}: {metrics}", file=sys.stderr)
    return path


def chunks(values: list[float], length: int) -> list[list[float]]:
    return [values[i : i + length] for i in range(0, len(values), length)]
