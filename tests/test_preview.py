"""A dry run: what a search would do and take, told before it begins."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from commands import run
from optuna.trial import create_trial

from nas import preview
from nas.cli import preview as cli_preview
from nas.complexity import count_activations
from nas.search import plan, search

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study

    from nas.plan import Plan

SCRIPT = Path(__file__).parent.parent / "search.py"
pytestmark = pytest.mark.usefixtures("folder")
FLAGS = ("--dataset", "synthetic", "--proxy", "quick", "--device", "cpu")


def small(**settings: object) -> Plan:
    return plan(60_000, **{"dataset": "synthetic", "proxy": "quick", "device": "cpu", **settings})


def begin_study() -> None:
    """Begin a study, with one network whose score nobody trained for."""
    settings = {"dataset": "synthetic", "proxy": "quick", "device": "cpu", "workers": 0}
    search(60_000, 1, **settings, study="begun", timeout=0).add_trial(create_trial(value=0.5))


def dry_run(*flags: str, trials: int = 12, budget: str = "60k") -> None:
    assert run("search", "--dry-run", "--trials", str(trials), "--budget", budget, *flags) == 0


def test_a_dry_run_writes_nothing_and_says_what_would_be(folder: Path) -> None:
    command = [sys.executable, SCRIPT, "--dry-run", "--budget", "60k", "--trials", "12", *FLAGS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("*.db"))
    lines = done.stdout.splitlines()
    assert lines[0] == "study synthetic-resnet-60k-quick: new; a dry run writes nothing into it"
    for word in ("space", "smallest", "largest", "limit", "inside", "one trial", "search"):
        assert sum(line.startswith(word) for line in lines) == 1, word
    assert sum("%" in line for line in lines) == 5
    assert max(map(len, lines)) <= 80


def test_proposals_differ_and_keep_every_limit() -> None:
    planned = small(sampler="random")
    proposed = preview.proposals(planned, 5)
    assert len(set(proposed)) == 5
    assert all(planned.budget.admits(arch) for arch in proposed)


@pytest.mark.parametrize("sampler", ["default", "tpe"])
def test_what_it_would_propose_is_what_the_search_then_proposes(
    tiny: Callable[..., Study], sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(**tiny.keywords, budget=3_000, sampler=sampler)
    proposed = list(map(str, preview.proposals(planned, 3)))
    cli_preview.show_preview(planned, 4)
    shown = capsys.readouterr().out
    searched = [trial.user_attrs["architecture"] for trial in tiny(4, sampler=sampler).trials]
    assert proposed == searched[1:]
    assert f"baseline   {searched[0]}  (ResNet26_97 scaled), scored first" in shown


def test_the_share_inside_is_counted_over_the_whole_space() -> None:
    assert preview.num_inside(small(fill=0.0, max_macs=None)) > preview.num_inside(small()) > 0


@pytest.mark.parametrize(("workers", "threads"), [(0, 8), (1, 8), (2, 4), (3, 2), (16, 1)])
def test_workers_share_the_threads_evenly(workers: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        assert small(workers=workers).num_threads == threads
    finally:
        torch.set_num_threads(before)


def test_measuring_leaves_the_threads_as_they_were() -> None:
    planned, before = small(workers=2), torch.get_num_threads()
    pace = preview.measure(planned, preview.proposals(planned, 1)[0])
    assert torch.get_num_threads() == before
    assert pace.train_seconds > pace.val_seconds > 0
    assert preview.trial_seconds(planned, pace) > 0


def test_seconds_follow_the_activations_and_the_epochs() -> None:
    planned = small()
    arch = preview.proposals(planned, 1)[0]
    pace = preview.Pace(arch, 0.01, 0.0, 32)
    images = len(planned.data().train) * planned.proxy.epochs
    assert preview.trial_seconds(planned, pace) == pytest.approx(0.01 * images)
    halved = planned.proxy.model_copy(update={"width_factor": 0.5})
    share = count_activations(arch.scaled(0.5), 16) / count_activations(arch, 16)
    assert preview.trial_seconds(planned, pace, halved) == pytest.approx(0.01 * images * share)


def test_only_what_saves_time_is_named() -> None:
    quick = small()
    pace = preview.Pace(preview.proposals(quick, 1)[0], 0.01, 0.001, 32)
    assert list(preview.cheaper(quick, pace)) == [
        "--epochs 1",
        "--width-factor 0.5",
        "--epochs 1 --width-factor 0.5",
    ]
    assert "--proxy quick" in preview.cheaper(small(proxy="standard"), pace)


def test_trials_at_once_are_no_more_than_cores() -> None:
    assert preview.num_at_once(small(workers=0)) == preview.num_at_once(small()) == 1
    assert preview.num_at_once(small(workers=1_000)) == os.cpu_count()


def test_days_come_with_what_would_make_it_fit(capsys: pytest.CaptureFixture[str]) -> None:
    dry_run(*FLAGS, "--epochs", "1000", trials=2000)
    told = capsys.readouterr().out
    assert "That is days" in told
    assert "--epochs 500 --width-factor 0.5" in told
    assert "--proxy quick" not in told, "its thousand epochs were asked for"
    fits = re.search(r"--trials ([0-9]+) --finalists 0 +(1d00h|[0-9]+h[0-9]+m)  fits a day", told)
    assert fits, told


@pytest.mark.parametrize(("asked", "fitting"), [(9, 5), (2, 2)])
def test_the_trials_that_fit_a_day_are_counted_with_those_that_are_scored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: int, fitting: int
) -> None:
    monkeypatch.setattr(cli_preview, "_standing", lambda *_: 1)  # of which one is scored
    monkeypatch.setattr(preview, "trial_seconds", lambda *_: 6 * 3600)  # four a day
    monkeypatch.setattr(preview, "cheaper", lambda *_: {"--width-factor 0.5": 3 * 3600})
    monkeypatch.setattr(preview, "finalists_seconds", lambda *_: 30 * 3600)
    dry_run(*FLAGS, trials=asked)
    told = capsys.readouterr().out
    assert f"--trials {fitting} --finalists 0" in told
    # Another schedule begins anew, with all the trials that were asked for, and the finalists.
    hours = 0.5 * 6 * (asked + 5)
    anew = re.search(r"--width-factor 0.5 +(?:(\d+)d)?(\d+)h", told)
    assert anew
    assert int(anew[1] or 0) * 24 + int(anew[2]) == pytest.approx(hours, abs=1)


def test_a_schedule_that_diverges_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.preview.ENOUGH_SECONDS", math.inf)  # sixteen steps, however slow
    monkeypatch.setattr("nas.preview.MOST_STEPS", 16)
    (folder / "steep.toml").write_text("epochs = 1\nresolution = 8\npeak_lr = 100.0\n")
    assert run("search", "--dry-run", "--budget", "60k", *FLAGS, "--proxy", "./steep.toml") == 2
    error = capsys.readouterr().err
    assert "a trial by this schedule fails: the training loss of epoch 1 is nan" in error
    assert error.count("\n") == 1


def test_a_begun_study_is_continued_in_words_only(capsys: pytest.CaptureFixture[str]) -> None:
    begin_study()
    dry_run(*FLAGS, "--study", "begun", trials=3)
    told = capsys.readouterr().out
    assert "study begun: 1 of 3 networks scored" in told
    assert "search     2 trials" in told


@pytest.mark.parametrize("url", ["sqlite:///new.db", "sqlite+pysqlite:///new.db?timeout=9"])
def test_a_database_that_is_not_there_yet_is_not_made(url: str) -> None:
    assert small(storage=url).find() is None
    assert not Path("new.db").exists()


def test_a_study_that_could_not_be_continued_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin_study()
    assert run("search", "--dry-run", "--budget", "50k", *FLAGS, "--study", "begun") == 2
    told = capsys.readouterr().err
    assert re.search(r"parameters \(least, most\) is \[.*\] there, \[45000, 50000\] asked", told)


def test_where_fewer_networks_fit_fewer_are_proposed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "few.toml").write_text(
        "num_stages = 2\n[stage]\ndepth = 1\nwidth = { low = 8, high = 10, step = 2 }\n"
    )
    dry_run("--space", "few.toml", "--fill", "0", *FLAGS, budget="6k")
    assert sum("%" in line for line in capsys.readouterr().out.splitlines()) == 4


def test_what_was_typed_is_part_of_the_advice(folder: Path) -> None:
    (folder / "long.toml").write_text("epochs = 15\nresolution = 32\npeak_lr = 0.4\n")
    typed = small(proxy="long.toml", epochs=30)
    pace = preview.Pace(preview.proposals(typed, 1)[0], 0.01, 0.001, 32)
    quick = typed.proxy.model_copy(update={"resolution": 16})
    assert preview.cheaper(typed, pace)["--proxy quick"] == preview.trial_seconds(
        typed, pace, quick
    )
