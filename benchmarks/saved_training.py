"""A proxy's training that is saved on the way: at 32 pixels one of 30 epochs takes two hours."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas.checkpoint import Checkpoint, Checkpoints
from nas.proxy import ProxyConfig, ProxyData, start_proxy
from nas.training import start_training, train

if TYPE_CHECKING:
    from torch import nn

    from nas.architecture import Architecture


@dataclass
class Clock:
    """Seconds by the wall and of this process's CPU, after those of earlier processes."""

    elapsed_before: float = 0.0
    cpu_before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)
    _cpu_started: float = field(default_factory=time.process_time)

    def read(self) -> dict[str, float]:
        """Give both, by their columns."""
        elapsed = self.elapsed_before + time.perf_counter() - self._started
        cpu = self.cpu_before + time.process_time() - self._cpu_started
        return {"elapsed_seconds": round(elapsed, 3), "cpu_seconds": round(cpu, 3)}


def train_saved(
    arch: Architecture, data: ProxyData, config: ProxyConfig, checkpoints: Checkpoints
) -> tuple[nn.Module, list[float], Clock]:
    """Train as `nas.proxy.train_proxy` does, saved after epochs, from the last that was saved.

    Gives the model, its loss each epoch, and the clock, which leaves out what was trained twice.
    """
    clock = Clock()
    model, batches = start_proxy(arch, data, config)
    state = start_training(model, config.training, data.device)
    losses: list[float] = []
    found = checkpoints.load_newest(lambda line: print(line, file=sys.stderr))
    if found is not None:
        state.restore(found.tensors, found.numbers["state"])
        losses, clock = found.numbers["losses"], Clock(*found.numbers["seconds"])
    saved = time.monotonic()
    for metrics in train(model, batches, config.training, state=state):
        losses.append(metrics.train_loss)
        if time.monotonic() - saved >= checkpoints.seconds:
            seconds = list(clock.read().values())
            numbers = {"state": state.numbers(), "losses": losses, "seconds": seconds}
            checkpoints.save(state.step, Checkpoint(state.tensors(), numbers))
            saved = time.monotonic()
    return model, losses, clock
