"""Arrays in, still charts out: matplotlib pictures, which show wherever a notebook is read.

Colours are Okabe and Ito's, told apart without colour vision; curves differ in their markers as well.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from robviz.files.images import overlay
from robviz.types import Palette

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
MARKERS = "osD^vPXh"
GREY = "#777777"


class Chart(Figure):
    """A figure that shows itself as PNG at the end of a cell, whatever the notebook's matplotlib backend."""

    def __init__(self, width: float = 7, height: float = 3.4, **options: Any) -> None:
        super().__init__(figsize=(width, height), layout="constrained", facecolor="white", **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def plain(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    title: str = "",
    mark: Mapping[str, float] | None = None,
) -> Chart:
    """Curves by name, each (x values, y values). mark: label -> x of a vertical line."""
    chart = Chart()
    axes = chart.subplots()
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        often = max(1, len(xs) // 10)
        axes.plot(xs, ys, label=name, color=COLOURS[i % 8], linewidth=2, marker=MARKERS[i % 8], markevery=often)
    for name, where in (mark or {}).items():
        axes.axvline(where, color=GREY, linestyle=":")
        axes.annotate(name, (where, 1), xycoords=("data", "axes fraction"), fontsize=9, color=GREY, va="top")
    plain(axes, title, x, y)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9)
    return chart


def bars(groups: Mapping[str, Mapping[str, float]], y: str, title: str = "") -> Chart:
    """Bars by name within each group, their values written on them."""
    chart = Chart()
    axes = chart.subplots()
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        at = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
        drawn = axes.bar(at, [group.get(name, np.nan) for group in groups.values()], width * 0.92, label=name)
        for bar in drawn:
            bar.set(color=COLOURS[i % 8], hatch=(None, "//", "..", "xx")[i // 2 % 4], edgecolor="white")
        axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(groups)), list(groups))
    plain(axes, title, "", y)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    if len(names) > 1:
        chart.legend(frameon=False, fontsize=9, ncols=min(4, len(names)), loc="outside lower center")
    return chart


def pictures(shown: Mapping[str, np.ndarray], columns: int = 4, height: float = 2) -> Chart:
    """Pictures by title, in rows. Each (H, W, 3) uint8, or (H, W) float, drawn from dark (low) to bright (high)."""
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    tall, wide, *_ = next(iter(shown.values())).shape
    chart = Chart(height * wide / tall * columns, (height + 0.3) * rows)
    for axes in chart.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (title, picture) in zip(chart.axes, shown.items()):
        axes.imshow(picture, cmap="cividis", interpolation="nearest")
        axes.set_title(title, fontsize=10)
    return chart


def masks(image: np.ndarray, labels: Mapping[str, np.ndarray], palette: Palette, columns: int = 4) -> Chart:
    """Label masks by title over one picture. image: (H, W, 3) uint8. labels: each (H, W) int."""
    return pictures({title: overlay(image, mask, palette) for title, mask in labels.items()}, columns)
