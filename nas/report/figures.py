"""Scores as figures: each a function from a frame of `results` or `analysis` to a figure.

Colours hold on light and on dark; text, grid and background are set where the figure is drawn.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    import pandas as pd

GROUP_COLORS = {"search": "#4a90d9", "random": "#949aa3", "hand-made": "#e8871e"}
FRONT_COLOR, INCUMBENT_COLOR, WINDOW_COLOR = "#2a9d6f", "#4a90d9", "rgba(42, 157, 111, 0.12)"
LATER_COLORS = ("#4a90d9", "#e8871e", "#2a9d6f", "#b56cc9")
PERCENT, HOVER_PERCENT = ".2~%", ".2%"  # of ticks, no more digits than they need


def counted(number: int, noun: str) -> str:
    """Put a number and what it counts in words: 1 network, 2 networks."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def new_figure(*, height: int = 380, **layout: Any) -> go.Figure:  # noqa: ANN401 - plotly's own
    """Give an empty figure with the layout that all share."""
    figure = go.Figure(
        layout={
            "template": go.layout.Template(),
            "height": height,
            "margin": {"l": 56, "r": 12, "t": 36, "b": 48},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"align": "left"},
            **layout,
        }
    )
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, title_standoff=8)
    return figure


def hover_texts(frame: pd.DataFrame) -> list[str]:
    """Describe each network in two lines; plotly reads HTML, so what people wrote is escaped."""
    rows = zip(frame["trial"], frame["architecture"], frame["proposed_by"], strict=True)
    return [f"trial {t}, {escape(str(by))}<br>{escape(str(arch))}" for t, arch, by in rows]


def size_and_accuracy(frame: pd.DataFrame, window: tuple[int | None, int] | None) -> go.Figure:
    """Draw accuracy against parameters, the Pareto front, and the window of the budget.

    Args:
        frame: With the columns of `analysis.with_incumbent` and `analysis.with_front`.
        window: (minimum or `None`, maximum) parameters.
    """
    figure = new_figure(
        xaxis={"title": "parameters", "tickformat": "~s"},
        yaxis=_accuracy_axis(frame["val_accuracy"]),
    )
    _add_window(figure, window)
    _add_groups(figure, frame, x="num_params", x_format="%{x:,} parameters")
    front = frame[frame["is_on_front"]].sort_values("num_params")
    figure.add_scatter(
        x=front["num_params"],
        y=front["val_accuracy"],
        name="Pareto front",
        mode="lines",
        line={"color": FRONT_COLOR, "shape": "hv", "width": 2},
        hoverinfo="skip",
    )
    return figure


def history(frame: pd.DataFrame) -> go.Figure:
    """Draw the scores in the order of trials, and the best so far (`analysis.with_incumbent`)."""
    # Of few trials plotly by itself would mark halves.
    is_short = frame["trial"].max() - frame["trial"].min() < 10
    figure = new_figure(
        xaxis={"title": "trial", "tickformat": ",d", "dtick": 1 if is_short else None},
        yaxis=_accuracy_axis(frame["val_accuracy"]),
    )
    _add_groups(figure, frame, x="trial", x_format="trial %{x}")
    figure.add_scatter(
        x=frame["trial"],
        y=frame["incumbent"],
        name="best so far",
        mode="lines",
        line={"color": INCUMBENT_COLOR, "shape": "hv", "width": 2},
        hovertemplate="best so far %{y:.2%}<extra></extra>",
    )
    return figure


def _accuracy_axis(accuracies: pd.Series, title: str = "validation accuracy") -> dict[str, Any]:
    """Describe an axis; where all are equal, plotly by itself would show -50 to 150 %."""
    axis: dict[str, Any] = {"title": title, "tickformat": PERCENT}
    if accuracies.nunique() == 1:
        only = float(accuracies.iloc[0])
        axis["range"] = [max(0.0, only - 0.05), min(1.0, only + 0.05)]
    return axis


def _add_groups(figure: go.Figure, frame: pd.DataFrame, *, x: str, x_format: str) -> None:
    texts = frame.assign(text=hover_texts(frame))
    size = 9 if len(frame) <= 300 else 5
    for group, color in GROUP_COLORS.items():
        members = texts[texts["group"] == group]
        if members.empty:
            continue
        figure.add_scatter(
            x=members[x],
            y=members["val_accuracy"],
            name=group,
            mode="markers",
            text=members["text"],
            marker={
                "color": color,
                "size": size + 3 if group == "hand-made" else size,
                "symbol": "diamond" if group == "hand-made" else "circle",
                "opacity": 0.75,
            },
            hovertemplate=f"%{{text}}<br>{x_format}<br>%{{y:{HOVER_PERCENT}}}<extra></extra>",
        )


def agreement(pairs: pd.DataFrame) -> go.Figure:
    """Draw what was measured later against the proxy's score (`analysis.agreement`)."""
    figure = new_figure(
        xaxis=_accuracy_axis(pairs["val_accuracy"], "validation accuracy of the proxy"),
        yaxis=_accuracy_axis(pairs["accuracy"], "accuracy later"),
        showlegend=True,  # of a single measure, too: it says what the accuracy is of
    )
    for index, (measure, rows) in enumerate(pairs.groupby("measure", sort=True)):
        figure.add_scatter(
            x=rows["val_accuracy"],
            y=rows["accuracy"],
            name=escape(str(measure)),
            mode="markers",
            marker={"size": 10, "color": LATER_COLORS[index % len(LATER_COLORS)]},
            text=[
                f"trial {trial}, mean of {number}"
                for trial, number in zip(rows["trial"], rows["num_seeds"], strict=True)
            ],
            hovertemplate="%{text}<br>proxy %{x:.2%}<br>later %{y:.2%}<extra></extra>",
        )
    return figure


def trained_in_full(full: pd.DataFrame, window: tuple[int | None, int] | None) -> go.Figure:
    """Draw the accuracies of full trainings against parameters (`analysis.trained_in_full`)."""
    figure = new_figure(
        xaxis={"title": "parameters", "tickformat": "~s"},
        yaxis=_accuracy_axis(full["mean"], "accuracy in full"),
        showlegend=True,
    )
    _add_window(figure, window)
    for index, (measure, rows) in enumerate(full.groupby("measure", sort=True)):
        figure.add_scatter(
            x=rows["num_params"],
            y=rows["mean"],
            error_y={"type": "data", "array": rows["std"].fillna(0)},
            name=escape(str(measure)),
            mode="markers",
            marker={"size": 10, "color": LATER_COLORS[index % len(LATER_COLORS)]},
            text=[escape(str(network)) for network in rows["network"]],
            hovertemplate="%{text}<br>%{x:,} parameters<br>%{y:.2%}<extra></extra>",
        )
    return figure


def _add_window(figure: go.Figure, window: tuple[int | None, int] | None) -> None:
    if window is not None:
        low, high = window[0] or 0, window[1]
        figure.add_vrect(low, high, fillcolor=WINDOW_COLOR, line_width=0, layer="below")


def time_spent(spent: pd.DataFrame) -> go.Figure:
    """Draw where the time went as bars (`analysis.time_spent`)."""
    figure = new_figure(
        height=110 + 34 * len(spent),
        xaxis={"title": "hours"},
        yaxis={"automargin": True, "autorange": "reversed"},
        margin={"l": 12, "r": 12, "t": 12, "b": 48},
    )
    figure.add_bar(
        x=spent["hours"],
        y=[escape(what) for what in spent["what"]],
        orientation="h",
        marker={"color": GROUP_COLORS["search"]},
        text=[
            f"{_hours(hours)}, {counted(number, 'trial')}"
            for hours, number in zip(spent["hours"], spent["num_trials"], strict=True)
        ],
        textposition="auto",
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    return figure


def _hours(hours: float) -> str:
    number, unit = (hours, "h") if hours >= 1 else (60 * hours, "min")
    return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
