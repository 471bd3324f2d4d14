"""The page: a study's frames, put together as one HTML file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from plotly.offline import get_plotlyjs

from nas import analysis, results
from nas.architecture import Architecture
from nas.files import make_folder, write_whole
from nas.find_study import FINALISTS, find_sister
from nas.notes import notes
from nas.report import figures, stage_figures
from nas.report.drawing import draw
from nas.study import stored_limits, stored_schedule

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import plotly.graph_objects as go
    from optuna.study import Study

NUM_DRAWN = 6  # leading architectures


def write_report(study: Study, out: Path, *, options: str = "") -> None:
    """Write the report whole or not at all.

    Args:
        study: The study.
        out: The HTML file.
        options: What a `nas retrain` line needs beside the trial, such as `--study NAME`.

    Raises:
        UserError: The file cannot be written.
    """
    page = render(study, options=options)
    make_folder(out.parent)
    write_whole(out, page.encode())


def render(study: Study, *, options: str = "") -> str:
    """Give the page of a study as it stands."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": _percent, "count": _count, "counted": figures.counted}
    page = Page(study)
    return environment.get_template("page.html").render(
        page=page,
        options=options,
        figures=_embedded({name: json.loads(f.to_json()) for name, f in page.figures.items()}),
        plotly=get_plotlyjs(),
        style=_read("page.css"),
        script=_read("page.js"),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> str:
    """Give JSON that can end no script element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _percent(value: float | None, digits: int = 2) -> str:
    """Show a share as people read it; nothing for what is missing."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}%}"


def _count(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:,.0f}"


@dataclass(frozen=True)
class Page:
    """What the template asks for, each frame computed once.

    Attributes:
        study: The study.
    """

    study: Study

    @property
    def schedule(self) -> str:
        """How a network is trained for its score."""
        return stored_schedule(self.study)

    @property
    def finalist_schedule(self) -> str:
        """The same of a finalist."""
        sister = find_sister(self.study, FINALISTS)
        return stored_schedule(sister) if sister else ""

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every trial that began."""
        return results.trials(self.study)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The scored trials with what the figures add."""
        return analysis.with_front(analysis.with_incumbent(analysis.scored(self.trials)))

    @cached_property
    def later(self) -> pd.DataFrame:
        """What the sisters measured."""
        return results.later_scores(self.study)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """The proxy's scores beside the later ones."""
        return analysis.agreement(self.scored, self.later)

    @cached_property
    def trained(self) -> pd.DataFrame:
        """What networks reached in full training."""
        return analysis.trained_in_full(self.later)

    @cached_property
    def spent(self) -> pd.DataFrame:
        """Where the time went."""
        return analysis.time_spent(self.trials, self.later, results.failed_later(self.study))

    @cached_property
    def unscored(self) -> dict[str, int]:
        """How many trials began and have no score, in words."""
        words = {"FAIL": "failed", "PRUNED": "over budget", "RUNNING": "running or interrupted"}
        counts = self.trials["state"].value_counts()
        return {word: int(counts[state]) for state, word in words.items() if state in counts}

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Search, random and hand-made networks compared."""
        return analysis.compare_groups(self.scored)

    @cached_property
    def window(self) -> tuple[int | None, int] | None:
        """(Least or `None`, most) parameters, or `None` in a study without limits."""
        return stored_limits(self.study).get("num_params")

    @cached_property
    def other_maxima(self) -> dict[str, int]:
        """What else is limited, in words, and to how much."""
        words = {"num_macs": "multiply-adds", "size_bytes": "bytes"}
        limits = stored_limits(self.study)
        return {word: limits[name][1] for name, word in words.items() if name in limits}

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The scored networks, the best estimate first, with what was measured later."""
        later = analysis.later_in_words(self.agreement)
        frame = results.rank(self.scored, self.study)
        numbers = {name: float for name, kind in frame.dtypes.items() if kind == "Int64"}
        frame = frame.astype(numbers)  # whose missing ones the page knows
        return frame.assign(later=[later.get(trial, "") for trial in frame["trial"]])

    @cached_property
    def notes(self) -> dict[int, str]:
        """What people noted on trials, by trial number."""
        return notes(self.study)

    @cached_property
    def drawings(self) -> list[tuple[int, dict[str, Any], str]]:
        """(Rank, row of the leaderboard, SVG) of the leading networks and the best hand-made."""
        frame = self.leaderboard
        by_hand = frame[frame["proposed_by"].map(analysis.group_of) == "hand-made"]
        ranks = [*frame.index[:NUM_DRAWN], *by_hand.index[:1].difference(frame.index[:NUM_DRAWN])]
        texts = self.scored.set_index("trial")["architecture_json"]
        rows = [frame.loc[rank].to_dict() for rank in ranks]
        drawn = draw([Architecture.from_json(texts[row["trial"]]) for row in rows])
        return list(zip(ranks, rows, drawn, strict=True))

    @cached_property
    def verdicts(self) -> list[str]:
        """A sentence on each later measure: how far the proxy's ranking holds."""
        measures = self.agreement.groupby("measure", sort=True)
        return [analysis.verdict(str(measure), rows) for measure, rows in measures]

    @cached_property
    def refused_draws(self) -> dict[str, int]:
        """Draws that never became trials."""
        return results.refused_draws(self.study)

    @cached_property
    def figures(self) -> dict[str, go.Figure]:
        """The figures that there is something to draw in, by name."""
        drawn: dict[str, go.Figure] = {}
        if not self.scored.empty:
            drawn["size"] = figures.size_and_accuracy(self.scored, self.window)
            drawn["history"] = figures.history(self.scored)
        if len(self.scored) > 1:
            laid_out = analysis.stages(self.scored)
            drawn["stages"] = stage_figures.parallel_coordinates(laid_out)
            tenth = analysis.best_tenth(laid_out)
            if not tenth.empty:
                drawn["tenth"] = stage_figures.best_tenth(tenth)
        important = results.importances(self.study)
        if not important.empty:
            drawn["importances"] = stage_figures.importances(important)
        if not self.agreement.empty:
            drawn["agreement"] = figures.agreement(self.agreement)
        if not self.trained.empty:
            drawn["trained"] = figures.trained_in_full(self.trained, self.window)
        if not self.spent.empty:
            drawn["time"] = figures.time_spent(self.spent)
        return drawn
