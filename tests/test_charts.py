from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from robviz.notebook import charts


def test_a_chart_shows_itself_as_png():
    chart = charts.lines({"a": ([0, 1, 2], [3, 2, 1]), "b": ([0, 1], [1, 1])}, "x", "y", "title", {"here": 1.0})
    assert Image.open(io.BytesIO(chart._repr_png_()[0])).format == "PNG"
    drawn = chart.axes[0].lines
    assert drawn[0].get_ydata().tolist() == [3, 2, 1]
    assert drawn[0].get_marker() != drawn[1].get_marker()  # told apart without colours


def test_jupyter_shows_a_chart_with_the_text_that_describes_it(monkeypatch):
    """Also where it has a way of its own to show matplotlib's figures, as with its inline backend."""
    import IPython.display
    from IPython.core.formatters import DisplayFormatter

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, metadata, raw: shown.append((data, metadata, raw)))
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"drawn by Jupyter, without a text")
    assert formatter.format(charts.bars({"g": {"a": 1.0, "b": 2.0}}, "y", "Two bars")) == ({}, {})
    ((data, metadata, raw),) = shown
    assert raw
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).format == "PNG"
    assert metadata["image/png"] == {"alt": "Bar chart, Two bars, y. g: a 1.0, b 2.0."}
    assert data["text/plain"] == metadata["image/png"]["alt"]


@pytest.mark.parametrize("gap", [{}, {"a": float("inf")}])
def test_bars_stand_at_their_values_and_a_missing_or_infinite_one_leaves_its_place(gap):
    chart = charts.bars({"g": {"a": 1.0, "b": 2.0}, "h": {**gap, "b": 3.0}}, "y")
    heights = [bar.get_height() for bar in chart.axes[0].patches]
    assert heights[0] == 1
    assert np.isnan(heights[1])
    assert heights[2:] == [2, 3]
    assert chart._repr_png_()


def test_pictures_come_in_rows_under_their_titles():
    chart = charts.pictures({str(i): np.zeros((4, 8)) for i in range(5)}, columns=2)
    assert [axes.get_title() for axes in chart.axes if axes.get_title()] == ["0", "1", "2", "3", "4"]
