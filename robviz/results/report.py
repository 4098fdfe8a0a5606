"""Tables written from what was measured, never by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robviz.files.atomic import write_atomically
from robviz.types import InputError


def markdown(frame: pd.DataFrame) -> str:
    """A table as Markdown; empty cells where there is no value."""
    cells = frame.astype(object).where(frame.notna(), "").to_numpy().tolist()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *cells]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


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


#: How a sentence about a figure that may be wrong begins.
DOUBT = "do not believe this figure"


@dataclass(frozen=True)
class Report:
    """What an evaluation found, and all that decided it. The same evaluation gives the same bytes.

    As JSON: `plan` {model {name, sha256}, dataset {name, split, images}, eps, settings {name, runs [{loss, attack,
    steps}], aggregation, seed}, seed, precision, device, threads, versions}; `rows` {name: figures} for `clean`, each
    run, each pair of runs and `worst case`, with figures {accuracy_mean, accuracy_pooled, miou, balanced_accuracy,
    iou_by_size {small, medium, large}, iou_by_class {class: IoU}}, rates in [0, 1], null where nothing can be said;
    `images` [{image, clean, worst, by}], the pixel accuracy of each before and under the attack `by` that hurts it
    most; `gradients`, the backward passes spent; `doubts`, sentences that begin with "do not believe this figure" and
    say what made the model look more robust than it is, empty where nothing was found.
    """

    plan: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    images: list[dict[str, Any]]
    gradients: int
    doubts: list[str] = field(default_factory=list)

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
        doubts = [line for doubt in self.doubts for line in (f"**{doubt[0].upper()}{doubt[1:]}.**", "")]
        return "\n".join(
            [title, "", *doubts, about, "", *(f"| {' | '.join(line)} |" for line in [heading, rule, *lines]), ""]
        )

    def save(self, path: str | Path) -> None:
        """Write it as `.json`, `.csv` or `.md`, by the suffix. Raises InputError for another."""
        formats = {".json": self.to_json, ".csv": self.to_csv, ".md": self.to_markdown}
        path = Path(path)
        if path.suffix not in formats:
            raise InputError(f"a report is written as {', '.join(formats)}; got {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, formats[path.suffix]())

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report written as JSON. Raises InputError when the file is none."""
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a robviz report: {error!r}") from error
