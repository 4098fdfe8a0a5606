"""The tables of `docs/strength.md`, from the reports of the shipped models and from the ablation."""

from __future__ import annotations

import statistics
from collections import Counter
from functools import lru_cache
from typing import Literal

import pandas as pd

from robviz.files.paths import bundled_path
from robviz.paper.strength import FIRST_AND_LAST
from robviz.results.confusion import Confusion, shares_by_class
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


# ----------------------------------------------------------------------------------------------- repeated, released


#: What is compared over several seeds: column -> name in a row of a report.
FIGURES: tuple[tuple[str, Literal["accuracy_mean", "miou"]], ...] = (("accuracy", "accuracy_mean"), ("mIoU", "miou"))


def spread(values: list[float]) -> str:
    """Return mean and standard deviation of rates, in %."""
    percent = [100 * value for value in values]
    return f"{statistics.mean(percent):.2f} ± {statistics.stdev(percent):.2f}"


def seeds(reports: list[Report]) -> pd.DataFrame:
    """Compare accuracy and mIoU of ensembles over several seeds: mean ± standard deviation, in %.

    Only ensembles with several seeds are listed; of two reports with the same seed, the last counts. The last line of a
    radius shows by how much `strong` is below `paper` with as many steps and the same seed.
    """
    found: dict[tuple[str, int, int], dict[str, dict[int, Report]]] = {}
    for report in reports:
        cell = report.plan["model"]["name"], round(255 * report.plan["eps"]), steps_of(report)
        found.setdefault(cell, {}).setdefault(family_of(report), {})[report.plan["seed"]] = report
    rows = []
    for (model, eps, steps), families in sorted(found.items()):
        head = {"model": f"`{model}`", "radius": f"{eps}/255", "steps per image": str(steps)}
        worst = {
            family: {seed: report.rows["worst case"] for seed, report in sorted(by_seed.items())}
            for family, by_seed in sorted(families.items())
            if len(by_seed) > 1
        }
        for family, by_seed in worst.items():
            cells = {name: spread([figures[key] for figures in by_seed.values()]) for name, key in FIGURES}
            rows.append(head | {"ensemble": f"`{family}`", "seeds": ", ".join(map(str, by_seed))} | cells)
        common = sorted(worst.get("paper", {}).keys() & worst.get("strong", {}).keys())
        if len(common) > 1:
            cells = {
                name: spread([worst["paper"][seed][key] - worst["strong"][seed][key] for seed in common])
                for name, key in FIGURES
            }
            rows.append(head | {"ensemble": "`paper` − `strong`", "seeds": ", ".join(map(str, common))} | cells)
    return pd.DataFrame(rows)


def earlier(first: float, last: float, model: str, eps: int) -> str:
    """Return the accuracy that the other implementation of the ablation left with these temperatures, in %."""
    rows = usual(ablation().query("phase == 'accuracy' and steps == 30 and radius == 2"))
    rows = rows[(rows["first"] == first) & (rows["last"] == last) & (rows["model"] == model) & (rows["eps"] == eps)]
    return f"{rows['accuracy'].iloc[0]:.2f}" if len(rows) else ""


def released_temperatures(reports: list[Report]) -> pd.DataFrame:
    """Compare accuracies by first and last temperature, as robviz measures them and as the table above has them."""
    lines: dict[tuple[float, float], dict[str, str]] = {}
    for report in sorted(reports, key=lambda report: report.plan["eps"]):
        if not report.plan["settings"]["name"].startswith("ablation-temperatures"):
            continue
        model, eps = report.plan["model"]["name"], round(255 * report.plan["eps"])
        for run in report.plan["settings"]["runs"]:
            first, last = FIRST_AND_LAST[run["loss"]]
            row = report.rows[f"{run['loss']}.{run['attack']}.{run['steps']}"]
            line = lines.setdefault((first, last), {"first": str(first), "last": str(last)})
            line[f"`{model}`, {eps}/255"] = f"{100 * row['accuracy_mean']:.2f}"
            line[f"{eps}/255, table above"] = earlier(first, last, model, eps)
    return pd.DataFrame(lines[key] for key in sorted(lines, key=lambda key: (-key[1], -key[0])))


def released_blocks(reports: list[Report], repeated: list[Report]) -> pd.DataFrame:
    """Compare the mIoU of sets that are attacked in one block with that of `strong`, which has four, by seed."""
    cells: dict[tuple[str, int, int, int], dict[int, float]] = {}
    for report in [*reports, *repeated]:
        plan = report.plan
        if "blocks" in plan["settings"]:
            cell = plan["model"]["name"], round(255 * plan["eps"]), steps_of(report), plan["seed"]
            cells.setdefault(cell, {})[plan["settings"]["blocks"]] = report.rows["worst case"]["miou"]
    return pd.DataFrame(
        {"model": f"`{model}`", "radius": f"{eps}/255", "steps per image": str(steps), "seed": str(seed)}
        | {f"{blocks} block{'s' if blocks > 1 else ''}": f"{100 * here[blocks]:.2f}" for blocks in (1, 4)}
        for (model, eps, steps, seed), here in sorted(cells.items())
        if here.keys() >= {1, 4}
    )


# ----------------------------------------------------------------------------------------------- where pixels go

#: The two evaluations whose pixels are compared, at equal cost.
COMPARED = ("photos-robust.paper-30.8.seed0.json", "photos-robust.strong-30.8.seed0.json")


def compared() -> tuple[Confusion, Confusion]:
    """Return where the pixels go under `paper` and under `strong`."""
    folder = bundled_path("checkpoints") / "reports" / "confusion"
    paper, strong = (Confusion.load(folder / name) for name in COMPARED)
    return paper, strong


def classes() -> pd.DataFrame:
    """Compare errors and IoU of each class, in %, unattacked and under both ensembles."""
    paper, strong = compared()
    shown = {"clean": paper.clean, f"`{paper.settings}`": paper.worst, f"`{strong.settings}`": strong.worst}
    found = {name: shares_by_class(pixels) for name, pixels in shown.items()}
    return pd.DataFrame(
        {"class": paper.classes}
        | {
            f"{what}, {name}": [f"{100 * value:.1f}" for value in shares[what]]
            for what in ("false negatives", "false positives", "IoU")
            for name, shares in found.items()
        }
    )
