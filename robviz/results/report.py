"""Write and read the report of an evaluation, and write tables as Markdown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.files.atomic import write_atomically
from robviz.results.plan import Figures, ImageFigures, Plan
from robviz.types import InputError

__all__ = ["Report", "markdown"]


def markdown(frame: pd.DataFrame) -> str:
    """Write a table as Markdown, with empty cells for missing values.

    Args:
        frame: Any data frame; its index is left out.

    Returns:
        The Markdown text.
    """
    cells = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *cells]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


#: The columns of the tables: the figure of a row, and its heading.
COLUMNS = {
    "accuracy_mean": "pixel accuracy, mean over images",
    "accuracy_pooled": "pixel accuracy, pooled",
    "miou": "mIoU",
    "balanced_accuracy": "class-balanced accuracy",
    "small": "IoU, small objects",
    "medium": "IoU, medium",
    "large": "IoU, large",
}


#: The beginning of a sentence about a figure that may be wrong.
DOUBT = "do not believe this figure"


@dataclass(frozen=True)
class Report:
    """Store the result of an evaluation and everything that determined it; the same evaluation gives the same bytes.

    Attributes:
        plan: model {name, sha256, settings, wrapping, code, packages}, dataset {name, split, images, classes,
            class_weights, sha256}, eps, settings {name, runs [{loss, attack, steps}], aggregation, seed}, seed,
            precision, device, threads, versions.
        rows: Figures for `clean`, each run, each pair of runs and `worst case`: {accuracy_mean, accuracy_pooled, miou,
            balanced_accuracy, iou_by_size {small, medium, large}, iou_by_class {class: IoU}}; rates in [0, 1], null
            where undefined.
        images: [{image, clean, worst, by}], the pixel accuracy of each image before and under `by`, the strongest
            attack on it.
        gradients: The number of backward passes spent.
        doubts: Sentences that begin with "do not believe this figure" and say what made the model look more robust than
            it is; empty if nothing was found.
    """

    plan: Plan
    rows: dict[str, Figures]
    images: list[ImageFigures]
    gradients: int
    doubts: list[str] = field(default_factory=list)

    def table(self) -> list[list[str]]:
        """Return a heading and one line per row, rates in per cent."""
        lines = [["", *COLUMNS.values()]]
        for name, figures in self.rows.items():
            values: dict[str, Any] = {**figures, **figures["iou_by_size"]}
            cells = [values[column] for column in COLUMNS]
            lines.append([name, *("" if value is None else f"{100 * value:.2f}" for value in cells)])
        return lines

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def to_csv(self) -> str:
        """Return the table as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.table())
        return text.getvalue()

    def to_markdown(self) -> str:
        """Return title, conditions and table as Markdown."""
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
        doubts = [line for doubt in self.doubts for line in (f"**{doubt[0].upper()}{doubt[1:]}.**", "")]
        return "\n".join(
            [title, "", *doubts, about, "", *(f"| {' | '.join(line)} |" for line in [heading, rule, *lines]), ""]
        )

    def save(self, path: str | Path) -> None:
        """Write the report.

        Args:
            path: A file that ends in `.json`, `.csv` or `.md`, which decides the format.

        Raises:
            InputError: For another suffix.
        """
        formats = {".json": self.to_json, ".csv": self.to_csv, ".md": self.to_markdown}
        path = Path(path)
        if path.suffix not in formats:
            raise InputError(f"a report is written as {', '.join(formats)}; got {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, formats[path.suffix]())

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report written as JSON.

        Args:
            path: A `.json` file.

        Returns:
            The report.

        Raises:
            InputError: If the file is not a report.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a robviz report: {error!r}") from error
