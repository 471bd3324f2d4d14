"""One call of the headline's script: which commands are left, and how they are run and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from headline_pieces import (
    PIECES,
    ROOT,
    WINNER,
    Command,
    Plan,
    Scale,
    plan_epochs,
    plan_speeds,
)
from headline_records import (
    COMMANDS,
    choose_winner,
    has_scores,
    network_of,
    pack,
    write_records,
)
from measured import read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

sys.path.insert(0, str(ROOT))  # this checkout's package, installed or not
STOP_SECONDS = 30.0  # for a command to end after Ctrl-C's signal, before it is killed
ALL = 1_000_000  # more than any leaderboard has
LEAST_SECONDS = 30.0  # with less than this left no command is started
MOST_FAILURES = 2  # of a command by itself, after which it is not tried again
EXIT_STOPPED = 128 + signal.SIGINT
TRAININGS = ("seed", "strong", "longest", "fast")
EXIT_LEFT = 3  # there is more to do, and the same call goes on with it


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
        return sum(code not in (0, EXIT_STOPPED) for code in codes) >= MOST_FAILURES

    def _of(self, command: Command) -> list[dict[str, str]]:
        text = f"python {command.text}"
        return [row for row in read_rows(self.path) if row["command"] == text]


@dataclass
class Session:
    """One call of this script.

    Attributes:
        scale: How large everything is.
        work: Its folder.
        data: Of the data set.
        device: For every command.
        deadline: By `time.monotonic()`; no command runs longer.
        out: Where the work folder is packed after each command that ended, or `None`.
        failed: Commands that ended by themselves in this call without having done their work.
    """

    scale: Scale
    work: Path
    data: Path
    device: str
    deadline: float
    out: Path | None = None
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
        return Log(self.work / COMMANDS)

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()

    def stop(self) -> None:
        """Be done as soon as may be: time is up."""
        self.deadline = time.monotonic()

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

        What fails is tried again by the next call, and keeps nothing else from running; but only
        one checkpoint is packed, so that a training which fails ends a call that packs.
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
            if self.out is not None and command in self.failed and piece in TRAININGS:
                break
        return has_run

    def exit_code(self, pieces: Sequence[str]) -> int:
        """Give 0 if nothing is left, 1 if a command failed, 3 if the same call goes on."""
        if self.failed or (self.left(pieces) and not self.to_try(pieces)):
            return 1
        return EXIT_LEFT if self.left(pieces) else 0

    def require_usable(self) -> None:
        """Refuse a call for what would make every command fail: packages, data set, device."""
        from nas.errors import UserError

        try:
            require_packages()
            from nas.data import load_training_data
            from nas.training import choose_device

            choose_device(self.device)
            load_training_data(self.scale.dataset, self.data)
        except (ImportError, UserError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    def require_ready(self, piece: str) -> None:
        """Refuse a piece whose commands are not known before those ahead of it are finished.

        Without speeds, where they could not be measured, the shortest schedules are planned.
        """
        ahead: list[tuple[str, Command]] = []
        if piece not in ("speed", "search"):
            ahead += [*self.to_try(["speed"]), *self.left(["search"])]
        if piece in TRAININGS:
            ahead += self.to_try(["pace"])
        for other, command in ahead:
            sys.exit(f"error: {piece} comes after {other}, of which this is left: {command.text}")

    def run(self, command: Command) -> bool:
        """Run a command until it ends or time is up; tells whether it ended by itself."""
        print(f"\n$ python {command.text}", flush=True)
        started = time.time()
        process = self.start(command.arguments(self.data, self.device))
        exit_code, is_stopped = wait_or_stop(process, lambda: self.seconds_left)
        seconds = time.time() - started
        print(f"exit code {exit_code} after {seconds:.0f} s", flush=True)
        was_stopped = is_stopped and exit_code != 0  # however it took it
        self.log.add(command, started, seconds, EXIT_STOPPED if was_stopped else exit_code)
        if exit_code != 0 and not is_stopped:
            self.failed.add(command)
        if self.out is not None and not is_stopped:  # the machine may be gone before the end
            pack(self.work, self.out)
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
            plan = plan_speeds(self.scale, self.results)
            plan.save(self.results)
        if plan is not None and plan.winner is None and not self.left(["search"]):
            winner = choose_winner(self.leaderboard())
            (self.results / WINNER).write_text(self.network_of(winner["trial"]) + "\n")
            plan = replace(plan, winner=winner)
            plan.save(self.results)
            print(f"winner on validation: trial {winner['trial']}", flush=True)
        if plan is not None and plan.winner and plan.pace is None and not self.to_try(["pace"]):
            plan_epochs(self.scale, plan, self.results).save(self.results)

    def leaderboard(self) -> list[dict[str, Any]]:
        """Read the study's leaderboard, the best first."""
        flags = ["leaderboard", self.scale.study, "--top", str(ALL), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "nas", *flags], cwd=self.work, check=True, timeout=60,
            env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    @property
    def url(self) -> str:
        """Of the study's database."""
        return f"sqlite:///{self.work}/studies/{self.scale.study}.db"

    def network_of(self, trial: int) -> str:
        """Read the network of a trial, as JSON."""
        return network_of(self.url, self.scale.study, trial)

    def close(self) -> None:
        """Bring the results up to date: sheets, report, full trainings, configuration."""
        study, url = self.scale.study, self.url
        if not has_scores(url, study):
            return
        commands = (
            f"export {study} results/tried.csv",
            f"leaderboard {study} --csv results/leaderboard.csv",
            f"report {study} --out results/report.html",
        )
        running = {text: self.start(["-m", "nas", *shlex.split(text)]) for text in commands}
        until = time.monotonic() + STOP_SECONDS
        for text, process in running.items():
            if (code := wait_or_kill(process, until - time.monotonic())) != 0:
                print(f"nas {text}: exit code {code}", flush=True)
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


def require_packages() -> None:
    """Look for what the project needs.

    Raises:
        ImportError: Something is missing.
        UserError: Something is of a version that will not do.
    """
    from packaging.requirements import Requirement

    from nas.errors import UserError

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        found = version(requirement.name)
        if not requirement.specifier.contains(found, prereleases=True):
            raise UserError(f"{requirement} is needed, found {found}")


def environment() -> dict[str, str]:
    """Give a command's: this checkout's package, and what this process's own path has."""
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(ROOT), *map(os.path.abspath, filter(None, own))]  # commands run in another folder
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def wait_or_stop(
    process: subprocess.Popen[bytes], seconds_left: Callable[[], float]
) -> tuple[int, bool]:
    """Wait for a process, stop it as Ctrl-C does when time is up; gives its exit code and whether.

    How much time is left is asked every second, for it may end before.
    """
    while (seconds := seconds_left()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(seconds, 1.0)), False
    process.send_signal(signal.SIGINT)
    return wait_or_kill(process, STOP_SECONDS), True


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a process, kill it when time is up; gives its exit code."""
    try:
        return process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
