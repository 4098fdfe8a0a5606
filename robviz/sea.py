"""SEA, the Segmentation Ensemble Attack: how robust is this model (arXiv:2306.12941, section 3.6)?

`evaluate` attacks every image of a dataset with every run of its settings, keeps one record for each, and computes the
report from the records alone. It may be stopped at any moment and resumed, and spread over processes and machines by
`torchrun` or `accelerate launch`; the report stays the same to the byte. On CPUs this holds for equal numbers of
threads per process, because the number of threads changes how sums are rounded; it is part of the plan, and
`OMP_NUM_THREADS` sets it. On GPUs, torch adds up some gradients in no fixed order and the batch size selects kernels,
so the last digits may differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn

from robviz.attacks import AttackResult, Task, check_eps, last_of, predicted, task_steps
from robviz.blockwise import SetState, blocks_of
from robviz.checks import SHARE, look, require_within
from robviz.datasets import available
from robviz.datasets.batching import batches
from robviz.datasets.identity import digests_of
from robviz.datasets.identity import identity as dataset_identity
from robviz.files.atomic import write_atomically
from robviz.files.images import quantise
from robviz.files.progress import Bar
from robviz.files.provenance import versions
from robviz.losses import BALANCED
from robviz.metrics import worst_case_miou
from robviz.models import fingerprint
from robviz.models.expectation import Expectation, seeded
from robviz.models.identity import identity as model_identity
from robviz.models.layers import device_of
from robviz.models.precision import InBfloat16, chosen_precision
from robviz.models.prepared import prepared
from robviz.norms import L2, LINF, Norm
from robviz.results.images import KINDS, ImageStore, stored_kinds
from robviz.results.plan import CLEAN, LOOK, Blockwise, ImageRecord, Plan, Run, SeaSettings, record_key
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.samples import keep_samples
from robviz.results.summary import build_report, image_record, record_of, seconds_by_run, stacked_records
from robviz.types import Dataset, InputError, Sample, check_whole

__all__ = ["PAPER", "PAPER_V1", "QUICK", "SETTINGS", "STRONG", "Run", "SeaSettings", "Standing", "evaluate"]

#: Version 2 of the paper: three losses, 300 steps each (section 3.6).
PAPER = SeaSettings("paper", (Run("mask-ce-bal"), Run("mask-ce"), Run("js")))
#: Version 1 of the paper, with its own aggregation.
PAPER_V1 = SeaSettings(
    "paper-v1", (Run("mask-ce"), Run("segpgd"), Run("js"), Run("mask-spherical")), aggregation="accuracy"
)
#: PAPER with a tenth of the steps: for a first impression, not as evidence.
QUICK = replace(PAPER.with_steps(30), name="quick")


@dataclass(frozen=True)
class StrongV1(SeaSettings):
    """Reproduce reports of the first STRONG, which combined APGD and annealed PGD on the losses of the paper.

    Annealed PGD never takes more steps than its runs have here. Additional steps go to APGD: first to the loss that
    targets the mIoU, up to twice its steps here, and the rest to the annealed losses.
    """

    def with_steps(self, steps: int) -> SeaSettings:
        """Return the ensemble with this average number of steps per three runs, which becomes part of its name."""
        here = sum(run.steps for run in self.runs)
        if 3 * steps <= here:
            return super().with_steps(steps)
        balanced, *annealed = self.runs
        balanced = replace(balanced, steps=min(round(3 * steps * balanced.steps / here), 2 * balanced.steps))
        rest = 3 * steps - balanced.steps - sum(run.steps for run in annealed)
        added = [Run(run.loss, balanced.attack, rest // len(annealed)) for run in annealed]
        return replace(self, name=f"{self.name}-{steps}", runs=(balanced, *annealed, *added))


STRONG_V1 = StrongV1(
    "strong-v1",
    (
        Run("mask-ce-bal", steps=140),
        Run("mask-ce", "annealed-pgd", steps=80),
        Run("js", "annealed-pgd", steps=80),
    ),
)
#: robviz's own ensemble: with a third of PAPER's steps, it is stronger. `docs/strength.md` shows by how much, and why.
STRONG = Blockwise(
    "strong",
    (
        Run("expected-error-soft", "annealed-pgd", steps=100),
        Run("expected-error", "annealed-pgd-near", steps=100),
        Run("expected-miou", "annealed-pgd-near", steps=100),
    ),
)

SETTINGS = {settings.name: settings for settings in (PAPER, PAPER_V1, QUICK, STRONG, STRONG_V1)}


class ImageOutcome(NamedTuple):
    """Store the outcome of one run on one image: its counts, and what may be kept beside them."""

    record: ImageRecord
    predictions: Tensor  # (H, W)
    images: Tensor | None = None  # (3, H, W) in [0, 1], attacked
    norm: Norm = LINF  # of their change


class Standing(NamedTuple):
    """Say how far an evaluation has come: records that exist, of all, and the attack under way or just recorded."""

    done: int
    total: int
    run: str | None = None
    image: str | None = None


@dataclass
class Tally:
    """Count records, and say at every step of an attack and after every record how many there are."""

    done: int = 0
    total: int = 0
    watch: Callable[[Standing], None] = lambda standing: None

    def step(self, run: str | None = None, image: str | None = None) -> None:
        """Say where the evaluation stands."""
        self.watch(Standing(self.done, self.total, run, image))

    def watched(
        self, steps: Generator[AttackResult, None, None], run: str, image: str
    ) -> Generator[AttackResult, None, None]:
        """Yield the steps of an attack, which end if whoever watches raises."""
        with contextlib.closing(steps):
            for result in steps:
                self.step(run, image)
                yield result

    def record(self, run: str, image: str) -> None:
        """Count one more record."""
        self.done += 1
        self.step(run, image)


@dataclass(frozen=True)
class Evaluation:
    """Store a running evaluation: what is attacked, how, and where its results go."""

    model: nn.Module
    dataset: Dataset
    settings: SeaSettings
    plan: Plan
    records: Records
    kept: ImageStore
    batch_size: int  # images side by side
    tally: Tally = field(default_factory=Tally)

    def begin(self, watch: Callable[[Standing], None]) -> None:
        """Let somebody watch, who hears first what is there already."""
        names, images = [CLEAN, *(run.name for run in self.settings.runs)], self.plan["dataset"]["images"]
        there = sum(self.is_there(index, name) for index in range(images) for name in names)
        self.tally.done, self.tally.total, self.tally.watch = there, images * len(names), watch
        self.tally.step()

    @property
    def for_gradients(self) -> nn.Module:
        """Return the model that is attacked; reported predictions come from the model itself."""
        precision, draws = self.plan["precision"], self.plan.get("eot", 1)
        if self.plan["prepared"]:
            attacked = prepared(self.model, precision)
        else:
            attacked = InBfloat16(self.model) if precision == "bf16" else self.model
        return Expectation(attacked, draws) if draws > 1 else attacked

    @contextlib.contextmanager
    def drawing(self, run: str, index: int) -> Iterator[None]:
        """Make the random numbers of a model depend only on the seed, the run and the image."""
        digest = hashlib.sha256(f"{self.plan['seed']}/{run}/{index}".encode()).digest()
        with seeded(int.from_bytes(digest[:7], "little"), device_of(self.model)):
            yield

    def is_there(self, index: int, run: str) -> bool:
        """Return True if the record of an image under a run exists, with the files to keep."""
        key, kinds = record_key(index, run), [kind for kind in stored_kinds(run) if kind in self.kept.kinds]
        return all(self.kept.has(kind, key) for kind in kinds) and self.records.read(key) is not None

    def write(self, index: int, run: str, sample: Sample, outcome: ImageOutcome) -> None:
        """Write the outcome of one run on one image."""
        key, kept = record_key(index, run), self.kept
        if "masks" in kept.kinds:
            kept.write_mask(key, outcome.predictions, self.dataset.palette)
        if "pictures" in kept.kinds and outcome.images is not None:
            is_l2 = outcome.norm is L2
            shown = quantise(outcome.images, sample.image, self.plan["eps"], is_mean_square=is_l2)
            kept.write("pictures", key, Image.fromarray(shown))
        self.records.write(key, outcome.record)
        self.tally.record(run, sample.name)


def clean_outcomes(work: Evaluation, samples: list[Sample]) -> list[ImageOutcome]:
    """Predict unattacked images of one size."""
    images = torch.stack([sample.image for sample in samples]).to(device_of(work.model))
    classes = len(work.dataset.classes)
    found = predicted(work.model, images).cpu()
    return [ImageOutcome(image_record(sample, one, classes), one) for sample, one in zip(samples, found)]


def attacked_outcomes(
    work: Evaluation, samples: list[Sample], run: Run, aim: tuple[SetState, list[int]] | None = None
) -> list[ImageOutcome]:
    """Attack images of one size with one run. aim: for runs on the mIoU of a set, the set and their numbers in it."""
    device, eps, classes = device_of(work.model), work.plan["eps"], len(work.dataset.classes)
    images, labels = (torch.stack(part).to(device) for part in zip(*((s.image, s.labels) for s in samples)))
    worths = weights_for(run.loss, work.dataset) if aim is None else aim[0].worths()
    started, attacked = time.perf_counter(), work.for_gradients
    spec = run.spec(eps, work.plan["seed"])
    task = Task.of(spec, attacked, images, labels, worths)
    if aim is not None:
        task = replace(task, judge=aim[0].judge(aim[1], device))
    result = last_of(work.tally.watched(task_steps(task), run.name, samples[0].name))
    require_within(result.images, images, eps, spec.norm)
    # The mean of several passes is not a prediction: one more pass is counted.
    predictions = result.predictions if attacked is work.model else predicted(work.model, result.images)
    seconds = round((time.perf_counter() - started) / len(samples), 3)
    draws = work.plan.get("eot", 1)
    costs = [
        {"gradients": gradients * draws, "seconds": seconds} | ({"trouble": trouble} if any(trouble) else {})
        for gradients, trouble in zip(result.gradients.tolist(), result.trouble.tolist())
    ]
    return [
        ImageOutcome(cast(ImageRecord, image_record(sample, one, classes) | cost), one, image, spec.norm)
        for sample, one, image, cost in zip(samples, predictions.cpu(), result.images, costs)
    ]


def weights_for(loss: str, dataset: Dataset) -> Tensor | None:
    """Return the class weights if a loss needs them: a dataset may have to count pixels first."""
    return dataset.class_weights if loss in BALANCED else None


def complete_records(work: Evaluation, runs: Sequence[Run], indices: list[int], bar: Bar) -> None:
    """Attack the images that have no record yet, each by itself."""
    wanted: dict[str, Run | None] = {CLEAN: None, **{run.name: run for run in runs}}
    missing = {name: {i for i in indices if not work.is_there(i, name)} for name in wanted}
    bar.advance(len(wanted) * len(indices) - sum(map(len, missing.values())))
    for batch in batches(work.dataset, sorted(set().union(*missing.values())), work.batch_size):
        for name, run in wanted.items():
            todo = {i: sample for i, sample in batch if i in missing[name]}
            if not todo:
                continue
            samples = list(todo.values())
            with work.drawing(name, min(todo)):
                done = clean_outcomes(work, samples) if run is None else attacked_outcomes(work, samples, run)
            for (i, sample), outcome in zip(todo.items(), done):
                work.write(i, name, sample, outcome)
            bar.advance(len(todo))


def state_of_set(work: Evaluation, before: Sequence[Run], run: Run, finished: list[int]) -> SetState:
    """Return the state of the set: the worst choice among some runs, updated by a further run.

    finished: the images that the further run has attacked, in order.
    """
    count, records = work.plan["dataset"]["images"], work.records
    tables = [stacked_records(records, name, count) for name in [CLEAN, *(one.name for one in before)]]
    intersection, union = (torch.stack([table[part] for table in tables]) for part in ("intersection", "union"))
    choice = worst_case_miou(intersection, union, work.plan["seed"]).choice
    each = torch.arange(count)
    is_labelled = tables[0]["labelled"].sum(0) > 0
    state = SetState(intersection[choice, each], union[choice, each], is_labelled)
    for index in finished:
        row = record_of(records, index, run.name)
        state = state.adopted(index, torch.tensor(row["intersection"]), torch.tensor(row["union"]))
    return state


def complete_block(
    work: Evaluation, before: Sequence[Run], run: Run, finished: list[int], indices: list[int], bar: Bar
) -> None:
    """Attack the mIoU of the set with those images of a block that have no record yet."""
    missing = [i for i in indices if not work.is_there(i, run.name)]
    bar.advance(len(indices) - len(missing))
    if not missing:
        return
    state = state_of_set(work, before, run, finished)
    for batch in batches(work.dataset, missing, work.batch_size):
        numbers, samples = [i for i, _ in batch], [sample for _, sample in batch]
        with work.drawing(run.name, numbers[0]):
            done = attacked_outcomes(work, samples, run, (state, numbers))
        for (i, sample), outcome in zip(batch, done):
            work.write(i, run.name, sample, outcome)
        bar.advance(len(batch))


def complete_all(work: Evaluation, processes: PartialState) -> None:
    """Compute every missing record of an evaluation; each process takes its share of the images."""
    count, settings = work.plan["dataset"]["images"], work.settings
    setwise = settings.setwise if isinstance(settings, Blockwise) else ()
    alone = [run for run in settings.runs if run.loss not in setwise]
    blocks = blocks_of(count, settings.blocks) if isinstance(settings, Blockwise) else []

    def share(indices: list[int]) -> list[int]:
        return indices[processes.process_index :: processes.num_processes]

    mine = share(list(range(count)))
    later = [run for run in settings.runs if run.loss in setwise]
    attacks = (1 + len(alone)) * len(mine) + len(later) * sum(len(share(block)) for block in blocks)
    title = f"{settings.name}, {255 * work.plan['eps']:g}/255"
    with Bar(title, attacks, "attacks", is_shown=processes.is_main_process) as bar:
        complete_records(work, alone, mine, bar)
        for number, run in enumerate(later):
            finished: list[int] = []
            for block in blocks:
                processes.wait_for_everyone()  # the records that determine the state are final
                complete_block(work, [*alone, *later[:number]], run, finished, share(block), bar)
                finished += block
    processes.wait_for_everyone()


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
    prepare: bool | None = None,
    eot: int = 1,
    watch: Callable[[Standing], None] | None = None,
) -> Report:
    """Attack a dataset with an ensemble and report the worst case.

    Under `torchrun` and similar launchers, each process takes its share of the images, and all need the same `out`.
    Before the first attack, the cheap checks of `robviz.checks` are made on one picture, with at most 2 % of the
    passes. The report lists their findings, and attacks that stalled, as its `doubts`.

    Args:
        model: From images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), on its device; its mode is restored.
        dataset: Labelled pictures in the classes of the model.
        eps: The radius, in [0, 1].
        settings: The ensemble: `PAPER`, `PAPER_V1`, `STRONG`, `QUICK`, or your own.
        out: Folder of the records, the report and `seconds.json` with the time of each run; without one, nothing is
            kept.
        resume: Use the records in the folder; False discards them.
        limit: Use only the first images, at most this many.
        batch_size: Images of equal size attacked at a time on a GPU. A CPU gains nothing from batches and takes one at
            a time, because batches would round differently.
        precision: Precision of the gradients, `fp32`, `bf16` or `auto`; every reported prediction is computed in
            float32.
        keep_masks: Also write every predicted mask as PNG; attacks that finished without masks are run again.
        keep_pictures: Also write every attacked picture as PNG, rounded to 8 bits within eps.
        prepare: Attack a prepared copy of the model (`robviz.models.prepared`), in the checks as well; it predicts the
            same up to rounding and costs less. Every reported prediction is the model's own. By default only `STRONG`
            does, so that the figures of the paper's ensembles stay the same to the last digit.
        eot: For a model that predicts at random, the number of passes whose mean is attacked; one more is counted.
        watch: Called at the start, at every step of an attack and after every record with where the evaluation stands
            (`done`, `total`, `run`, `image`). An exception that it raises ends the evaluation; finished records stay.

    Returns:
        The report, which does not depend on what is kept.

    Raises:
        InputError: For invalid arguments, for a folder with another evaluation (the message names the differences), and
            when the model returns NaN; finished records stay.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())
    if processes.num_processes > 1:
        model = model.to(processes.device)
    if out is None and processes.num_processes > 1:
        raise InputError("several processes need a folder to share their records in; give out=")
    if out is None and (keep_masks or keep_pictures):
        raise InputError("masks and pictures are kept in a folder, and there is none; give out=")
    if limit is None and dataset.is_endless:
        raise InputError(f"{dataset.name} ({dataset.split}) is endless; expected a number of images: give limit=")
    if limit is not None:
        check_whole("limit", limit, 1)
    check_whole("batch_size", batch_size, 1)
    count = min(len(dataset), len(dataset) if limit is None else limit)
    plan, samples = build_plan(model, dataset, eps, settings, count, chosen_precision(precision, device_of(model)), eot)
    plan["prepared"] = isinstance(settings, Blockwise) if prepare is None else prepare
    with contextlib.ExitStack() as stack:
        # On GPUs, compute float32 as float32, and choose kernels deterministically.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with processes.main_process_first():
            goes_on = resume or not processes.is_main_process
            records = Records(folder, plan, goes_on, samples)
            kinds = tuple(kind for kind, wanted in zip(KINDS, (keep_masks, keep_pictures)) if wanted)
            kept = ImageStore(folder, kinds, resume=goes_on)
            look_first(records, model, dataset, settings, eot)
            if kinds and processes.is_main_process and dataset.name not in available():
                keep_samples(folder, dataset, count)
        side_by_side = 1 if device_of(model).type == "cpu" else batch_size
        work = Evaluation(model, dataset, settings, plan, records, kept, side_by_side)
        if watch is not None:
            work.begin(watch)
        complete_all(work, processes)
        report = build_report(records, cast(Plan, records.plan), dataset.classes)
        for doubt in report.doubts if processes.is_main_process else ():
            warnings.warn(doubt, stacklevel=2)
        if out is not None and processes.is_main_process:
            for suffix in ("json", "csv", "md"):
                report.save(folder / f"report.{suffix}")
            write_atomically(folder / "seconds.json", json.dumps(seconds_by_run(records, plan), indent=1) + "\n")
        return report


def look_first(records: Records, model: nn.Module, dataset: Dataset, settings: SeaSettings, eot: int) -> None:
    """Check the model on the first picture and keep the findings; raises InputError if it cannot be attacked."""
    if records.read(LOOK) is not None:
        return
    plan = records.plan
    passes = SHARE * plan["dataset"]["images"] * eot * sum(run.steps + 1 for run in settings.runs)
    sample, device = dataset[0], device_of(model)
    images, labels = sample.image[None].to(device), sample.labels[None].to(device)
    attacked = prepared(model, plan["precision"]) if plan["prepared"] else model
    with seeded(settings.seed, device):
        found = look(model, images, labels, plan["eps"], len(dataset.classes), passes, attacked)
    if eot > 1:  # asked for
        found["change"] = 0.0
    records.write(LOOK, found)


def build_plan(
    model: nn.Module,
    dataset: Dataset,
    eps: float,
    settings: SeaSettings,
    images: int,
    precision: str,
    eot: int = 1,
) -> tuple[Plan, dict[str, str]]:
    """Return everything that decides the outcome, including the digests of the samples by name."""
    check_eps(eps)
    check_whole("eot", eot, 1)
    if images < 1:
        raise InputError("there is no image to evaluate; expected a dataset and a limit of at least 1")
    card = getattr(model, "card", None)
    if card and tuple(card.classes) != tuple(dataset.classes):
        raise InputError(
            f"the model {card.name} predicts {len(card.classes)} classes ({', '.join(card.classes[:3])}, ...), "
            f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...); "
            "map them with robviz.models.adapt(model, dataset=..., class_map=...)"
        )
    setwise = settings.setwise if isinstance(settings, Blockwise) else ()
    balanced = [run.loss for run in settings.runs if run.loss in BALANCED and run.loss not in setwise]
    if balanced and dataset.class_weights is None:
        raise InputError(
            f"{', '.join(balanced)} needs class weights, and "
            f"{dataset.name} has none; write `class_weights: [...]` into its dataset.yaml, or name a split `train` "
            "there, whose pixels are then counted"
        )
    digests = digests_of(dataset, range(images))
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
            **dataset_identity(dataset, digests, bool(balanced)),
        },
        "eps": eps,
        "settings": asdict(settings),
        "seed": settings.seed,
        "precision": precision,
        **({"eot": eot} if eot > 1 else {}),
        "device": device_of(model).type,
        "threads": torch.get_num_threads(),  # another number rounds sums differently
        "versions": versions(),
    }
    return json.loads(json.dumps(plan)), digests  # as JSON will return it: lists instead of tuples
