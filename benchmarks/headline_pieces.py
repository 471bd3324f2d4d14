"""The pieces of the headline: how large everything is, what was decided, and the commands."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measured import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parent.parent
SHARE_PLANNED = 0.9  # of the minutes for trainings; the rest is start-up
WINNER, PACE = "winner.json", "winner_throughput.csv"  # its network, and its images a second
SEARCHED = 1.7  # a step of eight random networks of the window, to ResNet26_97's (H200)


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        study: Name of the study.
        dataset: Of all commands.
        size: Most parameters of a network.
        search: Further flags of search.py.
        baseline: What retrain.py is told to train the hand-made network.
        proxied: Further flags of training_speed.py.
        timed: Flags of retrain_throughput.py, of the hand-made network.
        paced: Likewise, of the winner.
        settings: Flags of every full training.
        num_images: Of an epoch of full training.
        search_epochs: Of all proxy runs of the search.
        seeds: Of each full training that is compared.
        seed_epochs: Under the recipe `seed`.
        schedules: Epochs that are considered, ascending.
        minutes: For the trainings under `strong`, and for the longest one.
        fast_epochs: Of the short schedules.
        pieces: Names of those that are run, in order.
    """

    study: str
    dataset: str
    size: int
    search: str
    baseline: str
    proxied: str
    timed: str
    paced: str
    settings: str
    num_images: int
    search_epochs: int
    seeds: int
    seed_epochs: int
    schedules: tuple[int, ...]
    minutes: tuple[float, float]
    fast_epochs: tuple[int, ...]
    pieces: tuple[str, ...] = ("speed", "search", "pace", "seed", "strong", "longest", "fast")


FULL = Scale(
    study="cifar10-resnet-5M-standard",
    dataset="cifar10",
    size=5_000_000,
    search="--budget 5e6 --trials 200",
    baseline="--model ResNet26_97",
    proxied="",
    timed="--model ResNet26_97 --recipes strong seed --steps 100 --rounds 5 --workers 12",
    paced="--steps 100 --rounds 3",
    settings="",
    num_images=50_000,
    search_epochs=200 * 4 + 15 * 16,  # trials of `standard`, then 5x3 finalists
    seeds=3,
    seed_epochs=200,
    schedules=(30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1000),
    minutes=(54.0, 25.0),
    fast_epochs=(10, 20, 40, 80),
)
SHORT = replace(
    FULL,
    study="cifar10-resnet-5M-short",
    search="--budget 5e6 --trials 6 --finalists 0",
    proxied="--steps 20 --repeats 2",
    timed="--model ResNet26_97 --recipes strong seed --steps 30 --rounds 3 --workers 12",
    paced="--steps 30 --rounds 1",
    search_epochs=6 * 4,
    seeds=1,
    schedules=(5, 8, 10, 15, 20, 30),
    minutes=(1.0, 0.0),
    pieces=("speed", "search", "pace", "strong"),
)
TINY = Scale(
    study="synthetic-resnet-20k-quick-epochs1-resolution8",
    dataset="synthetic",
    size=20_000,
    search="--budget 20k --trials 2 --proxy quick --epochs 1 --resolution 8 --finalists 1x1",
    baseline="--trial 0",
    proxied="--steps 1 --repeats 1",
    timed="--model ResNet-20 --recipes strong seed --steps 1 --rounds 1 --workers 1",
    paced="--steps 1 --rounds 1",
    settings="--resolution 8 --batch-size 1000",
    num_images=10_000,
    search_epochs=2 + 4,
    seeds=2,
    seed_epochs=1,
    schedules=(1, 2),
    minutes=(0.5, 10.0),
    fast_epochs=(1,),
)


@dataclass(frozen=True)
class Command:
    """One command of this tool, as it is typed.

    Attributes:
        text: Without `python`, and without where the data and the device are.
        seconds: What it will about take, or `None` before anything was measured.
    """

    text: str
    seconds: float | None = None

    def arguments(self, data: Path, device: str) -> list[str]:
        """Give what Python is started with."""
        script, *flags = shlex.split(self.text)
        return [str(ROOT / script), *flags, "--data", str(data), "--device", device]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was decided on the way, each once: kept in `results/plan.json`.

    Attributes:
        study: Of the scale for which it was decided.
        seconds_an_epoch: Of full training, by recipe; without those that could not be measured.
        seconds_a_proxy_epoch: Likewise, of a proxy run of a network of the full size, or `None`.
        winner: The trial that the search names on validation, and what it is; `None` before.
        pace: Seconds of its epoch under `strong`, by those of the hand-made network; 1 where they
            could not be measured; `None` before.
        strong_epochs: Of the comparison; `None` before there is a pace.
        longest_epochs: Of the longest schedule, likewise.
    """

    study: str
    seconds_an_epoch: dict[str, float]
    seconds_a_proxy_epoch: float | None
    winner: dict[str, Any] | None = None
    pace: float | None = None
    strong_epochs: int | None = None
    longest_epochs: int | None = None

    @classmethod
    def load(cls, results: Path) -> Plan | None:
        """Read it; `None` before anything was decided."""
        path = results / "plan.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def save(self, results: Path) -> None:
        """Write it."""
        (results / "plan.json").write_text(json.dumps(vars(self), indent=2) + "\n")


def fitting_epochs(schedules: Sequence[int], seconds_an_epoch: float | None, minutes: float) -> int:
    """Give the longest schedule that fits in so many minutes, or the shortest.

    A part of the minutes is left for starting and stopping. The shortest, too, where an epoch's
    seconds, of all trainings together, are not known.
    """
    if seconds_an_epoch is None:
        return schedules[0]
    most = SHARE_PLANNED * minutes * 60 / seconds_an_epoch
    return max((epochs for epochs in schedules if epochs <= most), default=schedules[0])


def plan_speeds(scale: Scale, results: Path) -> Plan:
    """Begin a plan with the measured speeds, of which any may be missing."""
    speeds = _speeds(results / "retrain_throughput.csv")
    trial = [r for r in read_rows(results / "training_speed.csv") if r["what"] == "trial"]
    return Plan(
        study=scale.study,
        seconds_an_epoch={name: scale.num_images / speed for name, speed in speeds.items()},
        seconds_a_proxy_epoch=float(trial[-1]["seconds"]) if trial else None,
    )


def _speeds(path: Path) -> dict[str, float]:
    """Give the images a second of this tool's loop, by recipe; of none where none was measured."""
    return {
        row["recipe"]: float(row["images_per_second"])
        for row in read_rows(path)
        if row["loop"] == "nas"
    }


def plan_epochs(scale: Scale, plan: Plan, results: Path) -> Plan:
    """Decide on the epochs by what one of the winner takes, and one of the hand-made network."""
    strong = plan.seconds_an_epoch.get("strong")
    speed = _speeds(results / PACE).get("strong")
    pace = scale.num_images / speed / strong if speed and strong else 1.0
    for_both, for_longest = scale.minutes
    of_both, of_longest = (strong and strong * n for n in (scale.seeds * (1 + pace), pace))
    return replace(
        plan,
        pace=round(pace, 3),
        strong_epochs=fitting_epochs(scale.schedules, of_both, for_both),
        longest_epochs=fitting_epochs(scale.schedules, of_longest, for_longest),
    )


# The pieces


def speed(scale: Scale, _plan: Plan | None) -> list[Command]:
    """Time a proxy trial and full training at full size."""
    size, out = scale.size, "results/training_speed.csv"
    return [
        Command(
            f"benchmarks/training_speed.py --dataset {scale.dataset} --sizes {size} --out {out} "
            f"{scale.proxied}".strip(),
            180,
        ),
        Command(
            f"benchmarks/retrain_throughput.py --dataset {scale.dataset} {scale.timed} "
            "--out results/retrain_throughput.csv",
            180,
        ),
    ]


def search(scale: Scale, plan: Plan | None) -> list[Command]:
    """Search, finalists included."""
    an_epoch = plan.seconds_a_proxy_epoch if plan else None
    seconds = an_epoch and an_epoch * scale.search_epochs * SEARCHED
    flags = f"--dataset {scale.dataset} --study {scale.study}"
    return [Command(f"search.py {scale.search} {flags}", seconds)]


def pace(scale: Scale, _plan: Plan | None) -> list[Command]:
    """Time full training of the winner: epochs of larger batches, as trials have, tell little."""
    flags = f"--recipes strong --no-dataloader {scale.paced} --out results/{PACE}"
    return [
        Command(
            f"benchmarks/retrain_throughput.py --dataset {scale.dataset} "
            f"--architecture results/{WINNER} {flags}",
            60,
        )
    ]


def seed(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the hand-made network by the recipe it was made with."""
    epochs = scale.seed_epochs
    return [
        _training(scale, plan, scale.baseline, "seed", epochs, number + 1)
        for number in range(scale.seeds)
    ]


def strong(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the hand-made network and the winner alike, a seed of each at a time."""
    epochs = plan and plan.strong_epochs
    return [
        _training(scale, plan, network, "strong", epochs, number + 1)
        for number in range(scale.seeds)
        for network in (scale.baseline, _winner(plan))
    ]


def longest(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the winner by the longest schedule that fits."""
    epochs = plan and plan.longest_epochs
    return [_training(scale, plan, _winner(plan), "strong", epochs, 1)]


def fast(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the winner by short schedules: seconds to an accuracy, all of them reported."""
    settings = (
        " --peak-lr 0.4 --schedule linear --warmup-fraction 0.2 --ema-decay 0.99"
        " --augmentations translate,flip,cutout"
    ) + ("" if scale.settings else " --batch-size 512")
    return [
        _training(scale, plan, _winner(plan), "strong", epochs, scale.seeds, settings)
        for epochs in scale.fast_epochs
    ]


PIECES: dict[str, Callable[[Scale, Plan | None], list[Command]]] = {
    "speed": speed,
    "search": search,
    "pace": pace,
    "seed": seed,
    "strong": strong,
    "longest": longest,
    "fast": fast,
}


def _winner(plan: Plan | None) -> str:
    return f"--trial {plan.winner['trial']}" if plan and plan.winner else "--trial WINNER"


def _training(
    scale: Scale,
    plan: Plan | None,
    network: str,
    recipe: str,
    epochs: int | None,
    seeds: int,
    settings: str = "",
) -> Command:
    """Train a network; earlier seeds of the same training are there already, but for `fast`."""
    asked = f"{network} --recipe {recipe} --epochs {epochs or 'EPOCHS'} --seeds {seeds}{settings}"
    num_new = seeds if settings else 1
    an_epoch = plan.seconds_an_epoch.get(recipe) if plan else None
    pace = plan.pace if plan and plan.pace and network == _winner(plan) else 1.0
    seconds = an_epoch and epochs and an_epoch * pace * epochs * num_new
    return Command(f"retrain.py {asked} --study {scale.study} {scale.settings}".strip(), seconds)
