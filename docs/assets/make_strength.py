"""Draw the pictures of `docs/strength.md` from the reports in `checkpoints/reports`; run it without arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from robviz.files.paths import bundled_path
from robviz.paper.generated_tables import reports_in
from robviz.paper.strength_tables import MODELS, RADII, by_cell, compared
from robviz.results.confusion import Confusion, shares_by_class

REPORTS = bundled_path("checkpoints") / "reports"
#: Ensemble, colour (told apart without colour vision), marker.
LINES = (("paper", "#0072b2", "o"), ("strong-v1", "#e69f00", "s"), ("strong", "#d55e00", "D"))
CLEAN, PAPER, STRONG = ("#666666", "^"), LINES[0][1:], LINES[2][1:]
#: The members of `strong`, each with a colour and a marker.
MEMBERS = (
    ("expected-error-soft", "#0072b2", "o"),
    ("expected-error", "#e69f00", "s"),
    ("expected-miou", "#000000", "D"),
)
#: Six lines, each with a colour and a style that are told apart without colour vision.
SIX = (
    ("#0072b2", "-o"),
    ("#e69f00", "-s"),
    ("#000000", "--D"),
    ("#009e73", "--^"),
    ("#cc79a7", ":v"),
    ("#d55e00", ":x"),
)
LOSS_NAMES = {"error-1-to-1": "expected-error at τ = 1"}


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure that is drawn as SVG, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def with_legend(figure: Figure, panels: list[Axes]) -> Figure:
    """Put one legend for all panels above them."""
    handles = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure


def steps() -> Figure:
    """Draw the worst mIoU by gradient steps per image, a panel for each model and radius."""
    found = by_cell(reports_in(REPORTS))
    figure = figure_of(9, 9)
    panels = figure.subplots(len(MODELS), len(RADII), sharex=True)
    for row, model in zip(panels, MODELS):
        for panel, eps in zip(row, RADII):
            for family, colour, marker in LINES:
                points = sorted(
                    (steps, 100 * report.rows["worst case"]["miou"])
                    for (name, radius, ensemble, steps), report in found.items()
                    if (name, radius, ensemble) == (model, eps, family)
                )
                if points:
                    panel.plot(*zip(*points), color=colour, marker=marker, markersize=4, label=family)
            panel.set_title(f"{model}, {eps}/255", fontsize=9)
            panel.set_xscale("log")
            panel.set_xticks([90, 300, 900], ["90", "300", "900"])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        row[0].set_ylabel("worst mIoU in %")
    for panel in panels[-1]:
        panel.set_xlabel("gradient steps per image")
    return with_legend(figure, list(panels.flat))


def curves() -> Figure:
    """Draw how many pixels of one image single attacks leave, by step: a line for each attack and seed."""
    found = json.loads((REPORTS / "curves" / "photos-onestep.image0.8.json").read_text(encoding="utf-8"))
    figure = figure_of(8.5, 4.2)
    panel = figure.subplots()
    attacks: dict[str, list[list[int]]] = {}
    for curve in found["curves"]:
        loss = LOSS_NAMES.get(curve["loss"], curve["loss"])
        attacks.setdefault(f"{loss}, {curve['attack']}", []).append(curve["left"])
    for (label, lines), (colour, marker) in zip(attacks.items(), SIX):
        for line in lines:
            panel.plot(line, marker, color=colour, label=label, markersize=4, markevery=10, linewidth=1)
    panel.set_yscale("symlog", linthresh=1)
    panel.set_yticks([0, 1, 10, 100, 1000, 10000], ["0", "1", "10", "100", "1,000", "10,000"])
    panel.set_ylim(-0.2, 1.3 * found["labelled"])
    panel.set_xlabel("gradient steps")
    panel.set_ylabel(f"correct pixels, of {found['labelled']:,}")
    panel.set_title(f"{found['model']}, {found['image']}, {found['eps']:g}/255", fontsize=10)
    panel.grid(alpha=0.3)
    handles = {label: line for line, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


def title_of(found: Confusion) -> str:
    """Return which evaluation this is, without its ensemble."""
    return f"{found.model}, {found.eps:g}/255, seed {found.seed}"


def targets() -> Figure:
    """Draw where `strong` sends pixels more or less often than `paper`, in % of all pixels of a label."""
    paper, strong = compared()
    before, after = (np.array(found.worst) for found in (paper, strong))
    labelled = before.sum(1, keepdims=True)
    difference = 100 * (after - before) / np.maximum(labelled, 1)
    largest = abs(difference).max()
    figure = figure_of(8.5, 6)
    panel = figure.subplots()
    image = panel.imshow(difference, cmap="PuOr_r", vmin=-largest, vmax=largest)
    for (row, column), value in np.ndenumerate(difference):
        if abs(value) >= 0.5:
            colour = "white" if abs(value) > 0.6 * largest else "black"
            panel.text(column, row, f"{value:+.0f}", ha="center", va="center", fontsize=8, color=colour)
    shares = (labelled[:, 0] / labelled.sum() * 100).round(1)
    panel.set_xticks(range(len(paper.classes)), paper.classes, rotation=45, ha="right")
    panel.set_yticks(range(len(paper.classes)), [f"{n} ({s:g} %)" for n, s in zip(paper.classes, shares)])
    panel.set_xlabel("predicted as")
    panel.set_ylabel("label (share of all pixels)")
    panel.set_title(f"{strong.settings} minus {paper.settings}: {title_of(strong)}", fontsize=10)
    figure.colorbar(image, label="difference in % of the pixels of the label", shrink=0.8)
    return figure


def classes() -> Figure:
    """Draw which classes fall, and whether they lose their own pixels or drown in those of others."""
    paper, strong = compared()
    shown = (
        ("unattacked", *CLEAN, paper.clean),
        (paper.settings, *PAPER, paper.worst),
        (strong.settings, *STRONG, strong.worst),
    )
    figure = figure_of(10, 4.2)
    panels = figure.subplots(1, 3, sharey=True)
    for label, colour, marker, pixels in shown:
        for panel, (name, values) in zip(panels, shares_by_class(pixels).items()):
            panel.plot(
                [100 * value for value in values],
                range(len(values)),
                marker,
                color=colour,
                label=label,
                markersize=6,
                alpha=0.9,
            )
            panel.set_xlabel(f"{name} in %" if name == "IoU" else f"{name} in % of the class")
    for panel in panels:
        panel.grid(alpha=0.3)
    panels[1].set_xscale("symlog", linthresh=10)
    panels[1].set_xticks([0, 10, 100, 1000], ["0", "10", "100", "1000"])
    panels[1].set_title(title_of(strong), fontsize=10)
    panels[0].set_yticks(range(len(paper.classes)), paper.classes)
    panels[0].invert_yaxis()
    return with_legend(figure, list(panels))


def winners() -> Figure:
    """Draw the member of `strong` that leaves the lowest accuracy on each image, with 300 steps per image."""
    found = by_cell(reports_in(REPORTS))
    cells = [(model, eps) for model in MODELS for eps in RADII if (model, eps, "strong", 300) in found]
    figure = figure_of(8.5, 4.2)
    panel = figure.subplots()
    for member, colour, marker in MEMBERS:
        places = [
            (number, row)
            for row, (model, eps) in enumerate(cells)
            for number, image in enumerate(found[model, eps, "strong", 300].images, 1)
            if image["by"].split(".")[0] == member
        ]
        if places:
            panel.plot(*zip(*places), marker, color=colour, label=member, markersize=7, linestyle="none")
    panel.set_yticks(range(len(cells)), [f"{model}, {eps}/255" for model, eps in cells])
    panel.set_xticks(range(1, 17))
    panel.set_xlabel("image")
    panel.invert_yaxis()
    return with_legend(figure, [panel])


PICTURES: dict[str, Callable[[], Figure]] = {
    "steps": steps,
    "curves": curves,
    "targets": targets,
    "classes": classes,
    "winners": winners,
}

if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "strength"  # the same bytes each time
    for name, drawn in PICTURES.items():
        drawn().savefig(Path(__file__).parent / f"strength_{name}.svg", metadata={"Date": None})
