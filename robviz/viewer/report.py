"""The page of an evaluation: its figures, its doubts, and the pictures that broke most."""

from __future__ import annotations

import math
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from robviz.datasets import available as datasets_available
from robviz.files.images import jpeg_url, to_bytes
from robviz.results.failures import Failures, failures, select
from robviz.results.plan import CLEAN, Figures, Plan, Run
from robviz.results.report import Report
from robviz.viewer import percent
from robviz.viewer.failures import failure_data, gallery_data, matrix_data
from robviz.viewer.page import MOST_BYTES, page
from robviz.viewer.payloads import FailuresData, Score, TextTable
from robviz.viewer.sharing import command_of, known_ensemble, model_said, radius, versions_said
from robviz.viewer.worst import Entry, Shared, as_many_as_fit, flips_of, gallery_of, views_of

WORST = "worst case"
JPEG_QUALITY = 90  # of pictures whose attacked version was not kept, so that no perturbation drowns
MOST_ROWS = 50  # of the table of pictures


def evaluation_page(
    folder: Path, limit: int | None = None, title: str | None = None, most_bytes: int = MOST_BYTES
) -> Shared:
    """Write the page of an evaluation; see `folder_page`."""
    found, report = failures(folder), Report.load(folder / "report.json")
    rows = select(found, sort_by="accuracy under attack")
    dataset = found.dataset
    made = []
    if dataset is not None:

        def entry(row: int) -> Entry:
            assert dataset is not None
            assert found.flips is not None
            (card,) = gallery_data(found, dataset, rows.loc[[row]], 0, 1, {})["cards"]
            view = failure_data(found, dataset, row)
            if "change" not in view["pictures"]:
                image = to_bytes(dataset[found.rows.loc[row, "index"]].image)
                view["pictures"]["image"] = jpeg_url(image, JPEG_QUALITY)
            flips = found.flips[found.flips["row"] == row][["row", "label", "seen_as", "pixels"]]
            return card, view, flips.to_numpy().tolist()

        made = as_many_as_fit((partial(entry, int(row)) for row in rows.index), limit, most_bytes)
    plan = found.plan
    data: FailuresData = {
        "scores": summary_of(report),
        "doubts": [f"{doubt[0].upper()}{doubt[1:]}." for doubt in found.doubts],
        "missing": found.missing,
        "classes": list(found.classes),
        "gallery": gallery_of(made, len(rows)),
        "views": views_of(made),
        "matrix": matrix_data(found, rows),
        "flips": flips_of(made),
        "tables": [by_attack(report), by_class(report), *([] if made else [by_image(report, limit or MOST_ROWS)])],
    }
    text = page(
        title or f"Where {plan['model']['name']} breaks",
        "failures",
        data,
        lead=f"{plan['dataset']['images']} images of {plan['dataset']['name']} ({plan['dataset']['split']}) under "
        f"{len(plan['settings']['runs'])} attacks within {radius(plan['eps'])}; the worst of them counts.",
        setting=evaluation_said(found),
        again=evaluation_again(plan, folder.name),
    )
    return Shared(text, len(made), len(rows))


def rate(value: float | None) -> str:
    """Write a share in per cent; None where it is undefined."""
    return percent(math.nan if value is None else value)


def summary_of(report: Report) -> list[Score]:
    """Return the figures above everything else: clean and worst."""

    def both(name: str) -> str:
        return f"{rate(figures_of(report, CLEAN)[name])} → {rate(figures_of(report, WORST)[name])}"

    return [
        {"name": "accuracy", "label": "pixel accuracy, clean → worst", "value": both("accuracy_mean")},
        {"name": "miou", "label": "mIoU, clean → worst", "value": both("miou")},
        {"name": "images", "label": "images", "value": f"{report.plan['dataset']['images']:,}"},
        {"name": "radius", "label": "radius ε", "value": radius(report.plan["eps"])},
    ]


def figures_of(report: Report, row: str) -> dict[str, Any]:
    """Return the figures of a row of the report by name."""
    figures: Figures = report.rows[row]
    return {**figures}


def by_attack(report: Report) -> TextTable:
    """Return what each attack leaves, in %; pairs of attacks are left out."""
    (_, *columns), *lines = report.table()
    return {
        "title": "What each attack leaves, in %",
        "columns": ["attack", *columns],
        "rows": [line for line in lines if " + " not in line[0]],
    }


def by_class(report: Report) -> TextTable:
    """Return the IoU of each class, the largest loss first."""
    before, after = (figures_of(report, row)["iou_by_class"] for row in (CLEAN, WORST))

    def drop(name: str) -> float:
        return math.inf if None in (before[name], after[name]) else float(after[name] - before[name])

    return {
        "title": "IoU by class",
        "columns": ["class", "clean", WORST],
        "rows": [[name, rate(before[name]), rate(after[name])] for name in sorted(before, key=drop)],
    }


def by_image(report: Report, count: int) -> TextTable:
    """Return the pictures of lowest accuracy, for an evaluation whose masks were not kept."""
    worst = sorted(report.images, key=lambda one: one["worst"])[:count]
    return {
        "title": f"The worst pictures, {len(worst)} of {len(report.images)}",
        "columns": ["picture", "pixel accuracy, clean", WORST, "under"],
        "rows": [[str(one["image"]), rate(one["clean"]), rate(one["worst"]), one["by"]] for one in worst],
    }


def evaluation_said(found: Failures) -> dict[str, str]:
    """Say what decided an evaluation."""
    plan = found.plan
    data, settings = plan["dataset"], plan["settings"]
    runs = [Run(**run) for run in settings["runs"]]
    norms = sorted({run.spec(plan["eps"], 0).norm.name for run in runs})
    return {
        "Model": model_said(plan["model"]["name"], plan["model"]["sha256"]),
        "Data": f"{data['name']} ({data['split']}), {data['images']} images",
        **({"Data, SHA-256": data["sha256"]} if "sha256" in data else {}),
        "Radius ε": f"{radius(plan['eps'])} ({' and '.join(norms)})",
        "Ensemble": f"{settings['name']}, seed {plan['seed']}",
        "Attacks": ", ".join(run.name for run in runs),
        "Gradients": f"{plan['precision']} on {plan['device']}",
        **versions_said(plan["versions"]),
    }


def evaluation_again(plan: Plan, folder: str) -> str:
    """Return the commands that evaluate the same and write this page; what only its author has is in capitals."""
    model, data, settings = plan["model"], plan["dataset"], plan["settings"]
    is_ours = not (model.get("wrapping") or model.get("code"))
    is_known = data["name"] in datasets_available()
    ensemble = known_ensemble({**settings})
    comments = [
        *([] if is_ours else [f"MODEL.py:FUNCTION returns {model['name']}"]),
        *([] if is_known else [f"DATA is the folder of {data['name']}"]),
        *([] if ensemble else [f"{settings['name']} is an ensemble of one's own: give it to robviz.sea.evaluate"]),
    ]
    name, steps = ensemble or (settings["name"], None)
    words = [
        ["robviz", "evaluate", model["name"] if is_ours else "MODEL.py:FUNCTION"],
        ["--dataset", data["name"] if is_known else "DATA", "--split", data["split"], "--limit", str(data["images"])],
        ["--eps", f"{255 * plan['eps']:.6g}", "--settings", name, *(["--steps", str(steps)] if steps else [])],
        ["--precision", plan["precision"], *(["--eot", str(plan["eot"])] if plan.get("eot", 1) != 1 else [])],
        ["--keep-masks", "--out", folder],
    ]
    return command_of(words, comments) + shlex.join(["robviz", "page", folder]) + "\n"
