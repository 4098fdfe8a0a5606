"""Draw the picture of `docs/strength.md` from the reports in `checkpoints/reports`; run it without arguments."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from robviz.files.paths import bundled_path
from robviz.paper.generated_tables import reports_in
from robviz.paper.strength_tables import MODELS, RADII, by_cell

#: Ensemble, colour (told apart without colour vision), marker.
LINES = (("paper", "#0072b2", "o"), ("strong-v1", "#e69f00", "s"), ("strong", "#d55e00", "D"))


def drawn() -> Figure:
    """Worst mIoU by gradient steps an image, a panel for each model and radius."""
    found = by_cell(reports_in(bundled_path("checkpoints") / "reports"))
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasSVG(figure)
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
        panel.set_xlabel("gradient steps an image")
    handles = {label: line for panel in panels.flat for line, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "strength"  # the same bytes each time
    drawn().savefig(Path(__file__).parent / "strength_steps.svg", metadata={"Date": None})
