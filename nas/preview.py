"""What a search would do, told before it begins: the space, proposals, and the time it takes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
import torch

from nas.complexity import count_activations
from nas.errors import UserError
from nas.evaluation import evaluate
from nas.failures import is_out_of_memory
from nas.feasible import Region
from nas.finalists import final_proxy
from nas.plan import baselines
from nas.presets import names
from nas.proxy import ProxyConfig, ProxyData, train_proxy
from nas.replayed import STEPS_BEFORE
from nas.samplers import Exhausted
from nas.training import DivergedError
from nas.trials import enqueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.architecture import Architecture
    from nas.data import TrainingData
    from nas.plan import Plan

NUM_DRAWS = 20_000  # uniform draws of which the share inside the window is told
FIRST_IMAGES = 32  # a step on a CPU begins with so few, for 512 can take half a minute
WARM_UP_STEPS, FIRST_STEPS, MOST_STEPS = STEPS_BEFORE + 2, 4, 64
ENOUGH_SECONDS = 1.0  # of measured steps
# Below these a proxy ranks worse (research of others: NAS-Bench-201 at 8 pixels, quarter width).
LEAST_RESOLUTION, LEAST_WIDTH_FACTOR = 16, 0.5
WORTH_IT = 0.95  # of a trial's seconds: what saves less is not named


def num_inside(plan: Plan) -> int:
    """Count how many of `NUM_DRAWS` uniformly random networks keep every limit."""
    region = Region(plan.space.distributions, plan.budget.limits(plan.space))
    rng = Random(plan.seed)
    return sum(region.verdict(region.uniform(rng)) is None for _ in range(NUM_DRAWS))


def proposals(plan: Plan, number: int) -> list[Architecture]:
    """Give what the sampler would propose at the start of a new study, less where less fits."""
    first = baselines(plan.space, plan.budget)
    proposed = {arch.arch_id for arch in first.values()}

    def claim(arch_id: str, _trial: object) -> bool:
        is_new = arch_id not in proposed
        proposed.add(arch_id)
        return is_new

    study = optuna.create_study(direction="maximize", sampler=plan.proposer(claim))
    for name, arch in first.items():
        enqueue(study, plan.space, arch, proposed_by="baseline", baseline=name)
        study.ask()
    found: list[Architecture] = []
    with suppress(Exhausted):
        while len(found) < number:
            found.append(plan.space.decode(study.ask({**plan.space.distributions}).params))
    return found


@dataclass(frozen=True)
class Pace:
    """What a trial of one network takes, measured by a few real steps.

    Attributes:
        arch: The network.
        train_seconds: Of forward, backward and update, an image.
        val_seconds: Of validation, an image.
        batch_size: Images a step that was measured.
    """

    arch: Architecture
    train_seconds: float
    val_seconds: float
    batch_size: int


def measure(plan: Plan, arch: Architecture) -> Pace:
    """Train a network for a few steps on the plan's device, with its threads.

    On a CPU with fewer images a step than the proxy's, as long as a step is slow: the time of an
    image hardly depends on it there.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.num_threads)
    try:
        return _measure(plan, arch)
    finally:
        torch.set_num_threads(threads)


def _measure(plan: Plan, arch: Architecture) -> Pace:
    full = min(plan.proxy.batch_size, len(plan.data().train))
    size = full if plan.devices[0].startswith("cuda") else min(full, FIRST_IMAGES)
    num_steps = FIRST_STEPS
    while True:
        pace = _pace(plan, arch, size, num_steps)
        is_enough = pace.train_seconds * size * num_steps >= ENOUGH_SECONDS
        if is_enough or (size == full and num_steps >= MOST_STEPS):
            return pace
        if size < full:
            size = min(full, 4 * size)
        else:
            num_steps *= 4


def _pace(plan: Plan, arch: Architecture, size: int, num_steps: int) -> Pace:
    """Measure `num_steps` steps of `size` images, and a validation of a step's images."""
    device = torch.device(plan.devices[0])
    data = plan.data()
    order = torch.arange(size * (WARM_UP_STEPS + num_steps))
    part = ProxyData.prepare(
        replace(
            data,
            train=data.train.select(order % len(data.train)),
            val=data.val.select(order[: 4 * size] % len(data.val)),
        ),
        plan.proxy.resolution,
        device,
    )
    config = plan.proxy.model_copy(update={"epochs": 1, "batch_size": size})
    started = 0.0

    def on_step(done: int, _total: int) -> None:
        nonlocal started
        if done == WARM_UP_STEPS:
            started = _now(device)

    try:
        model, _ = train_proxy(arch, part, config, on_step=on_step)
    except DivergedError as error:
        raise UserError(f"a trial by this schedule fails: {error}; lower its peak_lr") from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"a step of {size} images needs more memory than there is; a search splits it, "
            "--batch-size N makes it smaller"
        ) from None
    trained = _now(device)
    evaluate(
        model,
        part.val,
        part.normalization,
        flip_average=config.flip_average,
        precision=config.precision,
    )
    val_seconds = (_now(device) - trained) / len(part.val)
    return Pace(arch, (trained - started) / (size * num_steps), val_seconds, size)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def trial_seconds(plan: Plan, pace: Pace, proxy: ProxyConfig | None = None) -> float:
    """Give the seconds of a whole trial; for another proxy by the ratio of the activations.

    Over 24 networks on a CPU they tell the time better than multiply-adds (r 0.90, 0.85). Half the
    width takes 0.66 of it, of the activations a half and of the multiply-adds a quarter
    (benchmarks/results/proxy_fidelity-cifar10-100k-16px.csv).
    """
    data, proxy = plan.data(), proxy or plan.proxy
    images = len(data.train) * proxy.epochs * pace.train_seconds + len(data.val) * pace.val_seconds
    return images * _activations(pace.arch, proxy) / _activations(pace.arch, plan.proxy)


def _activations(arch: Architecture, proxy: ProxyConfig) -> int:
    return count_activations(arch.scaled(proxy.width_factor), proxy.resolution)


def finalists_seconds(plan: Plan, pace: Pace) -> float:
    """Give the seconds of all finalists, one after the other."""
    if plan.finalists is None:
        return 0.0
    number = plan.finalists.num_networks * plan.finalists.num_seeds
    return number * trial_seconds(plan, pace, final_proxy(plan.proxy))


def num_at_once(plan: Plan) -> int:
    """Give how many trials really run side by side: at most one a GPU, or one a CPU core."""
    places = os.cpu_count() or 1 if plan.devices == ("cpu",) else len(plan.devices)
    return min(max(1, plan.num_workers), places)


def cheaper(plan: Plan, pace: Pace) -> dict[str, float]:
    """Give what makes a trial cheaper: the flags to add, and a trial's seconds with them."""
    data, now = plan.data(), plan.proxy
    presets = {
        f"--proxy {name}": _changed(
            _at_scale(name, data, plan.budget.max_params), plan.proxy_changes
        )
        for name in names("proxies")
    }
    steps = {
        "epochs": (now.epochs // 2, now.epochs > 1),
        "resolution": (
            data.at_scale(LEAST_RESOLUTION),
            now.resolution > data.at_scale(LEAST_RESOLUTION),
        ),
        "width_factor": (LEAST_WIDTH_FACTOR, now.width_factor > LEAST_WIDTH_FACTOR),
    }
    changes = {key: value for key, (value, is_less) in steps.items() if is_less}
    singles = {_flag(key, value): _changed(now, {key: value}) for key, value in changes.items()}
    all_of_them = {" ".join(singles): _changed(now, changes)}
    seconds = {
        flags: trial_seconds(plan, pace, proxy)
        for flags, proxy in (presets | singles | all_of_them).items()
    }
    return {f: s for f, s in seconds.items() if s < WORTH_IT * trial_seconds(plan, pace)}


def _at_scale(preset: str, data: TrainingData, max_params: int) -> ProxyConfig:
    proxy = ProxyConfig.load(preset, max_params)[1]
    return _changed(proxy, {"resolution": data.at_scale(proxy.resolution)})


def _changed(proxy: ProxyConfig, changes: Mapping[str, Any]) -> ProxyConfig:
    return proxy.model_copy(update=dict(changes))


def _flag(key: str, value: float) -> str:
    return f"--{key.replace('_', '-')} {value:g}"
