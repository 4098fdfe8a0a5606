"""Tables written from what was measured, never by hand."""

from __future__ import annotations

import csv
import io
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.models import Card, shipped_models
from robviz.records import write_atomically
from robviz.shipped import shipped


def markdown(frame: pd.DataFrame) -> str:
    """A table as Markdown; empty cells where there is no value."""
    cells = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *cells]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def trainings() -> pd.DataFrame:
    """The shipped models from their cards: training, and mIoU in % on the splits that were measured."""
    rows = []
    for name in shipped_models():
        card = Card.load(shipped("checkpoints") / f"{name}.json")
        recipe = card.training["recipe"]
        initial = recipe["initial"]
        eps, minutes = round(recipe["eps"] * 255), card.training["training_seconds"] / 60
        how = f"adversarially, PGD at {eps}/255" if eps else "cleanly"
        start = {None: "", "imagenet": " from ImageNet weights"}.get(initial, f" from `{initial}`")
        device = card.training.get("device", "CPU")
        row = {"model": f"`{name}`", "trained": f"{how}{start}, {minutes:.0f} min on a {device}"}
        for split, kind in product(("val", "photographs"), ("clean", "attacked")):
            if split in card.metrics:
                row[f"{split} mIoU, {kind}"] = f"{100 * card.metrics[split][f'{kind}_miou']:.1f} %"
        rows.append(row)
    return pd.DataFrame(rows)


def reports_in(folder: Path) -> list[Report]:
    """Every JSON report of a folder, by file name. Raises ValueError where there is none."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(
            f"there is no report in {folder}; put there the report.json that `robviz evaluate --out` wrote"
        )
    return [Report.load(path) for path in paths]


def evaluations(reports: list[Report]) -> pd.DataFrame:
    """One line a model and ensemble: its gradient steps an image, and what each radius leaves, in %."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for report in reports:
        plan, worst = report.plan, report.rows["worst case"]
        model, ensemble, data = plan["model"]["name"], plan["settings"]["name"], plan["dataset"]
        images = f"{data['images']} of {data['name']} {data['split']}"
        steps = sum(run["steps"] for run in plan["settings"]["runs"])
        line = lines.setdefault(
            (model, ensemble),
            {"model": f"`{model}`", "ensemble": ensemble, "images": images, "steps an image": str(steps)},
        )
        figures = f"{100 * worst['accuracy_mean']:.1f} / {100 * worst['miou']:.1f}"
        line[f"accuracy / mIoU at {255 * plan['eps']:g}/255"] = figures
    in_order = sorted(lines.values(), key=lambda line: (line["model"], int(line["steps an image"]), line["ensemble"]))
    radii = [f"accuracy / mIoU at {255 * eps:g}/255" for eps in sorted({report.plan["eps"] for report in reports})]
    return pd.DataFrame(in_order, columns=["model", "ensemble", "images", "steps an image", *radii])


def alone(reports: list[Report]) -> pd.DataFrame:
    """One line a model, loss, attack and its steps: what it leaves by itself at each radius, accuracy / mIoU in %."""
    lines: dict[tuple[str, str, str, int], dict[str, str]] = {}
    for report in reports:
        model, radius = report.plan["model"]["name"], f"{255 * report.plan['eps']:g}/255"
        for run in report.plan["settings"]["runs"]:
            row = report.rows[f"{run['loss']}.{run['attack']}.{run['steps']}"]
            line = lines.setdefault((model, run["loss"], run["attack"], run["steps"]), {})
            line[radius] = f"{100 * row['accuracy_mean']:.1f} / {100 * row['miou']:.1f}"
    radii = sorted({radius for line in lines.values() for radius in line}, key=lambda radius: float(radius[:-4]))
    heads = [dict(zip(("model", "loss", "attack", "steps"), map(str, key))) for key in sorted(lines)]
    return pd.DataFrame([head | lines[key] for head, key in zip(heads, sorted(lines))], columns=[*heads[0], *radii])


def enough(reports: list[Report]) -> pd.DataFrame:
    """Of each model and radius where `strong` was given the steps of `paper`, too: the fewest that reach its mIoU."""
    found: dict[tuple[str, float], dict[int, float]] = {}
    published: dict[tuple[str, float], tuple[int, float]] = {}
    for report in reports:
        plan, miou = report.plan, report.rows["worst case"]["miou"]
        key, name = (plan["model"]["name"], plan["eps"]), plan["settings"]["name"]
        steps = sum(run["steps"] for run in plan["settings"]["runs"])
        if name == "paper":
            published[key] = steps, miou
        elif name.startswith("strong"):
            found.setdefault(key, {})[steps] = miou
    rows = []
    for (model, eps), (steps, miou) in sorted(published.items()):
        strong = found.get((model, eps), {})
        if steps not in strong:
            continue
        first = min((count for count, left in strong.items() if left <= miou), default=None)
        rows.append(
            {
                "model": f"`{model}`",
                "radius": f"{255 * eps:g}/255",
                "`paper`": f"{100 * miou:.2f} % after {steps} steps an image",
                "`strong` is there": "not within the steps tried" if first is None else f"after {first}",
                "with": "" if first is None else f"{100 * strong[first]:.2f} %",
            }
        )
    return pd.DataFrame(rows)


def shipped_tables() -> dict[str, str]:
    """The tables of the README, as Markdown, by the name of their place there."""
    from robviz.paper import ours

    folder = shipped("checkpoints") / "reports"
    reports = reports_in(folder)
    return {
        "models": markdown(trainings()),
        "evaluations": markdown(evaluations(reports)),
        "enough": markdown(enough(reports)),
        "alone": markdown(alone(reports)),
        "miniature": markdown(ours(3, reports_in(folder / "miniature")).drop(columns="Setting")),
    }


def fill(readme: Path) -> None:
    """Put the tables of a file, each between its two markers, up to date. Raises ValueError where it has none."""
    text = readme.read_text()
    here = {name: table for name, table in shipped_tables().items() if f"<!-- {name}: begin -->" in text}
    if not here:
        raise ValueError(f"{readme} has no place for a table: expected a line such as <!-- models: begin -->")
    for name, table in here.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    readme.write_text(text)


def versions() -> dict[str, str]:
    """Of Python and of every package that can change a figure."""
    packages = ("robviz", "torch", "timm", "numpy", "pillow", "scikit-image")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


#: What the tables show of each row of a report, and under which heading.
COLUMNS = {
    "accuracy_mean": "pixel accuracy, mean over images",
    "accuracy_pooled": "pixel accuracy, pooled",
    "miou": "mIoU",
    "balanced_accuracy": "class-balanced accuracy",
    "small": "IoU, small objects",
    "medium": "IoU, medium",
    "large": "IoU, large",
}


@dataclass(frozen=True)
class Report:
    """What an evaluation found, and all that decided it. The same evaluation gives the same bytes.

    As JSON: `plan` {model {name, sha256}, dataset {name, split, images}, eps, settings {name, runs [{loss, attack,
    steps}], aggregation, seed}, seed, precision, device, threads, versions}; `rows` {name: figures} for `clean`, each
    run, each pair of runs and `worst case`, with figures {accuracy_mean, accuracy_pooled, miou, balanced_accuracy,
    iou_by_size {small, medium, large}, iou_by_class {class: IoU}}, rates in [0, 1], null where nothing can be said;
    `images` [{image, clean, worst, by}], the pixel accuracy of each before and under the attack `by` that hurts it
    most; `gradients`, the backward passes spent.
    """

    plan: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    images: list[dict[str, Any]]
    gradients: int

    def table(self) -> list[list[str]]:
        """A heading and a line for each row, rates in per cent."""
        lines = [["", *COLUMNS.values()]]
        for name, figures in self.rows.items():
            values = {**figures, **figures["iou_by_size"]}
            cells = [values[column] for column in COLUMNS]
            lines.append([name, *("" if value is None else f"{100 * value:.2f}" for value in cells)])
        return lines

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def to_csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.table())
        return text.getvalue()

    def to_markdown(self) -> str:
        plan, (heading, *lines) = self.plan, self.table()
        model, data = plan["model"], plan["dataset"]
        radius, ensemble = f"{255 * plan['eps']:g}/255", plan["settings"]["name"]
        title = f"# {model['name']} on {data['name']} ({data['split']}) at {radius}, {ensemble}"
        about = (
            f"{data['images']} images, {self.gradients} gradient steps, seed {plan['seed']}, {plan['precision']} on "
            f"{plan['device']}; rates in %. Weights {model['sha256'][:12]}; "
            + ", ".join(f"{name} {number}" for name, number in plan["versions"].items())
        )
        rule = ["---", *["---:"] * (len(heading) - 1)]
        return "\n".join([title, "", about, "", *(f"| {' | '.join(line)} |" for line in [heading, rule, *lines]), ""])

    def save(self, path: str | Path) -> None:
        """Write it as `.json`, `.csv` or `.md`, by the suffix. Raises ValueError for another."""
        formats = {".json": self.to_json, ".csv": self.to_csv, ".md": self.to_markdown}
        path = Path(path)
        if path.suffix not in formats:
            raise ValueError(f"a report is written as {', '.join(formats)}; got {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, formats[path.suffix]())

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report written as JSON. Raises ValueError when the file is none."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a robviz report: {error!r}") from error
