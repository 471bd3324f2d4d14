"""Trials per second with several workers, in studies of several sizes, beside plain Optuna.

    python benchmarks/scaling.py [--storage URL] [--workers 1 2 4] [--studies 200 2000 5000]
                                 [--trials 24] [--out FILE.csv]

The objective takes no time, so all that is measured is proposing, recording and the database. Both
sides search the same space with TPE and record the same attributes, turn by turn in one run:

- nas: worker processes as `search.py` starts them, within the budget, no network twice;
- plain Optuna: as many processes, each `study.optimize` with the budget as a constraint and what
  exceeds it pruned, stock settings of the database.

Only scored trials count. The clock starts when all processes have read the study.
`database_ms` is the time in SQL statements a scored trial, over all processes; commits are not in
it. `--storage` names an empty database, which is left as it was; else SQLite files are used.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import sqlalchemy
from formula import BUDGET, DatabaseTime, FormulaPlan, TimedPlan, score
from measured import machine
from proposals_sides import attributes, fill, networks

from nas.complexity import count_params
from nas.copying import copy_database
from nas.progress import Progress
from nas.proposed import trial_id
from nas.storage import open_storage, silence_optuna, sqlite_url

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.space import SearchSpace

SIDES = ("nas", "plain Optuna")


@dataclass(frozen=True)
class Rate:
    """What a round measured.

    Attributes:
        database: SQLAlchemy's name of it.
        num_trials: In the study before.
        num_workers: Processes.
        side: One of `SIDES`.
        scored: Trials that were scored.
        duplicates: Those whose network was scored before.
        scored_per_second: By the clock.
        database_ms: A scored trial, in SQL statements, over all processes.
    """

    database: str
    num_trials: int
    num_workers: int
    side: str
    scored: int
    duplicates: int
    scored_per_second: float
    database_ms: float


def run_nas(plan: TimedPlan, num_workers: int, num_trials: int) -> tuple[float, float]:
    """Score trials; gives seconds from the first start to the last end, and in the database."""
    study = plan.open()
    target = len(_scored(study)) + num_trials
    times: list[float] = []
    database: list[float] = []
    progress = Progress(
        on_trial_start=lambda _number, _worker: times.append(time.perf_counter()),
        on_trial_end=lambda _trial: times.append(time.perf_counter()),
        on_notice=lambda line: database.append(float(line)),
    )
    replace(plan, num_workers=num_workers).run(study, target, None, progress)
    return times[-1] - times[0], sum(database)


def run_plain(url: str, num_workers: int, num_trials: int) -> tuple[float, float]:
    """Score trials in processes that know of each other through the database alone."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(num_workers), context.Queue()
    processes = [
        context.Process(
            target=_optimize, args=(url, index, num_trials // num_workers, barrier, results)
        )
        for index in range(num_workers)
    ]
    for process in processes:
        process.start()
    told = [results.get() for _ in processes]
    for process in processes:
        process.join()
    begins, ends, database = zip(*told, strict=True)
    return max(ends) - min(begins), sum(database)


def _optimize(
    url: str, seed: int, num_trials: int, barrier: Barrier, results: multiprocessing.Queue[object]
) -> None:
    silence_optuna()
    warnings.simplefilter("ignore")
    study = optuna.load_study(
        study_name="plain", storage=url, sampler=optuna.samplers.TPESampler(seed=seed)
    )
    space = FormulaPlan.of(url).space
    study.get_trials(deepcopy=False)
    database = DatabaseTime(study._storage._backend.engine)  # noqa: SLF001
    barrier.wait()
    begin, scored = time.monotonic(), 0

    def stop_in_time(study: Study, trial: FrozenTrial) -> None:
        nonlocal scored
        scored += trial.state.name == "COMPLETE"
        if scored == num_trials:
            study.stop()

    study.optimize(lambda trial: _objective(trial, space), callbacks=[stop_in_time])
    results.put((begin, time.monotonic(), database.seconds))


def _objective(trial: Trial, space: SearchSpace) -> float:
    params = {
        name: trial.suggest_int(name, dist.low, dist.high, step=dist.step)
        for name, dist in space.distributions.items()
    }
    arch = space.decode(params)
    num_params = count_params(arch)
    trial.set_constraint("num_params", num_params / BUDGET.max_params - 1)
    if num_params > BUDGET.max_params:
        raise optuna.TrialPruned
    result = score(arch)
    for name, value in attributes(arch, result).items():
        trial.set_user_attr(name, value)
    return result.val_accuracy


def _scored(study: Study) -> list[str]:
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return [trial.user_attrs["arch_id"] for trial in trials]


def filled(folder: Path, side: str, num_trials: int) -> str:
    """Make an SQLite file with a study of random networks in the window; gives its URL."""
    url = sqlite_url(folder / f"{side}-{num_trials}.db")
    plan = TimedPlan.of(url)
    source = networks(plan.space)
    if side != "nas":
        study = optuna.create_study(storage=url, study_name="plain", direction="maximize")
        found = [next(source) for _ in range(num_trials)]
        fill(url, study, plan.space, found, is_constrained=True)
        return url
    study = plan.open()
    num_baselines = len(study.get_trials(deepcopy=False))
    FormulaPlan.of(url).work(num_baselines, None, 0, Progress())
    found = [next(source) for _ in range(num_trials - num_baselines)]
    fill(url, study, plan.space, found, is_constrained=False)
    register = plan._worker(0, Progress()).register  # noqa: SLF001
    for trial in study.get_trials(deepcopy=False)[num_baselines:]:
        register.claim(trial.user_attrs["arch_id"], trial_id(trial), is_void=bool)
    return url


def measure(url: str, num_trials: int, num_workers: int, side: str, measured: int) -> Rate:
    """Measure one side once."""
    name = "formula" if side == "nas" else "plain"
    study = optuna.load_study(study_name=name, storage=open_storage(url))
    before = _scored(study)
    if side == "nas":
        seconds, database = run_nas(TimedPlan.of(url), num_workers, measured)
    else:
        seconds, database = run_plain(url, num_workers, measured)
    new = _scored(study)[len(before) :]
    rate = Rate(
        url.partition(":")[0],
        num_trials,
        num_workers,
        side,
        scored=len(new),
        duplicates=len(before) + len(new) - len({*before, *new}),
        scored_per_second=round(len(new) / seconds, 2),
        database_ms=round(1000 * database / len(new), 2),
    )
    print(*asdict(rate).values(), sep="  ", flush=True)
    return rate


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--storage", help="an empty server database")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--studies", type=int, nargs="+", default=[200, 2000, 5000])
    parser.add_argument("--trials", type=int, default=24, help="measured in each round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.csv"))
    arguments = parser.parse_args()
    silence_optuna()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rates: list[Rate] = []
    with tempfile.TemporaryDirectory() as folder:
        for num_trials in arguments.studies:
            sources = {side: filled(Path(folder), side, num_trials) for side in SIDES}
            for num_workers in arguments.workers:
                for side, source in sources.items():
                    file = sqlite_url(Path(folder) / f"{side}-{num_trials}-{num_workers}.db")
                    url = arguments.storage or file
                    copy_database(source, url)
                    rates.append(measure(url, num_trials, num_workers, side, arguments.trials))
                    if arguments.storage:
                        _drop_tables(url)
    write(arguments.out, rates)


def _drop_tables(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    schema = sqlalchemy.MetaData()
    schema.reflect(engine)
    schema.drop_all(engine)
    engine.dispose()


def write(path: Path, rates: list[Rate]) -> None:
    """Add the rows to the CSV; lines after `#` say where they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in machine().items())
        writer = csv.DictWriter(file, list(asdict(rates[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(rate) for rate in rates)


if __name__ == "__main__":
    main()
