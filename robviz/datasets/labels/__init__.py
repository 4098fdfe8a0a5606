"""Classes, palettes and class weights of the published datasets, one table each.

VOC: names and colours of its development kit; weights as published with arXiv:2306.12941. ADE20K: the short names and
colours that mmsegmentation lists, black for the background; weights as published with the same paper.
CamVid: names and colours of the SegNet tutorial; `robviz data weights camvid` wrote the table.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, TypedDict

import torch

from robviz.types import Dataset

COLUMNS = ("class", "red", "green", "blue", "weight")


class Meaning(TypedDict):
    """Describe what labels mean: the arguments of `Pairs` that a table fills."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    weights: torch.Tensor


def read_table(name: str) -> Meaning:
    """Read the table of `voc`, `ade20k` or `camvid`."""
    with (Path(__file__).parent / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return {
        "classes": tuple(row["class"] for row in rows),
        "palette": tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows),
        "weights": torch.tensor([float(row["weight"]) for row in rows]),
    }


def table_text(dataset: Dataset, weights: torch.Tensor) -> str:
    """Write a dataset's classes and palette with these weights, in the format of the stored tables."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, colour, weight in zip(dataset.classes, dataset.palette, weights.tolist()):
        writer.writerow([name, *colour, f"{weight:.5g}"])
    return text.getvalue()
