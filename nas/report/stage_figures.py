"""What good networks look like stage by stage: each a function from a frame to a figure."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

from plotly.subplots import make_subplots

from nas.analysis import is_best_tenth
from nas.report.figures import GROUP_COLORS, counted, new_figure

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

WORDS = {"depth": "blocks", "width": "width", "kernel_size": "kernel"}
COLORS = {"best tenth": "#4a90d9", "the rest": "#949aa3"}
MOST_LINES = 400  # of the rest: more only paint the figure grey
JITTER = 0.02  # of an axis, so that equal values do not hide each other


def in_words(parameter: str) -> str:
    """Name a parameter as people do: `kernel_size_2` is `kernel 2`."""
    field, _, stage = parameter.rpartition("_")
    return f"{WORDS.get(field, field.replace('_', ' '))} {stage}"


def parallel_coordinates(stages: pd.DataFrame) -> go.Figure:
    """Draw each network as a line over what it chose in each stage, and its score.

    Of many networks the best tenth and an even sample of the rest are drawn.
    """
    axes = [c for c in stages.columns[2:] if stages[c].nunique() > 1] + ["val_accuracy"]
    figure = new_figure(
        height=440,
        margin={"l": 24, "r": 28, "t": 64, "b": 40},
        xaxis={
            "tickvals": list(range(len(axes))),
            "ticktext": [*map(in_words, axes[:-1]), "accuracy"],
            "side": "top",
            "tickangle": -40,
            "showgrid": True,
            "zeroline": False,
        },
        yaxis={"visible": False, "range": [-0.09, 1.09]},
        legend={"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top"},
        hovermode=False,
    )
    lows, highs = stages[axes].min(), stages[axes].max()
    scaled = (stages[axes] - lows) / (highs - lows).where(highs > lows, 1)
    is_best = is_best_tenth(stages["val_accuracy"])
    for name, members in (("the rest", scaled[~is_best]), ("best tenth", scaled[is_best])):
        if members.empty:
            continue
        step = max(1, -(-len(members) // MOST_LINES)) if name == "the rest" else 1
        rows = members.iloc[::step]
        x, y = _as_one_line(rows)
        style = {"color": COLORS[name], "width": 1.6 if name == "best tenth" else 0.7}
        opacity = 0.85 if name == "best tenth" else 0.35
        of = f"{len(rows):,} of " if step > 1 else ""
        label = f"{name} ({of}{counted(len(members), 'network')})"
        figure.add_scatter(x=x, y=y, name=label, mode="lines", line=style, opacity=opacity)
    for index, axis in enumerate(axes):
        for height, value in ((-0.06, lows[axis]), (1.06, highs[axis])):
            text = f"{value:.1%}" if axis == "val_accuracy" else f"{value:g}"
            figure.add_annotation(x=index, y=height, text=text, showarrow=False)
    return figure


def _as_one_line(rows: pd.DataFrame) -> tuple[list[int | None], list[float | None]]:
    """Give the points of all rows, with a gap after each; a row lacks what its network has not."""
    rng = Random(0)
    x: list[int | None] = []
    y: list[float | None] = []
    for row in rows.to_numpy():
        for index, value in enumerate(row):
            if not math.isnan(value):
                x.append(index)
                y.append(float(value) + rng.uniform(-JITTER, JITTER))
        x.append(None)
        y.append(None)
    return x, y


def importances(frame: pd.DataFrame) -> go.Figure:
    """Draw how much each parameter matters (`results.importances`) as bars."""
    figure = new_figure(
        height=110 + 24 * len(frame),
        xaxis={"title": "share", "tickformat": ".0%"},
        yaxis={"automargin": True, "autorange": "reversed", "tickmode": "linear"},
        margin={"l": 12, "r": 12, "t": 12, "b": 48},
    )
    figure.add_bar(
        x=frame["importance"],
        y=[in_words(parameter) for parameter in frame["parameter"]],
        orientation="h",
        marker={"color": GROUP_COLORS["search"]},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    return figure


def best_tenth(frame: pd.DataFrame) -> go.Figure:
    """Draw the quartiles of the best tenth beside the rest's (`analysis.best_tenth`)."""
    fields = list(dict.fromkeys(frame["field"]))
    figure = make_subplots(
        rows=len(fields), cols=1, shared_xaxes=True, vertical_spacing=0.06, row_titles=None
    )
    figure.update_layout(new_figure(height=70 + 190 * len(fields)).layout)
    figure.update_layout(boxmode="group")
    for row, field in enumerate(fields, 1):
        for group, color in COLORS.items():
            found = frame[(frame["field"] == field) & (frame["group"] == group)]
            figure.add_box(
                x=[f"stage {stage}" for stage in found["stage"]],
                q1=found["lower"],
                median=found["median"],
                q3=found["upper"],
                lowerfence=found["lower"],
                upperfence=found["upper"],
                name=f"{group} ({counted(int(found['num_networks'].max()), 'network')})",
                legendgroup=group,
                offsetgroup=group,
                showlegend=row == 1,
                marker={"color": color},
                row=row,
                col=1,
            )
        figure.update_yaxes(title={"text": WORDS[field]}, rangemode="tozero", row=row, col=1)
    ordered = [f"stage {stage}" for stage in sorted(set(frame["stage"]))]
    figure.update_xaxes(categoryorder="array", categoryarray=ordered)
    return figure
