"""The tables of `docs/strength.md`, from the reports of the shipped models and from the ablation."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pandas as pd

from robviz.files.paths import bundled_path
from robviz.results.report import Report

#: The models on which STRONG was measured, the radii in 1/255, and its steps per image.
MODELS, RADII, STEPS = ("photos-robust", "photos-onestep", "camvid-at", "camvid-pirat"), (2, 4, 8), (90, 300, 900)


def steps_of(report: Report) -> int:
    """Return the gradient steps that a report spent on each image."""
    return sum(run["steps"] for run in report.plan["settings"]["runs"])


def family_of(report: Report) -> str:
    """Return the ensemble of a report without its number of steps: `paper`, `strong-v1`, `strong`, ..."""
    name, _, last = report.plan["settings"]["name"].rpartition("-")
    return name if last.isdigit() else report.plan["settings"]["name"]


def by_cell(reports: list[Report]) -> dict[tuple[str, int, str, int], Report]:
    """Sort reports by model, radius in 1/255, ensemble and steps per image."""
    return {
        (report.plan["model"]["name"], round(255 * report.plan["eps"]), family_of(report), steps_of(report)): report
        for report in reports
    }


def figures(report: Report | None) -> str:
    """Return worst accuracy / worst mIoU in %, or nothing without a report."""
    if report is None:
        return ""
    worst = report.rows["worst case"]
    return f"{100 * worst['accuracy_mean']:.2f} / {100 * worst['miou']:.2f}"


def strength(reports: list[Report]) -> pd.DataFrame:
    """Compare accuracy / mIoU in % under `paper` and both `strong`, by steps per image, for each model and radius."""
    found, rows = by_cell(reports), []
    for model in MODELS:
        for eps in RADII:
            paper, strong = found.get((model, eps, "paper", 900)), found.get((model, eps, "strong", 300))
            row = {"model": f"`{model}`", "radius": f"{eps}/255", "`paper`, 900": figures(paper)}
            row["`strong-v1`, 300"] = figures(found.get((model, eps, "strong-v1", 300)))
            row |= {f"`strong`, {steps}": figures(found.get((model, eps, "strong", steps))) for steps in STEPS}
            if paper and strong:
                below = [
                    100 * (paper.rows["worst case"][key] - strong.rows["worst case"][key])
                    for key in ("accuracy_mean", "miou")
                ]
                row["`strong`, 300, is below `paper`, 900, by"] = f"{below[0]:.2f} / {below[1]:.2f}"
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def winners(reports: list[Report]) -> pd.DataFrame:
    """Show on how many images each member of STRONG with 300 steps leaves the lowest accuracy, by model."""
    wins: dict[str, Counter[str]] = {}
    for (model, _, family, steps), report in by_cell(reports).items():
        if family == "strong" and steps == 300:
            wins.setdefault(model, Counter()).update(image["by"] for image in report.images)
    members = sorted({member for counter in wins.values() for member in counter})
    rows = [
        {"member": f"`{member}`"}
        | {
            f"`{model}`": f"{100 * wins[model][member] / wins[model].total():.0f} %"
            for model in MODELS
            if model in wins
        }
        for member in members
    ]
    return pd.DataFrame(rows)


@lru_cache
def ablation() -> pd.DataFrame:
    """Return the ablation as it was measured: one row per run, figures in %."""
    return pd.read_csv(bundled_path("checkpoints") / "reports" / "ablation" / "strong.csv")


#: The usual value of every column of the ablation that is not varied.
USUAL = {"start": "random", "momentum": 0.75, "averaging": 0.0, "step": 1.0, "floor": 0.02, "share": 0.6}


def table_of(rows: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Return the rows' values with one column per model and radius, in the order of the rows."""
    cells = rows.assign(cell="`" + rows["model"] + "`, " + rows["eps"].astype(str) + "/255")
    wide = cells.pivot_table(index=by, columns="cell", values=value, sort=False, aggfunc="first")
    order = sorted(wide.columns, key=lambda cell: (cell.split("`")[1] not in "photos-robust", cell))
    return wide[order].map(lambda figure: "" if pd.isna(figure) else f"{figure:.2f}").reset_index()


def usual(rows: pd.DataFrame, *but: str) -> pd.DataFrame:
    """Return the rows in which all columns but these have their usual value."""
    is_usual = pd.Series(True, rows.index)
    for column, value in USUAL.items():
        if column not in but:
            is_usual &= rows[column] == value
    return rows[is_usual]


def temperatures() -> pd.DataFrame:
    """Compare accuracies by the first and last temperature of a run of 30 steps."""
    rows = ablation().query("phase == 'accuracy' and steps == 30 and radius == 2")
    rows = usual(rows).sort_values(["last", "first"], ascending=[False, False], kind="stable")
    return table_of(rows, "accuracy", ["first", "last", "schedule"])


def optimisers() -> pd.DataFrame:
    """Compare accuracies by the optimiser's settings and its start, with 30 steps at temperature 1."""
    rows = ablation().query("phase == 'accuracy' and steps == 30 and first == 1 and last == 1")
    return table_of(rows, "accuracy", ["radius", "start", "momentum", "averaging", "step", "floor"])


def warm_starts() -> pd.DataFrame:
    """Compare accuracies by steps: one run, or four of 20 steps each, the best of which continues for 80."""
    rows = ablation().query("phase == 'accuracy' and schedule == 'geometric' and last == 0.1 and steps >= 100")
    rows = usual(rows[rows["radius"].isin([1, 1.5, 2])], "start").sort_values(["steps", "radius"], kind="stable")
    return table_of(rows, "accuracy", ["steps", "start", "first", "radius"])


def sets() -> pd.DataFrame:
    """Compare the mIoU of the set by blocks, steps and temperature, in one or several passes."""
    rows = ablation().query("phase == 'set' and last == 0.1").sort_values(["steps", "blocks"], kind="stable")
    return table_of(rows, "miou", ["steps", "blocks", "first", "radius"])


def before_sets() -> pd.DataFrame:
    """Return the mIoU of the sets before they were attacked as sets."""
    rows = ablation().query("phase == 'set'").drop_duplicates(["model", "eps"])
    return table_of(rows.assign(what="two members for the accuracy, 100 steps each"), "before", ["what"])
