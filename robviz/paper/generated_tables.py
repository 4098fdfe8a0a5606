"""Write the tables of the documentation from cards and reports, never by hand."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pandas as pd

from robviz.files.paths import bundled_path
from robviz.models import Card, published, shipped_models
from robviz.models.published import CHECKPOINTS
from robviz.paper import strength_tables
from robviz.paper.minimal import Minimal, curve, shipped_minimal
from robviz.paper.ours import ours
from robviz.results.report import Report, markdown
from robviz.types import InputError


def model_table() -> pd.DataFrame:
    """List the shipped models from their cards: training, and mIoU in % on the splits that were measured."""
    rows = []
    for name in shipped_models():
        card = Card.load(bundled_path("checkpoints") / f"{name}.json")
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


def zoo() -> pd.DataFrame:
    """List the shipped and the published models with their mIoU in %, clean and attacked at 4/255."""
    rows = []
    for name in shipped_models():
        card = Card.load(bundled_path("checkpoints") / f"{name}.json")
        figures = card.metrics["val"]
        rows.append((card, figures["clean_miou"], figures["attacked_miou"], "shipped; 50 steps of APGD"))
    for name in CHECKPOINTS:
        card = published.card(name)
        figures = card.metrics["val"]
        rows.append((card, figures["clean_miou"], figures["sea_miou_4_255"], "download; SEA, by its authors"))
    columns = ("model", "classes", "clean mIoU", "mIoU at 4/255", "measured by")
    cells = [
        (f"`{card.name}`", len(card.classes), f"{100 * clean:.1f} %", f"{100 * attacked:.1f} %", how)
        for card, clean, attacked, how in rows
    ]
    return pd.DataFrame(cells, columns=list(columns))


def glance(reports: list[Report]) -> pd.DataFrame:
    """Return the mIoU of each model, in %, under the paper's ensemble at the most interesting radii."""
    lines: dict[str, dict[str, str]] = {}
    for report in reports:
        plan = report.plan
        if plan["settings"]["name"] != "paper":
            continue
        clean, worst = (100 * report.rows[name]["miou"] for name in ("clean", "worst case"))
        images = f"{plan['dataset']['images']} of {plan['dataset']['name']}"
        line = lines.setdefault(plan["model"]["name"], {"images": images})
        line["clean"], line[f"{255 * plan['eps']:g}/255"] = f"{clean:.1f} %", f"{worst:.1f} %"
    radii = ("clean", "2/255", "4/255", "8/255")
    return pd.DataFrame(
        [{"model": f"`{name}`"} | line for name, line in sorted(lines.items())], columns=["model", "images", *radii]
    )


#: What `robviz bench` measures for the documentation.
BENCHES = ("attacks", "app", "load", "evaluate", "peers")
#: The radii, in 1/255, at which the table of minimal radii says how many images withstand.
WITHSTOOD = (1, 2, 4, 8, 16)


def minimal_table(found: dict[str, Minimal]) -> pd.DataFrame:
    """Return the share of images, in %, of which no perturbation within a radius was found that breaks the image."""
    rows = []
    for name, one in found.items():
        plan = one.plan
        side = f", centre {plan['crop']} x {plan['crop']}" if plan["crop"] else ""
        row = {
            "model": f"`{name}`",
            "images": f"{plan['images']} of {plan['dataset']['name']} {plan['dataset']['split']}{side}",
            "steps": str(plan["steps"]),
            "median radius": median_radius(one),
        }
        shares = zip(WITHSTOOD, curve(one, WITHSTOOD))
        rows.append(row | {f"withstand {radius}/255": f"{100 * share:.0f} %" for radius, share in shares})
    return pd.DataFrame(rows)


def median_radius(found: Minimal) -> str:
    """Return the median of the smallest radii; images that were never broken count as withstanding every radius."""
    middle = pd.Series([float("inf") if radius is None else radius for radius in found.radii_255]).median()
    return "not found" if middle == float("inf") else f"{middle:.1f}/255"


def reports_in(folder: Path) -> list[Report]:
    """Read every JSON report of a folder, by file name; raises InputError if there is none."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise InputError(
            f"there is no report in {folder}; put there the report.json that `robviz evaluate --out` wrote"
        )
    return [Report.load(path) for path in paths]


def evaluation_table(reports: list[Report]) -> pd.DataFrame:
    """List models and ensembles with their gradient steps per image, and accuracy and mIoU in % at each radius."""
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


def per_attack_table(reports: list[Report]) -> pd.DataFrame:
    """List models, losses, attacks and steps: accuracy / mIoU in % under each attack alone, by radius."""
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


def steps_to_match_paper(reports: list[Report]) -> pd.DataFrame:
    """Find the fewest steps with which `strong` reaches the mIoU of `paper`, for each model and radius with both."""
    found: dict[tuple[str, float], dict[int, float]] = {}
    published: dict[tuple[str, float], tuple[int, float]] = {}
    for report in reports:
        plan, miou = report.plan, report.rows["worst case"]["miou"]
        key, name = (plan["model"]["name"], plan["eps"]), plan["settings"]["name"]
        steps = sum(run["steps"] for run in plan["settings"]["runs"])
        if name == "paper":
            published[key] = steps, miou
        elif strength_tables.family_of(report) == "strong":
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


def if_measured(frame: pd.DataFrame) -> str:
    """Return a table as Markdown, or a sentence that it was not measured yet."""
    return markdown(frame) if len(frame) else "Not measured yet; the commands are at the end of this page.\n"


def measured_table(folder: Path, name: str) -> str:
    """Return what `robviz bench` measured as Markdown with its machine, or how to measure it."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return (
            f"Not measured on an idle machine yet: `robviz bench {name} --out checkpoints/reports/bench/{name}.json`.\n"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    return markdown(pd.DataFrame(found["rows"], columns=found["columns"])) + f"\n{found['machine']}.\n"


def generated_tables() -> dict[str, str]:
    """Return the generated tables of README and documentation as Markdown, by the name of their place there."""
    folder = bundled_path("checkpoints") / "reports"
    reports = reports_in(folder)
    released, repeated = (
        [Report.load(path) for path in sorted((folder / name).glob("*.json"))] for name in ("ablation", "seeds")
    )
    return {
        "zoo": markdown(zoo()),
        "glance": markdown(glance(reports)),
        "models": markdown(model_table()),
        "evaluations": markdown(evaluation_table(reports)),
        "enough": markdown(steps_to_match_paper(reports)),
        "alone": markdown(per_attack_table(reports)),
        "strength": markdown(strength_tables.strength(reports)),
        "winners": markdown(strength_tables.winners(reports)),
        "temperatures": markdown(strength_tables.temperatures()),
        "optimisers": markdown(strength_tables.optimisers()),
        "warm_starts": markdown(strength_tables.warm_starts()),
        "before_sets": markdown(strength_tables.before_sets()),
        "sets": markdown(strength_tables.sets()),
        "classes": markdown(strength_tables.classes()),
        "seeds": if_measured(strength_tables.seeds([*reports, *repeated])),
        "released_temperatures": if_measured(strength_tables.released_temperatures(released)),
        "released_blocks": if_measured(strength_tables.released_blocks(released, repeated)),
        **{f"bench_{name}": measured_table(folder / "bench", name) for name in BENCHES},
        "minimal": markdown(minimal_table(shipped_minimal())),
        "miniature": markdown(ours(3, reports_in(folder / "miniature")).drop(columns="Setting")),
    }


def write_tables(path: Path) -> None:
    """Update the tables of a file, each between its two markers.

    Args:
        path: A Markdown file.

    Raises:
        InputError: If the file has no place for a table.
    """
    text = path.read_text(encoding="utf-8")
    here = {name: table for name, table in generated_tables().items() if f"<!-- {name}: begin -->" in text}
    if not here:
        raise InputError(f"{path} has no place for a table: expected a line such as <!-- models: begin -->")
    for name, table in here.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    path.write_text(text, encoding="utf-8", newline="\n")
