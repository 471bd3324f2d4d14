"""Studies that look searched, of any size, in seconds: nothing is trained."""

from __future__ import annotations

import datetime as dt
import json
import math
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from nas.budget import Budget
from nas.complexity import count, size_bytes
from nas.plan import baselines
from nas.sisters import open_sister
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.width_scaling import WidthScaling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.architecture import Architecture

START = dt.datetime(2026, 1, 1)
NUM_RANDOM = 10
BUDGET = Budget(250_000)
SPACE = SearchSpace.from_config(load_space("resnet")[1], max_params=BUDGET.max_params)


def quality(arch: Architecture) -> float:
    """A smooth accuracy without noise: depth helps, and a wide third stage."""
    depth = sum(stage.depth for stage in arch.stages)
    share = arch.stages[2].width / sum(stage.width for stage in arch.stages)
    return 0.6 + 0.05 * math.tanh((depth - 12) / 6) - 0.4 * (share - 0.35) ** 2


def networks(number: int, seed: int) -> Iterator[tuple[Architecture, dict[str, int], str]]:
    """Yield (architecture, parameters, who proposed it): a baseline, random ones, neighbours."""
    for arch in baselines(SPACE, BUDGET).values():
        yield arch, {}, "baseline"
    rng, scaling = Random(seed), WidthScaling(SPACE, BUDGET.limits(SPACE))
    known: list[dict[str, int]] = []
    while len(known) < min(NUM_RANDOM, number - 1):
        if (params := scaling.random_feasible(rng)) is not None:
            known.append(params)
            yield SPACE.decode(params), params, "random"
    while len(known) < number - 1:
        near = max(rng.choices(known, k=3), key=lambda p: quality(SPACE.decode(p)))
        moved = next((m for m in scaling.region.neighbours(near, rng) if m not in known), None)
        if moved is not None:
            known.append(moved)
            yield SPACE.decode(moved), moved, "tpe"


def attributes(arch: Architecture, proposed_by: str) -> dict[str, Any]:
    cost = count(arch)
    return {
        "architecture": str(arch),
        "arch_id": arch.arch_id,
        "architecture_json": arch.to_json(),
        "num_params": cost.num_params,
        "budget_share": round(cost.num_params / BUDGET.max_params, 4),
        "num_macs": cost.num_macs,
        "size_bytes": size_bytes(arch),
        "proposed_by": proposed_by,
    }


def finished(index: int, params: dict[str, int], **others: Any) -> FrozenTrial:
    """A trial of ten seconds that ended as `others` say."""
    trial = optuna.create_trial(
        params=params,
        distributions=dict(SPACE.distributions) if params else {},
        **others,
    )
    trial.datetime_start = START + dt.timedelta(seconds=10 * index)
    trial.datetime_complete = trial.datetime_start + dt.timedelta(seconds=10)
    return trial


def fake_study(
    storage: BaseStorage | str | None = None,
    *,
    number: int = 60,
    noise: float = 0.005,
    num_failed: int = 2,
    seed: int = 0,
    name: str = "fake",
) -> Study:
    """Make a study of `number` scored networks, `num_failed` failed ones."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", sampler=RandomSampler()
    )
    identity = {f"limits.{key}": list(bounds) for key, bounds in BUDGET.bounds.items()}
    study.set_user_attr("identity", json.dumps(identity))
    study.set_user_attr("space", json.dumps(SPACE.to_dict()))
    study.set_user_attr("token", "fake")
    rng, trials = Random(seed + 1), []
    for index, (arch, params, by) in enumerate(networks(number, seed)):
        attrs = attributes(arch, by) | {"elapsed_seconds": 9.0}
        if by == "baseline":
            attrs["baseline"] = "ResNet26_97 scaled"
        value = quality(arch) + rng.gauss(0, noise)
        trials.append(finished(index, params, value=value, user_attrs=attrs))
    for index in range(num_failed):
        arch, params, by = next(networks(1, index))
        failed = attributes(arch, by) | {"fail_reason": "diverged", "fail_detail": "loss <nan>"}
        state = TrialState.FAIL
        trials.append(finished(number + index, params, state=state, user_attrs=failed))
    study.add_trials(trials)
    return study


def add_retrained(study: Study, numbers: list[int], *, seeds: int = 2, noise: float = 0.0) -> Study:
    """Record full trainings of these trials, 0.2 better than their quality."""
    sister, rng = open_sister(study._storage, study.study_name, "retrain"), Random(0)
    trials = study.get_trials(deepcopy=False)
    for number in numbers:
        attrs = trials[number].user_attrs
        for seed in range(seeds):
            curve = {epoch: 0.3 + 0.1 * epoch for epoch in range(5)}
            trial = optuna.create_trial(
                value=quality_of(trials[number]) + 0.2 + rng.gauss(0, noise),
                intermediate_values=curve,
                user_attrs={
                    "arch_id": attrs["arch_id"],
                    "architecture": attrs["architecture"],
                    "source_trial": number,
                    "network": f"trial-{number}",
                    "num_params": attrs["num_params"],
                    "recipe": "strong",
                    "split": "test",
                    "seed": seed,
                    "elapsed_seconds": 600.0,
                },
            )
            sister.add_trial(trial)
    return sister


def quality_of(trial: FrozenTrial) -> float:
    from nas.architecture import Architecture

    return quality(Architecture.from_json(trial.user_attrs["architecture_json"]))
