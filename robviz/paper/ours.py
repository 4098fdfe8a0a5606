"""Build rows like those of the published tables from our own evaluations; figures in per cent, radii in /255."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from robviz.finetune.recipes import RECIPES
from robviz.models.published import BACKBONES
from robviz.paper.published import table
from robviz.results.report import Report
from robviz.types import InputError

Line = dict[str, Any]


def radius_label(report: Report) -> str:
    """Return the radius of a report as text: `4/255`."""
    return f"{255 * report.plan['eps']:g}/255"


def subject_label(report: Report) -> str:
    """Describe which model was evaluated, and on what."""
    data = report.plan["dataset"]
    return f"{report.plan['model']['name']}, {data['name']} {data['split']}, {data['images']} images"


def run_label(report: Report) -> str:
    """Describe which model was evaluated, on what and by which ensemble: the first cell of our rows."""
    return f"{subject_label(report)}, {report.plan['settings']['name']}"


def percentages(report: Report, row: str, prefix: str, accuracy: str = "accuracy_pooled") -> Line:
    """Return the two figures of a row, in per cent, under the paper's headings."""
    figures: dict[str, Any] = {**report.rows[row]}
    return {
        f"{prefix} {heading}": None if figures[key] is None else round(100 * figures[key], 1)
        for heading, key in (("Acc", accuracy), ("mIoU", "miou"))
    }


def worst_case(report: Report, prefix: str) -> Line:
    """Return the figures of the ensemble; its accuracy is the mean over the images, as in the official code."""
    return percentages(report, "worst case", prefix, "accuracy_mean")


def losses(report: Report) -> dict[str, str]:
    """Map each loss to the row of the report in which it attacks alone."""
    return {run["loss"]: f"{run['loss']}.{run['attack']}.{run['steps']}" for run in report.plan["settings"]["runs"]}


def component_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 6: each loss alone, and all together."""
    lines = []
    for report in reports:
        alone: Line = {}
        for loss, row in losses(report).items():
            alone |= percentages(report, row, loss)
        lines.append({"Model": run_label(report), "eps": radius_label(report), **alone, **worst_case(report, "SEA")})
    return lines


def pair_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 7: each pair of losses, and all, in separate rows for each model."""
    published = {frozenset(pair.split("+")): pair for pair in table(7)["Loss pair"]}
    lines: dict[tuple[str, str], Line] = {}
    for report in reports:
        names = {row: loss for loss, row in losses(report).items()}
        for row in report.rows:
            if row == "worst case":
                pair, figures = "SEA", worst_case(report, radius_label(report))
            elif " + " in row:
                pair = published[frozenset(names[one] for one in row.split(" + "))]
                figures = percentages(report, row, radius_label(report))
            else:
                continue
            line = lines.setdefault((run_label(report), pair), {"Model": run_label(report), "Loss pair": pair})
            line.update(figures)
    return list(lines.values())


def radius_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 2: each model under SEA at growing radii."""
    lines: dict[str, Line] = {}
    for report in reports:
        line = lines.setdefault(run_label(report), {"Setting": run_label(report), **percentages(report, "clean", "0")})
        line.update(worst_case(report, radius_label(report)))
    return list(lines.values())


def start_of(report: Report) -> Line | None:
    """Describe the adversarial training behind the model of a report; None if it is not one of our recipes."""
    name, data = re.sub(r"-seed\d+$", "", report.plan["model"]["name"]), report.plan["dataset"]
    recipe = RECIPES.get(name)
    if recipe is None or not recipe.eps:
        return None
    first = RECIPES.get(recipe.initial or "")
    is_robust = recipe.initial in BACKBONES or (first is not None and first.eps > 0)
    where = f"{recipe.architecture} on {data['name']} {data['split']}"
    return {
        "Setting": f"{where}, {data['images']} images, {report.plan['settings']['name']}",
        "Training": "PIR-AT" if is_robust else "AT",
        "Init.": "robust" if is_robust else "clean",
        "Steps": recipe.attack_steps,
        **({"Its.": recipe.iterations} if recipe.epochs is None else {"Ep.": recipe.epochs}),
    }


def training_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 3: adversarial trainings by start, steps and length, with mean and deviation over their seeds."""
    groups: dict[tuple[Any, ...], dict[str, Line]] = {}
    for report in reports:
        if start := start_of(report):
            models = groups.setdefault(tuple(start.items()), {})
            line = models.setdefault(report.plan["model"]["name"], {})
            line |= percentages(report, "clean", "0") | worst_case(report, radius_label(report))
    headings = {heading for models in groups.values() for line in models.values() for heading in line}
    in_order = sorted(headings, key=lambda heading: (float(re.split("[/ ]", heading)[0]), heading))
    lines = []
    for which, models in groups.items():
        found = {name: [line[name] for line in models.values() if line.get(name) is not None] for name in in_order}
        figures = {name: spread(values) if values else None for name, values in found.items()}
        lines.append(dict(which) | {"Seeds": len(models)} | figures)

    def place(line: Line) -> tuple[Any, ...]:
        return line["Setting"], line.get("Its.", line.get("Ep.")), line["Steps"], line["Training"]

    return sorted(lines, key=place)


#: The names in Table 1 of the losses that are not the paper's own.
BASELINES = {"cospgd": "CosPGD", "segpgd": "SegPGD"}


def attack_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 1: each loss alone, including those of earlier work, and SEA; one row per model and radius."""
    lines: dict[tuple[str, str], Line] = {}
    for report in reports:
        subject, eps = subject_label(report), radius_label(report)
        clean = [f"{value:.1f}" for value in percentages(report, "clean", "").values()]
        line = lines.setdefault((subject, eps), {"Model": subject, "Clean (Acc / mIoU)": " / ".join(clean), "eps": eps})
        for loss, row in losses(report).items():
            line |= percentages(report, row, BASELINES.get(loss, loss))
        if is_paper(report):
            line |= worst_case(report, "SEA")
    return list(lines.values())


def seed_lines(reports: Iterable[Report]) -> list[Line]:
    """Build Table 8: mean and deviation of Table 6 over the reports that differ only in their seed."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in component_lines(reports):
        groups.setdefault((line["Model"], line["eps"]), []).append(line)
    return [
        {"Model": model, "eps": eps}
        | {name: spread([line[name] for line in group]) for name in group[0] if name not in ("Model", "eps")}
        for (model, eps), group in groups.items()
    ]


def spread(values: list[float]) -> str:
    """Write mean and deviation as `89.2±0.2`; a single value has no deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean}±{statistics.stdev(values):.1f}" if len(values) > 1 else mean


#: number -> function that builds its lines from evaluations
OURS: dict[int, Callable[[Iterable[Report]], list[Line]]] = {
    1: attack_lines,
    2: radius_lines,
    3: training_lines,
    6: component_lines,
    7: pair_lines,
    8: seed_lines,
}


def is_paper(report: Report) -> bool:
    """Return True if the ensemble has the losses of version 2 of the paper, with any number of steps."""
    return re.fullmatch(r"paper(-\d+)?", report.plan["settings"]["name"]) is not None


def ours(number: int, reports: Iterable[Report]) -> pd.DataFrame:
    """Build rows like those of a published table from our own evaluations.

    Args:
        number: 1, 2, 3, 6, 7 or 8.
        reports: Any reports; except for Table 1, those of other ensembles than the paper's are ignored.

    Returns:
        Figures in per cent, under the published headings.

    Raises:
        InputError: For a table that evaluations cannot make.
    """
    if number not in OURS:
        raise InputError(f"evaluations make Tables {', '.join(map(str, OURS))}, not {number!r}")
    counted = (report for report in reports if number == 1 or is_paper(report))
    ordered = sorted(counted, key=lambda report: (run_label(report), report.plan["eps"]))
    return pd.DataFrame(OURS[number](ordered))
