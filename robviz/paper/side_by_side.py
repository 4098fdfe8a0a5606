"""Compare a published table with ours, figure by figure, with signed differences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.files.atomic import write_atomically
from robviz.models.published import CHECKPOINTS
from robviz.paper.ours import ours
from robviz.paper.published import TABLES, table
from robviz.results.report import Report, markdown
from robviz.types import InputError

#: The column by which our lines are matched to the published ones; tables without one are compared line by line.
MATCHED_BY = {1: "eps", 4: "Configuration", 6: "eps", 7: "Loss pair", 8: "eps"}
#: The columns of the published tables that say which line it is; the others hold figures and settings to compare.
SAYS_WHICH = (
    *("Model", "eps", "Setting", "Training", "Init.", "Steps", "Ep.", "Its.", "Seeds", "Backbone", "Group"),
    *("Configuration", "Architecture", "Robust", "Source", "Loss pair", "Dataset / Model", "Attack", "Target"),
)
PLACES = ("paper's place", "our place")
HIGHER, LOWER = "#e69f00", "#56b4e9"  # Okabe and Ito: distinguishable without colour vision; the sign shows it as well
STRONGEST = 20  # percentage points at which a difference has its full colour


def leading(cell: Any) -> float | None:
    """Return the number in a cell without its deviation or mark: 41.3 from `41.3±0.4` and `41.3*`; None for text."""
    found = re.fullmatch(r"([-+]?\d+(?:\.\d+)?)(?:%|\*|±.*)?", str(cell))
    return float(found[1]) if found else None


def tolerance() -> float:
    """Return the largest deviation over seeds that the paper reports (Table 8), in points."""
    return max(float(cell.partition("±")[2] or 0) for cell in table(8).astype(str).to_numpy().ravel())


#: The images and steps that an evaluation of a published model needs to be compared with the paper's figure.
ENOUGH_IMAGES, ENOUGH_STEPS = 100, 100


def is_comparable(report: Report) -> bool:
    """Return True if a report is about a published model, on enough images, with attacks of enough steps."""
    plan = report.plan
    steps = min(run["steps"] for run in plan["settings"]["runs"])
    is_published = plan["model"]["name"] in CHECKPOINTS
    return is_published and plan["dataset"]["images"] >= ENOUGH_IMAGES and steps >= ENOUGH_STEPS


def ranks(values: pd.Series) -> pd.Series:
    """Return the rank of each figure among those of its measure, 1 for the lowest, or none if there is only one."""
    numbers = values.map(leading)
    return numbers.rank(method="min") if numbers.notna().sum() > 1 else pd.Series(float("nan"), values.index)


def has_radius(frame: pd.DataFrame) -> pd.Series:
    """Return, for each row, True if its figure names a radius, such as `4/255 mIoU` or, for clean images, `0 Acc`."""
    return frame["figure"].str.match(r"\d+(/255)? ")


@dataclass(frozen=True)
class SideBySide:
    """Compare a published table with our results, one row per figure.

    If the figures can be subtracted, `difference` is ours minus the paper's, coloured in a notebook. Otherwise `paper's
    place` and `our place` are ranks, 1 for the lowest: of each figure among those of its measure in a line or, where
    each figure has its own radius, of each line by that figure.

    Attributes:
        number: The number of the table.
        frame: The columns that identify a row, then `paper`, `ours`, and how they compare.
    """

    number: int
    frame: pd.DataFrame
    name: str = "ours"

    @property
    def has_differences(self) -> bool:
        """Return True if the table compares our figures with the published ones."""
        return "difference" in self.frame

    @property
    def caption(self) -> str:
        """Return the sentences below the table."""
        title = f"Table {self.number}: {TABLES[self.number]}."
        if self.has_differences:
            return (
                f"{title} The difference is {self.name} less the paper's; over seeds its figures deviate by up to "
                f"{tolerance():g} points (Table 8), which is the tolerance for the same model on all images."
            )
        unlike = f"{title} Another model, other data, fewer images or steps: a difference would mean nothing"
        if not self.has_places:
            return f"{unlike}."
        among = "lines by the same figure" if has_radius(self.frame).all() else "figures within a line"
        return f"{unlike}, so the places of {among} are compared, 1 the lowest."

    @property
    def has_places(self) -> bool:
        """Return True if there is something to rank."""
        return any(name in self.frame and self.frame[name].notna().any() for name in PLACES)

    def shown(self) -> pd.DataFrame:
        """Return the rows as text, differences with their sign, under the heading of ours."""
        frame = self.frame.rename(columns={"ours": self.name})
        if self.has_differences:
            return frame.assign(difference=["" if pd.isna(value) else f"{value:+.1f}" for value in frame.difference])
        if not self.has_places:
            return frame.drop(columns=list(PLACES))
        places = {name: ["" if pd.isna(value) else f"{value:.0f}" for value in frame[name]] for name in PLACES}
        return frame.assign(**places)

    def to_markdown(self) -> str:
        """Return table and caption as Markdown."""
        return f"{markdown(self.shown())}\n{self.caption}\n"

    def to_csv(self) -> str:
        """Return the table as CSV."""
        result: str = self.shown().to_csv(index=False)
        return result

    def to_latex(self) -> str:
        """Return a `tabular` in the style of booktabs."""
        special = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "Δ": r"$\Delta$"}
        shown = self.shown()
        cells = shown.astype(object).where(shown.notna(), "").to_numpy().tolist()
        rows = [
            " & ".join("".join(special.get(letter, letter) for letter in str(cell)) for cell in row) + r" \\"
            for row in [list(shown.columns), *cells]
        ]
        numbers = len(shown.columns) - list(shown.columns).index("paper")
        columns = "l" * (len(shown.columns) - numbers) + "r" * numbers
        parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
        return "\n".join([f"% {self.caption}", *parts, r"\end{tabular}", ""])

    def save(self, path: str | Path) -> None:
        """Write the table.

        Args:
            path: A file that ends in `.md`, `.tex` or `.csv`, which decides the format.

        Raises:
            InputError: For another suffix.
        """
        formats = {".md": self.to_markdown, ".tex": self.to_latex, ".csv": self.to_csv}
        path = Path(path)
        if path.suffix not in formats:
            raise InputError(f"a table is written as {', '.join(formats)}; got {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, formats[path.suffix]())

    def _repr_html_(self) -> str:
        shown = self.shown()
        columns = list(shown.columns)
        names, values = columns[: columns.index("figure")], columns[columns.index("figure") :]
        differences = self.frame.difference if self.has_differences else [None] * len(shown)
        said: Any = None
        rows = ["".join(f"<th>{escape(str(column))}</th>" for column in shown)]
        for line, difference in zip(shown.to_dict("records"), differences):
            which = [line[name] for name in names]
            cells = [
                f"<td style='text-align:left'>{'' if which == said else escape(str(value))}</td>" for value in which
            ]
            said = which
            texts = ["" if pd.isna(line[name]) else escape(str(line[name])) for name in values]
            cells += [f"<td>{text}</td>" for text in texts[:-1]]
            cells.append(f"<td style='{tint(difference)}'>{texts[-1]}</td>")
            rows.append("".join(cells))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption style='text-align:left'>{escape(self.caption)}</caption>{body}</table>"


def tint(difference: float | None) -> str:
    """Return the CSS of a difference: orange where ours is higher, blue where it is lower, stronger for larger ones."""
    if difference is None or pd.isna(difference) or difference == 0:
        return ""
    strength = round(255 * min(1.0, abs(difference) / STRONGEST))
    return f"background:{HIGHER if difference > 0 else LOWER}{strength:02x}"


def beside(
    number: int,
    lines: pd.DataFrame | Iterable[Report],
    against: Mapping[str, Any] | None = None,
    differences: bool | None = None,
    name: str = "ours",
) -> SideBySide:
    """Put a published table beside our results.

    Rows are matched by radius, loss pair or configuration. In tables without such a column, one published row is
    compared with all of ours, or rows are paired in order. Columns that ours do not have are left out.

    Args:
        number: 1 to 9.
        lines: Our rows under the published headings, or reports, from which `ours` makes them.
        against: Column -> value of the published rows to compare with; by default all.
        differences: Subtract the paper's figures from ours; by default, if all reports are `is_comparable`, and never
            for a table.
        name: The heading of our column.

    Returns:
        Both tables and their comparison.

    Raises:
        InputError: If rows are ambiguous or none is left.
    """
    published = table(number)
    if not isinstance(lines, pd.DataFrame):
        reports = list(lines)
        differences = all(map(is_comparable, reports)) if differences is None else differences
        lines = ours(number, reports)
    for column, value in (against or {}).items():
        if value not in set(published.get(column, ())):
            raise InputError(
                f"Table {number} has no line with {value!r} under {column!r}; see robviz.paper.table({number})"
            )
        published = published[published[column] == value]
    pairs = list(paired(number, lines, published))
    which_ones = [name for name in lines if name in SAYS_WHICH]
    figures = [name for name in published if name in lines and name not in SAYS_WHICH]
    rows = [
        {**{name: own[name] for name in which_ones}, "figure": figure, "paper": line[figure], "ours": own[figure]}
        for own, line in pairs
        for figure in figures
    ]
    if not rows:
        raise InputError(f"no line of ours has a published one in Table {number}; see robviz.paper.table({number})")
    frame = pd.DataFrame(rows)
    if differences:
        numbers = frame[["paper", "ours"]].map(leading).astype(float)
        return SideBySide(number, frame.assign(difference=(numbers["ours"] - numbers["paper"]).round(1)), name)
    line_of = pd.Series([i for i in range(len(pairs)) for _ in figures])
    measure = frame["figure"].str.extract(r"(Acc|mIoU)$", expand=False).fillna(frame["figure"])
    among, by = line_of.mask(has_radius(frame), -1), measure.mask(has_radius(frame), frame["figure"])
    for place, column in zip(PLACES, ("paper", "ours")):
        frame[place] = frame.groupby([among, by], group_keys=False)[column].transform(ranks)
    return SideBySide(number, frame, name)


def paired(number: int, lines: pd.DataFrame, published: pd.DataFrame) -> Iterable[tuple[Any, Any]]:
    """Pair each of our rows with its published one; rows without one are left out."""
    own = lines.to_dict("records")
    if column := MATCHED_BY.get(number):
        if not published[column].is_unique:
            raise InputError(f"lines of Table {number} share their {column}; choose some of them with against={{...}}")
        by = {line[column]: line for line in published.to_dict("records")}
        return [(line, by[line[column]]) for line in own if line[column] in by]
    chosen = published.to_dict("records")
    if len(chosen) not in (1, len(own)):
        raise InputError(
            f"there are {len(own)} lines of ours and {len(chosen)} of Table {number}; "
            "choose one of it, or as many, with against={...}"
        )
    return zip(own, chosen * len(own) if len(chosen) == 1 else chosen)
