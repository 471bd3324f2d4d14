"""The headline in pieces: search under 5M parameters on CIFAR-10, full trainings, on one GPU.

    python benchmarks/headline.py PIECE --work DIR --data DIR [--minutes 9] [--device cuda] [--tiny]

A piece is a list of ordinary commands of this tool, run in the folder `--work`; `PIECES` lists them
in order. `next` does what is left of all of them, in order; `status` only says what is left. Each
call ends before its minutes are up: a command that is not finished is stopped by Ctrl-C's signal,
keeps all it did, and the next call goes on with it. What is finished is not run again.

`DIR/results` holds small files only, those to publish. `--pack OUT` also leaves a small copy of the
work folder in OUT (databases, results, the newest checkpoint of what is not finished), from which
`--work OUT` goes on elsewhere. `--short` is made for one call: a search of 8 trials, one seed of a
short schedule, nothing that tells networks apart. `--tiny` tries all of it on a CPU, on generated
images. See docs/headline.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout's package, installed or not
CLOSING_SECONDS = 45.0  # kept for the report, the tables and the packing
STOP_SECONDS = 30.0  # for a command to end after Ctrl-C's signal, before it is killed
LEAST_SECONDS = 60.0  # with less than this left no command is started
SHARE_PLANNED = 0.9  # of the minutes for trainings; the rest is start-up
# `--compile` is used where its epochs are at least so much faster: each call compiles again, which
# takes a tenth of it and more.
COMPILE_GAIN = 1.25
SEARCHED = 1.4  # multiply-adds of 400 random networks of the window, to ResNet26_97's
MOST_FAILURES = 2  # of a command by itself, after which those behind it are run first
STOPPED = (0, 128 + signal.SIGINT, -signal.SIGINT, -signal.SIGKILL)  # exit codes of no failure
EXIT_LEFT = 3  # there is more to do, and the same call goes on with it


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
        timed: Flags of retrain_throughput.py.
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
    settings: str
    num_images: int
    search_epochs: int
    seeds: int
    seed_epochs: int
    schedules: tuple[int, ...]
    minutes: tuple[float, float]
    fast_epochs: tuple[int, ...]
    pieces: tuple[str, ...] = ("speed", "search", "seed", "strong", "longest", "fast")


FULL = Scale(
    study="cifar10-resnet-5M-standard",
    dataset="cifar10",
    size=5_000_000,
    search="--budget 5e6 --trials 200",
    baseline="--model ResNet26_97",
    proxied="",
    timed="--model ResNet26_97 --recipes strong seed --steps 100 --rounds 5 --workers 12 --compile",
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
    search="--budget 5e6 --trials 8 --finalists 1x1",
    proxied="--steps 20 --repeats 2",
    timed="--model ResNet26_97 --recipes strong seed --steps 30 --rounds 3 --workers 12",
    search_epochs=8 * 4 + 16,
    seeds=1,
    schedules=(5, 8, 10, 15, 20, 30),
    minutes=(2.0, 0.0),
    pieces=("speed", "search", "strong"),
)
TINY = Scale(
    study="synthetic-resnet-20k-quick-epochs1-resolution8",
    dataset="synthetic",
    size=20_000,
    search="--budget 20k --trials 2 --proxy quick --epochs 1 --resolution 8 --finalists 1x1",
    baseline="--trial 0",
    proxied="--steps 1 --repeats 1",
    timed="--model ResNet-20 --recipes strong seed --steps 1 --rounds 1 --workers 1",
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
        is_compiled: Whether full trainings run with `--compile`.
        strong_epochs: Of the comparison.
        longest_epochs: Of the longest schedule.
        winner: The trial that the search names on validation, and what it is; `None` before.
    """

    study: str
    seconds_an_epoch: dict[str, float]
    seconds_a_proxy_epoch: float | None
    is_compiled: bool
    strong_epochs: int
    longest_epochs: int
    winner: dict[str, Any] | None = None

    @classmethod
    def load(cls, results: Path) -> Plan | None:
        """Read it; `None` before anything was decided."""
        path = results / "plan.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def save(self, results: Path) -> None:
        """Write it."""
        (results / "plan.json").write_text(json.dumps(vars(self), indent=2) + "\n")


def fitting_epochs(
    schedules: Sequence[int], seconds_an_epoch: float | None, num_trainings: int, minutes: float
) -> int:
    """Give the longest schedule with which so many trainings take so many minutes, or the shortest.

    A part of the minutes is left for starting and stopping. The shortest, too, where an epoch's
    seconds are not known.
    """
    if seconds_an_epoch is None:
        return schedules[0]
    most = SHARE_PLANNED * minutes * 60 / (seconds_an_epoch * num_trainings)
    return max((epochs for epochs in schedules if epochs <= most), default=schedules[0])


def plan_epochs(scale: Scale, results: Path) -> Plan:
    """Decide on epochs and `--compile` from the measured speeds, of which any may be missing."""
    speeds: dict[str, dict[str, float]] = {"nas": {}, "compiled": {}}
    for row in read_rows(results / "retrain_throughput.csv"):
        speeds.setdefault(row["loop"], {})[row["recipe"]] = float(row["images_per_second"])
    plain, compiled = speeds["nas"], speeds["compiled"]
    is_compiled = plain.keys() == compiled.keys() != set() and (
        compiled["strong"] >= COMPILE_GAIN * plain["strong"]
    )
    chosen = compiled if is_compiled else plain
    seconds = {name: scale.num_images / speed for name, speed in chosen.items()}
    trial = [r for r in read_rows(results / "training_speed.csv") if r["what"] == "trial"]
    for_all, for_longest = scale.minutes
    strong = seconds.get("strong")
    return Plan(
        study=scale.study,
        seconds_an_epoch=seconds,
        seconds_a_proxy_epoch=float(trial[-1]["seconds"]) if trial else None,
        is_compiled=is_compiled,
        strong_epochs=fitting_epochs(scale.schedules, strong, 2 * scale.seeds, for_all),
        longest_epochs=fitting_epochs(scale.schedules, strong, 1, for_longest),
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


def seed(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the hand-made network by the recipe it was made with."""
    epochs = scale.seed_epochs
    return [
        _training(scale, plan, scale.baseline, "seed", epochs, number + 1)
        for number in range(scale.seeds)
    ]


def strong(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the hand-made network and the winner alike, a seed of each at a time."""
    epochs = plan.strong_epochs if plan else 0
    return [
        _training(scale, plan, network, "strong", epochs, number + 1)
        for number in range(scale.seeds)
        for network in (scale.baseline, _winner(plan))
    ]


def longest(scale: Scale, plan: Plan | None) -> list[Command]:
    """Train the winner by the longest schedule that fits."""
    epochs = plan.longest_epochs if plan else 0
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
    epochs: int,
    seeds: int,
    settings: str = "",
) -> Command:
    """Train a network; earlier seeds of the same training are there already, but for `fast`."""
    asked = f"{network} --recipe {recipe} --epochs {epochs or 'EPOCHS'} --seeds {seeds}{settings}"
    is_compiled = plan and plan.is_compiled and not settings  # compiling would count in `fast`
    flags = f"{scale.settings} --compile" if is_compiled else scale.settings
    num_new = seeds if settings else 1
    an_epoch = plan.seconds_an_epoch.get(recipe) if plan else None
    seconds = an_epoch and an_epoch * epochs * num_new
    return Command(f"retrain.py {asked} --study {scale.study} {flags}".strip(), seconds)


# The record of commands


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, lines that begin with `#` left out; no rows where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV file, at once."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


@dataclass(frozen=True)
class Log:
    """`results/commands.csv`: a row for each time a command ran."""

    path: Path

    def add(self, command: Command, started: float, seconds: float, exit_code: int) -> None:
        """Add a row."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
        row = {
            "started": when,
            "seconds": f"{seconds:.1f}",
            "exit_code": exit_code,
            "command": f"python {command.text}",
        }
        write_rows(self.path, [*read_rows(self.path), row])

    def is_finished(self, command: Command) -> bool:
        """Tell whether it once ended by itself, and well."""
        return any(row["exit_code"] == "0" for row in self._of(command))

    def seconds_left(self, command: Command) -> float | None:
        """Estimate what is left of it; `None` where nothing is known."""
        if self.is_finished(command):
            return 0.0
        if command.seconds is None:
            return None
        spent = sum(float(row["seconds"]) for row in self._of(command))
        return max(command.seconds - spent, 0.0)

    def has_failed_for_good(self, command: Command) -> bool:
        """Tell whether it ended by itself without having done its work, again and again."""
        codes = [int(row["exit_code"]) for row in self._of(command)]
        return sum(code not in STOPPED for code in codes) >= MOST_FAILURES

    def _of(self, command: Command) -> list[dict[str, str]]:
        text = f"python {command.text}"
        return [row for row in read_rows(self.path) if row["command"] == text]


# Doing it


@dataclass
class Session:
    """One call of this script.

    Attributes:
        scale: How large everything is.
        work: Its folder.
        data: Of the data set.
        device: For every command.
        deadline: By `time.monotonic()`; no command runs longer.
        failed: Commands that ended by themselves in this call without having done their work.
    """

    scale: Scale
    work: Path
    data: Path
    device: str
    deadline: float
    failed: set[Command] = field(default_factory=set)

    @property
    def results(self) -> Path:
        """The folder of what is published."""
        return self.work / "results"

    @property
    def plan(self) -> Plan | None:
        """What was decided; of another scale it ends the call."""
        plan = Plan.load(self.results)
        if plan is not None and plan.study != self.scale.study:
            sys.exit(
                f"error: {self.work} holds what was decided for the study {plan.study}; --short "
                "and --tiny need a folder of their own"
            )
        return plan

    @property
    def log(self) -> Log:
        """The commands that ran."""
        return Log(self.results / "commands.csv")

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()

    def left(self, pieces: Iterable[str]) -> list[tuple[str, Command]]:
        """List the commands that are not finished, with their pieces."""
        plan = self.plan
        return [
            (piece, command)
            for piece in pieces
            for command in PIECES[piece](self.scale, plan)
            if not self.log.is_finished(command)
        ]

    def to_try(self, pieces: Iterable[str]) -> list[tuple[str, Command]]:
        """List those of them that have not failed again and again."""
        return [(p, c) for p, c in self.left(pieces) if not self.log.has_failed_for_good(c)]

    def do(self, pieces: Iterable[str]) -> bool:
        """Run what is left while there is time; tells whether anything ran.

        What fails is tried again by the next call, and keeps nothing else from running.
        """
        pieces, has_run = list(pieces), False
        while True:
            self.decide()
            left = [each for each in self.to_try(pieces) if each[1] not in self.failed]
            if not left or self.seconds_left < LEAST_SECONDS:
                break
            piece, command = left[0]
            self.require_ready(piece)
            has_run = True
            if not self.run(command):
                break
        return has_run

    def require_ready(self, piece: str) -> None:
        """Refuse a piece whose commands are not known before those ahead of it are finished.

        Without speeds, where they could not be measured, the shortest schedules are planned.
        """
        needs_both = piece not in ("speed", "search")
        ahead = [*self.to_try(["speed"]), *self.left(["search"])] if needs_both else []
        for other, command in ahead:
            sys.exit(f"error: {piece} comes after {other}, of which this is left: {command.text}")

    def run(self, command: Command) -> bool:
        """Run a command until it ends or time is up; tells whether it ended by itself."""
        print(f"\n$ python {command.text}", flush=True)
        started = time.time()
        process = self.start(command.arguments(self.data, self.device))
        exit_code = wait_or_stop(process, self.seconds_left)
        self.log.add(command, started, time.time() - started, exit_code)
        is_stopped = exit_code in (128 + signal.SIGINT, -signal.SIGINT) or self.seconds_left <= 0
        if exit_code != 0 and not is_stopped:
            print(f"exit code {exit_code}", flush=True)
            self.failed.add(command)
        return not is_stopped

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start Python in the work folder, with this checkout's package, out of Ctrl-C's reach."""
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.work, env=environment(), process_group=0
        )

    def decide(self) -> None:
        """Write down what can be decided now; nothing is decided twice."""
        plan = self.plan
        if plan is None and not self.to_try(["speed"]):
            plan_epochs(self.scale, self.results).save(self.results)
        elif plan is not None and plan.winner is None and not self.left(["search"]):
            winner = choose_winner(self.leaderboard())
            Plan(**vars(plan) | {"winner": winner}).save(self.results)
            print(f"winner on validation: trial {winner['trial']}", flush=True)

    def leaderboard(self) -> list[dict[str, Any]]:
        """Read the study's leaderboard, the best first."""
        flags = ["leaderboard", self.scale.study, "--top", "100", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "nas", *flags], cwd=self.work, check=True, timeout=60,
            env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def close(self) -> None:
        """Bring the results up to date: sheets, report, full trainings, configuration."""
        study = self.scale.study
        url = f"sqlite:///{self.work}/studies/{study}.db"
        if not has_scores(url, study):
            return
        commands = (
            f"export {study} results/tried.csv",
            f"leaderboard {study} --csv results/leaderboard.csv",
            f"report {study} --out results/report.html",
        )
        running = [self.start(["-m", "nas", *shlex.split(text)]) for text in commands]
        until = time.monotonic() + STOP_SECONDS
        for process in running:
            wait_or_kill(process, until - time.monotonic())
        write_records(url, study, self.results)

    def show(self) -> int:
        """Print what is left and about how long it takes; gives the number of commands."""
        left = self.left(self.scale.pieces)
        print(f"\n{len(left)} commands left" + (", in this order:" if left else ""))
        for piece, command in left:
            seconds = self.log.seconds_left(command)
            about = "?" if seconds is None else f"{seconds / 60:.1f}"
            print(f"{piece:8} about {about:>5} min  python {command.text}")
        known = [self.log.seconds_left(command) for _, command in left]
        print(f"in all about {sum(filter(None, known)) / 60:.0f} min of what is known")
        return len(left)


def environment() -> dict[str, str]:
    """Give a command's: this checkout's package, and what this process's own path has."""
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(ROOT), *map(os.path.abspath, filter(None, own))]  # commands run in another folder
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def wait_or_stop(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a process, stop it as Ctrl-C does when time is up; gives its exit code.

    Ctrl-C here is the same as time being up.
    """
    try:
        return process.wait(max(seconds, 0.0))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
    return wait_or_kill(process, STOP_SECONDS)


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a process, kill it when time is up; gives its exit code."""
    try:
        return process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def choose_winner(leaderboard: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the best network that the search proposed: no hand-made one. Test was never read."""
    proposed = [row for row in leaderboard if row["proposed_by"] != "baseline"]
    if not proposed:
        sys.exit("error: the search has scored no network of its own")
    row = proposed[0]
    kept = ("trial", "architecture", "num_params", "num_macs", "val_accuracy", "denoised")
    kept += ("finalist_accuracy", "finalist_std", "finalist_seeds", "proposed_by", "arch_id")
    best = {name: row[name] for name in kept}
    return best | {"rank": row.get("rank"), "best_of_all": leaderboard[0]["trial"]}


def has_scores(url: str, study_name: str) -> bool:
    """Tell whether there is a study with something to show."""
    from nas.errors import UserError
    from nas.find_study import find_study
    from nas.study import num_scored

    try:
        return num_scored(find_study(study_name, url)) > 0
    except UserError:
        return False


def write_records(url: str, study_name: str, results: Path) -> None:
    """Write the full trainings as CSV, the recipes and the study's identity as JSON."""
    from nas.find_study import find_sister, find_study
    from nas.storage import silence_optuna

    silence_optuna()
    study = find_study(study_name, url)
    (results / "configuration.json").write_text(
        json.dumps(json.loads(study.user_attrs["identity"]), indent=2) + "\n"
    )
    sister = find_sister(study, "retrain")
    attributes = (
        [t.user_attrs for t in sister.get_trials() if t.value is not None] if sister else []
    )
    if attributes:
        write_rows(results / "trainings.csv", [record(attrs) for attrs in attributes])
        recipes = {a["recipe"]: json.loads(a["recipe_settings"]) for a in attributes}
        (results / "recipes.json").write_text(json.dumps(recipes, indent=2) + "\n")


RECORDED = (
    "network", "architecture", "arch_id", "num_params", "source_trial", "recipe", "epochs", "seed",
    "data", "split", "accuracy", "flip_accuracy", "loss", "elapsed_seconds",
)  # fmt: skip
MADE_WITH = ("device_name", "processes", "compiled", "python", "torch", "git_revision", "git_clean")


def record(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give a full training's row: what was trained, what it reached, what it was made with."""
    made_with = json.loads(attributes["provenance"])
    return {name: attributes.get(name) for name in RECORDED} | {
        name: made_with.get(name) for name in MADE_WITH
    }


def pack(work: Path, out: Path) -> None:
    """Copy what a later call goes on from: databases, results, the newest checkpoint of all.

    Not the report, which is large and made again by each call.
    """
    not_packed = shutil.ignore_patterns("report.html")
    shutil.copytree(work / "results", out / "results", dirs_exist_ok=True, ignore=not_packed)
    (out / "studies").mkdir(parents=True, exist_ok=True)
    for path in (work / "studies").glob("*.db"):
        with sqlite3.connect(path) as source, sqlite3.connect(out / "studies" / path.name) as copy:
            source.backup(copy)
        source.close()
        copy.close()
    for old in (out / "studies").rglob("step-*.safetensors"):
        old.unlink()
    checkpoints = (work / "studies").rglob("checkpoints/step-*.safetensors")
    for newest in sorted(checkpoints, key=lambda path: path.stat().st_mtime)[-1:]:
        to = out / newest.relative_to(work)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(newest, to)
    files = [path for path in out.rglob("*") if path.is_file()]
    sizes = sorted(((path.stat().st_size, path) for path in files), reverse=True)
    print(f"\npacked {sum(size for size, _ in sizes) / 1e6:.1f} MB in {out}, the largest:")
    for size, path in sizes[:3]:
        print(f"{size / 1e6:6.1f} MB {path.relative_to(out)}")


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("piece", choices=[*PIECES, "next", "status"])
    parser.add_argument("--work", type=Path, required=True, help="folder of everything it leaves")
    parser.add_argument("--data", type=Path, default=Path("studies/data"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--pack", type=Path, help="folder for a small copy to go on from")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--short", action="store_true", help="what fits in one call")
    scale.add_argument("--tiny", action="store_true", help="try it on a CPU")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do a piece, or what is next; gives 0 if nothing is left of it, 1 if a command failed."""
    # Commands inherit what is ignored here, and could not be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    deadline = time.monotonic() - CLOSING_SECONDS
    asked = parsed(argv)
    session = Session(
        TINY if asked.tiny else SHORT if asked.short else FULL,
        asked.work.resolve(),
        asked.data.resolve(),
        asked.device,
        deadline + 60 * asked.minutes,
    )
    session.results.mkdir(parents=True, exist_ok=True)
    pieces = [asked.piece] if asked.piece in PIECES else list(session.scale.pieces)
    out = None if asked.pack is None else asked.pack.resolve()
    try:
        if asked.piece != "status" and session.do(pieces):
            if out is not None:
                pack(session.work, out)  # first of all: what follows may take longer than there is
            session.close()
        session.show()
    finally:
        if out is not None:
            pack(session.work, out)
    if session.failed:
        return 1
    return EXIT_LEFT if session.left(pieces) else 0


if __name__ == "__main__":
    sys.exit(main())
