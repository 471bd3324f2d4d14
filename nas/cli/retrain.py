"""`nas retrain`, `retrain.py`: full training of chosen networks."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.choices import DATA, AnyStudy, ArchitectureFile, Model, Ranking, Storage
from nas.errors import UserError
from nas.retrain import retrain as run_retrain

if TYPE_CHECKING:
    from nas.retrain_progress import Retrained


def retrain(
    trial: Annotated[int | None, typer.Option(help="Number of a scored trial")] = None,
    top: Annotated[
        int | None, typer.Option(help="Compare the best N on val, train the winner in full")
    ] = None,
    by: Ranking = "finalist",
    model: Model = None,
    architecture: ArchitectureFile = None,
    study: AnyStudy = None,
    storage: Storage = None,
    recipe: Annotated[str, typer.Option(help="strong, seed, or a TOML file")] = "strong",
    seeds: Annotated[int, typer.Option(help="How many; they are 0, 1, ...")] = 1,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Keep val out of training and score it, not test")
    ] = False,
    dataset: Annotated[str | None, typer.Option(help="Instead of the study's")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side, with --dataset folder:PATH")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the data set")] = DATA,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    resolution: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's")] = None,
    peak_lr: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    momentum: Annotated[float | None, typer.Option(help="Instead of the recipe's")] = None,
    nesterov: Annotated[bool | None, typer.Option(help="Instead of the recipe's")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or linear")] = None,
    decay_on_all: Annotated[
        bool | None, typer.Option(help="Whether batch norm and biases decay as well")
    ] = None,
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
    compile: Annotated[  # noqa: A002 - the flag's name
        bool, typer.Option("--compile", help="Run networks through torch.compile")
    ] = False,
    export: Annotated[
        str | None, typer.Option(help="Save models in these formats as well: onnx,pt2,fp16")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only")] = False,
) -> None:
    """Train chosen networks in full; the same command goes on where it was interrupted.

    \b
    retrain.py --trial 42
    retrain.py --trial 42 --recipe seed --epochs 100 --seeds 3
    retrain.py --top 3
    retrain.py --model ResNet26_97 --dataset cifar10
    """
    from nas.cli.retrain_display import retrain_display
    from nas.storage import silence_optuna

    silence_optuna()
    with retrain_display(quiet=quiet) as display:
        retrained = run_retrain(
            trial,
            top=top,
            by=by,
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
            compile=compile,
            export=_names(export) or [],
            listener=display.listener(),
            epochs=epochs,
            resolution=resolution,
            batch_size=batch_size,
            peak_lr=peak_lr,
            momentum=momentum,
            is_nesterov=nesterov,
            schedule=schedule,
            is_decay_on_all=decay_on_all,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            warmup_fraction=warmup_fraction,
            ema_decay=ema_decay,
            augmentations=_names(augmentations),
            precision=precision,
        )
    print_summary(retrained)
    if display.failures:
        raise UserError(f"{len(display.failures)} failed, the first: {display.failures[0]}")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name]


def print_summary(retrained: list[Retrained]) -> None:
    """Print mean and spread over seeds of every network and split, and where the files are."""
    from nas.history import in_epochs
    from nas.saved_model import WEIGHTS

    groups: dict[tuple[str, str], list[Retrained]] = {}
    for each in retrained:
        groups.setdefault((each.name, each.split), []).append(each)
    for (name, split), seeds in groups.items():
        plain = _mean_and_spread([each.accuracy for each in seeds])
        flipped = _mean_and_spread([each.flip_accuracy for each in seeds])
        number = f"{len(seeds)} seed{'s'[: len(seeds) > 1]}"
        epochs = in_epochs(str(seeds[0].epochs))
        print(f"{name}: {split} {plain}, flip-averaged {flipped}, {epochs}, {number}")
        if any((each.folder / WEIGHTS).is_file() for each in seeds):
            print(f"files: {seeds[0].folder.parent}")


def _mean_and_spread(accuracies: list[float]) -> str:
    mean = f"{statistics.mean(accuracies):.2%}"
    return mean if len(accuracies) < 2 else f"{mean} +- {statistics.stdev(accuracies):.2%}"
