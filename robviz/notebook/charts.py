"""Draw arrays as still charts: matplotlib pictures, which appear wherever a notebook is read.

Colours are Okabe and Ito's, distinguishable without colour vision; curves also differ in their markers. Every chart has
a text that describes it, for pages without pictures and for readers who cannot see them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from robviz.files.images import overlay
from robviz.types import VOID, Palette

__all__ = ["Chart", "bars", "lines", "masks", "pictures"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKERS = "osD^vPXh"
DASHES = ("-", "--", ":", "-.")
GREY = "#777777"


class Chart(Figure):
    """Show a figure as PNG at the end of a cell, whatever the notebook's matplotlib backend."""

    alt = "A chart."

    def __init__(self, width: float = 7, height: float = 3.4, **options: Any) -> None:
        super().__init__(figsize=(width, height), layout="constrained", facecolor="white", **options)

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue(), {"alt": self.alt}

    def _ipython_display_(self) -> None:
        # Jupyter has its own way to show a figure of matplotlib, which would leave out the text.
        from IPython.display import display

        png, described = self._repr_png_()
        shown = {"image/png": base64.b64encode(png).decode(), "text/plain": self.alt}
        display(shown, metadata={"image/png": described}, raw=True)


def style_axes(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def below(chart: Chart, names: int) -> None:
    """Put the legend below the chart, where it covers nothing."""
    chart.legend(frameon=False, fontsize=9, ncols=min(4, names), loc="outside lower center")


def lines(
    curves: Mapping[str | tuple[str, str], tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    title: str = "",
    mark: Mapping[str, float] | None = None,
    level: Mapping[str, float] | None = None,
) -> Chart:
    """Draw curves by name, each (x values, y values).

    Args:
        curves: By name, or by (colour, dash): curves of one colour share the first, those of one dash the second.
        x: The label of the horizontal axis.
        y: The label of the vertical axis.
        title: The title above the chart.
        mark: Label -> x of a vertical line.
        level: Label -> y of a horizontal line.

    Returns:
        The chart, which shows itself at the end of a cell.
    """
    chart = Chart()
    axes = chart.subplots()
    pairs = [name if isinstance(name, tuple) else (name, "") for name in curves]
    colours, dashes = (list(dict.fromkeys(part)) for part in zip(*pairs))
    for (colour, dash), (xs, ys) in zip(pairs, curves.values()):
        i, often = colours.index(colour), max(1, len(xs) // 10)
        axes.plot(
            xs,
            ys,
            label=f"{colour}, {dash}" if dash else colour,
            color=COLOURS[i % 8],
            linestyle=DASHES[dashes.index(dash) % 4],
            linewidth=2,
            marker=MARKERS[i % 8],
            markevery=often,
        )
    for name, where in (mark or {}).items():
        axes.axvline(where, color=GREY, linestyle=":")
        axes.annotate(f" {name}", (where, 1), xycoords=("data", "axes fraction"), fontsize=9, color=GREY, va="bottom")
    for name, height in (level or {}).items():
        axes.axhline(height, color=GREY, linestyle="--")
        axes.annotate(f" {name}", (1, height), xycoords=("axes fraction", "data"), fontsize=9, color=GREY, va="center")
    style_axes(axes, title, x, y)
    if mark:
        axes.set_title(title, loc="left", fontsize=11, pad=18)
    if len(curves) > 1:
        below(chart, len(curves))
    ends = (
        f"{', '.join(filter(None, name))}: {ys[0]:.3g} to {ys[-1]:.3g}" for name, (_, ys) in zip(pairs, curves.values())
    )
    chart.alt = f"Line chart, {title or y}: {y} over {x}. From left to right, {'; '.join(ends)}."
    return chart


def bars(
    groups: Mapping[str, Mapping[str, float]], y: str, title: str = "", level: Mapping[str, float] | None = None
) -> Chart:
    """Draw bars by name within each group, with their values on them.

    Args:
        groups: Group -> name -> value; one that is missing or infinite leaves its place empty.
        y: The label of the vertical axis.
        title: The title above the chart.
        level: Label -> y of a horizontal line.

    Returns:
        The chart.
    """
    chart = Chart()
    axes = chart.subplots()
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        at = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
        heights = np.array([group.get(name, np.nan) for group in groups.values()], dtype=float)
        drawn = axes.bar(at, np.where(np.isfinite(heights), heights, np.nan), width * 0.92, label=name)
        for bar in drawn:
            bar.set(color=COLOURS[i % 8], hatch=(None, "//", "..", "xx")[i // 2 % 4], edgecolor="white")
        axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    for name, height in (level or {}).items():
        axes.axhline(height, color=GREY, linestyle="--")
        axes.annotate(f" {name}", (1, height), xycoords=("axes fraction", "data"), fontsize=9, color=GREY, va="center")
    axes.set_xticks(range(len(groups)), list(groups), fontsize=8 if len(groups) > 6 else 10)
    style_axes(axes, title, "", y)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    if len(names) > 1:
        below(chart, len(names))
    told = (
        f"{group}: " + ", ".join(f"{name} {value:.1f}" for name, value in values.items())
        for group, values in groups.items()
    )
    chart.alt = f"Bar chart, {title or y}, {y}. {'; '.join(told)}."
    return chart


def pictures(shown: Mapping[str, np.ndarray], columns: int = 4, height: float = 2) -> Chart:
    """Draw pictures by title, in rows.

    Args:
        shown: Title -> (H, W, 3) uint8, or (H, W): a map of floats, from dark (low) to bright (high) with its own
            colour bar, or of booleans, dark and bright.
        columns: Pictures per row.
        height: The height of a picture, in inches.

    Returns:
        The chart.
    """
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    tall, wide, *_ = next(iter(shown.values())).shape
    chart = Chart(height * wide / tall * columns, (height + 0.3) * rows)
    drawn = list(chart.subplots(rows, columns, squeeze=False).flat)
    for axes in drawn:
        axes.axis("off")
    for axes, (title, picture) in zip(drawn, shown.items()):
        image = axes.imshow(picture, cmap="cividis", interpolation="nearest")
        axes.set_title(title, fontsize=10)
        if picture.ndim == 2 and picture.dtype.kind == "f":
            chart.colorbar(image, ax=axes, shrink=0.8, fraction=0.06, pad=0.02).ax.tick_params(labelsize=7)
    chart.alt = f"Pictures, from left to right: {'; '.join(shown)}."
    return chart


def chips(chart: Chart, present: Sequence[int], classes: Sequence[str], palette: Palette) -> None:
    """Put a coloured chip for each class that occurs below a chart of masks."""
    patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*palette[k]), label=classes[k]) for k in present]
    columns = max(1, min(len(patches), int(chart.get_size_inches()[0] / 1.1)))
    rows = -(-len(patches) // columns)
    width, height = chart.get_size_inches()
    chart.set_size_inches(width, height + 0.25 * rows)
    chart.legend(handles=patches, ncols=columns, fontsize=8, frameon=False, loc="outside lower center")


def masks(
    image: np.ndarray,
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    palette: Palette,
    columns: int = 4,
    height: float = 2,
) -> Chart:
    """Draw label masks by title over one picture, with a legend of the colours.

    Args:
        image: (H, W, 3) uint8, shown in grey below the colours.
        labels: Title -> (H, W) int, with `VOID` for unlabelled pixels.
        classes: The name of each class.
        palette: The RGB colour of each class.
        columns: Masks per row.
        height: The height of a mask, in inches.

    Returns:
        The chart.
    """
    chart = pictures({title: overlay(image, mask, palette) for title, mask in labels.items()}, columns, height)
    present = sorted({int(k) for mask in labels.values() for k in np.unique(mask)} - {VOID})
    chips(chart, present, classes, palette)
    shares = (
        f"{title}: "
        + ", ".join(f"{classes[k]} {np.mean(mask == k):.0%}" for k in present if (mask == k).mean() >= 0.005)
        for title, mask in labels.items()
    )
    chart.alt = f"Label masks over a picture. {'; '.join(shares)}."
    return chart
