"""What a trial costs but for its training, and what a count costs, against plain Optuna and torch.

    python benchmarks/proposals.py [--trials 200 2000] [--proposals 30] [--out FILE.csv]

Everything is measured in one run, and turn by turn, so that what else the machine does meets both
sides alike. Times are medians: of a trial both by the clock and of the process's CPU, of a count
of CPU alone. NumPy should have one thread (`OMP_NUM_THREADS=1`), as it has in worker processes.

1. The closed form of an architecture's parameters and MACs, against building its module on the
   meta device and summing `numel`, and against building it and counting MACs with
   `torch.utils.flop_counter`.
2. A trial of `nas.workers.Worker` whose proxy run is replaced by a formula, with the sampler
   `default` of `search.py` and with `tpe`, against plain Optuna: TPE, the budget as a constraint,
   draws over budget pruned, the same attributes recorded, stock SQLite. The studies are filled with
   random networks that use 90-100 % of the budget, for all in the same way; of an empty study
   (`0`), the first 100 trials are measured.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import optuna
from counting import measure_counts
from formula import BUDGET
from measured import machine, write_rows
from proposals_sides import Nas, PlainOptuna, networks

from nas.space import SearchSpace
from nas.space_file import SpaceConfig, load_space
from nas.storage import silence_optuna

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proposals_sides import Side, Timing

SAMPLERS = ("default", "tpe")
FIRST = 100  # trials of an empty study
WARM_UP = 2  # trials not measured in a filled study: the first one reads all of it
NUM_NETWORKS = 50  # networks whose counts are timed
COLUMNS = ("what", "space", "num_trials", "side", "value")  # a ratio, milliseconds or percent


def search_spaces() -> dict[str, SearchSpace]:
    """Give the shipped default, and the space in which plain TPE was measured before."""
    stage = {"depth": {"low": 1, "high": 6}, "width": {"low": 16, "high": 512, "step": 8}}
    configs = {
        "16-512 wide": SpaceConfig.model_validate({"num_stages": 4, "stage": stage}),
        "resnet": load_space("resnet")[1],
    }
    return {
        name: SearchSpace.from_config(config, max_params=BUDGET.max_params)
        for name, config in configs.items()
    }


@dataclass(frozen=True)
class Row:
    """What a trial of one side costs, in a study of so many; times are medians.

    Attributes:
        space: The search space.
        num_trials: In the study before the first that is measured.
        side: The sampler of this tool, or "plain Optuna".
        num_measured: Trials measured.
        wasted_percent: Measured trials over budget.
        proposal_ms: Until one network is known, over budget or not.
        proposal_cpu_ms: The same, CPU time of the process.
        in_budget_ms: An in-budget proposal: `proposal_ms`, and the wasted trials it took.
        trial_ms: A scored trial, all but training.
        trial_cpu_ms: The same, CPU time of the process.
        scored_ms: A scored trial, and the wasted trials it took.
    """

    space: str
    num_trials: int
    side: str
    num_measured: int
    wasted_percent: float
    proposal_ms: float
    proposal_cpu_ms: float
    in_budget_ms: float
    trial_ms: float
    trial_cpu_ms: float
    scored_ms: float

    @classmethod
    def of(cls, space: str, num_trials: int, side: str, timings: list[Timing]) -> Row:
        """Summarize trials; a time of what did not occur is not a number."""
        scored = [timing for timing in timings if not timing.is_wasted]
        wasted = [timing for timing in timings if timing.is_wasted]
        lost_ms = 0.0
        if wasted:
            lost_ms = _median_ms(t.trial for t in wasted) * _ratio(len(wasted), len(scored))
        proposal_ms = _median_ms(t.proposal for t in timings)
        trial_ms = _median_ms(t.trial for t in scored)
        return cls(
            space,
            num_trials,
            side,
            num_measured=len(timings),
            wasted_percent=100 * len(wasted) / len(timings),
            proposal_ms=proposal_ms,
            proposal_cpu_ms=_median_ms(t.proposal_cpu for t in timings),
            in_budget_ms=proposal_ms + lost_ms,
            trial_ms=trial_ms,
            trial_cpu_ms=_median_ms(t.trial_cpu for t in scored),
            scored_ms=trial_ms + lost_ms,
        )


def _median_ms(seconds: Iterable[float]) -> float:
    values = list(seconds)
    return 1e3 * median(values) if values else math.nan


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def measure_trials(name: str, space: SearchSpace, numbers: list[int], measured: int) -> list[Row]:
    """Measure all sides turn by turn, in studies that grow from one number to the next."""
    source, rows = networks(space), []
    with tempfile.TemporaryDirectory() as folder:
        own = [Nas(Path(folder), space, sampler) for sampler in SAMPLERS]
        sides: list[Side] = [*own, PlainOptuna(Path(folder), space)]
        for number in sorted(numbers):
            for side in sides:
                missing = number - len(side.study.get_trials(deepcopy=False))
                if missing > 0:
                    side.fill([next(source) for _ in range(missing)])
            timings: list[list[Timing]] = [[] for _ in sides]
            turns = list(zip(sides, timings, strict=True))
            for index in range(measured):  # what one leaves the disk to do meets the next: rotate
                first = index % len(turns)
                for side, kept in turns[first:] + turns[:first]:
                    kept.append(side.run_trial())
            rows += [
                Row.of(name, number, side.name, kept[WARM_UP if number else 0 :])
                for side, kept in zip(sides, timings, strict=True)
            ]
    return rows


def records(counts: dict[str, float], rows: list[Row]) -> Iterator[tuple[object, ...]]:
    """Yield the CSV's rows."""
    for way, ms in counts.items():
        yield "count_cpu_ms", "resnet", "", way, f"{ms:.4g}"
    for way, ms in counts.items():
        yield "ratio_to_closed_form", "resnet", "", way, f"{ms / counts['closed form']:.4g}"
    keys = {"space", "num_trials", "side"}
    measures = [each.name for each in fields(Row) if each.name not in keys]
    for row in rows:
        for name in measures:
            yield name, row.space, row.num_trials, row.side, f"{getattr(row, name):.4g}"
    for ours, plain in with_plain(rows):
        for name in measures[2:]:
            ratio = getattr(plain, name) / getattr(ours, name)
            yield (
                f"ratio_{name}",
                ours.space,
                ours.num_trials,
                f"plain / {ours.side}",
                f"{ratio:.3g}",
            )


def with_plain(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Pair each row of this tool with that of plain Optuna."""
    plain = {(r.space, r.num_trials): r for r in rows if r.side == PlainOptuna.name}
    for row in rows:
        if row.side != PlainOptuna.name:
            yield row, plain[row.space, row.num_trials]


def show(counts: dict[str, float], rows: list[Row]) -> None:
    """Print both tables."""
    for way, ms in counts.items():
        print(f"{way:24} {ms:9.4f} ms of CPU   {ms / counts['closed form']:8,.0f} x")
    print()
    columns = "wasted%", "proposal", "(cpu)", "in-budget", "trial", "(cpu)", "scored"
    header = "".join(f"{column:>10}" for column in columns)
    print(f"{'space':12}{'trials':>7}  {'ms, medians':14}{header}")
    measures = [each.name for each in fields(Row)][4:]
    for row in rows:
        numbers = "".join(f"{getattr(row, name):10.1f}" for name in measures)
        print(f"{row.space:12}{row.num_trials:7}  {row.side:14}{numbers}")
    for ours, plain in with_plain(rows):
        ratios = (getattr(plain, name) / getattr(ours, name) for name in measures[1:])
        side = f"{ours.space:12}{ours.num_trials:7}  {'plain / ' + ours.side:24}"
        print(side + "".join(f"{ratio:8.2f} x" for ratio in ratios))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 2000], metavar="N")
    parser.add_argument("--proposals", type=int, default=30, help="measured at each number")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/proposals.csv"))
    arguments = parser.parse_args()
    if arguments.proposals < 1 or min(arguments.trials) < 1:
        parser.error("--trials and --proposals must be at least 1")
    silence_optuna()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    spaces = search_spaces()
    source = networks(spaces["resnet"])
    counts = measure_counts([next(source)[1] for _ in range(NUM_NETWORKS)])
    rows: list[Row] = []
    for name, space in spaces.items():
        rows += measure_trials(name, space, [0], FIRST)
        rows += measure_trials(name, space, arguments.trials, WARM_UP + arguments.proposals)
    show(counts, rows)
    written = [dict(zip(COLUMNS, record, strict=True)) for record in records(counts, rows)]
    write_rows(arguments.out, written, machine())


if __name__ == "__main__":
    main()
