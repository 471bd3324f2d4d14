"""learning_curve: the epochs of one training as a figure, and as a page that needs nothing else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plotly.graph_objects import Figure

PANELS = {
    "accuracy, %": {"train_accuracy": "train, augmented", "val_accuracy": "val"},
    "loss": {"train_loss": "train, augmented"},
    "learning rate": {"lr": "learning rate"},
}


def learning_curve(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw accuracy, loss and learning rate over the epochs.

    Args:
        rows: One an epoch, as in `metrics.csv`; columns that are absent are not drawn.
        title: Plain text.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(PANELS), shared_xaxes=True, vertical_spacing=0.06)
    for panel, (label, columns) in enumerate(PANELS.items(), start=1):
        figure.update_yaxes(title_text=label, row=panel, col=1)
        for column, name in columns.items():
            if any(column in row for row in rows):
                figure.add_scatter(
                    x=[row["epoch"] + 1 for row in rows],
                    y=[row[column] * (100 if "accuracy" in column else 1) for row in rows],
                    name=name,
                    mode="lines+markers" if len(rows) < 30 else "lines",
                    showlegend=panel == 1,
                    row=panel,
                    col=1,
                )
    figure.update_xaxes(title_text="epoch", row=len(PANELS), col=1)
    text = html.escape(title, quote=False)  # else plotly would read it as its own markup
    figure.update_layout(title={"text": text, "x": 0}, height=700, hovermode="x unified")
    return figure


def learning_curve_page(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Write the figure as one HTML file of about 5 MB, with plotly's script in it."""
    page: str = learning_curve(rows, title).to_html(include_plotlyjs=True, full_html=True)
    return page.encode()
