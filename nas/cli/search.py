"""`nas search`, `search.py`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.choices import DATA
from nas.cli.parse import parse_count, parse_duration
from nas.cli.preview import show_preview
from nas.errors import UserError, whole_number
from nas.search import plan
from nas.search import search as run_search

if TYPE_CHECKING:
    from collections.abc import Callable


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
    data: Annotated[Path, typer.Option(help="Folder of the data set")] = DATA,
    proxy: Annotated[
        str, typer.Option(help="quick, standard, thorough, or a TOML file")
    ] = "standard",
    epochs: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    resolution: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    width_factor: Annotated[float | None, typer.Option(help="Instead of the proxy's")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the proxy's")] = None,
    finalists: Annotated[
        str | None, typer.Option(help="Score the best again: 5x3, or 0 for none; else the proxy's")
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="default, tpe, random, gp, cmaes or nsga2")
    ] = "default",
    study: Annotated[
        str | None, typer.Option(help="Its name; else data set-space-budget-proxy")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL or file.db; else studies/NAME.db")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes; else one a GPU, or one. 0: in this process")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="No trial starts after: 2h, 90m")] = None,
    trial_timeout: Annotated[str | None, typer.Option(help="A trial fails after: 10m")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop when so many trials in a row brought nothing better")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the proposals")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do and take, and end")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only")] = False,
) -> None:
    """Search networks within a parameter budget; the same command continues the study.

    \b
    search.py --budget 5e6 --trials 200
    search.py --dataset synthetic --budget 60k --trials 12 --proxy quick
    """
    from nas.cli.search_display import search_display
    from nas.storage import silence_optuna

    silence_optuna()
    asked: dict[str, Any] = {
        "fill": fill,
        "max_macs": _given("--max-macs", parse_count, max_macs),
        "max_bytes": _given("--max-bytes", parse_count, max_bytes),
        "space": space,
        "dataset": dataset,
        "image_size": image_size,
        "data": data,
        "proxy": proxy,
        "epochs": epochs,
        "resolution": resolution,
        "width_factor": width_factor,
        "batch_size": batch_size,
        "finalists": finalists,
        "sampler": sampler,
        "study": study,
        "storage": storage,
        "device": device,
        "workers": workers,
        "trial_timeout": _given("--trial-timeout", parse_duration, trial_timeout),
        "patience": patience,
        "seed": seed,
    }
    max_params = _given("--budget", parse_count, budget) or 0
    seconds = _given("--timeout", parse_duration, timeout)
    whole_number("--trials", trials)
    if dry_run:
        show_preview(plan(max_params, **asked), trials)
        return
    with search_display(quiet=quiet, data=data) as display:
        run_search(max_params, trials, timeout=seconds, progress=display.progress(), **asked)


def _given(flag: str, parse: Callable[[str], float], text: str | None) -> float | None:
    """Read what a flag was given, if it was; what is wrong with it says which flag's it is."""
    try:
        return None if text is None else parse(text)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None
