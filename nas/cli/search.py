"""`nas search`, `search.py`: the main job, in plain lines."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.parse import parse_count, parse_duration
from nas.progress import Progress
from nas.search import search as run_search

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study
    from optuna.trial import FrozenTrial

TOP = 10


def search(
    budget: Annotated[str, typer.Option(help="Most parameters: 5e6, 5M, 250k")] = "5e6",
    trials: Annotated[int, typer.Option(help="Scored networks the study is to have")] = 200,
    fill: Annotated[float, typer.Option(help="Least share of the budget a network uses")] = 0.9,
    max_macs: Annotated[str | None, typer.Option(help="Largest number of multiply-adds")] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Largest size as float32")] = None,
    space: Annotated[str, typer.Option(help="Search space: a preset or a TOML file")] = "resnet",
    dataset: Annotated[
        str,
        typer.Option(
            help="cifar10, cifar100, fashion-mnist, folder:PATH, or synthetic (generated)"
        ),
    ] = "cifar10",
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side of a folder's images; 64 if absent")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the data set")] = Path("studies/data"),
    proxy: Annotated[
        str, typer.Option(help="quick, standard, thorough, or a TOML file")
    ] = "standard",
    epochs: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    resolution: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    width_factor: Annotated[float | None, typer.Option(help="Instead of the proxy's")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    sampler: Annotated[
        str, typer.Option(help="default, tpe, random, gp, cmaes or nsga2")
    ] = "default",
    study: Annotated[
        str | None, typer.Option(help="Its name; else data set-space-budget-proxy")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL; else sqlite:///studies/NAME.db")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes; else one a GPU, or one. 0: in this process")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="No trial starts after: 2h, 90m")] = None,
    trial_timeout: Annotated[str | None, typer.Option(help="A trial fails after: 10m")] = None,
    seed: Annotated[int, typer.Option(help="Of the proposals")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only")] = False,
) -> None:
    """Search networks within a parameter budget; the same command continues the study.

    \b
    search.py --budget 5e6 --trials 200
    search.py --dataset synthetic --budget 60k --trials 12 --proxy quick
    """
    from nas.storage import silence_optuna

    silence_optuna()
    lines = Lines(quiet=quiet)
    run_search(
        parse_count(budget),
        trials,
        fill=fill,
        max_macs=_given(parse_count, max_macs),
        max_bytes=_given(parse_count, max_bytes),
        space=space,
        dataset=dataset,
        image_size=image_size,
        data=data,
        proxy=proxy,
        epochs=epochs,
        resolution=resolution,
        width_factor=width_factor,
        batch_size=batch_size,
        sampler=sampler,
        study=study,
        storage=storage,
        device=device,
        workers=workers,
        timeout=_given(parse_duration, timeout),
        trial_timeout=_given(parse_duration, trial_timeout),
        seed=seed,
        progress=Progress(
            on_start=lines.start,
            on_trial_end=lines.trial_end,
            on_notice=lines.notice,
            on_end=lines.end,
        ),
    )


def _given(parse: Callable[[str], float], text: str | None) -> float | None:
    return None if text is None else parse(text)


class Lines:
    """Prints one line a trial, and at the end the leaderboard and what to type next."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._target = 0
        self._url = ""
        self._num_scored = 0
        self._best = 0.0
        self._started = time.monotonic()

    def start(self, study: Study, target: int, url: str) -> None:
        """Say where the study stands."""
        from nas.study import num_scored

        self._target, self._url, self._num_scored = target, url, num_scored(study)
        self._best = study.best_value if self._num_scored else 0.0
        self._say(f"study {study.study_name}: {self._num_scored} of {target} networks scored")

    def notice(self, line: str) -> None:
        """Print what went wrong, also when asked to be quiet."""
        print("note:", line, file=sys.stderr)

    def trial_end(self, trial: FrozenTrial) -> None:
        """Print a trial's number, result, size and architecture."""
        attrs = trial.user_attrs
        if trial.value is None:
            reason = ": ".join(attrs[k] for k in ("fail_reason", "fail_detail") if k in attrs)
            self._say(f"trial {trial.number}: {trial.state.name} {reason or 'over budget'}")
            return
        self._num_scored += 1
        best = trial.value > self._best
        self._best = max(self._best, trial.value)
        self._say(
            f"[{self._num_scored}/{self._target}] trial {trial.number}: "
            f"{trial.value:7.2%}{'*' if best else ' '} {attrs['num_params']:>9,} params "
            f"({attrs['budget_share']:.0%}) {attrs['elapsed_seconds']:5.1f} s  "
            f"{attrs['architecture']}  ({attrs['proposed_by']})"
        )

    def end(self, study: Study, why: str) -> None:
        """Print the ten best and the commands to go on with."""
        from nas.cli.leaderboard import print_table
        from nas.results import leaderboard, refused_draws
        from nas.storage import shown_url

        ending = {"complete": "complete", "timeout": "stopped by --timeout"}.get(why, why)
        draws = refused_draws(study)
        refused = ", ".join(f"{number:,} {reason}" for reason, number in draws.items())
        self._say(f"{ending}, {time.monotonic() - self._started:.0f} s")
        self._say(f"draws refused before any trial: {refused or 'none'}")
        frame = leaderboard(study)
        if frame.empty:
            return
        print_table(frame.head(TOP))
        print(f"\nlook:    optuna-dashboard {shown_url(self._url)}")
        print(
            f"retrain: python retrain.py --trial {frame['trial'].iloc[0]} "
            f"--study {study.study_name}"
        )

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)
