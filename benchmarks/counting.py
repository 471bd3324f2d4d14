"""What it costs to count a network's parameters and multiply-adds, in three ways."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.complexity import count
from nas.model import build_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.architecture import Architecture

REPEATS = 20  # of a closed-form count, which alone is too short for the clock


def measure_counts(archs: list[Architecture]) -> dict[str, float]:
    """Give milliseconds of CPU a network for each way of counting; all must agree."""
    timed: dict[str, Callable[[Architecture], tuple[int, int]]] = {
        "closed form": _closed_form,
        "build and numel": lambda arch: (_num_params(build_model(arch, device="meta")), 0),
        "build and flop_counter": _flop_counter,
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    _flop_counter(archs[0])  # what it imports when it is first used
    for arch in archs:
        for name, counter in timed.items():
            repeats = REPEATS if name == "closed form" else 1
            start = time.process_time()
            for _ in range(repeats):
                counted = counter(arch)
            seconds[name].append((time.process_time() - start) / repeats)
            num_params, num_macs = _closed_form(arch)
            assert counted in {(num_params, num_macs), (num_params, 0)}, (name, arch)
    return {name: 1e3 * median(kept) for name, kept in seconds.items()}


def _closed_form(arch: Architecture) -> tuple[int, int]:
    cost = count(arch)
    return cost.num_params, cost.num_macs


def _num_params(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _flop_counter(arch: Architecture) -> tuple[int, int]:
    model = build_model(arch, device="meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 32, 32, device="meta"))
    return _num_params(model), counter.get_total_flops() // 2
