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

from nas.complexity import count_macs
from nas.evaluation import evaluate
from nas.feasible import Region
from nas.finalists import final_proxy
from nas.presets import names
from nas.proxy import ProxyConfig, ProxyData, train_proxy
from nas.samplers import Exhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.architecture import Architecture
    from nas.data import TrainingData
    from nas.job import Job

NUM_DRAWS = 20_000  # uniform draws of which the share inside the window is told
FIRST_IMAGES = 32  # a step on a CPU begins with so few, for 512 can take half a minute
WARM_UP_STEPS, FIRST_STEPS, MOST_STEPS = 2, 4, 64
ENOUGH_SECONDS = 1.0  # of measured steps
# Below these a proxy ranks worse (research of others: NAS-Bench-201 at 8 pixels, quarter width).
LEAST_RESOLUTION, LEAST_WIDTH_FACTOR = 16, 0.5
WORTH_IT = 0.95  # of a trial's seconds: what saves less is not named


def num_inside(job: Job) -> int:
    """Count how many of `NUM_DRAWS` uniformly random networks keep every limit."""
    region = Region(job.space.distributions, job.budget.limits(job.space))
    rng = Random(job.seed)
    return sum(region.verdict(region.uniform(rng)) is None for _ in range(NUM_DRAWS))


def proposals(job: Job, number: int) -> list[Architecture]:
    """Give what the sampler would propose at the start of a new study, less where less fits."""
    proposed: set[str] = set()

    def claim(arch_id: str, _trial: object) -> bool:
        is_new = arch_id not in proposed
        proposed.add(arch_id)
        return is_new

    study = optuna.create_study(direction="maximize", sampler=job.proposer(claim))
    found: list[Architecture] = []
    with suppress(Exhausted):
        while len(found) < number:
            found.append(job.space.decode(study.ask({**job.space.distributions}).params))
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


def measure(job: Job, arch: Architecture) -> Pace:
    """Train a network for a few steps on the job's device, with its threads.

    On a CPU with fewer images a step than the proxy's, as long as a step is slow: the time of an
    image hardly depends on it there.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(job.num_threads)
    try:
        return _measure(job, arch)
    finally:
        torch.set_num_threads(threads)


def _measure(job: Job, arch: Architecture) -> Pace:
    full = min(job.proxy.batch_size, len(job.data().train))
    size = full if job.devices[0].startswith("cuda") else min(full, FIRST_IMAGES)
    num_steps = FIRST_STEPS
    while True:
        pace = _pace(job, arch, size, num_steps)
        is_enough = pace.train_seconds * size * num_steps >= ENOUGH_SECONDS
        if is_enough or (size == full and num_steps >= MOST_STEPS):
            return pace
        if size < full:
            size = min(full, 4 * size)
        else:
            num_steps *= 4


def _pace(job: Job, arch: Architecture, size: int, num_steps: int) -> Pace:
    """Measure `num_steps` steps of `size` images, and a validation of a step's images."""
    device = torch.device(job.devices[0])
    data = job.data()
    order = torch.arange(size * (WARM_UP_STEPS + num_steps))
    part = ProxyData.prepare(
        replace(
            data,
            train=data.train.select(order % len(data.train)),
            val=data.val.select(order[: 4 * size] % len(data.val)),
        ),
        job.proxy.resolution,
        device,
    )
    config = job.proxy.model_copy(update={"epochs": 1, "batch_size": size})
    started = 0.0

    def on_step(done: int, _total: int) -> None:
        nonlocal started
        if done == WARM_UP_STEPS:
            started = _now(device)

    model, _ = train_proxy(arch, part, config, on_step=on_step)
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


def trial_seconds(job: Job, pace: Pace, proxy: ProxyConfig | None = None) -> float:
    """Give the seconds of a whole trial; for another proxy by the ratio of the multiply-adds."""
    data, proxy = job.data(), proxy or job.proxy
    images = len(data.train) * proxy.epochs * pace.train_seconds + len(data.val) * pace.val_seconds
    return images * _macs(pace.arch, proxy) / _macs(pace.arch, job.proxy)


def _macs(arch: Architecture, proxy: ProxyConfig) -> int:
    return count_macs(arch.scaled(proxy.width_factor), proxy.resolution)


def finalists_seconds(job: Job, pace: Pace) -> float:
    """Give the seconds of all finalists, one after the other."""
    if job.finalists is None:
        return 0.0
    number = job.finalists.num_networks * job.finalists.num_seeds
    return number * trial_seconds(job, pace, final_proxy(job.proxy))


def num_at_once(job: Job) -> int:
    """Give how many trials really run side by side: at most one a GPU, or one a CPU core."""
    places = os.cpu_count() or 1 if job.devices == ("cpu",) else len(job.devices)
    return min(max(1, job.num_workers), places)


def cheaper(job: Job, pace: Pace) -> dict[str, float]:
    """Give what makes a trial cheaper: the flags to add, and a trial's seconds with them."""
    data, now = job.data(), job.proxy
    presets = {
        f"--proxy {name}": _changed(_at_scale(name, data, job.budget.max_params), job.proxy_changes)
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
        flags: trial_seconds(job, pace, proxy)
        for flags, proxy in (presets | singles | all_of_them).items()
    }
    return {f: s for f, s in seconds.items() if s < WORTH_IT * trial_seconds(job, pace)}


def _at_scale(preset: str, data: TrainingData, max_params: int) -> ProxyConfig:
    proxy = ProxyConfig.load(preset, max_params)[1]
    return _changed(proxy, {"resolution": data.at_scale(proxy.resolution)})


def _changed(proxy: ProxyConfig, changes: Mapping[str, Any]) -> ProxyConfig:
    return proxy.model_copy(update=dict(changes))


def _flag(key: str, value: float) -> str:
    return f"--{key.replace('_', '-')} {value:g}"
