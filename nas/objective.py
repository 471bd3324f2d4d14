"""Objective: a trial's network, described, checked against the budget, scored by the proxy."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from optuna import TrialPruned

from nas.architecture import Architecture
from nas.complexity import count, size_bytes
from nas.errors import brief
from nas.failures import is_out_of_memory
from nas.outages import through_cuts
from nas.proposed import trial_id
from nas.provenance import provenance
from nas.proxy import run_proxy
from nas.samplers import Exhausted
from nas.study import METRIC
from nas.training import DivergedError, resolved_precision
from nas.trials import TrialFailed, described

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial, Trial

    from nas.budget import Budget
    from nas.proxy import ProxyConfig, ProxyData, ProxyResult
    from nas.samplers import BudgetSampler
    from nas.space import SearchSpace


@dataclass
class Objective:
    """Scores a trial's network: `Objective(...)(trial)` is its validation accuracy in [0, 1].

    Attributes:
        space: Decodes the trial's parameters.
        budget: Nothing over it is built.
        data: Train and val on the device.
        proxy: The schedule.
        sampler_name: Recorded with what it proposes.
        proposer: The study's sampler, for the record of each proposal.
        claim: Claims an architecture for a trial; False if another trial has it.
        trial_timeout: Seconds a trial may take, or `None`.
        on_step: Called with (steps done, steps in all).
        seed: The search's, for the record.
    """

    space: SearchSpace
    budget: Budget
    data: ProxyData
    proxy: ProxyConfig
    sampler_name: str
    proposer: BudgetSampler
    claim: Callable[[str, FrozenTrial | Trial], bool]
    trial_timeout: float | None = None
    on_step: Callable[[int, int], None] | None = None
    seed: int | None = None

    def __call__(self, trial: Trial) -> float:
        """Score the trial.

        Raises:
            TrialPruned: The network is over budget; nothing was built.
            TrialFailed: It cannot be scored, and why.
        """
        arch = self._architecture(trial)
        self._describe(trial, arch)
        if trial.should_prune():
            for name, (_, maximum) in self.budget.bounds.items():
                trial.set_constraint(name, self.budget.costs[name](arch) / maximum - 1)
            raise TrialPruned
        if not self.claim(arch.arch_id, trial):
            if all(dist.single() for dist in self.space.distributions.values()):
                raise Exhausted("the search space is exhausted: it has one network")
            raise TrialFailed("duplicate", "another trial has this architecture")
        result = self._run(arch)
        self._record(trial, result)
        return result.val_accuracy

    def _architecture(self, trial: Trial) -> Architecture:
        """Decode a proposal, or read what was enqueued (which may lie outside the space)."""
        queued = trial.user_attrs.get("architecture_json")
        is_new = queued is None and not trial.params
        if queued is None or _has_parameters(trial):
            for name, dist in self.space.distributions.items():
                trial.suggest_int(name, dist.low, dist.high, step=dist.step)
        if queued is not None:
            return Architecture.from_json(queued)
        if not is_new:
            if "proposed_by" not in trial.user_attrs:  # lost before it was written down
                trial.set_user_attr("proposed_by", "unknown")
            return self.space.decode(trial.params)
        origin = self.proposer.origin
        names = {"base": self.sampler_name, "repaired": f"{self.sampler_name}, repaired"}
        trial.set_user_attr("proposed_by", names.get(origin, origin))
        refused = {why: times for why, times in self.proposer.draws.items() if why != origin}
        if refused:
            trial.set_user_attr("draws", refused)
        return self.space.decode(trial.params)

    def _describe(self, trial: Trial, arch: Architecture) -> None:
        cost = count(arch, self.budget.image_size)
        attrs = {
            **described(arch),
            "budget_share": round(cost.num_params / self.budget.max_params, 4),
            "num_macs": cost.num_macs,
            "size_bytes": size_bytes(arch),
        }
        known = trial.user_attrs
        for name, value in attrs.items():
            if known.get(name) != value:
                trial.set_user_attr(name, value)

    def _run(self, arch: Architecture) -> ProxyResult:
        """Run the proxy; out of memory once more, in the same time, with batches in two parts."""
        started = time.monotonic()
        try:
            return self._run_proxy(arch, started, num_micro_batches=1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        try:
            return self._run_proxy(arch, started, num_micro_batches=2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrialFailed("out_of_memory", brief(error)) from None

    def _run_proxy(
        self, arch: Architecture, started: float, *, num_micro_batches: int
    ) -> ProxyResult:
        def on_step(done: int, total: int) -> None:
            if self.trial_timeout is not None and time.monotonic() - started > self.trial_timeout:
                raise TrialFailed("timeout", f"step {done} of {total} at {self.trial_timeout:g} s")
            if self.on_step is not None:
                self.on_step(done, total)

        try:
            return run_proxy(
                arch, self.data, self.proxy, on_step=on_step, num_micro_batches=num_micro_batches
            )
        except DivergedError as error:
            raise TrialFailed("diverged", brief(error)) from None

    def _record(self, trial: Trial, result: ProxyResult) -> None:
        measured = asdict(result)
        del measured[METRIC]
        if result.num_micro_batches == 1:  # what is as always needs no row in the database
            del measured["num_micro_batches"]
        measured["elapsed_seconds"] = round(result.elapsed_seconds, 3)
        device = self.data.device
        precision = resolved_precision(device, self.proxy.precision)
        made_with = provenance(str(device), precision=precision, seed=self.seed)
        measured["provenance"] = json.dumps(made_with)
        for name, value in measured.items():
            through_cuts(partial(trial.set_user_attr, name, value))


def _has_parameters(trial: Trial) -> bool:
    """Tell whether a queued network lay in the space when it was queued; a space may grow."""
    return bool(trial.storage.get_trial(trial_id(trial)).system_attrs.get("fixed_params"))
