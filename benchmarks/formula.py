"""A search whose networks are scored by a formula: all of a trial but its training."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy
import torch

from nas.budget import Budget
from nas.complexity import count
from nas.data import TrainingData
from nas.find_study import database_of
from nas.objective import Objective
from nas.plan import Plan
from nas.proxy import ProxyConfig, ProxyResult
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.split import Split
from nas.storage import silence_optuna

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from nas.architecture import Architecture
    from nas.progress import Progress
    from nas.workers import Worker

BUDGET = Budget(5_000_000)


def score(arch: Architecture) -> ProxyResult:
    """Make up a result: accuracy grows with compute, with noise that is the network's own."""
    rng = random.Random(arch.arch_id)
    accuracy = 0.9 - 0.3 * (1e8 / count(arch).num_macs) ** 0.5 + rng.gauss(0, 0.01)
    losses = tuple(2.0 / (epoch + 1) for epoch in range(4))
    return ProxyResult(min(max(accuracy, 0.1), 1.0), 1.0 - accuracy, losses, 1.0, 1)


class FormulaObjective(Objective):
    """Waits as long as it is told, and makes the score up."""

    seconds = 0.0

    def _run(self, arch: Architecture) -> ProxyResult:
        time.sleep(self.seconds)
        return score(arch)


@dataclass(frozen=True)
class FormulaPlan(Plan):
    """The search of 5M parameters with `FormulaObjective`.

    Attributes:
        seconds: That a trial waits.
    """

    seconds: float = 0.0

    @classmethod
    def of(cls, url: str, *, seconds: float = 0.0) -> FormulaPlan:
        """Put the plan together that works on a database."""
        config = load_space("resnet")[1]
        space = SearchSpace.from_config(config, max_params=BUDGET.max_params)
        proxy = ProxyConfig.load("quick", BUDGET.max_params)[1]
        return cls(
            url, "formula", BUDGET, space, "none", ".", proxy, "tpe", 0, ("cpu",), None,
            seconds=seconds,
        )  # fmt: skip

    def data(self) -> TrainingData:
        """Give two empty images."""
        images = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
        return TrainingData("none", images, images, tuple("0123456789"), "none")

    def _worker(self, index: int, progress: Progress) -> Worker:
        worker = super()._worker(index, progress)
        worker.objective = FormulaObjective(**vars(worker.objective))
        worker.objective.seconds = self.seconds
        return worker


class DatabaseTime:
    """Adds up the seconds that an engine's statements take."""

    def __init__(self, engine: Engine) -> None:
        self.seconds, self._since = 0.0, 0.0
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._before)
        sqlalchemy.event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, *_: object) -> None:
        self._since = time.perf_counter()

    def _after(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._since


class TimedPlan(FormulaPlan):
    """Tells at the end what its database took, by a notice."""

    def work(self, target: int, deadline: float | None, index: int, progress: Progress) -> str:
        """Be a worker."""
        worker = self._worker(index, progress)
        silence_optuna()
        worker.study.get_trials(deepcopy=False)
        database = DatabaseTime(database_of(worker.study).engine)
        why = worker.run(target, deadline)
        progress.on_notice(str(database.seconds))
        return why
