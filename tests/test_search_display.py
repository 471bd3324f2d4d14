"""What a search shows on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import optuna
import pytest
from fake_study import fake_study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from nas.cli.choices import DATA
from nas.cli.search_display import Lines, Screen
from nas.find_study import study_url

if TYPE_CHECKING:
    from pathlib import Path

    from rich.segment import Segment

ATTRS = {
    "num_params": 96_790,
    "budget_share": 0.968,
    "num_macs": 26_071_576,
    "elapsed_seconds": 78.1,
    "architecture": "1x28, 1x26 k5, 2x8 k7, 1x28 k5",
    "arch_id": "c62a0fe58e53",
    "proposed_by": "default",
    "draws": {"over": 3, "under": 1, "base": 1},
}
URL = "sqlite:///studies/s.db"


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(study_name="s", direction="maximize")
    study.set_user_attr("identity", json.dumps({"proxy.epochs": 4}))
    return study


def ended(study: optuna.Study, value: float | None) -> FrozenTrial:
    """Add a trial; without a value it failed."""
    failed = {"fail_reason": "diverged", "fail_detail": "[loss]"}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            value=value,
            user_attrs=failed if value is None else ATTRS,
        )
    )
    return study.trials[-1]


def drive(display: Lines, study: optuna.Study) -> None:
    """Two workers score 2 of 4 networks; one fails; a third runs."""
    display.start(study, 4, URL)
    display.trial_start(0, 0)
    display.trial_start(1, 1)
    display.step(5, 20, 0)
    display.trial_end(ended(study, 0.6))
    display.trial_end(ended(study, None))
    display.trial_start(2, 0)
    display.trial_end(ended(study, 0.5))
    display.trial_start(3, 1)
    display.step(15, 20, 1)


def screen(width: int, study: optuna.Study) -> tuple[str, list[str]]:
    """Give what stays on a terminal, and the lines of the live part."""
    file = io.StringIO()
    display = Screen(Console(file=file, force_terminal=True, width=width, highlight=False))
    drive(display, study)
    lines = Console(width=width).render_lines(display.shown(), pad=False)
    display.close()
    return file.getvalue(), texts(lines)


def texts(lines: list[list[Segment]]) -> list[str]:
    return ["".join(part.text for part in line).rstrip() for line in lines]


def test_without_a_terminal_every_trial_is_a_line(
    study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(Lines(quiet=False), study)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study s: 0 of 4 networks scored"
    assert lines[1].startswith("[1/4] trial 0:  60.00%*    96,790 params (97%)  78.1 s  1x28, 1x26")
    assert lines[2] == "trial 1: FAIL diverged: [loss]"
    assert lines[3].startswith("[2/4] trial 2:  50.00%  ")
    assert len(lines) == 4


def test_the_command_to_go_on_with_names_the_folder_of_the_data(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    study = fake_study(number=3)
    for data, ending in ((DATA, f"--study {study.study_name}"), (folder / "my data", "data'")):
        display = Lines(quiet=False, data=data)
        display.start(study, 3, study_url(study.study_name))
        display.end(study, "complete")
        assert capsys.readouterr().out.rstrip().endswith(ending)


def test_what_other_hosts_score_counts(
    study: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    display = Lines(quiet=False)
    display.start(study, 4, URL)
    ended(study, 0.7)
    ended(study, 0.8)
    display.trial_end(ended(study, 0.6))
    assert "[3/4] trial 2:  60.00%" in capsys.readouterr().out


def test_the_live_part_tells_where_the_search_and_its_trials_are(study: optuna.Study) -> None:
    _, live = screen(80, study)
    assert live[0].startswith("networks ")
    assert "2/4, " in live[0]
    assert live[0].endswith("left")
    assert live[1].startswith("trial 3 ")
    assert live[1].endswith("epoch 4/4")
    assert live[2].startswith("best: trial 0:  60.00%     96,790 params (97%)")
    assert live[3] == "refused for free: 6 over, 2 under; failed: 1"
    assert len(live) == 4


def test_the_best_so_far_and_failures_stay_above_it(study: optuna.Study) -> None:
    stays, _ = screen(80, study)
    assert "[1/4] trial 0:  60.00%*" in stays
    assert "trial 1: FAIL diverged: [loss]" in stays  # no markup of ours
    assert "[2/4]" not in stays


@pytest.mark.parametrize("width", [40, 80])
def test_the_live_part_stays_within_the_terminal(study: optuna.Study, width: int) -> None:
    _, live = screen(width, study)
    assert len(live) == 4
    assert max(map(len, live)) <= width


@pytest.fixture
def sister() -> optuna.Study:
    """Finalists: trial 0 with seed 1 is scored, with 2 and 3 waits."""
    sister = optuna.create_study(study_name="s-finalists", direction="maximize")
    sister.set_user_attr("identity", json.dumps({"proxy.epochs": 16}))
    for seed, state in ((1, "COMPLETE"), (2, "WAITING"), (3, "WAITING")):
        sister.add_trial(
            optuna.create_trial(
                state=TrialState[state],
                value=0.7 if state == "COMPLETE" else None,
                user_attrs={**ATTRS, "source_trial": 0, "seed": seed},
            )
        )
    return sister


def go_on(display: Lines, study: optuna.Study, sister: optuna.Study) -> None:
    """After the search, one finalist is scored, another runs."""
    drive(display, study)
    display.finalists(sister, 2)
    trial = sister.ask()
    display.trial_start(trial.number, 0)
    sister.tell(trial, 0.71)
    display.trial_end(sister.trials[trial.number])
    display.trial_start(sister.ask().number, 1)
    display.step(30, 80, 1)


def test_without_a_terminal_finalists_are_lines(
    study: optuna.Study, sister: optuna.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(Lines(quiet=False), study, sister)
    assert capsys.readouterr().out.splitlines()[4:] == [
        "finalists: 2 scores to come, 16 epochs each, on the same val split",
        "[2/3] finalist 0 seed 2:  71.00%  78.1 s  1x28, 1x26 k5, 2x8 k7, 1x28 k5",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_the_live_part_tells_where_the_finalists_are(
    study: optuna.Study, sister: optuna.Study, width: int
) -> None:
    display = Screen(Console(file=io.StringIO(), force_terminal=True, width=width))
    go_on(display, study, sister)
    live = texts(Console(width=width).render_lines(display.shown(), pad=False))
    display.close()
    assert live[0].startswith("finalists ")
    assert "2/3, " in live[0]
    assert live[1].startswith("finalist 0 seed 3 ")
    assert live[1].endswith("epoch 7/16")
    assert live[2].startswith("best: trial 0:  60.00%")
    assert len(live) == 4
    assert max(map(len, live)) <= width


def test_a_continued_search_begins_where_it_was(study: optuna.Study) -> None:
    ended(study, 0.7)
    display = Screen(Console(file=io.StringIO(), force_terminal=True, width=80))
    display.start(study, 4, URL)
    lines = Console(width=80).render_lines(display.shown(), pad=False)
    display.close()
    live = texts(lines)
    assert live[0].endswith("1/4")
    assert live[1].startswith("best: trial 0:  70.00%")
    assert live[2] == "refused for free: 3 over, 1 under; failed: 0"
