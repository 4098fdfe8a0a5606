"""Compare reports: models by ensemble and radius, which of them are comparable, and published figures.

`lines_of` makes a line from each report, `published_lines` one from each published figure of Table 2; `to_html` returns
a self-contained page, `to_markdown` a table for documents.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.files.atomic import write_atomically
from robviz.metrics import SIZE_NAMES
from robviz.paper.published import table
from robviz.paper.side_by_side import leading
from robviz.results.plan import SettingsPlan
from robviz.results.report import Report, markdown
from robviz.types import InputError

#: The datasets of Table 2 by the paper's name: our name, and the number of images evaluated.
PUBLISHED_DATA = {"Pascal-Voc": ("voc", 1449), "ADE20K": ("ade20k", 2000)}
CLEAN, WORST = "clean", "worst case"
DASH = "–"


@dataclass(frozen=True)
class Conditions:
    """Store the conditions that two figures must share to be comparable."""

    dataset: str
    split: str
    images: int
    eps_255: float
    ensemble: str  # its losses, attacks and steps

    def differences(self, other: Conditions) -> list[str]:
        """Describe the differences between two conditions; empty if figures under both are comparable."""
        named = {"dataset": "dataset", "split": "split", "images": "number of images", "eps_255": "radius"}
        found = [
            f"{name} {getattr(self, key)} and {getattr(other, key)}"
            for key, name in named.items()
            if getattr(self, key) != getattr(other, key)
        ]
        return found + (["ensemble"] if self.ensemble != other.ensemble else [])


@dataclass(frozen=True)
class Line:
    """Store one evaluation of one model; rates in [0, 1], None where unknown."""

    model: str
    conditions: Conditions
    shown_ensemble: str
    clean_accuracy: float | None
    clean_miou: float | None
    accuracy: float | None
    miou: float | None
    is_published: bool = False
    by_size: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)  # clean, worst case
    by_class: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    details: str = ""

    @property
    def data(self) -> str:
        """Describe the images."""
        return f"{self.conditions.dataset} {self.conditions.split}, {self.conditions.images} images"

    @property
    def radius(self) -> str:
        """Return the radius as text: `4/255`."""
        return f"{self.conditions.eps_255:g}/255"


def runs_of(settings: SettingsPlan) -> str:
    """Describe the attacks of an ensemble, whatever its name."""
    runs = sorted(f"{run['loss']}.{run['attack']}.{run['steps']}" for run in settings["runs"])
    return f"{' + '.join(runs)}, {settings['aggregation']}"


def line_of(report: Report) -> Line:
    """Return the line of a report; raises InputError if the report is incomplete."""
    try:
        plan, clean, worst = report.plan, report.rows[CLEAN], report.rows[WORST]
        data, settings = plan["dataset"], plan["settings"]
        return Line(
            model=plan["model"]["name"],
            conditions=Conditions(
                data["name"], data["split"], data["images"], round(255 * plan["eps"], 6), runs_of(settings)
            ),
            shown_ensemble=settings["name"],
            clean_accuracy=clean["accuracy_mean"],
            clean_miou=clean["miou"],
            accuracy=worst["accuracy_mean"],
            miou=worst["miou"],
            by_size={size: (clean["iou_by_size"][size], worst["iou_by_size"][size]) for size in SIZE_NAMES},
            by_class={name: (iou, worst["iou_by_class"][name]) for name, iou in clean["iou_by_class"].items()},
            details=f"weights {plan['model']['sha256'][:12]}, seed {plan['seed']}, {plan['precision']} on "
            f"{plan['device']}",
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"a report lacks {error}; expected the report.json that `robviz evaluate` wrote") from error


def lines_of(reports: Iterable[Report]) -> list[Line]:
    """Return the lines of reports, comparable ones next to each other, the most robust model first."""
    return sorted(map(line_of, reports), key=order)


def order(line: Line) -> tuple[Any, ...]:
    """Return the key by which lines are sorted: our own before the published ones, the best mIoU first."""
    conditions = line.conditions
    where = (conditions.dataset, conditions.split, conditions.images, conditions.ensemble, conditions.eps_255)
    return (line.is_published, *where, -(line.miou or 0), line.model)


def published_lines() -> list[Line]:
    """Return the figures of the paper's Table 2 as published, one line per model and radius."""
    paper = "paper's SEA"
    lines = []
    for row in table(2).to_dict("records"):
        name, _, rest = row["Setting"].partition(":")
        dataset, images = PUBLISHED_DATA.get(name, (name, 0))
        model = f"{rest.strip()}, {row['Training']}, {row['Backbone']}"
        clean = [as_rate(row[f"0 {figure}"]) for figure in ("Acc", "mIoU")]
        for column in row:
            radius, _, figure = column.partition("/255 ")
            if figure != "mIoU":
                continue
            accuracy, miou = as_rate(row[f"{radius}/255 Acc"]), as_rate(row[column])
            if miou is not None:
                conditions = Conditions(dataset, "val", images, float(radius), PAPER_RUNS)
                lines.append(Line(model, conditions, paper, clean[0], clean[1], accuracy, miou, is_published=True))
    return sorted(lines, key=order)


#: Version 2 of the paper: 300 steps of each of its three losses.
PAPER_RUNS = "js.red-eps-apgd.300 + mask-ce-bal.red-eps-apgd.300 + mask-ce.red-eps-apgd.300, each"


def as_rate(cell: Any) -> float | None:
    """Convert a published figure in per cent to a rate; None for an empty cell."""
    value = leading(cell)
    return None if value is None or pd.isna(value) else value / 100


def groups_of(lines: Sequence[Line]) -> dict[Conditions, str]:
    """Assign letters to the conditions in the order of the lines; lines with the same letter are comparable."""
    found = list(dict.fromkeys(line.conditions for line in lines))
    return {conditions: lettered(number) for number, conditions in enumerate(found)}


def lettered(number: int) -> str:
    """Count in letters: A, B, ... Z, AA, AB, ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def percent(rate: float | None) -> str:
    """Write a rate in per cent with one decimal, or a dash for None."""
    return DASH if rate is None else f"{100 * rate:.1f}"


def frame_of(lines: Sequence[Line]) -> pd.DataFrame:
    """Return the leaderboard as a table, rates in per cent."""
    letters = groups_of(lines)
    return pd.DataFrame(
        [
            {
                "group": letters[line.conditions],
                "model": line.model,
                "images": line.data,
                "ensemble": line.shown_ensemble,
                "radius": line.radius,
                "clean accuracy": percent(line.clean_accuracy),
                "clean mIoU": percent(line.clean_miou),
                "worst accuracy": percent(line.accuracy),
                "worst mIoU": percent(line.miou),
                "source": "published" if line.is_published else "measured here",
            }
            for line in lines
        ]
    )


RULE = (
    "Only lines of the same group are comparable: same images, same radius, same attacks with as many steps. "
    "Pixel accuracy is the mean over the images; rates in %."
)
PUBLISHED_NOTE = (
    "Published figures are copied from the paper (arXiv:2306.12941, Table 2), not measured here; "
    "its radius is the L-infinity norm."
)


def to_markdown(lines: Sequence[Line]) -> str:
    """Return the leaderboard as Markdown."""
    notes = [RULE] + ([PUBLISHED_NOTE] if any(line.is_published for line in lines) else [])
    return f"{markdown(frame_of(lines))}\n{' '.join(notes)}\n"


# ------------------------------------------------------------------------------------------ one page

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>robviz: results</title>
<style>
:root {{ color-scheme: light dark; --line: #ccc; --soft: #f2f2f2; --text: #1c1c1c; --page: #fff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --line: #444; --soft: #222; --text: #eee; --page: #161616; }} }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
  color: var(--text); background: var(--page); }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
th button {{ font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; }}
th button {{ cursor: pointer; }}
th button:focus-visible {{ outline: 2px solid currentColor; outline-offset: 2px; }}
th[aria-sort=ascending] button::after {{ content: " ▲"; }} th[aria-sort=descending] button::after {{ content: " ▼"; }}
tr.published {{ background: var(--soft); font-style: italic; }}
.wide {{ overflow-x: auto; }}
svg {{ max-width: 100%; height: auto; }}
svg text {{ fill: var(--text); font-size: 12px; }}
details {{ margin: .5rem 0; }}
</style>
</head>
<body>
<main>
<h1>Robustness of segmentation models</h1>
<p>{rule}</p>
<p><label>Show <select id="group"><option value="">every group</option>{options}</select></label></p>
<div class="wide"><table id="results">
<caption>{count} evaluations; a click on a heading sorts by it</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<h2>What the groups are</h2>
<ul>{groups}</ul>
<h2>Over the radius</h2>
{curves}
<h2>By class and by size of the object</h2>
{details}
</main>
<script>
const table = document.getElementById('results');
const body = table.tBodies[0];
table.tHead.querySelectorAll('button').forEach((button, column) => button.addEventListener('click', () => {{
  const head = button.parentElement;
  const isUp = head.getAttribute('aria-sort') !== 'ascending';
  table.tHead.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', isUp ? 'ascending' : 'descending');
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const isNumber = head.classList.contains('number');
  const compare = (a, b) => isNumber ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
  [...body.rows].sort((a, b) => isUp ? compare(a, b) : compare(b, a)).forEach(row => body.append(row));
}}));
document.getElementById('group').addEventListener('change', event => {{
  for (const row of body.rows) row.hidden = event.target.value !== '' && row.dataset.group !== event.target.value;
}});
</script>
</body>
</html>
"""
#: Okabe and Ito's colours: distinguishable without colour vision; dashes distinguish further lines.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
DASHES = ("", "6 3", "2 3")


def escaped(text: object) -> str:
    """Return a value as text that is safe in HTML."""
    return html.escape(str(text))


def to_html(lines: Sequence[Line]) -> str:
    """Return the leaderboard as one self-contained file, readable without scripts."""
    if not lines:
        raise InputError("there is nothing to compare; give at least one report")
    letters = groups_of(lines)
    notes = RULE + (f" {PUBLISHED_NOTE}" if any(line.is_published for line in lines) else "")
    return PAGE.format(
        rule=escaped(notes),
        count=len(lines),
        options="".join(f"<option>{letter}</option>" for letter in letters.values()),
        heads="".join(
            f'<th scope="col"{" class=number" if is_number else ""}><button type="button">{name}</button></th>'
            for name, is_number in HEADINGS.items()
        ),
        rows="\n".join(html_row(line, letters[line.conditions]) for line in lines),
        groups="".join(group_item(letter, conditions, lines) for conditions, letter in letters.items()),
        curves="\n".join(curves_of(lines)) or "<p>No model was evaluated at more than one radius.</p>",
        details="\n".join(details_of(line, letters[line.conditions]) for line in lines if line.by_class),
    )


HEADINGS = {
    "Group": False,
    "Model": False,
    "Images": False,
    "Ensemble": False,
    "Radius": True,
    "Clean accuracy": True,
    "Clean mIoU": True,
    "Worst accuracy": True,
    "Worst mIoU": True,
    "Source": False,
}


def html_row(line: Line, letter: str) -> str:
    """Return one line of the table; numbers carry their value for sorting."""
    rates = (line.clean_accuracy, line.clean_miou, line.accuracy, line.miou)
    cells = [f"<td>{escaped(text)}</td>" for text in (letter, line.model, line.data, line.shown_ensemble)]
    cells.append(f'<td class="number" data-value="{line.conditions.eps_255:g}">{line.radius}</td>')
    cells += [f'<td class="number" data-value="{-1 if rate is None else rate}">{percent(rate)}</td>' for rate in rates]
    cells.append(f"<td>{'published' if line.is_published else 'measured here'}</td>")
    kind = ' class="published"' if line.is_published else ""
    return f'<tr{kind} data-group="{letter}">{"".join(cells)}</tr>'


def group_item(letter: str, conditions: Conditions, lines: Sequence[Line]) -> str:
    """Describe what the lines of a group share."""
    count = sum(line.conditions == conditions for line in lines)
    shared = f"{conditions.images} images of {conditions.dataset} {conditions.split} at {conditions.eps_255:g}/255"
    return f"<li><b>{letter}</b> ({count}): {escaped(shared)}; {escaped(conditions.ensemble)}</li>"


def curves_of(lines: Sequence[Line]) -> list[str]:
    """Return a chart for each set of images and ensemble in which some model has two radii or more."""
    charts: dict[tuple[str, str, bool], dict[str, dict[float, float]]] = {}
    for line in lines:
        if line.miou is None:
            continue
        key = (line.data, line.shown_ensemble, line.is_published)
        points = charts.setdefault(key, {}).setdefault(line.model, {})
        points[line.conditions.eps_255] = line.miou
        if line.clean_miou is not None:
            points[0.0] = line.clean_miou
    drawn = []
    for (data, ensemble, is_published), models in charts.items():
        curves = {model: sorted(points.items()) for model, points in models.items() if len(points) > 2}
        if curves:
            drawn.append(chart(f"{data}, {ensemble}{' (published)' if is_published else ''}", curves))
    return drawn


def chart(title: str, curves: dict[str, list[tuple[float, float]]]) -> str:
    """Draw the mIoU over the radius as SVG; the table above has the same numbers."""
    width, height, left, bottom = 640, 260, 48, 40
    furthest = max(radius for points in curves.values() for radius, _ in points) or 1.0

    def place(radius: float, rate: float) -> str:
        return f"{left + (width - left - 16) * radius / furthest:.1f},{(height - bottom) * (1 - rate) + 8:.1f}"

    parts, keys = [], []
    for number, (model, points) in enumerate(curves.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        path = " ".join(place(*point) for point in points)
        line = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" fill="none" {line}/>')
        swatch = f'<svg width="28" height="10" aria-hidden="true"><line x2="28" y1="5" y2="5" {line}/></svg>'
        keys.append(f"<li>{swatch} {escaped(model)}</li>")
    for rate in (0, 0.25, 0.5, 0.75, 1):
        y = place(0, rate).split(",")[1]
        parts.append(f'<text x="{left - 8}" y="{y}" text-anchor="end" dy="4">{100 * rate:g} %</text>')
        parts.append(f'<line x1="{left}" x2="{width - 16}" y1="{y}" y2="{y}" stroke="currentColor" opacity=".15"/>')
    for radius in sorted({radius for points in curves.values() for radius, _ in points}):
        x = place(radius, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - bottom + 28}" text-anchor="middle">{radius:g}/255</text>')
    drawing = "".join(parts)
    label = escaped(f"Worst-case mIoU over the radius: {title}")
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">{drawing}</svg>'
        f"<figcaption>{label}<ul>{''.join(keys)}</ul></figcaption></figure>"
    )


def details_of(line: Line, letter: str) -> str:
    """Return the IoU by size and by class of one evaluation, before and under attack."""
    rows = [(f"{size} objects", *rates) for size, rates in line.by_size.items()]
    rows += [(name, *rates) for name, rates in line.by_class.items()]
    cells = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td class="number">{percent(before)}</td>'
        f'<td class="number">{percent(after)}</td></tr>'
        for name, before, after in rows
    )
    head = '<tr><th scope="col">IoU of</th><th scope="col" class="number">clean</th>'
    head += '<th scope="col" class="number">worst case</th></tr>'
    title = f"{letter}: {line.model}, {line.data}, {line.shown_ensemble} at {line.radius}"
    return (
        f"<details><summary>{escaped(title)}</summary><p>{escaped(line.details)}</p>"
        f"<table><thead>{head}</thead><tbody>{cells}</tbody></table></details>"
    )


def reports_at(paths: Iterable[Path]) -> list[Report]:
    """Read reports: JSON files, folders of them, and folders that `robviz evaluate --out` wrote.

    Raises:
        InputError: If there is none.
    """
    found: list[Report] = []
    for path in paths:
        if path.is_dir():
            own = path / "report.json"
            files = [own] if own.is_file() else sorted([*path.glob("*.json"), *path.glob("*/report.json")])
            if not files:
                raise InputError(f"there is no report in {path}; expected what `robviz evaluate --out` wrote")
            found += map(Report.load, files)
        elif path.is_file():
            found.append(Report.load(path))
        else:
            raise InputError(f"there is no report {path}; expected what `robviz evaluate --out` wrote")
    return found


def save(lines: Sequence[Line], path: Path) -> None:
    """Write the leaderboard as `.html` or `.md`, by the suffix; raises InputError for another."""
    formats = {".html": to_html, ".md": to_markdown}
    if path.suffix not in formats:
        raise InputError(f"a leaderboard is written as {' or '.join(formats)}; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, formats[path.suffix](lines))
