"""A published table and ours, figure beside figure, with signed differences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.files.atomic import write_atomically
from robviz.paper.ours import ours
from robviz.paper.published import TABLES, table
from robviz.results.report import Report, markdown
from robviz.types import InputError

#: The column by which a line of ours finds its published one among those chosen; tables without go line by line.
MATCHED_BY = {1: "eps", 4: "Configuration", 6: "eps", 7: "Loss pair", 8: "eps"}
#: The columns of the published tables that say which line it is; the others hold figures and settings to compare.
SAYS_WHICH = (
    *("Model", "eps", "Setting", "Training", "Init.", "Steps", "Ep.", "Its.", "Seeds", "Backbone", "Group"),
    *("Configuration", "Architecture", "Robust", "Source", "Loss pair", "Dataset / Model", "Attack", "Target"),
)
HIGHER, LOWER = "#e69f00", "#56b4e9"  # Okabe and Ito: told apart without colour vision; the sign says it, too
STRONGEST = 20  # points at which a difference has its full colour


def leading(cell: Any) -> float | None:
    """Read the number in a cell without its deviation or mark: 41.3 from `41.3±0.4` and from `41.3*`; None for text."""
    found = re.fullmatch(r"([-+]?\d+(?:\.\d+)?)(?:%|\*|±.*)?", str(cell))
    return float(found[1]) if found else None


def tolerance() -> float:
    """Return the largest deviation over seeds that the paper reports (Table 8), in points."""
    return max(float(cell.partition("±")[2] or 0) for cell in table(8).astype(str).to_numpy().ravel())


@dataclass(frozen=True)
class Beside:
    """Compare a published table with our results, one row per figure.

    Shows itself in a notebook with coloured differences.

    Attributes:
        number: The number of the table.
        frame: The columns that identify a row, then `paper`, `ours` and `difference`, which is ours minus the paper's.
    """

    number: int
    frame: pd.DataFrame

    @property
    def caption(self) -> str:
        """Return the sentences below the table."""
        return (
            f"Table {self.number}: {TABLES[self.number]}. The difference is ours less the paper's; over seeds its "
            f"figures deviate by up to {tolerance():g} points (Table 8), which is the tolerance for the same model on "
            "all images. Another model, other data or fewer images compare in their pattern only."
        )

    def signed(self) -> pd.DataFrame:
        """Return the rows as text, differences with their sign."""
        differences = ["" if pd.isna(value) else f"{value:+.1f}" for value in self.frame.difference]
        return self.frame.assign(difference=differences)

    def to_markdown(self) -> str:
        """Return table and caption as Markdown."""
        return f"{markdown(self.signed())}\n{self.caption}\n"

    def to_csv(self) -> str:
        """Return the table as CSV."""
        return self.signed().to_csv(index=False)

    def to_latex(self) -> str:
        """Return a `tabular` in the style of booktabs."""
        special = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "Δ": r"$\Delta$"}
        shown = self.signed()
        cells = shown.astype(object).where(shown.notna(), "").to_numpy().tolist()
        rows = [
            " & ".join("".join(special.get(letter, letter) for letter in str(cell)) for cell in row) + r" \\"
            for row in [list(shown.columns), *cells]
        ]
        columns = "l" * (len(shown.columns) - 3) + "rrr"
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
        shown = self.signed()
        names = [column for column in shown if column not in ("figure", "paper", "ours", "difference")]
        said: Any = None
        rows = ["".join(f"<th>{escape(str(column))}</th>" for column in shown)]
        for line, difference in zip(shown.to_dict("records"), self.frame.difference):
            which = [line[name] for name in names]
            cells = [
                f"<td style='text-align:left'>{'' if which == said else escape(str(value))}</td>" for value in which
            ]
            said = which
            values = [line[name] for name in ("figure", "paper", "ours")]
            cells += [f"<td>{'' if pd.isna(value) else escape(str(value))}</td>" for value in values]
            cells.append(f"<td style='{tint(difference)}'>{line['difference']}</td>")
            rows.append("".join(cells))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption style='text-align:left'>{escape(self.caption)}</caption>{body}</table>"


def tint(difference: float | None) -> str:
    """Return the CSS of a difference: orange where ours is higher, blue where it is lower, stronger for larger ones."""
    if difference is None or pd.isna(difference) or difference == 0:
        return ""
    strength = round(255 * min(1.0, abs(difference) / STRONGEST))
    return f"background:{HIGHER if difference > 0 else LOWER}{strength:02x}"


def beside(number: int, lines: pd.DataFrame | Iterable[Report], against: Mapping[str, Any] | None = None) -> Beside:
    """Put a published table beside our results.

    Rows are matched by radius, loss pair or configuration. In tables without such a column, one published row is
    compared with all of ours, or rows are paired in order. Columns that ours do not have are left out.

    Args:
        number: 1 to 9.
        lines: Our rows under the published headings, or reports, from which `ours` makes them.
        against: Column -> value of the published rows to compare with; by default all.

    Returns:
        Both and their difference.

    Raises:
        InputError: If rows cannot be told apart or none is left.
    """
    published = table(number)
    if not isinstance(lines, pd.DataFrame):
        lines = ours(number, lines)
    for column, value in (against or {}).items():
        if value not in set(published.get(column, ())):
            raise InputError(
                f"Table {number} has no line with {value!r} under {column!r}; see robviz.paper.table({number})"
            )
        published = published[published[column] == value]
    pairs = list(paired(number, lines, published))
    which_ones = [name for name in lines if name in SAYS_WHICH]
    figures = [name for name in published if name in lines and name not in SAYS_WHICH]
    rows = []
    for own, line in pairs:
        which = {name: own[name] for name in which_ones}
        for name in figures:
            a, b = leading(line[name]), leading(own[name])
            difference = None if a is None or b is None else round(b - a, 1)
            rows.append({**which, "figure": name, "paper": line[name], "ours": own[name], "difference": difference})
    if not rows:
        raise InputError(f"no line of ours has a published one in Table {number}; see robviz.paper.table({number})")
    return Beside(number, pd.DataFrame(rows).astype({"difference": float}))


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
