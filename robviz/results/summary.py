"""Compute the report of an evaluation from its records: integer counts in, ratios out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor

from robviz.attacks import TROUBLES
from robviz.checks import doubts_about
from robviz.metrics import (
    SIZE_NAMES,
    accuracy_per_image,
    balanced_accuracy,
    counts,
    iou,
    label_counts,
    miou,
    size_counts,
    worst_case_accuracy,
    worst_case_miou,
)
from robviz.results.plan import CLEAN, LOOK, Figures, ImageRecord, Plan, Run, record_key
from robviz.results.records import Records
from robviz.results.report import DOUBT, Report
from robviz.types import InputError, Sample


def image_record(sample: Sample, predictions: Tensor, num_classes: int) -> ImageRecord:
    """Count everything about one image that a report needs. predictions: (H, W)."""
    found = counts(predictions[None], sample.labels[None], num_classes)
    small_to_large = size_counts(predictions[None], sample.labels[None], num_classes)
    return {
        "image": sample.name,
        "intersection": found.intersection[0].tolist(),
        "union": found.union[0].tolist(),
        "labelled": label_counts(sample.labels[None], num_classes)[0].tolist(),
        "correct": int(found.correct.item()),
        "valid": int(found.valid.item()),
        "size_intersection": small_to_large[0][0].tolist(),
        "size_union": small_to_large[1][0].tolist(),
    }


def record_of(records: Records, index: int, run: str) -> ImageRecord:
    """Return the record of one image under one run; raises InputError if it is missing."""
    row = records.read(record_key(index, run))
    if row is None:
        raise InputError(f"the record of image {index} under {run} is missing; run the same evaluation again")
    return cast(ImageRecord, row)


def stacked_records(records: Records, run: str, images: int) -> dict[str, Any]:
    """Stack the records of one run over the images; `image` becomes a list of names."""
    rows: list[dict[str, Any]] = [{**record_of(records, i, run)} for i in range(images)]
    table: dict[str, Any] = {
        key: [row[key] for row in rows] if key == "image" else torch.tensor([row[key] for row in rows])
        for key in rows[0]
        if key not in ("seconds", "trouble")
    }
    if run != CLEAN:
        table["trouble"] = torch.tensor([row.get("trouble", [0] * len(TROUBLES)) for row in rows])
    return table


def seconds_by_run(records: Records, plan: Plan) -> dict[str, float]:
    """Sum the seconds that each run took, over all images and processes.

    They are not part of the report, which is the same on every machine.
    """
    names = [Run(**run).name for run in plan["settings"]["runs"]]
    every = {name: [records.read(record_key(i, name)) for i in range(plan["dataset"]["images"])] for name in names}
    return {name: round(sum(row["seconds"] for row in rows if row), 3) for name, rows in every.items()}


def select_choice(table: dict[str, Any], choice: Tensor) -> dict[str, Any]:
    """Select each image's choice from values stacked (A, N, ...)."""
    each = torch.arange(len(choice))
    return {key: value[choice, each] for key, value in table.items() if isinstance(value, Tensor)}


def iou_of_each(names: Iterable[str], intersection: Tensor, union: Tensor) -> dict[str, float | None]:
    """Return IoU by name, in [0, 1]; None where nothing is labelled and nothing is predicted."""
    ratios = zip(names, iou(intersection.double(), union).tolist(), union.tolist())
    return {name: ratio if area else None for name, ratio, area in ratios}


def figures(rows: dict[str, Any], classes: tuple[str, ...]) -> Figures:
    """Compute the figures of a report about one prediction per image; rates in [0, 1], None where undefined."""
    intersection, union = rows["intersection"].sum(0), rows["union"].sum(0)
    accuracy = worst_case_accuracy(rows["correct"][None], rows["valid"])
    rates = {
        "accuracy_mean": accuracy.mean,
        "accuracy_pooled": accuracy.pooled,
        "miou": miou(intersection, union),
        "balanced_accuracy": balanced_accuracy(intersection, rows["labelled"].sum(0)),
    }
    return cast(
        Figures,
        {
            **{name: None if math.isnan(rate) else rate for name, rate in rates.items()},
            "iou_by_size": iou_of_each(SIZE_NAMES, rows["size_intersection"].sum(0), rows["size_union"].sum(0)),
            "iou_by_class": iou_of_each(classes, intersection, union),
        },
    )


def worst_case_figures(tables: list[dict[str, Any]], aggregation: str, seed: int, classes: tuple[str, ...]) -> Figures:
    """Compute the worst case over several runs: accuracy by its own choice, the rest by the choice of lowest mIoU."""
    stacked = {key: torch.stack([table[key] for table in tables]) for key in tables[0] if key != "image"}
    least = worst_case_accuracy(stacked["correct"], tables[0]["valid"])
    by_accuracy = figures(select_choice(stacked, least.choice), classes)
    if aggregation == "accuracy":
        return by_accuracy
    lowest = worst_case_miou(stacked["intersection"], stacked["union"], seed)
    worst = figures(select_choice(stacked, lowest.choice), classes)
    worst["accuracy_mean"], worst["accuracy_pooled"] = by_accuracy["accuracy_mean"], by_accuracy["accuracy_pooled"]
    return worst


def doubts_of(records: Records, names: list[str], tables: list[dict[str, Any]]) -> list[str]:
    """Explain why figures of these runs should not be believed; empty if there is no reason."""
    said, half = [], 2 * records.plan.get("eot", 1)
    for name, table in zip(names, tables):
        images = len(table["image"])
        # A gradient of 0 may occur late in an attack, when little is left; the others never should.
        steps = torch.stack([torch.ones(images), table["gradients"] / half, torch.ones(images)], 1)
        for trouble, count in zip(TROUBLES, (table["trouble"] >= steps).sum(0).tolist()):
            if count:
                said.append(f"{name}: {trouble} on {count} of {images} images, and the attack stood still there")
    found = records.read(LOOK)
    if found is not None:
        correct = min(table["correct"][0].item() for table in tables)
        said += doubts_about(found, correct / max(tables[0]["valid"][0].item(), 1))
    return [f"{DOUBT}: {one}" for one in said]


def build_report(records: Records, plan: Plan, classes: tuple[str, ...]) -> Report:
    """Build the report from the records alone."""
    images, aggregation, seed = plan["dataset"]["images"], plan["settings"]["aggregation"], plan["seed"]
    names = [Run(**run).name for run in plan["settings"]["runs"]]
    clean, *tables = (stacked_records(records, name, images) for name in (CLEAN, *names))
    rows = {CLEAN: figures(clean, classes)}
    for name, table in zip(names, tables):
        rows[name] = figures(table, classes)
    if len(names) > 2:
        for (first, a), (second, b) in combinations(zip(names, tables), 2):
            rows[f"{first} + {second}"] = worst_case_figures([a, b], aggregation, seed, classes)
    rows["worst case"] = worst_case_figures(tables, aggregation, seed, classes)
    least, choice = torch.stack([table["correct"] for table in tables]).min(0)
    before, after = (accuracy_per_image(correct.double(), clean["valid"]) for correct in (clean["correct"], least))
    return Report(
        plan=plan,
        rows=rows,
        images=[
            {"image": name, "clean": unattacked, "worst": attacked, "by": names[by]}
            for name, unattacked, attacked, by in zip(clean["image"], before.tolist(), after.tolist(), choice.tolist())
        ],
        gradients=int(sum(table["gradients"].sum().item() for table in tables)),
        doubts=doubts_of(records, names, tables),
    )
