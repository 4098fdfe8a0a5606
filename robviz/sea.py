"""SEA, the Segmentation Ensemble Attack: how robust is this model? (arXiv:2306.12941, section 3.6)

`evaluate` attacks every image of a dataset with every run of its settings, keeps one record for each, and makes the
report from the records alone. It may be killed at any moment and started again, and spread over processes and
machines by `torchrun` or `accelerate launch`: the report stays the same to the byte. (On CPUs with as many threads a
process, that is: another number rounds sums otherwise, so it is part of what decides a run. `OMP_NUM_THREADS` sets it.
On GPUs, torch adds up some gradients in no fixed order and the batch size chooses kernels: last digits may move there.)
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from robviz.attacks import attack_steps, check_eps, predicted, to_the_end
from robviz.checks import require_within
from robviz.kept import KINDS, Kept
from robviz.metrics import (
    SIZE_NAMES,
    balanced_accuracy,
    counts,
    label_counts,
    miou,
    size_counts,
    worst_case_accuracy,
    worst_case_miou,
)
from robviz.models import fingerprint
from robviz.models.adapters import device_of
from robviz.pictures import quantise
from robviz.records import Records, write_atomically
from robviz.report import Report, versions
from robviz.types import Dataset, Sample


@dataclass(frozen=True)
class Run:
    """One attack of an ensemble."""

    loss: str
    attack: str = "red-eps-apgd"
    steps: int = 300

    @property
    def name(self) -> str:
        return f"{self.loss}.{self.attack}.{self.steps}"


@dataclass(frozen=True)
class SeaSettings:
    """An ensemble of attacks and how their worst case is formed.

    aggregation: "each", the worst accuracy an image and, apart from it, the greedy worst mIoU; or "accuracy", the
    attack of lowest accuracy on each image also gives the mIoU, as in version 1 of the paper.
    """

    name: str
    runs: tuple[Run, ...]
    aggregation: str = "each"
    seed: int = 0

    def with_steps(self, steps: int) -> SeaSettings:
        """The same ensemble with another mean number of steps a run, in the same proportions; the name says so."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        factor = steps * len(self.runs) / sum(run.steps for run in self.runs)
        runs = tuple(replace(run, steps=max(1, round(factor * run.steps))) for run in self.runs)
        return replace(self, name=f"{self.name}-{steps}", runs=runs)


#: Version 2 of the paper: three losses, 300 steps each (section 3.6).
PAPER = SeaSettings("paper", (Run("mask-ce-bal"), Run("mask-ce"), Run("js")))
#: Version 1 of the paper, with its own aggregation.
PAPER_V1 = SeaSettings(
    "paper-v1", (Run("mask-ce"), Run("segpgd"), Run("js"), Run("mask-spherical")), aggregation="accuracy"
)
#: PAPER with a tenth of the steps: a first impression, no evidence.
QUICK = replace(PAPER.with_steps(30), name="quick")


@dataclass(frozen=True)
class Strong(SeaSettings):
    """Ours. Of few steps, annealing makes more than APGD; of many, APGD does, and both together find more than either.

    So annealing never takes more steps than the runs given here have. What a longer budget adds beyond them goes to
    APGD: first to the loss that aims at the mIoU, up to twice its steps here, the rest to the annealed losses.
    """

    def with_steps(self, steps: int) -> SeaSettings:
        """The ensemble at three times so many steps an image, as many as three runs have; the name says so."""
        here = sum(run.steps for run in self.runs)
        if 3 * steps <= here:
            return super().with_steps(steps)
        balanced, *annealed = self.runs
        balanced = replace(balanced, steps=min(round(3 * steps * balanced.steps / here), 2 * balanced.steps))
        rest = 3 * steps - balanced.steps - sum(run.steps for run in annealed)
        added = [Run(run.loss, balanced.attack, rest // len(annealed)) for run in annealed]
        return replace(self, name=f"{self.name}-{steps}", runs=(balanced, *annealed, *added))


#: A third of PAPER's steps.
STRONG = Strong(
    "strong",
    (
        Run("mask-ce-bal", steps=140),
        Run("mask-ce", "annealed-pgd", steps=80),
        Run("js", "annealed-pgd", steps=80),
    ),
)

SETTINGS = {settings.name: settings for settings in (PAPER, PAPER_V1, QUICK, STRONG)}


CLEAN = "clean"  # the key of the unattacked images among the runs


class InBfloat16(nn.Module):
    """The model under autocast, its logits float32: for gradients, never for what is reported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.model(images).float()


def chosen_precision(precision: str, device: torch.device) -> str:
    """`fp32` or `bf16`: as asked for, or by `auto`, bf16 where the hardware multiplies it faster."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"unknown precision {precision!r}; choose from: auto, fp32, bf16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if device.type == "cpu" and has_amx() else "fp32"


def key_of(index: int, run: str) -> str:
    return f"{index:06d}.{run}"


def measured(sample: Sample, predictions: Tensor, num_classes: int) -> dict[str, Any]:
    """The counts of one image, all that a report is made of. predictions: (H, W)."""
    found = counts(predictions[None], sample.labels[None], num_classes)
    small_to_large = size_counts(predictions[None], sample.labels[None], num_classes)
    return {
        "image": sample.name,
        "intersection": found.intersection[0].tolist(),
        "union": found.union[0].tolist(),
        "labelled": label_counts(sample.labels[None], num_classes)[0].tolist(),
        "correct": found.correct.item(),
        "valid": found.valid.item(),
        "size_intersection": small_to_large[0][0].tolist(),
        "size_union": small_to_large[1][0].tolist(),
    }


class Outcome(NamedTuple):
    """What one run did to one image: what is counted, and what may be kept beside it."""

    record: dict[str, Any]
    predictions: Tensor  # (H, W)
    images: Tensor | None = None  # (3, H, W) in [0, 1], attacked


def attacked_outcomes(
    model: nn.Module, dataset: Dataset, samples: list[Sample], run: Run, plan: dict[str, Any]
) -> list[Outcome]:
    """Of one run on images of one size."""
    device, eps, precision = device_of(model), plan["eps"], plan["precision"]
    images, labels = (torch.stack(part).to(device) for part in zip(*((s.image, s.labels) for s in samples)))
    started = time.perf_counter()
    attacked = InBfloat16(model) if precision == "bf16" else model
    result = to_the_end(attack_steps)(
        run.attack, attacked, images, labels, eps, run.steps, run.loss, dataset.class_weights, seed=plan["seed"]
    )
    require_within(result.images, images, eps)
    predictions = result.predictions if precision == "fp32" else predicted(model, result.images)
    seconds = (time.perf_counter() - started) / len(samples)
    return [
        Outcome(
            measured(sample, one, len(dataset.classes)) | {"gradients": gradients, "seconds": round(seconds, 3)},
            one,
            image,
        )
        for sample, one, image, gradients in zip(samples, predictions.cpu(), result.images, result.gradients.tolist())
    ]


def clean_outcomes(model: nn.Module, dataset: Dataset, samples: list[Sample]) -> list[Outcome]:
    """Of unattacked images of one size."""
    predictions = predicted(model, torch.stack([sample.image for sample in samples]).to(device_of(model))).cpu()
    return [Outcome(measured(sample, one, len(dataset.classes)), one) for sample, one in zip(samples, predictions)]


def kept_of(run: str) -> tuple[str, ...]:
    """The kinds of files that there are of a run; nothing changes in the unattacked picture."""
    return ("masks",) if run == CLEAN else KINDS


def keep(kept: Kept, key: str, sample: Sample, outcome: Outcome, dataset: Dataset, eps: float) -> None:
    """Write the files that are asked for."""
    if "masks" in kept.kinds:
        kept.write_mask(key, outcome.predictions, dataset.palette)
    if "pictures" in kept.kinds and outcome.images is not None:
        kept.write("pictures", key, Image.fromarray(quantise(outcome.images, sample.image, eps)))


def batches(
    dataset: Dataset | Sequence[Sample], indices: Sequence[int], batch_size: int
) -> Iterator[list[tuple[int, Sample]]]:
    """The samples of these indices in order, as many of one size at a time as fit."""
    samples = ((index, dataset[index]) for index in indices)
    for _, same_size in groupby(samples, key=lambda pair: pair[1].image.shape):
        while batch := list(islice(same_size, batch_size)):
            yield batch


def complete(
    records: Records,
    kept: Kept,
    model: nn.Module,
    dataset: Dataset,
    runs: tuple[Run, ...],
    plan: dict[str, Any],
    indices: list[int],
    batch_size: int,
) -> None:
    """Compute the records of these images, and the files to keep, that are not there yet."""
    wanted: dict[str, Run | None] = {CLEAN: None, **{run.name: run for run in runs}}

    def is_there(key: str, run: str) -> bool:
        kinds = [kind for kind in kept_of(run) if kind in kept.kinds]
        return all(kept.has(kind, key) for kind in kinds) and records.read(key) is not None

    missing = {name: {i for i in indices if not is_there(key_of(i, name), name)} for name in wanted}
    title = f"{plan['settings']['name']}, {255 * plan['eps']:g}/255"
    with tqdm(total=sum(map(len, missing.values())), desc=title, unit="attack", disable=None) as bar:
        for batch in batches(dataset, sorted(set().union(*missing.values())), batch_size):
            for name, run in wanted.items():
                todo = {i: sample for i, sample in batch if i in missing[name]}
                if not todo:
                    continue
                samples = list(todo.values())
                if run is None:
                    done = clean_outcomes(model, dataset, samples)
                else:
                    done = attacked_outcomes(model, dataset, samples, run, plan)
                for (i, sample), outcome in zip(todo.items(), done):
                    keep(kept, key_of(i, name), sample, outcome, dataset, plan["eps"])
                    records.write(key_of(i, name), outcome.record)
                bar.update(len(todo))


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    settings: SeaSettings = PAPER,
    out: str | Path | None = None,
    resume: bool = True,
    limit: int | None = None,
    batch_size: int = 1,
    precision: str = "auto",
    keep_masks: bool = False,
    keep_pictures: bool = False,
) -> Report:
    """Attack a dataset with an ensemble and report the worst case.

    model: images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), on its device; handed back as it came. eps in [0, 1].
    out: folder of the records, the report and `seconds.json`, what each run took; without one nothing is kept.
    resume: go on with the records there, else begin anew. limit: the first so many images only. batch_size: images
    attacked side by side on a GPU, where sizes agree; a CPU gains nothing by it and takes one at a time, as another
    number would round otherwise.
    precision: of the gradients, `fp32`, `bf16`, or `auto` for bf16 where the hardware multiplies it faster; every
    reported prediction is float32.
    keep_masks, keep_pictures: write every prediction, and every attacked picture rounded to 8 bits within eps, as PNG
    beside the records (`robviz.kept`); attacks finished without are run again. The report stays the same.

    Under `torchrun` or the like each process takes its share of the images, and all need the same `out`. Raises
    ValueError for a call that makes no sense, for a folder that holds another run (naming the differences), and
    when the model answers NaN; finished records stay.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes > 1:
        model = model.to(state.device)
    if out is None and state.num_processes > 1:
        raise ValueError("several processes need a folder to share their records in; give out=")
    if out is None and (keep_masks or keep_pictures):
        raise ValueError("masks and pictures are kept in a folder, and there is none; give out=")
    count = min(len(dataset), len(dataset) if limit is None else limit)
    plan = plan_of(model, dataset, eps, settings, count, chosen_precision(precision, device_of(model)))
    with contextlib.ExitStack() as stack:
        # On GPUs, float32 shall be float32, and no kernel be chosen by chance.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with state.main_process_first():
            goes_on = resume or not state.is_main_process
            records = Records(folder, plan, resume=goes_on)
            kinds = tuple(kind for kind, wanted in zip(KINDS, (keep_masks, keep_pictures)) if wanted)
            kept = Kept(folder, kinds, resume=goes_on)
        mine = list(range(count))[state.process_index :: state.num_processes]
        side_by_side = 1 if device_of(model).type == "cpu" else batch_size
        complete(records, kept, model, dataset, settings.runs, plan, mine, side_by_side)
        state.wait_for_everyone()
        report = report_of(records, plan, dataset.classes)
        if out is not None and state.is_main_process:
            for suffix in ("json", "csv", "md"):
                report.save(folder / f"report.{suffix}")
            write_atomically(folder / "seconds.json", json.dumps(seconds_of(records, plan), indent=1) + "\n")
        return report


def plan_of(
    model: nn.Module, dataset: Dataset, eps: float, settings: SeaSettings, images: int, precision: str
) -> dict[str, Any]:
    """All that decides the outcome."""
    check_eps(eps)
    if images < 1:
        raise ValueError("there is no image to evaluate; expected a dataset and a limit of at least 1")
    card = getattr(model, "card", None)
    if card and tuple(card.classes) != tuple(dataset.classes):
        raise ValueError(
            f"the model {card.name} answers in {len(card.classes)} classes ({', '.join(card.classes[:3])}, ...), "
            f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...); "
            "lead them there with robviz.models.adapt(model, dataset=..., class_map=...)"
        )
    plan = {
        "model": {"name": card.name if card else type(model).__name__, "sha256": fingerprint(model)},
        "dataset": {"name": dataset.name, "split": dataset.split, "images": images},
        "eps": eps,
        "settings": asdict(settings),
        "seed": settings.seed,
        "precision": precision,
        "device": device_of(model).type,
        "threads": torch.get_num_threads(),  # another number rounds sums otherwise
        "versions": versions(),
    }
    return json.loads(json.dumps(plan))  # as it will be read again: lists for tuples


def gathered(records: Records, run: str, images: int) -> dict[str, Any]:
    """The records of one run, stacked over the images; `image` is a list of names."""
    rows = []
    for i in range(images):
        row = records.read(key_of(i, run))
        if row is None:
            raise ValueError(f"the record of image {i} under {run} is missing; run the same evaluation again")
        rows.append(row)
    return {
        key: [row[key] for row in rows] if key == "image" else torch.tensor([row[key] for row in rows])
        for key in rows[0]
        if key != "seconds"
    }


def seconds_of(records: Records, plan: dict[str, Any]) -> dict[str, float]:
    """What each run took, over all images and processes; apart from the report, which is the same on each machine."""
    names = [Run(**run).name for run in plan["settings"]["runs"]]
    every = {name: [records.read(key_of(i, name)) for i in range(plan["dataset"]["images"])] for name in names}
    return {name: round(sum(row["seconds"] for row in rows if row), 3) for name, rows in every.items()}


def chosen(table: dict[str, Any], choice: Tensor) -> dict[str, Any]:
    """From values stacked (A, N, ...), those of each image's choice."""
    each = torch.arange(len(choice))
    return {key: value[choice, each] for key, value in table.items() if isinstance(value, Tensor)}


def figures_of(rows: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """What a report says about one prediction an image; rates in [0, 1], None where nothing can be said."""
    intersection, union = rows["intersection"].sum(0), rows["union"].sum(0)
    accuracy = worst_case_accuracy(rows["correct"][None], rows["valid"])
    sizes = zip(SIZE_NAMES, rows["size_intersection"].sum(0).tolist(), rows["size_union"].sum(0).tolist())
    rates = {
        "accuracy_mean": accuracy.mean,
        "accuracy_pooled": accuracy.pooled,
        "miou": miou(intersection, union),
        "balanced_accuracy": balanced_accuracy(intersection, rows["labelled"].sum(0)),
    }
    return {
        **{name: None if math.isnan(rate) else rate for name, rate in rates.items()},
        "iou_by_size": {name: hits / area if area else None for name, hits, area in sizes},
        "iou_by_class": {
            name: hits / area if area else None
            for name, hits, area in zip(classes, intersection.tolist(), union.tolist())
        },
    }


def worst_of(tables: list[dict[str, Any]], aggregation: str, seed: int, classes: tuple[str, ...]) -> dict[str, Any]:
    """The worst case over several runs: accuracy by its own choice, the rest by the choice of lowest mIoU."""
    stacked = {key: torch.stack([table[key] for table in tables]) for key in tables[0] if key != "image"}
    least = worst_case_accuracy(stacked["correct"], tables[0]["valid"])
    by_accuracy = figures_of(chosen(stacked, least.choice), classes)
    if aggregation == "accuracy":
        return by_accuracy
    lowest = worst_case_miou(stacked["intersection"], stacked["union"], seed)
    accuracies = {key: by_accuracy[key] for key in ("accuracy_mean", "accuracy_pooled")}
    return figures_of(chosen(stacked, lowest.choice), classes) | accuracies


def report_of(records: Records, plan: dict[str, Any], classes: tuple[str, ...]) -> Report:
    """The report, from the records alone."""
    images, aggregation, seed = plan["dataset"]["images"], plan["settings"]["aggregation"], plan["seed"]
    names = [Run(**run).name for run in plan["settings"]["runs"]]
    clean, *tables = (gathered(records, name, images) for name in (CLEAN, *names))
    rows = {CLEAN: figures_of(clean, classes)}
    for name, table in zip(names, tables):
        rows[name] = figures_of(table, classes)
    if len(names) > 2:
        for (first, a), (second, b) in combinations(zip(names, tables), 2):
            rows[f"{first} + {second}"] = worst_of([a, b], aggregation, seed, classes)
    rows["worst case"] = worst_of(tables, aggregation, seed, classes)
    least, choice = torch.stack([table["correct"] for table in tables]).min(0)
    return Report(
        plan=plan,
        rows=rows,
        images=[
            {"image": name, "clean": before / max(valid, 1), "worst": after / max(valid, 1), "by": names[by]}
            for name, before, after, valid, by in zip(
                clean["image"], clean["correct"].tolist(), least.tolist(), clean["valid"].tolist(), choice.tolist()
            )
        ],
        gradients=int(sum(table["gradients"].sum().item() for table in tables)),
    )
