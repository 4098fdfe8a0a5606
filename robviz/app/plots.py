"""Draw the charts of the views with plotly. Nothing here runs a model."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

CLEAN, ATTACKED = "#0072b2", "#d55e00"  # Okabe and Ito: told apart without colour vision
GRID = "rgba(128, 128, 128, 0.25)"


def training_curves(
    losses: Sequence[float], rounds: Sequence[tuple[int, float, float]], iterations: int, accuracy: Sequence[float]
) -> go.Figure:
    """Draw the loss of every iteration, and for each round the figures of held-out images and of the picture, in %.

    rounds: iteration, clean and attacked mIoU in [0, 1]. accuracy: of the attacked picture, in [0, 1], of each round.
    """
    at = [iteration for iteration, _, _ in rounds]
    lines = (
        ("mIoU, clean", [clean for _, clean, _ in rounds], {"color": CLEAN, "width": 3}, "circle"),
        ("mIoU, attacked", [attacked for _, _, attacked in rounds], {"color": ATTACKED, "width": 3}, "diamond"),
        ("pixel accuracy, this picture attacked", accuracy, {"color": ATTACKED, "width": 2, "dash": "dot"}, "square"),
    )
    figure = go.Figure(
        [
            go.Scatter(
                name=name,
                x=at,
                y=[100 * value for value in values],
                mode="lines+markers",
                line=line,
                marker={"size": 8, "symbol": symbol},
                hovertemplate="iteration %{x}: %{y:.1f} %<extra>" + name + "</extra>",
            )
            for name, values, line, symbol in lines
        ]
        + [
            go.Scatter(
                name="loss",
                x=list(range(1, len(losses) + 1)),
                y=list(losses),
                yaxis="y2",
                mode="lines",
                line={"color": "#808088", "width": 1.5},
                hovertemplate="iteration %{x}: loss %{y:.3f}<extra></extra>",
            )
        ]
    )
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": "#808088"},
        height=280,
        margin={"l": 50, "r": 50, "t": 16, "b": 44},
        legend={"orientation": "h", "y": 1.15},
        xaxis={"title": "iteration", "range": [0, max(1, iterations)], "gridcolor": GRID},
        yaxis={"title": "%", "range": [0, 101], "gridcolor": GRID},
        yaxis2={"title": "loss", "overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False},
    )
    return figure


def attack_curve(accuracy: Sequence[float], steps: int, losses: Sequence[float] = ()) -> go.Figure:
    """Pixel accuracy, in %, and loss of each step's picture; first values the start."""
    lines = (
        ("pixel accuracy", [100 * value for value in accuracy], "y", {"color": ATTACKED, "width": 3}, "%{y:.1f} %"),
        ("loss", list(losses), "y2", {"color": CLEAN, "width": 2, "dash": "dot"}, "%{y:.3g}"),
    )
    figure = go.Figure(
        [
            go.Scatter(
                name=name,
                x=list(range(len(values))),
                y=values,
                yaxis=axis,
                mode="lines",
                line=line,
                hovertemplate=f"step %{{x}}: {shown}<extra>{name}</extra>",
            )
            for name, values, axis, line, shown in lines
        ]
    )
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0, 0, 0, 0)",  # on light and on dark pages
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": "#808088"},
        height=220,
        margin={"l": 50, "r": 50, "t": 36, "b": 44},
        title={"text": "How the attack went", "font": {"size": 14}},
        xaxis={"title": "step", "range": [0, max(1, steps)], "gridcolor": GRID},
        yaxis={"title": "pixel accuracy (%)", "range": [0, 101], "gridcolor": GRID},
        yaxis2={"title": "loss", "overlaying": "y", "side": "right", "showgrid": False, "rangemode": "tozero"},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.2},
    )
    return figure
