"""Count the pixels of an evaluation by label and prediction, unattacked and in the worst case of the mIoU."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from robviz.datasets import load_dataset
from robviz.files.atomic import write_atomically
from robviz.metrics import confusions, iou, miou, worst_case_miou
from robviz.results.failures import run_names, what_is_missing
from robviz.results.images import ImageStore
from robviz.results.plan import CLEAN, Plan, record_key
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.summary import stacked_records
from robviz.types import Dataset, InputError


@dataclass(frozen=True)
class Confusion:
    """Store the pixels of an evaluation by label and prediction, summed over its images.

    Attributes:
        command: The command that repeats the evaluation.
        model: Its name.
        weights: The sha256 of its weights.
        settings: The name of the ensemble, with its number of steps per attack.
        eps: The radius, in 1/255.
        seed: The seed of the random starts.
        classes: Names.
        clean: (K, K) pixels without an attack; the row is the label, the column the prediction.
        worst: (K, K) pixels under the choice of one attack per image that leaves the lowest mIoU.
        by: The attack that was chosen for each image.
    """

    command: str
    model: str
    weights: str
    settings: str
    eps: float
    seed: int
    classes: list[str]
    clean: list[list[int]]
    worst: list[list[int]]
    by: list[str]

    def save(self, path: Path) -> None:
        """Write the counts as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Confusion:
        """Read counts that `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def command_of(plan: Plan) -> str:
    """Return the command that repeats an evaluation of a named ensemble."""
    data, (name, _, steps) = plan["dataset"], plan["settings"]["name"].rpartition("-")
    ensemble = f"{name} --steps {steps}" if steps.isdigit() else plan["settings"]["name"]
    return (
        f"robviz evaluate {plan['model']['name']} --dataset {data['name']} --split {data['split']} "
        f"--limit {data['images']} --eps {255 * plan['eps']:g} --settings {ensemble} --seed {plan['seed']} "
        f"--precision {plan['precision']} --keep-masks --out FOLDER"
    )


def confusion_of(folder: str | Path, dataset: Dataset | None = None) -> Confusion:
    """Count the pixels of a finished evaluation by label and prediction.

    Args:
        folder: The folder that `robviz evaluate --keep-masks --out` wrote.
        dataset: The dataset that was evaluated; by default, the one with the name in the plan.

    Returns:
        The counts.

    Raises:
        InputError: If masks are missing, or if the masks or the dataset do not belong to the records.
    """
    folder = Path(folder)
    plan = Report.load(folder / "report.json").plan
    if missing := what_is_missing(folder, plan):
        raise InputError(missing)
    dataset = dataset or load_dataset(plan["dataset"]["name"], plan["dataset"]["split"])
    images, names = plan["dataset"]["images"], run_names(plan)[1:]
    records = Records(folder, plan)
    tables = [stacked_records(records, name, images) for name in names]
    intersection, union = (torch.stack([table[part] for table in tables]) for part in ("intersection", "union"))
    worst = worst_case_miou(intersection, union, plan["seed"])
    by = [names[run] for run in worst.choice.tolist()]
    after = counted(folder, dataset, by)
    found = miou(after.diagonal(), after.sum(0) + after.sum(1) - after.diagonal())
    if abs(found - worst.miou) > 1e-9:
        raise InputError(
            f"the masks in {folder} have an mIoU of {100 * found:.3f} % over {dataset.name} ({dataset.split}), their "
            f"records one of {100 * worst.miou:.3f} %; give the dataset that was evaluated, or evaluate again"
        )
    return Confusion(
        command=command_of(plan),
        model=plan["model"]["name"],
        weights=plan["model"]["sha256"],
        settings=plan["settings"]["name"],
        eps=round(255 * plan["eps"], 6),
        seed=plan["seed"],
        classes=list(dataset.classes),
        clean=counted(folder, dataset, [CLEAN] * images).tolist(),
        worst=after.tolist(),
        by=by,
    )


def counted(folder: Path, dataset: Dataset, runs: list[str]) -> Tensor:
    """Sum the pixels by label and prediction, (K, K), over the masks of one run for each image."""
    kept, found = ImageStore(folder), []
    for index, run in enumerate(runs):
        mask = torch.from_numpy(kept.read("masks", record_key(index, run)))
        found.append(confusions(mask[None], dataset[index].labels[None], len(dataset.classes))[0])
    return torch.stack(found).sum(0)


def shares_by_class(pixels: list[list[int]]) -> dict[str, list[float]]:
    """Compute false negatives and false positives of each class as shares of its labelled pixels, and its IoU.

    Args:
        pixels: (K, K); the row is the label, the column the prediction.

    Returns:
        `false negatives`, `false positives` and `IoU`, K values each; false positives may exceed 1.
    """
    found = torch.tensor(pixels)
    right, labelled, predicted = found.diagonal(), found.sum(1), found.sum(0)
    return {
        "false negatives": ((labelled - right) / labelled.clamp_min(1)).tolist(),
        "false positives": ((predicted - right) / labelled.clamp_min(1)).tolist(),
        "IoU": iou(right.double(), labelled + predicted - right).tolist(),
    }
