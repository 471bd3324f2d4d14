"""`nas retrain`, `retrain.py`: full training of chosen networks, in plain lines."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.retrain import retrain as run_retrain

if TYPE_CHECKING:
    from nas.retraining import Retrained


def retrain(
    trial: Annotated[int | None, typer.Option(help="Number of a scored trial")] = None,
    top: Annotated[
        int | None, typer.Option(help="Compare the best N on val, train the winner in full")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A hand-made network: ResNet26_97")] = None,
    architecture: Annotated[Path | None, typer.Option(help="An architecture's JSON file")] = None,
    study: Annotated[str | None, typer.Option(help="Its name, if there are several")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL; else those under studies/")
    ] = None,
    recipe: Annotated[str, typer.Option(help="strong, seed, or a TOML file")] = "strong",
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, ...")] = 1,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Keep val out of training and score it, not test")
    ] = False,
    dataset: Annotated[str | None, typer.Option(help="Instead of the study's")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side, with --dataset folder:PATH")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the data set")] = Path("studies/data"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    resolution: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    peak_lr: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    warmup_fraction: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    augmentations: Annotated[
        str | None, typer.Option(help="Instead of the recipe's: translate,flip")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32, bfloat16 or float16")
    ] = None,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Remove none of them")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only")] = False,
) -> None:
    """Train chosen networks in full; the same command goes on where it was interrupted.

    \b
    retrain.py --trial 42
    retrain.py --trial 42 --recipe seed --epochs 100 --seeds 3
    retrain.py --top 3
    retrain.py --model ResNet26_97 --dataset cifar10
    """
    from nas.retraining import RetrainListener
    from nas.storage import silence_optuna

    silence_optuna()
    lines = Lines(quiet=quiet)
    names = None if augmentations is None else [n for n in augmentations.split(",") if n]
    retrained = run_retrain(
        trial,
        top=top,
        model=model,
        architecture=architecture,
        study=study,
        storage=storage,
        recipe=recipe,
        seeds=seeds,
        holdout=holdout,
        dataset=dataset,
        image_size=image_size,
        data=data,
        device=device,
        keep_checkpoints=keep_checkpoints,
        listener=RetrainListener(
            lines.start, lines.step, lines.epoch, lines.warning, lines.end, lines.winner
        ),
        epochs=epochs,
        resolution=resolution,
        batch_size=batch_size,
        peak_lr=peak_lr,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        warmup_fraction=warmup_fraction,
        ema_decay=ema_decay,
        augmentations=names,
        precision=precision,
    )
    print_summary(retrained)


class Lines:
    """Prints a line an epoch, with the time left, and one for each seed's end."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._epochs = 0
        self._step_of_start: int | None = None
        self._started = time.monotonic()
        self._left = ""

    def start(self, folder: Path, seed: int, epochs: int) -> None:
        """Say where the training leaves its files."""
        self._epochs, self._step_of_start, self._left = epochs, None, ""
        self._say(f"seed {seed}: {folder}")

    def step(self, done: int, total: int) -> None:
        """Measure the time left, from where this process took up the training."""
        if self._step_of_start is None:
            self._step_of_start, self._started = done, time.monotonic()
        elif done > self._step_of_start:
            a_step = (time.monotonic() - self._started) / (done - self._step_of_start)
            self._left = f", {_duration(a_step * (total - done))} left"

    def epoch(self, row: dict[str, Any]) -> None:
        """Print an epoch's loss, accuracy and speed."""
        val = f" val {row['val_accuracy']:.2%}" if "val_accuracy" in row else ""
        speed = row["num_images"] / max(row["elapsed_seconds"], 1e-9)
        self._say(
            f"epoch {row['epoch'] + 1}/{self._epochs}: loss {row['train_loss']:.4f} "
            f"train {row['train_accuracy']:.2%}{val} {speed:,.0f} images/s{self._left}"
        )

    def warning(self, line: str) -> None:
        """Print a warning, also when asked to be quiet."""
        typer.echo(f"warning: {line}", err=True)

    def end(self, retrained: Retrained) -> None:
        """Print what a seed reached."""
        self._say(
            f"{retrained.name} seed {retrained.seed}: {retrained.split} {retrained.accuracy:.2%} "
            f"(flip-averaged {retrained.flip_accuracy:.2%}) in "
            f"{_duration(retrained.elapsed_seconds)}"
        )

    def winner(self, name: str) -> None:
        """Name the winner before it is trained in full."""
        self._say(f"winner by mean val accuracy: {name}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)


def print_summary(retrained: list[Retrained]) -> None:
    """Print mean and spread over seeds of every network and split, and where the files are."""
    groups: dict[tuple[str, str], list[Retrained]] = {}
    for each in retrained:
        groups.setdefault((each.name, each.split), []).append(each)
    for (name, split), seeds in groups.items():
        plain = _mean_and_spread([each.accuracy for each in seeds])
        flipped = _mean_and_spread([each.flip_accuracy for each in seeds])
        print(f"{name}: {split} {plain}, flip-averaged {flipped}, {len(seeds)} seed(s)")
        print(f"files: {seeds[0].folder.parent}")


def _mean_and_spread(accuracies: list[float]) -> str:
    mean = f"{statistics.mean(accuracies):.2%}"
    return mean if len(accuracies) < 2 else f"{mean} +- {statistics.stdev(accuracies):.2%}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
