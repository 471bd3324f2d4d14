"""Plan: a search as a value, and what a worker of it does, in whatever process it is."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from nas.complexity import log_costs
from nas.data import load_training_data
from nas.errors import UserError
from nas.evaluation import is_even
from nas.finalists import (
    FinalistWorker,
    final_timeout,
    open_finalists,
    queue_finalists,
    write_finalist_notes,
)
from nas.find_study import load_study, register_of
from nas.objective import Objective
from nas.parent import Parent
from nas.presets import hand_made
from nas.proxy import ProxyData
from nas.pruner import OverBudgetPruner
from nas.register import lock_file
from nas.samplers import make_sampler
from nas.split import SPLIT_SEED
from nas.storage import (
    database_failures_in_one_line,
    is_begun,
    open_storage,
    silence_optuna,
    sqlite_file,
)
from nas.study import identity, open_study, refuse_foreign, refuse_other, stored_identity
from nas.trials import claimer, num_scored
from nas.width_scaling import WidthScaling
from nas.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.architecture import Architecture
    from nas.budget import Budget
    from nas.data import TrainingData
    from nas.finalists import Finalists
    from nas.progress import Progress
    from nas.proxy import ProxyConfig
    from nas.samplers import BudgetSampler
    from nas.space import SearchSpace


@dataclass(frozen=True)
class Plan:
    """A search as a value: all that a worker must know, in whatever process it is.

    Attributes:
        url: The database's.
        study: The study's name.
        budget: Its limits.
        space: What is searched.
        dataset: The data set's name.
        data_root: Folder of its files.
        proxy: The schedule.
        sampler: The sampler's name.
        seed: Of the proposals.
        devices: As torch writes them; worker k has the k-th, counted round.
        trial_timeout: Seconds a trial may take, or `None`.
        patience: As in `nas.search.plan`.
        finalists: How many of the best are scored again in the end, or `None`.
        num_workers: Processes that score trials; 0 scores them in this one.
        num_threads: Of torch in a worker process.
        proxy_changes: What flags changed of the schedule.
    """

    url: str
    study: str
    budget: Budget
    space: SearchSpace
    dataset: str
    data_root: str | Path
    proxy: ProxyConfig
    sampler: str
    seed: int
    devices: tuple[str, ...]
    trial_timeout: float | None
    patience: int | None = None
    finalists: Finalists | None = None
    num_workers: int = 0
    num_threads: int = 1
    proxy_changes: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Study:
        """Create the study, or continue it; an SQLite file of another program stays as it is."""
        found, path = None, sqlite_file(self.url)
        if path is not None and is_begun(self.url):
            with suppress(UserError), lock_file(path):  # nobody makes tables meanwhile
                found = self._found()
        if found is not None:
            refuse_foreign(found)
        pruner = OverBudgetPruner(self.budget.limits(self.space))
        first = baselines(self.space, self.budget)
        wanted = self._identity()
        storage = open_storage(self.url)
        return open_study(storage, self.study, wanted, self.space, pruner=pruner, baselines=first)

    def find(self) -> Study | None:
        """Find the study if it was begun; nothing is written.

        Raises:
            UserError: It holds scores that this plan's could not be compared with.
        """
        study = self._found()
        if study is not None:
            refuse_other(study, self._identity(), self.space)
        return study

    def _found(self) -> Study | None:
        storage = open_storage(self.url, create=False) if is_begun(self.url) else None
        return None if storage is None else load_study(storage, self.study)

    def run(self, study: Study, target: int, deadline: float | None, progress: Progress) -> str:
        """Score trials up to the target, then finalists, in worker processes unless 0 of them.

        Returns:
            Why it ended, as `Worker.run` says.
        """
        why = "complete"
        if num_scored(study) < target:
            work = partial(self.work, target, deadline)
            why = self._spread(work, study, progress, self.trial_timeout)
        if self.finalists is None or why == "timeout":
            return why
        is_in_time = self._refine(self.finalists, study, deadline, progress)
        return why if is_in_time else "timeout"

    def _refine(
        self, wanted: Finalists, study: Study, deadline: float | None, progress: Progress
    ) -> bool:
        """Score finalists that have no score yet; False if the deadline came first."""
        sister = open_finalists(study, self.proxy)
        left = queue_finalists(study, sister, self.space, wanted, self.proxy.seed)
        why = "complete"
        if left:
            progress.on_finalists(sister, left)
            work = partial(self.work_on_finalists, deadline)
            longer = final_timeout(self.trial_timeout)
            why = self._spread(work, sister, progress, longer)
        write_finalist_notes(study, sister)
        return why != "timeout"

    def _spread(
        self,
        work: Callable[[int, Progress], str],
        study: Study,
        progress: Progress,
        trial_timeout: float | None,
    ) -> str:
        """Have the workers do it, whose trials are those of `study`; says why they ended."""
        if self.num_workers == 0:
            return work(0, progress)
        parent = Parent(
            work, self.num_workers, study, register_of(study), self.space, progress, trial_timeout
        )
        return parent.run()

    def work(self, target: int, deadline: float | None, index: int, progress: Progress) -> str:
        """Be worker `index`, in this process, to the end; says why it ended."""
        with self._ready():
            return self._worker(index, progress).run(target, deadline)

    def work_on_finalists(self, deadline: float | None, index: int, progress: Progress) -> str:
        """Be worker `index` of the finalists, likewise."""
        with self._ready():
            return FinalistWorker.of(self._worker(index, progress)).run(0, deadline)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Make a worker process ready; with 0 of them, the caller's is left as it is."""
        if self.num_workers:
            silence_optuna()
            torch.set_num_threads(self.num_threads)
        with database_failures_in_one_line(self.url):
            yield

    def _worker(self, index: int, progress: Progress) -> Worker:
        """Load the study, which `open` has checked, and put the worker together.

        Meanwhile another search may have widened its space.

        Raises:
            UserError: The study was deleted, or a folder's images are no longer those it scores on.
        """
        storage = open_storage(self.url, create=False, is_known=True)
        pruner = OverBudgetPruner(self.budget.limits(self.space))
        study = load_study(storage, self.study, pruner=pruner)
        if study is None:
            raise UserError(f"study {self.study!r} was deleted while it was in use")
        images = self.data()
        if images.fingerprint != stored_identity(study)["data_fingerprint"]:
            raise UserError(
                f"the images of {self.dataset} have changed since study {self.study!r} was begun; "
                "with the images as they were the same command goes on"
            )
        register = register_of(study)
        claim = claimer(storage, register)
        study.sampler = proposer = self.proposer(claim)
        device = self.devices[index % len(self.devices)]
        objective = Objective(
            self.space,
            self.budget,
            ProxyData.prepare(images, self.proxy.resolution, device),
            self.proxy,
            sampler_name=self.sampler,
            proposer=proposer,
            claim=claim,
            trial_timeout=self.trial_timeout,
            on_step=lambda done, total: progress.on_step(done, total, index),
            seed=self.seed,
        )
        return Worker(
            study,
            register,
            self.space,
            objective,
            progress.on_trial_end,
            on_trial_start=lambda number: progress.on_trial_start(number, index),
            on_notice=progress.on_notice,
            patience=self.patience,
        )

    def data(self) -> TrainingData:
        """Load the images."""
        return load_training_data(self.dataset, self.data_root)

    def _identity(self) -> dict[str, Any]:
        data = self.data()
        split = f"{len(data.train)} train, {len(data.val)} val, stratified, seed {SPLIT_SEED}"
        if not is_even(data.val.labels):
            split += "; accuracy is the mean over classes"
        return identity(data.name, data.fingerprint, split, self.budget, self.proxy)

    def proposer(self, claim: Callable[[str, FrozenTrial], bool]) -> BudgetSampler:
        """Make the sampler; `claim` says whether an arch_id may still be proposed."""
        limits = self.budget.limits(self.space)
        scaling = WidthScaling(self.space, limits)
        return make_sampler(
            self.sampler,
            self.space.distributions,
            limits,
            features=lambda p: log_costs(self.space.decode(p), self.budget.image_size),
            repair=scaling.repair,
            random_feasible=scaling.random_feasible,
            claim=lambda trial, params: claim(self.space.decode(params).arch_id, trial),
            seed=self.seed,
        )


def baselines(space: SearchSpace, budget: Budget) -> dict[str, Architecture]:
    """Give the hand-made networks within the limits, or ResNet26_97 scaled to them."""
    networks = {name: space.fitted(arch) for name, arch in hand_made().items()}
    if fitting := {name: arch for name, arch in networks.items() if budget.admits(arch)}:
        return fitting
    largest = _largest_scaled(networks["ResNet26_97"], budget)
    return {"ResNet26_97 scaled": largest} if budget.admits(largest) else {}


def _largest_scaled(arch: Architecture, budget: Budget) -> Architecture:
    """Scale all widths by the largest thousandth that keeps every maximum, if any does."""

    def is_over(thousandths: int) -> bool:
        scaled = arch.scaled(thousandths / 1000)
        return any(budget.costs[n](scaled) > maximum for n, (_, maximum) in budget.bounds.items())

    low, high = 1, 2
    while not is_over(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_over(middle) else (middle, high)
    return arch.scaled(low / 1000)
