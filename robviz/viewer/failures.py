"""How the failures of an evaluation look in the browser: the data of `gallery`, `matrix` and `viewer`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch

from robviz.files.images import change_png_url, index_png_url, jpeg_url, largest_change, overlay, png_url, to_bytes
from robviz.interactive.comparison import scores
from robviz.results.failures import Failures, flip_matrix
from robviz.results.images import ImageStore
from robviz.results.plan import CLEAN, record_key
from robviz.types import Dataset, InputError
from robviz.viewer import arrow, percent
from robviz.viewer.payloads import GalleryData, HeatmapData, MatrixData, Pictures, ViewerData

THUMBNAIL = 168  # pixels, the longer side
MOST_CLASSES = 12  # that the matrix shows


def thumbnail(found: Failures, dataset: Dataset, row: int) -> str:
    """Draw the mask under attack over the picture, or the picture without masks, as a data URL of a JPEG."""
    index, run = found.rows.loc[row, ["index", "run"]]
    image = to_bytes(dataset[index].image)
    if found.flips is not None:
        image = overlay(image, ImageStore(found.folder).read("masks", record_key(index, run)), dataset.palette)
    return jpeg_url(image, 85, THUMBNAIL)


def gallery_data(
    found: Failures, dataset: Dataset | None, rows: pd.DataFrame, page: int, per_page: int, notes: dict[str, str]
) -> GalleryData:
    """Return the payload of `gallery` for some rows, ready for JSON. dataset: None if there are no pictures."""
    pages = max(1, math.ceil(len(rows) / per_page))
    page = min(max(page, 0), pages - 1)
    shown = rows.iloc[page * per_page : (page + 1) * per_page]
    return {
        "cards": [
            {
                "row": int(row.Index),
                "title": str(row.image) + (" ✎" if str(row.index) in notes else ""),
                "lines": [f"{percent(row.clean)} → {percent(row.attacked)}", lost(row), str(row.loss)],
                "picture": thumbnail(found, dataset, int(row.Index)) if dataset is not None else None,
            }
            for row in shown.itertuples()
        ],
        "first": page * per_page,
        "total": len(rows),
        "page": page,
        "pages": pages,
        "note": found.missing,
    }


def lost(row: Any) -> str:
    """Name the class that broke most."""
    return f"{row.worst_class} −{100 * row.class_drop:.0f} IoU" if row.worst_class else "no class is labelled"


def matrix_data(found: Failures, rows: pd.DataFrame) -> MatrixData:
    """Return the payload of `matrix` for some rows, ready for JSON: the classes with the most pixels."""
    if found.flips is None:
        return {"classes": [], "labels": [], "counts": [], "note": found.missing}
    note = f"Pixels that were correct and no longer are, {len(rows)} attacked pictures. Click a cell to see them."
    return matrix_of(flip_matrix(found, rows), found.classes, note)


def matrix_of(counts: np.ndarray, classes: tuple[str, ...], note: str) -> MatrixData:
    """Return the payload of `matrix` for counts (K, K): the classes with the most pixels."""
    volume = counts.sum(0) + counts.sum(1)
    labels = np.sort(np.argsort(-volume, kind="stable")[:MOST_CLASSES])
    labels = labels[volume[labels] > 0]
    left_out = int((volume > 0).sum() - len(labels))
    return {
        "classes": [classes[label] for label in labels],
        "labels": labels.tolist(),
        "counts": counts[np.ix_(labels, labels)].tolist(),
        "note": note + (f" {left_out} classes with fewer pixels are left out." if left_out else ""),
    }


def heatmap_data(found: Failures) -> HeatmapData:
    """Return the payload of `heatmap`, ready for JSON: pixel accuracy by picture and attack, the worst first."""
    by_image = {index: rows for index, rows in found.rows.groupby("index")}
    in_order = sorted(by_image, key=lambda index: by_image[index]["attacked"].min())
    return {
        "columns": list(dict.fromkeys(found.rows["loss"])),
        "rows": [
            {
                "title": str(by_image[index]["image"].iloc[0]),
                "clean": float(by_image[index]["clean"].iloc[0]),
                "cells": [
                    {"row": int(row.Index), "right": float(row.attacked), "won": bool(row.won)}
                    for row in by_image[index].itertuples()
                ],
            }
            for index in in_order
        ],
        "note": "".join(f"{doubt}. " for doubt in found.doubts)
        + f"{found.name}: pixel accuracy after each attack of {found.plan['settings']['name']}, in %. "
        "◆ marks the worst of a picture. Choose a cell to see it.",
    }


def failure_data(found: Failures, dataset: Dataset, row: int) -> ViewerData:
    """Return the payload of `viewer` for one row, ready for JSON; raises InputError if masks were not kept."""
    if found.flips is None:
        raise InputError(found.missing)
    entry, kept = found.rows.loc[row], ImageStore(found.folder)
    sample, key = dataset[entry["index"]], record_key(entry["index"], entry["run"])
    image, reference = to_bytes(sample.image), sample.labels.numpy()
    before, after = kept.read("masks", record_key(entry["index"], CLEAN)), kept.read("masks", key)
    pictures: Pictures = {
        "image": png_url(image),
        "before": index_png_url(before),
        "after": index_png_url(after),
        "reference": index_png_url(reference),
    }
    note = f"{entry['image']} under {entry['run']}. The masks are those that the report counts."
    change = f"{255 * found.plan['eps']:g}/255 at most"
    if kept.has("pictures", key):
        attacked = kept.read("pictures", key)
        pictures["change"] = change_png_url(image, attacked)
        change = f"{largest_change(attacked, image)}/255"
        note += " The attacked picture is rounded to 8 bits."
    else:
        note += " The attacked picture was not kept; evaluate with --keep-pictures to see it."
    was, now = (scores(torch.from_numpy(mask), sample.labels, len(found.classes)) for mask in (before, after))
    return {
        "pictures": pictures,
        "trail": None,
        "classes": list(found.classes),
        "palette": [list(colour) for colour in dataset.palette],
        "eps": found.plan["eps"],
        "scores": [
            {"name": "accuracy", "label": "pixel accuracy", "value": arrow(was.accuracy, now.accuracy, True)},
            {"name": "miou", "label": "mIoU", "value": arrow(was.miou, now.miou, True)},
            {"name": "change", "label": "largest change, L∞", "value": change},
            {"name": "flipped", "label": "flipped pixels", "value": f"{entry['flipped']:,}"},
        ],
        "note": note,
        "is_final": True,
    }
