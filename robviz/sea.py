"""SEA, the Segmentation Ensemble Attack: how robust is this model (arXiv:2306.12941, section 3.6)?

`evaluate` attacks every image of a dataset with every run of its settings, keeps one record for each, and makes the
report from the records alone. It may be stopped at any moment and resumed, and spread over processes and machines by
`torchrun` or `accelerate launch`; the report stays the same to the byte. On CPUs this holds for equal numbers of
threads per process, because the number of threads changes how sums are rounded; it is part of the plan, and
`OMP_NUM_THREADS` sets it. On GPUs, torch adds up some gradients in no fixed order and the batch size selects kernels,
so the last digits may differ.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from robviz.attacks import check_eps, last_of, predicted, spec_steps
from robviz.checks import require_within
from robviz.datasets.batching import batches
from robviz.files.atomic import write_atomically
from robviz.files.images import quantise
from robviz.files.provenance import versions
from robviz.models import fingerprint
from robviz.models.layers import device_of
from robviz.models.precision import InBfloat16, chosen_precision
from robviz.results.images import KINDS, Kept, kept_of
from robviz.results.plan import CLEAN, Run, SeaSettings, key_of
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.summary import measured, report_of, seconds_of
from robviz.types import Dataset, InputError, Sample

#: Version 2 of the paper: three losses, 300 steps each (section 3.6).
PAPER = SeaSettings("paper", (Run("mask-ce-bal"), Run("mask-ce"), Run("js")))
#: Version 1 of the paper, with its own aggregation.
PAPER_V1 = SeaSettings(
    "paper-v1", (Run("mask-ce"), Run("segpgd"), Run("js"), Run("mask-spherical")), aggregation="accuracy"
)
#: PAPER with a tenth of the steps: a first impression, not evidence.
QUICK = replace(PAPER.with_steps(30), name="quick")


@dataclass(frozen=True)
class Strong(SeaSettings):
    """Combine APGD and annealed PGD: robviz's own ensemble.

    Annealed PGD is stronger with few steps and APGD with many; combining them beats either one. Therefore annealed PGD
    never takes more steps than its runs have here. A longer budget goes to APGD: first to the loss that targets the
    mIoU, up to twice its steps here, the rest to the annealed losses.
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


class Outcome(NamedTuple):
    """Hold what one run did to one image: its counts, and what may be kept beside them."""

    record: dict[str, Any]
    predictions: Tensor  # (H, W)
    images: Tensor | None = None  # (3, H, W) in [0, 1], attacked


def attacked_outcomes(
    model: nn.Module, dataset: Dataset, samples: list[Sample], run: Run, plan: dict[str, Any]
) -> list[Outcome]:
    """Attack images of one size with one run."""
    device, eps, precision = device_of(model), plan["eps"], plan["precision"]
    images, labels = (torch.stack(part).to(device) for part in zip(*((s.image, s.labels) for s in samples)))
    started = time.perf_counter()
    attacked = InBfloat16(model) if precision == "bf16" else model
    spec = run.spec(eps, plan["seed"])
    result = last_of(spec_steps(spec, attacked, images, labels, dataset.class_weights))
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
    """Predict unattacked images of one size."""
    predictions = predicted(model, torch.stack([sample.image for sample in samples]).to(device_of(model))).cpu()
    return [Outcome(measured(sample, one, len(dataset.classes)), one) for sample, one in zip(samples, predictions)]


def keep(kept: Kept, key: str, sample: Sample, outcome: Outcome, dataset: Dataset, eps: float) -> None:
    """Write the mask and the picture of an outcome, if they were asked for."""
    if "masks" in kept.kinds:
        kept.write_mask(key, outcome.predictions, dataset.palette)
    if "pictures" in kept.kinds and outcome.images is not None:
        kept.write("pictures", key, Image.fromarray(quantise(outcome.images, sample.image, eps)))


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
    """Compute the missing records of these images, and the missing files to keep."""
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


def evaluate(  # noqa: PLR0913 - public and documented
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

    Under `torchrun` and the like, each process takes its share of the images, and all need the same `out`.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), on its device; its mode is restored.
        dataset: Labelled pictures in the classes of the model.
        eps: The radius, in [0, 1].
        settings: The ensemble: `PAPER`, `PAPER_V1`, `STRONG`, `QUICK`, or one of your own.
        out: Folder of the records, the report and `seconds.json` with the time of each run; without one, nothing is
            kept.
        resume: Use the records in the folder; False discards them.
        limit: Use only the first images, at most this many.
        batch_size: Images attacked side by side on a GPU, where sizes agree. A CPU gains nothing from it and takes one
            at a time, because another number would round differently.
        precision: Of the gradients, `fp32`, `bf16` or `auto`; every reported prediction is computed in float32.
        keep_masks: Also write every predicted mask as PNG; attacks that finished without are run again.
        keep_pictures: Also write every attacked picture as PNG, rounded to 8 bits within eps.

    Returns:
        The report, which does not depend on what is kept.

    Raises:
        InputError: For a call that makes no sense, for a folder that holds another evaluation (naming the differences),
            and when the model returns NaN; finished records stay.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes > 1:
        model = model.to(state.device)
    if out is None and state.num_processes > 1:
        raise InputError("several processes need a folder to share their records in; give out=")
    if out is None and (keep_masks or keep_pictures):
        raise InputError("masks and pictures are kept in a folder, and there is none; give out=")
    count = min(len(dataset), len(dataset) if limit is None else limit)
    plan = plan_of(model, dataset, eps, settings, count, chosen_precision(precision, device_of(model)))
    with contextlib.ExitStack() as stack:
        # On GPUs, compute float32 as float32, and choose kernels deterministically.
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
    """Return everything that decides the outcome."""
    check_eps(eps)
    if images < 1:
        raise InputError("there is no image to evaluate; expected a dataset and a limit of at least 1")
    card = getattr(model, "card", None)
    if card and tuple(card.classes) != tuple(dataset.classes):
        raise InputError(
            f"the model {card.name} predicts {len(card.classes)} classes ({', '.join(card.classes[:3])}, ...), "
            f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...); "
            "map them with robviz.models.adapt(model, dataset=..., class_map=...)"
        )
    plan = {
        "model": {"name": card.name if card else type(model).__name__, "sha256": fingerprint(model)},
        "dataset": {"name": dataset.name, "split": dataset.split, "images": images},
        "eps": eps,
        "settings": asdict(settings),
        "seed": settings.seed,
        "precision": precision,
        "device": device_of(model).type,
        "threads": torch.get_num_threads(),  # another number rounds sums differently
        "versions": versions(),
    }
    return json.loads(json.dumps(plan))  # as JSON will return it: lists instead of tuples
