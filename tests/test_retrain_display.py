"""What a full training shows on a terminal and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from nas.cli.retrain_display import Lines, Screen, retrain_display
from nas.cli.words import duration
from nas.retrain_progress import Retrained

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = {
    "epoch": 0,
    "train_loss": 1.23456,
    "train_accuracy": 0.5,
    "val_accuracy": 0.25,
    "num_images": 45_000,
    "elapsed_seconds": 10.0,
}
DONE = Retrained(Path("a[b]"), 3, "trial-42", 1, 200, "test", 0.9712, 0.9734, 0.1, 3723.0)


def drive(display: Lines) -> None:
    """Tell a display of a training of 2 epochs of 10 steps."""
    display.start(Path("studies/x/trial-42/strong/seed-1"), 1, 2)
    for step in range(1, 21):
        display.step(step, 20)
        if step == 10:
            display.epoch(ROW)
            display.warning("step-1.safetensors is damaged [sic]")
    display.end(DONE)
    display.winner("trial-42")
    display.close()


def screen(width: int) -> str:
    file = io.StringIO()
    drive(Screen(Console(file=file, force_terminal=True, width=width, highlight=False)))
    return file.getvalue()


@pytest.fixture
def plain(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*, quiet: bool) -> str:
        with retrain_display(quiet=quiet) as display:
            drive(display)
        return capsys.readouterr().out

    return run


def test_without_a_terminal_it_prints_a_plain_line_an_epoch(plain: Callable[..., str]) -> None:
    lines = plain(quiet=False).splitlines()
    assert lines[0] == "seed 1: studies/x/trial-42/strong/seed-1"
    assert lines[1].startswith("epoch 1/2: loss 1.2346 train 50.00% val 25.00% 4,500 images/s, ")
    assert lines[2:] == [
        "trial-42 seed 1: test 97.12% (flip-averaged 97.34%) after 200 epochs in 1h02m",
        "winner by mean val accuracy: trial-42",
    ]


def test_quiet_prints_nothing_but_warnings(plain: Callable[..., str]) -> None:
    assert plain(quiet=True) == ""


def test_on_a_terminal_the_running_epoch_stands_in_one_place() -> None:
    shown = screen(80)
    assert "epoch 2/2" in shown
    assert "loss 1.2346 train 50.00% val 25.00% 4,500 images/s" in shown
    assert "warning: step-1.safetensors is damaged [sic]" in shown  # no markup of ours
    assert shown.rstrip().endswith("winner by mean val accuracy: trial-42")


def test_on_a_narrow_terminal_the_live_part_stays_within_its_lines() -> None:
    live = Screen(Console(file=io.StringIO(), force_terminal=True, width=40))
    live.start(Path("somewhere"), 0, 200)
    live.step(1, 20)
    live.epoch(ROW | {"epoch": 199})
    console = Console(file=io.StringIO(), width=40)
    rendered = console.render_lines(live.shown, pad=False)
    live.close()
    assert len(rendered) == 2
    assert all(sum(part.cell_length for part in line) <= 40 for line in rendered)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (3600, "1h00m")]
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words
