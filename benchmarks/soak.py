"""Kill workers at random while they search, then check that nothing was lost, doubled or invented.

    python benchmarks/soak.py [--storage URL] [--trials 200] [--workers 4] [--every 10] [--out FILE]

Worker processes search networks of 5M parameters; a trial waits for `--seconds` in place of its
training, then is scored by a formula. Every `--every` seconds one process that has a trial, chosen
at random, is killed (-9). At the end the study must have exactly its target of scored networks,
none twice, none outside the window, each with the record of a recomputation, and no trial may be
running. Exits with 1 and says what does not hold.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from formula import BUDGET, FormulaPlan, score
from measured import append_row

import nas
from nas.architecture import Architecture
from nas.complexity import count, size_bytes
from nas.find_study import register_of
from nas.progress import Progress
from nas.provenance import git_state
from nas.storage import shown_url, silence_optuna, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.register import Register


class Killer(threading.Thread):
    """Kills a random process that has a place, every so many seconds."""

    def __init__(self, register: Register, every: float) -> None:
        super().__init__(daemon=True)
        self._register, self._every = register, every
        self._rng = random.Random(0)
        self.num_killed = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Kill until told that all is done."""
        while not self.done.wait(self._every):
            if places := self._register.places():
                with suppress(ProcessLookupError):
                    os.kill(self._rng.choice(places).pid, signal.SIGKILL)
                    self.num_killed += 1


def violations(study: Study, register: Register, target: int) -> Iterator[str]:
    """Yield what does not hold of a study that is complete."""
    trials = study.get_trials(deepcopy=False)
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len(scored) != target:
        yield f"{len(scored)} scored trials, not {target}"
    if [trial.number for trial in trials] != list(range(len(trials))):
        yield "numbers are missing"
    if running := [trial.number for trial in trials if trial.state.name == "RUNNING"]:
        yield f"still running: {running}"
    if places := register.places():
        yield f"places left: {places}"
    twice = Counter(trial.user_attrs["arch_id"] for trial in scored)
    if twice and max(twice.values()) > 1:
        yield f"scored twice: {twice.most_common(3)}"
    for trial in scored:
        yield from wrong_record(trial)


def wrong_record(trial: FrozenTrial) -> Iterator[str]:
    """Yield what differs from a recomputation of a scored trial."""
    arch = Architecture.from_json(trial.user_attrs["architecture_json"])
    cost, result = count(arch), score(arch)
    if not BUDGET.admits(arch):
        yield f"trial {trial.number} is outside the window: {cost.num_params}"
    wanted = {
        "architecture": str(arch),
        "arch_id": arch.arch_id,
        "num_params": cost.num_params,
        "num_macs": cost.num_macs,
        "size_bytes": size_bytes(arch),
        "val_loss": result.val_loss,
        "train_losses": list(result.train_losses),
    }
    found = {name: trial.user_attrs.get(name) for name in wanted}
    if found != wanted or trial.value != result.val_accuracy:
        yield f"trial {trial.number}: {trial.value} {found}, not {result.val_accuracy} {wanted}"


def main() -> None:
    """Search under fire, check, write what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--storage", help="an empty database; else an SQLite file")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a trial waits")
    parser.add_argument("--out", type=Path, help="a CSV file that gets a line")
    arguments = parser.parse_args()
    silence_optuna()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.storage or sqlite_url(Path(folder) / "soak.db")
        plan = FormulaPlan.of(url, seconds=arguments.seconds)
        plan = replace(plan, num_workers=arguments.workers)
        study = plan.open()
        register = register_of(study)
        killer, started = Killer(register, arguments.every), time.monotonic()
        killer.start()
        progress = Progress(on_notice=lambda line: print(line, flush=True))
        plan.run(study, arguments.trials, None, progress)
        killer.done.set()
        seconds = time.monotonic() - started
        found = list(violations(study, register, arguments.trials))
    reasons = Counter(t.user_attrs.get("fail_reason") for t in study.get_trials(deepcopy=False))
    del reasons[None]
    row = {
        "database": shown_url(url).partition(":")[0],
        "trials": arguments.trials,
        "workers": arguments.workers,
        "seconds_a_trial": arguments.seconds,
        "kill_every_seconds": arguments.every,
        "killed": killer.num_killed,
        "failed": " ".join(f"{reason}:{number}" for reason, number in reasons.items()),
        "violations": len(found),
        "seconds": round(seconds),
        "python": platform.python_version(),
        "git_revision": git_state(Path(nas.__file__).parent)["git_revision"],
    }
    print(*found, *(f"{key}: {value}" for key, value in row.items()), sep="\n")
    if arguments.out:
        append_row(arguments.out, row)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
