"""The two sides whose proposals are compared: this tool's worker, and plain Optuna."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import optuna
import sqlalchemy
import torch
from formula import BUDGET, score

from nas.batches import Normalization
from nas.complexity import count, count_params, log_costs
from nas.objective import Objective
from nas.proposed import trial_id
from nas.provenance import provenance
from nas.proxy import ProxyConfig, ProxyData, ProxyResult
from nas.pruner import OverBudgetPruner
from nas.register import Register
from nas.samplers import make_sampler
from nas.split import Split
from nas.storage import open_storage, sqlite_url
from nas.study import identity, open_study
from nas.trials import claimer, described
from nas.width_scaling import WidthScaling
from nas.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.architecture import Architecture
    from nas.space import SearchSpace

    Networks = list[tuple[dict[str, int], Architecture]]


def networks(space: SearchSpace) -> Iterator[tuple[dict[str, int], Architecture]]:
    """Yield different random networks within the window, with their parameters."""
    scaling, rng = WidthScaling(space, BUDGET.limits(space)), random.Random(0)
    seen = set()
    while True:
        params = scaling.random_feasible(rng)
        assert params is not None
        if (arch := space.decode(params)) not in seen:
            seen.add(arch)
            yield params, arch


@dataclass(frozen=True)
class Timing:
    """One trial: seconds until its network was known, seconds in all, wall clock and CPU."""

    proposal: float
    proposal_cpu: float
    trial: float
    trial_cpu: float
    is_wasted: bool = False


@dataclass
class Stopwatch:
    """Wall-clock and CPU time at named moments of one trial."""

    marks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        """Remember this moment."""
        self.marks[name] = time.perf_counter(), time.process_time()

    def timing(self, *, is_wasted: bool = False) -> Timing:
        """Give the trial from "start" over "proposed" to "end"."""
        start, proposed, end = (self.marks[name] for name in ("start", "proposed", "end"))
        return Timing(
            proposal=proposed[0] - start[0],
            proposal_cpu=proposed[1] - start[1],
            trial=end[0] - start[0],
            trial_cpu=end[1] - start[1],
            is_wasted=is_wasted,
        )


class TimedObjective(Objective):
    """Marks when the network is known, and makes its score up."""

    watch = Stopwatch()  # one process, one trial at a time

    def _describe(self, trial: Trial, arch: Architecture) -> None:
        self.watch.mark("proposed")
        super()._describe(trial, arch)

    def _run(self, arch: Architecture) -> ProxyResult:
        return score(arch)


class TimedWorker(Worker):
    """Runs one trial as `Worker.run` does each of its own."""

    def run_trial(self) -> Timing:
        """Take a place, run, record."""
        watch = TimedObjective.watch
        watch.marks.clear()
        watch.mark("start")
        trial = self._take(sys.maxsize)
        assert trial is not None
        ended = self._run_one(trial)
        watch.mark("end")
        assert ended is not None
        self.on_trial_end(ended)
        return watch.timing()


class Side(Protocol):
    """One of the two that are compared, with a study of its own."""

    name: str
    study: Study

    def run_trial(self) -> Timing:
        """Run one trial more."""

    def fill(self, found: Networks) -> None:
        """Add scored trials."""


class Nas:
    """Trials of this tool: a sampler under `BudgetSampler`, its storage, its worker."""

    def __init__(self, folder: Path, space: SearchSpace, sampler: str) -> None:
        self.name = sampler
        self._url = sqlite_url(folder / f"{sampler}.db")
        storage = open_storage(self._url)
        limits = BUDGET.limits(space)
        proxy = ProxyConfig.load("quick", BUDGET.max_params)[1]
        self.study = open_study(
            storage,
            "nas",
            identity("none", "none", "none", BUDGET, proxy),
            space,
            pruner=OverBudgetPruner(limits),
            baselines={},
        )
        register = Register(storage.engine, self.study.user_attrs["token"])
        self._claim = claimer(storage, register)
        scaling = WidthScaling(space, limits)
        proposer = make_sampler(
            sampler,
            space.distributions,
            limits,
            features=lambda params: log_costs(space.decode(params)),
            repair=scaling.repair,
            random_feasible=scaling.random_feasible,
            claim=lambda trial, params: self._claim(space.decode(params).arch_id, trial),
            seed=0,
        )
        self.study.sampler = proposer
        images = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
        data = ProxyData(images, images, Normalization.of(images.images), space.num_classes)
        self._objective = TimedObjective(
            space, BUDGET, data, proxy, sampler, proposer, self._claim, seed=0
        )
        self._worker = TimedWorker(self.study, register, space, self._objective, self._check)
        self._space = space

    def run_trial(self) -> Timing:
        """Have the worker score one trial more."""
        return self._worker.run_trial()

    def fill(self, found: Networks) -> None:
        """Add scored trials and their claims."""
        fill(self._url, self.study, self._space, found, is_constrained=False)
        for trial in self.study.get_trials(deepcopy=False)[-len(found) :]:
            self._claim(trial.user_attrs["arch_id"], trial)

    def _check(self, trial: FrozenTrial) -> None:
        arch = self._space.decode(trial.params)
        assert trial.state is optuna.trial.TrialState.COMPLETE, trial.user_attrs
        assert count_params(arch) <= BUDGET.max_params
        assert trial.user_attrs.keys() - {"draws"} == attributes(arch, score(arch)).keys()


class PlainOptuna:
    """Trials as Optuna's users write them: the budget a constraint, what exceeds it pruned."""

    name = "plain Optuna"

    def __init__(self, folder: Path, space: SearchSpace) -> None:
        self._url = sqlite_url(folder / "plain.db")
        self.study = optuna.create_study(
            storage=self._url,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=0),
        )
        self._space = space

    def run_trial(self) -> Timing:
        """Ask, suggest, check, record, tell."""
        watch = Stopwatch()
        watch.mark("start")
        trial = self.study.ask()
        params = {
            name: trial.suggest_int(name, dist.low, dist.high, step=dist.step)
            for name, dist in self._space.distributions.items()
        }
        arch = self._space.decode(params)
        watch.mark("proposed")
        num_params = count_params(arch)
        trial.set_constraint("num_params", num_params / BUDGET.max_params - 1)
        is_over = num_params > BUDGET.max_params
        if is_over:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            result = score(arch)
            for name, value in attributes(arch, result).items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, result.val_accuracy)
        watch.mark("end")
        return watch.timing(is_wasted=is_over)

    def fill(self, found: Networks) -> None:
        """Add scored trials and their constraints."""
        fill(self._url, self.study, self._space, found, is_constrained=True)


def attributes(arch: Architecture, result: ProxyResult) -> dict[str, object]:
    """Give what `Objective` records of a trial, under the same names."""
    cost = count(arch)
    measured = asdict(result)
    del measured["val_accuracy"], measured["num_micro_batches"]
    return {
        "proposed_by": "tpe",
        **described(arch),
        "budget_share": round(cost.num_params / BUDGET.max_params, 4),
        "num_macs": cost.num_macs,
        "size_bytes": 4 * (cost.num_params + cost.num_buffers),
        **measured,
        "provenance": json.dumps(provenance("cpu", seed=0)),
    }


def fill(
    url: str, study: Study, space: SearchSpace, found: Networks, *, is_constrained: bool
) -> None:
    """Add scored trials as `study.add_trial` would, many in one transaction.

    One by one, 2,000 trials of 12 parameters and 12 attributes take minutes.
    """
    engine = sqlalchemy.create_engine(url)
    schema = sqlalchemy.MetaData()
    schema.reflect(engine)
    tables = schema.tables
    rows: dict[str, list[dict[str, object]]] = {
        "trials": [],
        "trial_params": [],
        "trial_values": [],
        "trial_user_attributes": [],
        "trial_system_attributes": [],
    }
    trials = study.get_trials(deepcopy=False)
    first_id = max((trial_id(trial) for trial in trials), default=0) + 1
    distributions = {
        name: optuna.distributions.distribution_to_json(dist)
        for name, dist in space.distributions.items()
    }
    for index, (params, arch) in enumerate(found):
        key, result, now = {"trial_id": first_id + index}, score(arch), datetime.now()
        times = {"datetime_start": now, "datetime_complete": now}
        ids = {"number": len(trials) + index, "study_id": study._study_id}  # noqa: SLF001
        rows["trials"].append({**key, **ids, **times, "state": "COMPLETE"})
        value = {"objective": 0, "value": result.val_accuracy, "value_type": "FINITE"}
        rows["trial_values"].append({**key, **value})
        rows["trial_params"] += [
            {**key, "param_name": n, "param_value": v, "distribution_json": distributions[n]}
            for n, v in params.items()
        ]
        rows["trial_user_attributes"] += [
            {**key, "key": n, "value_json": json.dumps(v)}
            for n, v in attributes(arch, result).items()
        ]
        if is_constrained:
            excess = count_params(arch) / BUDGET.max_params - 1
            constraint = {"key": "constraints:num_params", "value_json": json.dumps(excess)}
            rows["trial_system_attributes"].append({**key, **constraint})
    with engine.begin() as connection:
        for table, values in rows.items():
            if values:
                connection.execute(sqlalchemy.insert(tables[table]), values)
    engine.dispose()
    last = study.get_trials(deepcopy=False)[-1]
    assert (last.params, last.value) == (params, result.val_accuracy)
    assert bool(last.constraints) is is_constrained
