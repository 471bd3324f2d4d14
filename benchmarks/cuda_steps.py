"""Milliseconds of a training step on CUDA: called or replayed, by network, batch and recipe.

    python benchmarks/cuda_steps.py [--networks 8] [--compile] [--cudnn-benchmark] [--out FILE.csv]

Steps of `train` on generated images, for the hand-made network, the same with widths that are
multiples of 8, and random networks of the budget, each under `standard` and the first two also
under the full recipes. `called` is the step as it is written, `replayed` what `train` does on CUDA
(`nas.replayed`), `compiled` with `torch.compile` before. An epoch warms up, the second is timed.
Losses of the first epoch are printed beside: called and replayed must have the same.

With `--processes 1 2 3`, so many processes at once time steps of a small network too, at 32 pixels,
as that many workers on one GPU would: `step_ms` is then that of a step of any, by the clock.

cuDNN's choice is kept for a process and a shape, so that `--cudnn-benchmark` needs one of its own.
`data` is the time of the batches alone, without steps.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch
from fidelity_plan import Setting, networks
from measured import machine, write_rows

from nas import replayed
from nas.architecture import Architecture
from nas.batches import Batches
from nas.complexity import count
from nas.data import load_training_data
from nas.errors import brief
from nas.full_training import FullData
from nas.model import build_model
from nas.presets import hand_made_network
from nas.proxy import ProxyConfig, ProxyData
from nas.recipe import RetrainConfig
from nas.training import start_training, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.synchronize import Barrier

    from nas.split import Split
    from nas.training import TrainingConfig

BUDGET = 5_000_000
HAND_MADE = hand_made_network("ResNet26_97")
ALIGNED = Architecture.of([3, 3, 3, 3], [128, 96, 168, 200])
SMALL = Architecture.of([3, 3, 3, 3], [24, 24, 40, 48])  # 270,306 parameters
RECIPES = ("strong", "seed")
READY_SECONDS = 120.0  # for all processes to come so far; if one fails, all end
WAYS = ("called", "replayed")
DEVICE = torch.device("cuda")

Case = tuple[Batches, "TrainingConfig"]


def first(split: Split, number: int) -> Split:
    """Take images from the start, from there again where there are fewer."""
    return split.select(torch.arange(number, device=split.labels.device) % len(split))


def proxy_case(resolution: int, steps: int) -> Case:
    """Give batches and schedule of `standard`, at some resolution."""
    config = ProxyConfig.load("standard", BUDGET)[1].model_copy(update={"resolution": resolution})
    data = ProxyData.prepare(load_training_data("synthetic", ""), resolution, "cuda")
    images = first(data.train, steps * config.batch_size)
    return replace(data, train=images).batches(config), config.training


def recipe_case(name: str, steps: int) -> Case:
    """Give batches and schedule of a full training."""
    config = RetrainConfig.load(name, epochs=2)[1]
    data = FullData.prepare(
        load_training_data("synthetic", ""), config.resolution, "cuda", is_held_out=False
    )
    images = first(data.train, steps * config.batch_size)
    return replace(data, train=images).batches(config, seed=0), config.training


def timed(arch: Architecture, case: Case, way: str, *, is_compiled: bool) -> dict[str, object]:
    """Time the second epoch; the first one's seconds and loss are given too."""
    batches, config = case
    before = float("inf") if way == "called" else replayed.STEPS_BEFORE
    with mock.patch.object(replayed, "STEPS_BEFORE", before):
        torch.cuda.empty_cache()  # what the run before held would count
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        model = build_model(arch, device=DEVICE)
        state = start_training(model, config, DEVICE)
        epochs = train(model, batches, config, state=state, is_compiled=is_compiled)
        loss = next(epochs).train_loss
        warm = time.perf_counter()
        next(epochs)  # it ends with a wait for the device
        seconds = time.perf_counter() - warm
        epochs.close()
    cost = count(arch)
    step = seconds / batches.num_steps
    flops = 6 * cost.num_macs * (batches.split.images.shape[-1] / 32) ** 2 * batches.step_size
    return {
        "network": str(arch),
        "num_params": cost.num_params,
        "num_macs": cost.num_macs,
        "way": "compiled, " * is_compiled + way,
        "first_epoch_seconds": f"{warm - started:.3f}",
        "step_ms": f"{1000 * step:.3f}",
        "tflops": f"{flops / step / 1e12:.0f}",
        "loss": f"{loss:.4f}",
        "peak_gb": f"{torch.cuda.max_memory_reserved() / 1e9:.2f}",
    }


def data_alone(case: Case) -> dict[str, object]:
    """Time the batches of an epoch, without steps."""
    batches, _ = case
    for epoch in range(2):  # the first one warms up
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in batches.epoch(epoch):
            pass
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {
        "network": "none",
        "way": "data",
        "step_ms": f"{1000 * seconds / batches.num_steps:.3f}",
    }


def side_by_side(number: int, steps: int) -> dict[str, object]:
    """Time steps of `SMALL` in processes at once, from all being ready to the last one's end."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number + 1)
    processes = [context.Process(target=_epoch, args=(barrier, steps)) for _ in range(number)]
    for process in processes:
        process.start()
    barrier.wait(READY_SECONDS)
    started = time.perf_counter()
    barrier.wait(READY_SECONDS)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    cost = count(SMALL)
    return {
        "case": "standard, 32 pixels",
        "network": str(SMALL),
        "num_params": cost.num_params,
        "num_macs": cost.num_macs,
        "way": f"replayed, {number} processes",
        "step_ms": f"{1000 * seconds / (number * steps):.3f}",
    }


def _epoch(barrier: Barrier, steps: int) -> None:
    batches, config = proxy_case(32, steps)
    epochs = train(build_model(SMALL, device=DEVICE), batches, config)
    next(epochs)
    barrier.wait(READY_SECONDS)
    next(epochs)
    barrier.wait(READY_SECONDS)


def main() -> None:
    """Measure, print, and write each row at once: the machine may be taken away."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=8, help="random ones")
    parser.add_argument("--steps", type=int, default=50, help="an epoch")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 16])
    parser.add_argument("--compile", action="store_true", help="time compiled steps as well")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="have cuDNN try its ways")
    parser.add_argument("--processes", type=int, nargs="+", default=[], help="at once")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    setting = Setting("synthetic", BUDGET, "resnet", ProxyConfig.load("standard", BUDGET)[1])
    archs = [HAND_MADE, ALIGNED, *networks(setting, 10, arguments.networks)]
    cases = {
        f"standard, {side} pixels": (proxy_case(side, arguments.steps), archs)
        for side in arguments.resolutions
    } | {name: (recipe_case(name, 2 * arguments.steps), archs[:2]) for name in RECIPES}
    rows: list[dict[str, object]] = []
    for row in measured(cases, arguments):
        rows.append(row)
        print(*(f"{key}={value}" for key, value in row.items()), flush=True)
        if arguments.out:
            columns = {key: "" for each in rows for key in each}
            head = machine("cuda") | {"cudnn": torch.backends.cudnn.version()}
            write_rows(arguments.out, [columns | each for each in rows], head)


def measured(
    cases: Mapping[str, tuple[Case, Sequence[Architecture]]], arguments: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """Yield the rows of all cases, several processes at once last; what fails is told instead."""
    runs: list[tuple[str, Case, Callable[[], dict[str, object]]]] = []
    for name, (case, trained) in cases.items():
        runs.append((name, case, partial(data_alone, case)))
        for arch in trained:
            compiled = (False, True) if arguments.compile and arch == HAND_MADE else (False,)
            runs += [
                (name, case, partial(timed, arch, case, way, is_compiled=is_compiled))
                for is_compiled, way in itertools.product(compiled, WAYS)
            ]
    name, (case, _) = next(iter(cases.items()))
    for number in arguments.processes:
        runs.append((name, case, partial(side_by_side, number, 8 * arguments.steps)))
    case_before = ""
    for name, case, run in runs:
        try:
            if name != case_before:
                timed(HAND_MADE, case, "called", is_compiled=False)  # loads kernels
            row = run()
        except (RuntimeError, ArithmeticError) as error:
            print(f"{name}: {brief(error)}", file=sys.stderr, flush=True)
        else:
            yield {"case": name, "batch_size": case[0].batch_size, **row}
        case_before = name


if __name__ == "__main__":
    main()
