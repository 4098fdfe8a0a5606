"""Find where a model breaks: the images, classes and pixels of an evaluation that `robviz evaluate --out` wrote.

`failures` opens the folder as a pandas table with one row per image and attack. `select` filters and sorts it,
`flip_matrix` counts which class became which, and `to_csv` and `export` save the selection.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from PIL import Image

from robviz.datasets import load_dataset
from robviz.files.images import to_bytes
from robviz.metrics import SIZE_NAMES, accuracy_per_image, iou
from robviz.results.images import ImageStore, stored_kinds
from robviz.results.plan import CLEAN, Plan, Run, record_key
from robviz.results.records import Records
from robviz.results.report import Report
from robviz.results.samples import kept_samples
from robviz.results.summary import stacked_records
from robviz.types import VOID, Dataset, InputError

__all__ = ["SORTS", "Failures", "export", "failures", "flip_matrix", "select", "to_csv"]

#: The orders of `select`: name -> the column, and True if the largest comes first.
SORTS = {
    "accuracy drop": ("drop", True),
    "class IoU drop": ("class_drop", True),
    "flipped pixels": ("flipped", True),
    "accuracy under attack": ("attacked", False),
    "image": ("index", False),
}


@dataclass(frozen=True)
class Failures:
    """Store an evaluation, row by row.

    Attributes:
        folder: The folder of the evaluation.
        plan: Everything that determined its outcome.
        classes: The name of each class.
        rows: One row per image and attack, all rates in [0, 1]. `index`, `image`; `run` and its `loss`; pixel accuracy
            `clean`, `attacked` and their difference `drop`; `won`, True if no other attack left fewer pixels correct
            (the first among equals); `worst_class` and its `class_drop`; `small`, `medium`, `large`, the drop of the
            IoU of objects of that size, NaN if there are none; `flipped`, the number of pixels that were correct and
            are wrong under attack (-1 if unknown).
        class_drops: The drop of the IoU of each labelled class, NaN for the others; rows as in `rows`, one column per
            class number.
        flips: Pixels that were correct, as `row`, `label`, `seen_as`, `pixels`; None without masks.
        missing: A sentence about what the folder lacks and how to get it; empty if nothing is missing.
    """

    folder: Path
    plan: Plan
    classes: tuple[str, ...]
    rows: pd.DataFrame
    class_drops: pd.DataFrame
    flips: pd.DataFrame | None
    missing: str
    dataset: Dataset | None = None  # its pictures and labels, if they were found
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return a title: model, dataset and radius."""
        plan = self.plan
        return f"{plan['model']['name']} on {plan['dataset']['name']} at {255 * plan['eps']:g}/255"


def failures(folder: str | Path, dataset: Dataset | None = None) -> Failures:
    """Open the folder of a finished evaluation, reading one image at a time.

    Args:
        folder: The folder that `robviz evaluate --out` wrote.
        dataset: The dataset that was evaluated, whose labels show which pixels were correct; by default the samples
            that were kept beside the records, or else the dataset that `load_dataset` opens by the name in the plan.

    Returns:
        The evaluation, row by row.

    Raises:
        InputError: If the folder contains no finished evaluation, or if dataset and masks do not belong to it.
    """
    folder = Path(folder)
    if not (folder / "plan.json").is_file() or not (folder / "report.json").is_file():
        raise InputError(
            f"{folder} contains no finished evaluation; expected a folder that `robviz evaluate --out` wrote"
        )
    report = Report.load(folder / "report.json")
    plan, classes = report.plan, tuple(report.rows[CLEAN]["iou_by_class"])
    runs = [Run(**run) for run in plan["settings"]["runs"]]
    tables = {name: stacked_records(Records(folder, plan), name, plan["dataset"]["images"]) for name in run_names(plan)}
    rows, class_drops = build_rows(tables, runs, classes)
    flips, missing = None, what_is_missing(folder, plan)
    if not missing:
        try:
            kept = dataset or kept_samples(folder)
            dataset = kept or load_dataset(plan["dataset"]["name"], plan["dataset"]["split"])
        except InputError as error:
            missing = f"Without the dataset, nothing is known about single pixels: {error}."
        else:
            flips = build_flips(folder, plan, dataset, rows)
            rows["flipped"] = flips.groupby("row")["pixels"].sum().reindex(rows.index, fill_value=0)
    found = None if flips is None else dataset
    return Failures(folder, plan, classes, rows, class_drops, flips, missing, found, tuple(report.doubts))


def run_names(plan: Plan) -> list[str]:
    """Return the names of the unattacked images and of every run, as the records use them."""
    return [CLEAN, *(Run(**run).name for run in plan["settings"]["runs"])]


def what_is_missing(folder: Path, plan: Plan) -> str:
    """Describe which masks are missing; empty if none is."""
    kept, names = ImageStore(folder), run_names(plan)
    keys = [record_key(i, name) for i in range(plan["dataset"]["images"]) for name in names]
    absent = sum(not kept.has("masks", key) for key in keys)
    if not absent:
        return ""
    return (
        f"{absent} of {len(keys)} masks were not kept, so nothing is known about single pixels: run the same "
        f"`robviz evaluate` again with --out {folder.name} --keep-masks."
    )


def accuracies(table: dict[str, Any]) -> np.ndarray:
    """Return the pixel accuracy of each image, (N,)."""
    return accuracy_per_image(table["correct"].double(), table["valid"]).numpy()


def ious(table: dict[str, Any], prefix: str = "") -> np.ndarray:
    """Return the IoU of each image and class, (N, C); NaN where the class does not occur."""
    intersection, union = (table[f"{prefix}{part}"].numpy() for part in ("intersection", "union"))
    return np.where(union > 0, iou(intersection, union), np.nan)


def build_rows(
    tables: dict[str, dict[str, Any]], runs: list[Run], classes: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build `rows` and `class_drops` of `Failures` from counts; row = image * runs + run."""
    clean, attacked = tables[CLEAN], [tables[run.name] for run in runs]
    images = len(clean["image"])
    winner = np.stack([table["correct"].numpy() for table in attacked]).argmin(0)
    is_labelled = clean["labelled"].numpy() > 0
    drops = np.stack([np.where(is_labelled, ious(clean) - ious(table), np.nan) for table in attacked], 1)
    sizes = np.stack([ious(clean, "size_") - ious(table, "size_") for table in attacked], 1)
    right = np.stack([accuracies(table) for table in attacked], 1)
    of_image = np.repeat(np.arange(images), len(runs))
    drops, sizes = drops.reshape(-1, len(classes)), sizes.reshape(-1, len(SIZE_NAMES))
    known = np.where(np.isnan(drops), -np.inf, drops)
    worst = known.argmax(1)
    rows = pd.DataFrame(
        {
            "index": of_image,
            "image": np.asarray(clean["image"], dtype=object)[of_image],
            "run": [run.name for run in runs] * images,
            "loss": [run.loss for run in runs] * images,
            "clean": accuracies(clean)[of_image],
            "attacked": right.ravel(),
            "won": np.tile(np.arange(len(runs)), images) == winner[of_image],
            "worst_class": np.asarray(classes, dtype=object)[worst],
            "class_drop": known.max(1, initial=-np.inf),
        }
    )
    rows.insert(6, "drop", rows["clean"] - rows["attacked"])
    is_empty = np.isneginf(rows["class_drop"])
    rows.loc[is_empty, "worst_class"], rows.loc[is_empty, "class_drop"] = "", np.nan
    for name, values in zip(SIZE_NAMES, sizes.T):
        rows[name] = values
    rows["flipped"] = -1
    return rows, pd.DataFrame(drops)


def build_flips(folder: Path, plan: Plan, dataset: Dataset, rows: pd.DataFrame) -> pd.DataFrame:
    """Build `flips` of `Failures`; raises InputError if masks, dataset and records do not belong together."""
    kept, (_, *runs), num_classes = ImageStore(folder), run_names(plan), len(dataset.classes)
    right = rows["attacked"].to_numpy()
    found = []
    for i in range(plan["dataset"]["images"]):
        sample = dataset[i]
        labels = sample.labels.numpy()
        before = kept.read("masks", record_key(i, CLEAN))
        for number, run in enumerate(runs):
            row, after = i * len(runs) + number, kept.read("masks", record_key(i, run))
            fits = sample.name == rows["image"][row] and before.shape == after.shape == labels.shape
            is_valid = labels != VOID
            if not fits or round(right[row] * is_valid.sum()) != ((after == labels) & is_valid).sum():
                raise InputError(
                    f"the mask {kept.path('masks', record_key(i, run))} is not that of its record over {dataset.name} "
                    f"({dataset.split}); give the dataset that was evaluated, or delete it and evaluate again"
                )
            pairs = broken_pairs(labels, before, after, num_classes)
            found.append(np.concatenate([np.full((len(pairs), 1), row), pairs], 1))
    return pd.DataFrame(np.concatenate(found), columns=["row", "label", "seen_as", "pixels"])


def broken_pairs(labels: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of one image that were correct and no longer are: label, seen as, pixels, (n, 3)."""
    broke = (labels != VOID) & (before == labels) & (after != labels)
    pairs, pixels = np.unique(labels[broke] * num_classes + after[broke], return_counts=True)
    return np.stack([*np.divmod(pairs, num_classes), pixels], 1)


# --------------------------------------------------------------------------------------- selection


def select(
    found: Failures,
    *,
    worst_only: bool = True,
    loss: str | None = None,
    label: int | None = None,
    seen_as: int | None = None,
    size: str | None = None,
    sort_by: str = "accuracy drop",
) -> pd.DataFrame:
    """Select the rows that broke in a certain way, the worst first.

    Args:
        found: An evaluation.
        worst_only: Take only the strongest attack on each image.
        loss: Take only attacks with this loss.
        label: A class number. Without `seen_as`, take the rows in which its IoU fell; `class_drop` and `worst_class`
            then refer to it.
        seen_as: A class number. Take the rows in which pixels of `label`, or of any class, became this class; `flipped`
            then counts these pixels.
        size: "small", "medium" or "large": take the rows in which the IoU of objects of that size fell.
        sort_by: A key of `SORTS`.

    Returns:
        The rows, with the index of `found.rows`.

    Raises:
        InputError: For an unknown value.
    """
    losses = sorted(set(found.rows["loss"]))
    for what, value, known in (("loss", loss, losses), ("size", size, SIZE_NAMES), ("sort", sort_by, SORTS)):
        if value is not None and value not in known:
            raise InputError(f"unknown {what} {value!r}; choose from: {', '.join(known)}")
    check_classes(found, label, seen_as)
    rows = found.rows.copy()
    if label is not None:
        rows["class_drop"], rows["worst_class"] = found.class_drops[label], found.classes[label]
    if seen_as is not None or (label is not None and found.flips is not None):
        rows["flipped"] = flipped(found, label, seen_as).reindex(rows.index, fill_value=0)
    is_chosen = pd.Series(True, rows.index)
    if worst_only:
        is_chosen &= rows["won"]
    if loss is not None:
        is_chosen &= rows["loss"] == loss
    if seen_as is not None:
        is_chosen &= rows["flipped"] > 0
    elif label is not None:
        is_chosen &= rows["class_drop"] > 0
    if size is not None:
        is_chosen &= rows[size] > 0
    column, largest_first = SORTS[sort_by]
    return rows[is_chosen].sort_values(column, ascending=not largest_first, kind="stable")


def check_classes(found: Failures, label: int | None, seen_as: int | None) -> None:
    """Raise InputError for unknown class numbers, or if flips to a class are requested but unknown."""
    for number in (label, seen_as):
        if number is not None and not 0 <= number < len(found.classes):
            raise InputError(f"class numbers lie in 0 .. {len(found.classes) - 1}, got {number}")
    if seen_as is not None and found.flips is None:
        raise InputError(found.missing)


def flipped(found: Failures, label: int | None, seen_as: int | None) -> pd.Series:
    """Count, by row, the pixels that were correct and became `seen_as`, of `label` only if it is given."""
    flips = found.flips
    assert flips is not None
    is_meant = pd.Series(True, flips.index)
    for column, number in (("label", label), ("seen_as", seen_as)):
        if number is not None:
            is_meant &= flips[column] == number
    return flips[is_meant].groupby("row")["pixels"].sum()


def flip_matrix(found: Failures, rows: pd.DataFrame) -> np.ndarray:
    """Count which class became which.

    Args:
        found: An evaluation with masks.
        rows: Some of its rows.

    Returns:
        (K, K) int64: the pixels of class a that were correct and are predicted as class b under attack.

    Raises:
        InputError: If masks were not kept.
    """
    if found.flips is None:
        raise InputError(found.missing)
    flips = found.flips[found.flips["row"].isin(rows.index)]
    matrix = np.zeros((len(found.classes),) * 2, dtype=np.int64)
    np.add.at(matrix, (flips["label"], flips["seen_as"]), flips["pixels"])
    return matrix


# --------------------------------------------------------------------------------------- export


def inert(text: str) -> str:
    """Return a text that spreadsheets show instead of evaluating it."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def to_csv(found: Failures, rows: pd.DataFrame, notes: Mapping[str, str] | None = None) -> str:
    """Write rows as CSV, with the IoU drop of every class and the note on each image.

    Args:
        found: An evaluation.
        rows: Some of its rows.
        notes: Notes by image number.

    Returns:
        The CSV text.
    """
    table = rows.copy()
    for number, name in enumerate(found.classes):
        table[f"IoU drop: {name}"] = found.class_drops[number].reindex(rows.index)
    table["note"] = [(notes or {}).get(str(index), "") for index in rows["index"]]
    for column in ("image", "run", "loss", "worst_class", "note"):
        table[column] = [inert(str(value)) for value in table[column]]
    result: str = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return result


def export(
    found: Failures,
    dataset: Dataset,
    rows: pd.DataFrame,
    file: IO[bytes],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write rows as a zip: the CSV, the plan, and the picture, the masks and the attacked picture of each row.

    Files are named by image number and attack, and written one picture at a time. Files that were not kept are left
    out.

    Args:
        found: An evaluation.
        dataset: The dataset that was evaluated.
        rows: Some of its rows.
        file: Where to write.
        notes: Notes by image number.
    """
    kept, written = ImageStore(found.folder), set()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("selection.csv", to_csv(found, rows, notes), zipfile.ZIP_DEFLATED)
        archive.writestr("plan.json", json.dumps(found.plan, indent=1) + "\n")
        for index, run in zip(rows["index"], rows["run"]):
            if index not in written:
                buffer = io.BytesIO()
                Image.fromarray(to_bytes(dataset[index].image)).save(buffer, "PNG")
                archive.writestr(f"pictures/{index:06d}.png", buffer.getvalue())
                written.add(index)
            for name in (CLEAN, run):
                for kind in stored_kinds(name):
                    path = kept.path(kind, record_key(index, name))
                    if path.is_file() and path not in written:
                        archive.write(path, f"{kind}/{path.name}")
                        written.add(path)
