"""What a search shows: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.cli.choices import DATA
from nas.cli.display import shown_by
from nas.cli.words import duration, study_argument, study_options

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console, Group
    from rich.progress import Progress as Bars

    from nas.progress import Progress

TOP = 10


def search_display(*, quiet: bool, data: Path) -> AbstractContextManager[Lines]:
    """Choose the display by where the output goes; `data` is what `--data` said."""
    return shown_by(
        lambda: Lines(quiet=quiet, data=data), lambda console: Screen(console, data), quiet=quiet
    )


class Lines:
    """Prints one line a trial, and at the end the leaderboard and what to type next."""

    def __init__(self, *, quiet: bool, data: Path = DATA) -> None:
        self._quiet = quiet
        self._data = data
        self._target = 0
        self._url = ""
        self._num_scored = 0
        self._best = 0.0
        self._started = time.monotonic()
        self._study: Study | None = None  # whose trials are scored now
        self._finalists: Study | None = None  # once they are

    def progress(self) -> Progress:
        """Give what `nas.search` tells of its work to this display."""
        from nas.progress import Progress

        return Progress(
            on_start=self.start,
            on_finalists=self.finalists,
            on_trial_start=self.trial_start,
            on_step=self.step,
            on_trial_end=self.trial_end,
            on_notice=self.notice,
            on_end=self.end,
        )

    def start(self, study: Study, target: int, url: str) -> None:
        """Say where the study stands."""
        self._target, self._url, self._study = target, url, study
        self._count()
        self._best = study.best_value if self._num_scored else 0.0
        self.say(f"study {study.study_name}: {self._num_scored} of {target} networks scored")

    def finalists(self, sister: Study, number: int) -> None:
        """Say what is scored again; from here on trials are those of the sister."""
        self._finalists = self._study = sister
        self._count()
        self._target = self._num_scored + number
        seeds = "1 score" if number == 1 else f"{number} scores"
        self.say(
            f"finalists: {seeds} to come, {_epochs(sister)} epochs each, on the same val split"
        )

    def trial_start(self, number: int, worker: int) -> None:
        """Say nothing: its end gets a line."""

    def step(self, done: int, total: int, worker: int) -> None:
        """Say nothing: a line a step is too many."""

    def notice(self, line: str) -> None:
        """Print what went wrong, also when asked to be quiet."""
        print("note:", line, file=sys.stderr)

    def trial_end(self, trial: FrozenTrial) -> None:
        """Print a trial's number, result, size and architecture."""
        name = trial_name(trial)
        if trial.value is None:
            self.say(f"{name}: {trial.state.name} {reason(trial)}")
            return
        self._count()
        if self._finalists is not None:
            self.say(f"[{self._num_scored}/{self._target}] {finalist(trial)}")
            return
        is_best = trial.value > self._best
        self._best = max(self._best, trial.value)
        self.say(f"[{self._num_scored}/{self._target}] {result(trial, is_best=is_best)}")

    def end(self, study: Study, why: str) -> None:
        """Print the ten best and the commands to go on with."""
        from nas.cli.leaderboard import print_table
        from nas.find_study import study_url
        from nas.results import leaderboard, refused_draws

        ending = {"complete": "complete", "timeout": "stopped by --timeout"}.get(why, why)
        self.say(f"{ending}, {duration(time.monotonic() - self._started)}")
        self.say(f"draws refused before any trial: {refused(refused_draws(study))}")
        frame = leaderboard(study)
        if frame.empty:
            return
        print_table(study, frame.head(TOP))
        storage = None if self._url == study_url(study.study_name) else self._url
        options = study_options(study.study_name, storage)
        named = study_argument(study.study_name, storage)
        print(f"\nlook:    python -m nas dashboard{named}")
        print(f"report:  python -m nas report{named}")
        if self._data != DATA:
            options += f" --data {shlex.quote(str(self._data))}"
        print(f"retrain: python -m nas retrain --trial {frame['trial'].iloc[0]}{options}")

    def _count(self) -> None:
        """Count what is scored, by whichever search: others may share the target."""
        from nas.outages import DATABASE_ERRORS
        from nas.trials import num_scored

        assert self._study is not None
        with suppress(*DATABASE_ERRORS):  # the number stays as it was; the next trial asks again
            self._num_scored = num_scored(self._study)

    def say(self, line: str) -> None:
        """Print a line that stays, unless asked to be quiet."""
        if not self._quiet:
            print(line, flush=True)

    def close(self) -> None:
        """Nothing to clear away."""


@dataclass(frozen=True)
class _Running:
    """A running trial: its number, what it is called, its steps done and in all."""

    number: int
    name: str
    done: int = 0
    total: int = 1


class Screen(Lines):
    """Shows the search in place: how far it is, each running trial, the best, what failed.

    Above it stay the networks that were the best so far, and what failed.
    """

    def __init__(self, console: Console, data: Path = DATA) -> None:
        from rich.live import Live

        super().__init__(quiet=False, data=data)
        self._console = console
        self._epochs = 1
        self._refused: Counter[str] = Counter()
        self._num_failed = 0
        self._num_scored_at_start = 0
        self._best_line = "none yet"
        self._running: dict[int, _Running] = {}  # by worker
        self._stage_started = self._started
        self._live = Live(
            console=console,
            transient=True,
            refresh_per_second=4,
            get_renderable=self.shown,
        )

    def start(self, study: Study, target: int, url: str) -> None:
        """Say where the study stands, and show the display."""
        from nas.results import refused_draws

        super().start(study, target, url)
        self._epochs = _epochs(study)
        self._refused = Counter(refused_draws(study))
        trials = study.get_trials(deepcopy=False)
        self._num_failed = sum(trial.state.name == "FAIL" for trial in trials)
        self._num_scored_at_start = self._num_scored
        if self._num_scored:
            self._best_line = result(study.best_trial, is_best=False)
        self._started = self._stage_started = time.monotonic()
        self._live.start()

    def finalists(self, sister: Study, number: int) -> None:
        """Show how far the finalists are, in place of the search."""
        super().finalists(sister, number)
        self._epochs, self._running = _epochs(sister), {}
        self._num_scored_at_start, self._stage_started = self._num_scored, time.monotonic()

    def trial_start(self, number: int, worker: int) -> None:
        """Show a running trial."""
        name = f"trial {number}"
        if self._finalists is not None:
            name = trial_name(self._finalists.get_trials(deepcopy=False)[number])
        self._running[worker] = _Running(number, name)

    def step(self, done: int, total: int, worker: int) -> None:
        """Move a running trial's bar."""
        if worker in self._running:
            self._running[worker] = replace(self._running[worker], done=done, total=total)

    def notice(self, line: str) -> None:
        """Print what went wrong above the display."""
        self.say(f"note: {line}")

    def trial_end(self, trial: FrozenTrial) -> None:
        """Take in a trial's result; a line stays of the best so far and of failures."""
        self._running = {w: r for w, r in self._running.items() if r.number != trial.number}
        self._refused.update(trial.user_attrs.get("draws", {}))
        if trial.value is None:
            self._num_failed += trial.state.name == "FAIL"
            super().trial_end(trial)
        elif self._finalists is not None:
            super().trial_end(trial)
        elif trial.value > self._best:
            self._best_line = result(trial, is_best=False)
            super().trial_end(trial)
        else:
            self._count()

    def end(self, study: Study, why: str) -> None:
        """Clear the display away and print the ten best."""
        self.close()
        super().end(study, why)

    def say(self, line: str) -> None:
        """Print a line above the display."""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Clear the display away."""
        self._live.stop()

    def shown(self) -> Group:
        """Draw the display: bars for the study and the running trials, lines of figures."""
        from rich.console import Group
        from rich.text import Text

        bars = self._bars()
        figures = (
            f"best: {self._best_line}",
            f"refused for free: {refused(self._refused)}; failed: {self._num_failed}",
        )
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in figures]
        return Group(bars, *lines)

    def _bars(self) -> Bars:
        from rich.progress import BarColumn, Progress, TextColumn

        bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[where]}", markup=False),
            console=self._console,
            expand=True,
        )
        bars.add_task(
            "networks" if self._finalists is None else "finalists",
            total=self._target,
            completed=self._num_scored,
            where=f"{self._num_scored}/{self._target}{self._left()}",
        )
        for running in list(self._running.values()):  # drawn by a thread of its own
            epoch = min(running.done * self._epochs // running.total + 1, self._epochs)
            bars.add_task(
                running.name,
                total=running.total,
                completed=running.done,
                where=f"epoch {epoch}/{self._epochs}",
            )
        return bars

    def _left(self) -> str:
        """Estimate the time left from what was scored since the start."""
        scored = self._num_scored - self._num_scored_at_start
        if not scored:
            return ""
        each = (time.monotonic() - self._stage_started) / scored
        return f", {duration(each * max(0, self._target - self._num_scored))} left"


def result(trial: FrozenTrial, *, is_best: bool) -> str:
    """Put a scored trial in a line."""
    attrs = trial.user_attrs
    return (
        f"trial {trial.number}: {trial.value:7.2%}{'*' if is_best else ' '} "
        f"{attrs['num_params']:>9,} params ({attrs['budget_share']:.0%}) "
        f"{attrs['elapsed_seconds']:5.1f} s  {attrs['architecture']}  ({attrs['proposed_by']})"
    )


def trial_name(trial: FrozenTrial) -> str:
    """Name a trial; a finalist by the trial that it scores again."""
    attrs = trial.user_attrs
    if "source_trial" not in attrs:
        return f"trial {trial.number}"
    return f"finalist {attrs['source_trial']} seed {attrs['seed']}"


def finalist(trial: FrozenTrial) -> str:
    """Put a finalist's score in a line."""
    attrs = trial.user_attrs
    return (
        f"{trial_name(trial)}: {trial.value:7.2%} {attrs['elapsed_seconds']:5.1f} s  "
        f"{attrs['architecture']}"
    )


def _epochs(study: Study) -> int:
    """Read the epochs of a trial."""
    from nas.study import stored_identity

    return int(stored_identity(study)["proxy.epochs"])


def reason(trial: FrozenTrial) -> str:
    """Say why a trial has no score."""
    attrs = trial.user_attrs
    known = [attrs[key] for key in ("fail_reason", "fail_detail") if key in attrs]
    return ": ".join(known) or "over budget"


def refused(draws: dict[str, int]) -> str:
    """Say how many draws never became trials, by reason."""
    reasons = ("over", "under", "known")
    return ", ".join(f"{draws[name]:,} {name}" for name in reasons if draws.get(name)) or "none"
