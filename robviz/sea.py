"""SEA, the Segmentation Ensemble Attack: how robust is this model (arXiv:2306.12941, section 3.6)?

`evaluate` attacks every image of a dataset with every run of its settings, keeps one record for each, and makes the
report from the records alone. It may be killed at any moment and started again, and spread over processes and
machines by `torchrun` or `accelerate launch`: the report stays the same to the byte. (On CPUs with as many threads a
process, that is: another number rounds sums otherwise, so it is part of what decides a run. `OMP_NUM_THREADS` sets it.
On GPUs, torch adds up some gradients in no fixed order and the batch size chooses kernels: last digits may move there.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from robviz.attacks import check_eps, last_of, predicted, spec_steps
from robviz.checks import SHARE, look, require_within
from robviz.datasets.batching import batches
from robviz.datasets.identity import digests_of
from robviz.datasets.identity import identity as dataset_identity
from robviz.files.atomic import write_atomically
from robviz.files.images import quantise
from robviz.files.provenance import versions
from robviz.losses import BALANCED
from robviz.models import fingerprint
from robviz.models.expectation import Expectation, seeded
from robviz.models.identity import identity as model_identity
from robviz.models.layers import device_of
from robviz.models.precision import InBfloat16, chosen_precision
from robviz.results.images import KINDS, Kept, kept_of
from robviz.results.plan import CLEAN, LOOK, Run, SeaSettings, key_of
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.summary import measured, report_of, seconds_of
from robviz.types import Dataset, InputError, Sample, check_whole

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
    draws = plan.get("eot", 1)
    attacked = Expectation(model, draws) if draws > 1 else model
    attacked = InBfloat16(attacked) if precision == "bf16" else attacked
    spec = run.spec(eps, plan["seed"])
    result = last_of(spec_steps(spec, attacked, images, labels, weights_for(run.loss, dataset)))
    require_within(result.images, images, eps)
    # A mean of passes, or their luck, is no answer: what is counted is one more pass.
    is_answer = precision == "fp32" and draws == 1
    predictions = result.predictions if is_answer else predicted(model, result.images)
    seconds = (time.perf_counter() - started) / len(samples)
    costs = [
        {"gradients": gradients * draws, "seconds": round(seconds, 3)} | ({"trouble": trouble} if any(trouble) else {})
        for gradients, trouble in zip(result.gradients.tolist(), result.trouble.tolist())
    ]
    return [
        Outcome(measured(sample, one, len(dataset.classes)) | cost, one, image)
        for sample, one, image, cost in zip(samples, predictions.cpu(), result.images, costs)
    ]


def weights_for(loss: str, dataset: Dataset) -> Tensor | None:
    """The class weights where a loss takes them: a dataset may have to count pixels first."""
    return dataset.class_weights if loss in BALANCED else None


def clean_outcomes(model: nn.Module, dataset: Dataset, samples: list[Sample]) -> list[Outcome]:
    """Of unattacked images of one size."""
    predictions = predicted(model, torch.stack([sample.image for sample in samples]).to(device_of(model))).cpu()
    return [Outcome(measured(sample, one, len(dataset.classes)), one) for sample, one in zip(samples, predictions)]


def keep(kept: Kept, key: str, sample: Sample, outcome: Outcome, dataset: Dataset, eps: float) -> None:
    """Write the files that are asked for."""
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
                # A model that draws at random does so from the seed and the image, whatever came before.
                seed = int(hashlib.sha256(f"{plan['seed']}/{name}/{min(todo)}".encode()).hexdigest()[:15], 16)
                with seeded(seed, device_of(model)):
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
    eot: int = 1,
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
    beside the records (`robviz.results.images`); attacks finished without are run again. The report stays the same.
    eot: for a model that answers at random, the number of passes whose mean is attacked; what is counted is one more
    pass.

    Before the first attack, the model is asked about one picture, and the cheap checks of `robviz.checks` are made as
    far as 3 % of the passes allow. What they find, and attacks that stood still, are warned of and marked in the
    report as its `doubts`.

    Under `torchrun` or the like each process takes its share of the images, and all need the same `out`. Raises
    ValueError for a call that makes no sense, for a folder that holds another run (naming the differences), and
    when the model answers NaN; finished records stay.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes > 1:
        model = model.to(state.device)
    if out is None and state.num_processes > 1:
        raise InputError("several processes need a folder to share their records in; give out=")
    if out is None and (keep_masks or keep_pictures):
        raise InputError("masks and pictures are kept in a folder, and there is none; give out=")
    count = min(len(dataset), len(dataset) if limit is None else limit)
    plan, samples = plan_of(model, dataset, eps, settings, count, chosen_precision(precision, device_of(model)), eot)
    with contextlib.ExitStack() as stack:
        # On GPUs, float32 shall be float32, and no kernel be chosen by chance.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with state.main_process_first():
            goes_on = resume or not state.is_main_process
            records = Records(folder, plan, goes_on, samples)
            kinds = tuple(kind for kind, wanted in zip(KINDS, (keep_masks, keep_pictures)) if wanted)
            kept = Kept(folder, kinds, resume=goes_on)
            look_first(records, model, dataset, settings, eot)
        mine = list(range(count))[state.process_index :: state.num_processes]
        side_by_side = 1 if device_of(model).type == "cpu" else batch_size
        complete(records, kept, model, dataset, settings.runs, plan, mine, side_by_side)
        state.wait_for_everyone()
        report = report_of(records, records.plan, dataset.classes)
        for doubt in report.doubts if state.is_main_process else ():
            warnings.warn(doubt, stacklevel=2)
        if out is not None and state.is_main_process:
            for suffix in ("json", "csv", "md"):
                report.save(folder / f"report.{suffix}")
            write_atomically(folder / "seconds.json", json.dumps(seconds_of(records, plan), indent=1) + "\n")
        return report


def look_first(records: Records, model: nn.Module, dataset: Dataset, settings: SeaSettings, eot: int) -> None:
    """Ask the model about the first picture and keep what was found; raises InputError where it cannot be attacked."""
    if records.read(LOOK) is not None:
        return
    passes = SHARE * records.plan["dataset"]["images"] * eot * sum(run.steps + 1 for run in settings.runs)
    sample, device = dataset[0], device_of(model)
    images, labels = sample.image[None].to(device), sample.labels[None].to(device)
    with seeded(settings.seed, device):
        found = look(model, images, labels, records.plan["eps"], len(dataset.classes), passes)
    if eot > 1:  # asked for
        found["change"] = 0.0
    records.write(LOOK, found)


def plan_of(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    settings: SeaSettings,
    images: int,
    precision: str,
    eot: int = 1,
) -> tuple[dict[str, Any], dict[str, str]]:
    """All that decides the outcome, and the digests of the samples in it by name."""
    check_eps(eps)
    check_whole("eot", eot, 1)
    if images < 1:
        raise InputError("there is no image to evaluate; expected a dataset and a limit of at least 1")
    card = getattr(model, "card", None)
    if card and tuple(card.classes) != tuple(dataset.classes):
        raise InputError(
            f"the model {card.name} answers in {len(card.classes)} classes ({', '.join(card.classes[:3])}, ...), "
            f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...); "
            "lead them there with robviz.models.adapt(model, dataset=..., class_map=...)"
        )
    is_balanced = any(run.loss in BALANCED for run in settings.runs)
    if is_balanced and dataset.class_weights is None:
        raise InputError(
            f"{', '.join(run.loss for run in settings.runs if run.loss in BALANCED)} needs class weights, and "
            f"{dataset.name} has none; write `class_weights: [...]` into its dataset.yaml, or name a split `train` "
            "there, whose pixels are then counted"
        )
    digests = digests_of(dataset, images)
    plan = {
        "model": {
            "name": card.name if card else type(model).__name__,
            "sha256": fingerprint(model),
            **model_identity(model),
        },
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "images": images,
            **dataset_identity(dataset, digests, is_balanced),
        },
        "eps": eps,
        "settings": asdict(settings),
        "seed": settings.seed,
        "precision": precision,
        **({"eot": eot} if eot > 1 else {}),
        "device": device_of(model).type,
        "threads": torch.get_num_threads(),  # another number rounds sums otherwise
        "versions": versions(),
    }
    return json.loads(json.dumps(plan)), digests  # as it will be read again: lists for tuples
