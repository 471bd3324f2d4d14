"""What a full training shows: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.display import shown_by
from nas.cli.words import duration

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from nas.formats import Exported
    from nas.retrain_progress import Retrained, RetrainListener


def retrain_display(*, quiet: bool) -> AbstractContextManager[Lines]:
    """Choose the display by where the output goes."""
    return shown_by(lambda: Lines(quiet=quiet), Screen, quiet=quiet)


class Lines:
    """Prints a line an epoch, with the time left, and one for each seed's end."""

    def __init__(self, *, quiet: bool) -> None:
        self.failures: list[str] = []
        self._quiet = quiet
        self._epochs = 0
        self._step_of_start: int | None = None
        self._started = time.monotonic()
        self._left = ""

    def listener(self) -> RetrainListener:
        """Give what `nas.retrain` tells of its work to this display."""
        from nas.retrain_progress import RetrainListener

        return RetrainListener(
            on_start=self.start,
            on_step=self.step,
            on_epoch=self.epoch,
            on_warning=self.warning,
            on_export=self.exported,
            on_failure=self.failure,
            on_end=self.end,
            on_winner=self.winner,
        )

    def start(self, folder: Path, seed: int, epochs: int) -> None:
        """Say where the training leaves its files."""
        self._epochs, self._step_of_start, self._left = epochs, None, ""
        self.say(f"seed {seed}: {folder}")

    def step(self, done: int, total: int) -> None:
        """Measure the time left, from where this process took up the training."""
        if self._step_of_start is None:
            self._step_of_start, self._started = done, time.monotonic()
        elif done > self._step_of_start:
            a_step = (time.monotonic() - self._started) / (done - self._step_of_start)
            self._left = f"{duration(a_step * (total - done))} left"

    def epoch(self, row: dict[str, Any]) -> None:
        """Print an epoch's loss, accuracy and speed."""
        left = f", {self._left}" if self._left else ""
        self.say(f"epoch {row['epoch'] + 1}/{self._epochs}: {figures(row)}{left}")

    def warning(self, line: str) -> None:
        """Print a warning, also when asked to be quiet."""
        typer.echo(f"warning: {line}", err=True)

    def failure(self, line: str) -> None:
        """Print what failed, also when asked to be quiet, and keep it."""
        self.failures.append(line)
        self.warning(line)

    def exported(self, exported: Exported) -> None:
        """Say what was written and how far it is from the model."""
        difference = f"{exported.max_difference:.1e}"
        self.say(f"exported {exported.path}: logits differ by at most {difference}")

    def end(self, retrained: Retrained) -> None:
        """Print what a seed reached."""
        from nas.history import in_epochs

        epochs = in_epochs(str(retrained.epochs))
        self.say(
            f"{retrained.name} seed {retrained.seed}: {retrained.split} {retrained.accuracy:.2%} "
            f"(flip-averaged {retrained.flip_accuracy:.2%}) after {epochs} "
            f"in {duration(retrained.elapsed_seconds)}"
        )

    def winner(self, name: str) -> None:
        """Name the winner before it is trained in full."""
        self.say(f"winner by mean val accuracy: {name}")

    def say(self, line: str) -> None:
        """Print a line that stays, unless asked to be quiet."""
        if not self._quiet:
            print(line, flush=True)

    def close(self) -> None:
        """Nothing to clear away."""


class Screen(Lines):
    """Shows the running seed in place: a bar with the time left, the latest epoch below it."""

    def __init__(self, console: Console) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.text import Text

        super().__init__(quiet=False)
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("", left="")
        self._latest = Text(no_wrap=True, overflow="ellipsis")
        self.shown = Group(self._bar, self._latest)
        self._live = Live(self.shown, console=console, transient=True)

    def start(self, folder: Path, seed: int, epochs: int) -> None:
        """Say where the training leaves its files, and show its bar."""
        super().start(folder, seed, epochs)
        self._latest.plain = ""
        self._bar.reset(self._task, description=f"epoch 1/{epochs}", left="")
        self._live.start()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        super().step(done, total)
        running = min(done * self._epochs // total + 1, self._epochs)
        self._bar.update(
            self._task,
            total=total,
            completed=done,
            description=f"epoch {running}/{self._epochs}",
            left=self._left,
        )

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's loss, accuracy and speed in place of the one before."""
        self._latest.plain = f"epoch {row['epoch'] + 1}: {figures(row)}"

    def warning(self, line: str) -> None:
        """Print a warning above the bar."""
        self.say(f"warning: {line}")

    def end(self, retrained: Retrained) -> None:
        """Clear the bar away and print what a seed reached."""
        self.close()
        super().end(retrained)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Clear the bar away."""
        self._live.stop()


def figures(row: dict[str, Any]) -> str:
    """Put an epoch's loss, accuracy and speed in words."""
    val = f" val {row['val_accuracy']:.2%}" if "val_accuracy" in row else ""
    speed = row["num_images"] / max(row["elapsed_seconds"], 1e-9)
    return (
        f"loss {row['train_loss']:.4f} train {row['train_accuracy']:.2%}{val} {speed:,.0f} images/s"
    )
