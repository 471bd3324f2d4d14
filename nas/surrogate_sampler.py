"""SurrogateSampler: proposes what a model of the scores expects to improve most, within limits."""

from __future__ import annotations

import math
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.errors import UserError
from nas.feasible import draw
from nas.gaussian_process import (
    LARGEST,
    GaussianProcess,
    Kernel,
    evidences,
    log_expected_improvement,
)
from nas.proposed import retried

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.encoding import Encoding
    from nas.feasible import Key, Params, Region

    Array = NDArray[np.float64]

NUM_START = 10  # scored trials before there is a model
REFIT = 1.2  # the kernel is chosen anew when the scored trials have grown by this factor
MAX_ROWS = 400  # trials the model is of: half the latest, half spread over those before
POOL = 300  # random parameters within the limits, the same all along
MAX_FAILED = 30  # draws of it that find none
NUM_PARENTS = 6  # best trials whose neighbours and mutants are looked at
FRESH, MAX_FAILED_FRESH = 15, 2  # further random ones a proposal, likewise
NUM_MUTANTS = 60
MAX_REPAIRS = 4  # of the mutants that leave the limits
FARTHEST = 1000  # from the best, in distances of the best from the median
BLIND = 0.5  # share of random proposals while the model predicts nothing: its own teach it little
BEAM = 3  # best candidates whose neighbours are looked at, again and again
MAX_CLIMB = 5


class SurrogateSampler(BaseSampler):
    """Maximizes the expected improvement of a Gaussian process over what keeps the limits.

    The improvement is over the best posterior mean, for the best score is luck. Trials that run
    are believed to score what the model predicts, and those that failed or were pruned the median
    of the others: were they left out, the search would try their neighbours one by one. A base of
    `BudgetSampler`, which sees to start-up, to claims and to what is enqueued.

    Args:
        candidates: What may be proposed; shared by the samplers of a study.
        seed: Of the mutants.
    """

    def __init__(self, candidates: Candidates, seed: int) -> None:
        self._candidates = candidates
        self._rng = Random(seed)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole search space, but for parameters with one value."""
        del study, trial
        space = self._candidates.region.search_space
        return {name: dist for name, dist in space.items() if not dist.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose parameters within the limits; none while too few trials are scored.

        Raises:
            UserError: The study has several objectives.
        """
        del search_space
        if len(study.directions) > 1:
            raise UserError("the sampler default has one objective; for several: tpe or nsga2")
        candidates = self._candidates
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        others = [t for t in others if candidates.has(t.params)]
        keys = {t.number: candidates.region.key(t.params) for t in others}
        told = self._told(others, keys)
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        values = np.array([sign * _score(t) for t in told])
        if np.isfinite(values).sum() < NUM_START:
            return {}
        rows = candidates.encode((keys[t.number], t.params) for t in told)
        kept = _thinned(len(told))
        kernel = candidates.kernel(rows, values, [t.number for t in told], self._rng)
        model = GaussianProcess(rows[kept], _filled(values)[kept], kernel)
        if not model.predicts and self._rng.random() < BLIND:
            return {}
        believed = -math.inf
        if running := [t for t in others if t.state is TrialState.RUNNING]:
            running_rows = candidates.encode((keys[t.number], t.params) for t in running)
            model = model.believing(running_rows)
            believed = model.mean(running_rows)[self._inside(running, keys)].max(initial=believed)
        means = np.full(len(told), -np.inf)
        means[kept] = model.means
        best = np.argsort(-_filled(values))[: MAX_ROWS // 4]
        if len(left_out := np.setdiff1d(best, kept)):
            means[left_out] = model.mean(rows[left_out])
        means[~np.isfinite(values)] = -np.inf
        inside = self._inside(told, keys)
        if np.isfinite(means[inside]).any():  # what lies beside the limits is no goal within them
            means[~inside] = -np.inf
        parents = [told[index].params for index in np.argsort(-means)[:NUM_PARENTS]]
        incumbent = max(float(means.max()), float(believed))
        return self._best(model, incumbent, parents, set(keys.values()))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's parameter
        """Draw a parameter outside the search space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _inside(self, trials: Sequence[FrozenTrial], keys: Mapping[int, Key]) -> NDArray[np.bool_]:
        """Mark the trials within the limits."""
        is_inside = self._candidates.is_inside
        return np.array([is_inside(keys[t.number], t.params) for t in trials], dtype=bool)

    def _told(self, trials: list[FrozenTrial], keys: Mapping[int, Key]) -> list[FrozenTrial]:
        """Keep the scored ones, and what else ended within the limits and was not tried again."""
        again = retried(trials)
        scored = {keys[t.number] for t in trials if t.state is TrialState.COMPLETE}

        def tells(trial: FrozenTrial) -> bool:
            if trial.state is TrialState.COMPLETE:
                return True
            is_over = trial.state.is_finished() and trial.number not in again
            is_alone = is_over and keys[trial.number] not in scored
            return is_alone and self._candidates.is_inside(keys[trial.number], trial.params)

        return [trial for trial in trials if tells(trial)]

    def _best(
        self, model: GaussianProcess, incumbent: float, parents: list[Params], known: set[Key]
    ) -> Params:
        """Look at neighbours of the best candidates while that finds better ones."""
        gains: dict[Key, float] = {}
        found = self._candidates.around(parents, self._rng)
        beam: list[tuple[Key, Params]] = []
        for _ in range(MAX_CLIMB):
            new = [(k, params) for k, params in found.items() if not (k in known or k in gains)]
            if not new:
                break
            predicted = model.predict(self._candidates.encode(new))
            gains |= zip(
                (k for k, _ in new), log_expected_improvement(*predicted, incumbent), strict=True
            )
            before, beam = beam, sorted([*beam, *new], key=lambda each: -gains[each[0]])[:BEAM]
            if beam == before:
                break
            found = {}
            for _, params in beam:
                found |= self._candidates.neighbours(params)
        return beam[0][1] if beam else {}


class Candidates:
    """Parameters within the limits, and their rows of features; remembers what it worked out.

    Args:
        region: Search space and limits.
        encoding: Parameters to features.
        random_feasible: Draws parameters within, or `None`.
        repair: Maps parameters outside to some within, or `None`.
        seed: Of the pool.
    """

    def __init__(
        self,
        region: Region,
        encoding: Encoding,
        random_feasible: Callable[[Random], Params | None],
        repair: Callable[[Params, Random], Params | None],
        seed: int,
    ) -> None:
        self.region = region
        self._encoding = encoding
        self._random_feasible = random_feasible
        self._repair = repair
        self._seed = seed
        self._inside: dict[Key, bool] = {}
        self._rows: dict[Key, Array] = {}
        self._neighbours: dict[Key, dict[Key, Params]] = {}
        self._kernels: dict[tuple[Hashable, ...], dict[Kernel, float]] = {}

    def has(self, params: Mapping[str, Any]) -> bool:
        """Tell whether these are all parameters of the search space."""
        return self.region.search_space.keys() <= params.keys()

    def encode(self, found: Iterable[tuple[Key, Mapping[str, Any]]]) -> Array:
        """Encode N keys and parameters as (N, D)."""
        found = list(found)
        new = {key: params for key, params in found if key not in self._rows}
        self._rows |= zip(new, self._encoding.encode(list(new.values())), strict=True)
        return np.array([self._rows[key] for key, _ in found])

    def kernel(self, rows: Array, values: Array, numbers: Sequence[int], rng: Random) -> Kernel:
        """Draw the settings of a model, the best of each warping, by their evidence.

        The evidence is worked out again whenever a fifth more trials are scored.
        """
        scored = np.flatnonzero(np.isfinite(values))
        step = int(math.log(len(scored) / NUM_START) / math.log(REFIT) + 1e-9)
        number = int(scored[math.ceil(NUM_START * REFIT**step - 1e-9) - 1]) + 1
        key = (*numbers[:number], values[:number].tobytes())
        weights = self._kernels.get(key)
        if weights is None:
            kept = _thinned(number)
            found = evidences(rows[kept], _filled(values[:number])[kept])
            best = max(found.values())
            weights = {k: math.exp(each - best) for k, each in found.items()}
            self._kernels = {key: weights}
        return rng.choices(list(weights), list(weights.values()))[0]

    def around(self, parents: Sequence[Params], rng: Random) -> dict[Key, Params]:
        """Give the pool, the parents' neighbours, and their mutants."""
        found = dict(self._pool)
        for parent in parents:
            found |= self.neighbours(parent)
        others = [*self._mutants(parents, rng), *self._drawn(FRESH, MAX_FAILED_FRESH, rng)]
        return found | {self.region.key(params): params for params in others}

    @cached_property
    def _pool(self) -> dict[Key, Params]:
        drawn = self._drawn(POOL, MAX_FAILED, Random(self._seed))
        return {self.region.key(params): params for params in drawn}

    def _drawn(self, number: int, max_failed: int, rng: Random) -> Iterator[Params]:
        """Draw random parameters within the limits, fewer where they are hard to find."""
        num_failed = 0
        for _ in range(number):
            if (params := self._random_feasible(rng)) is not None:
                yield params
            elif (num_failed := num_failed + 1) == max_failed:
                return

    def is_inside(self, key: Key, params: Mapping[str, Any]) -> bool:
        """Tell whether parameters are within the limits."""
        if key not in self._inside:
            self._inside[key] = self.region.verdict(params) is None
        return self._inside[key]

    def neighbours(self, params: Mapping[str, Any]) -> dict[Key, Params]:
        """Give what lies a step beside parameters."""
        key = self.region.key(params)
        if key not in self._neighbours:
            own = dict(zip(self.region.search_space, key, strict=True))
            near = self.region.neighbours(own, Random(0))
            self._neighbours[key] = {self.region.key(params): params for params in near}
        return self._neighbours[key]

    def _mutants(self, parents: Sequence[Params], rng: Random) -> Iterator[Params]:
        """Draw one to three parameters of a parent anew, and repair what leaves the limits."""
        space, num_repaired = self.region.search_space, 0
        for _ in range(NUM_MUTANTS):
            parent = rng.choice(parents)
            names = rng.sample(sorted(space), min(rng.randint(1, 3), len(space)))
            changed = {name: draw(rng, space[name]) for name in names}
            mutant = {name: changed.get(name, parent[name]) for name in space}
            if self.region.verdict(mutant) is None:
                yield mutant
            elif num_repaired < MAX_REPAIRS:
                num_repaired += 1
                repaired = self._repair(mutant, rng)
                if repaired is not None and self.region.verdict(repaired) is None:
                    yield repaired


def _score(trial: FrozenTrial) -> float:
    """Give a trial's value; not a number where it has none that can be reckoned with."""
    value = trial.value if trial.state is TrialState.COMPLETE else None
    return value if value is not None and abs(value) <= LARGEST else math.nan


def _filled(values: Array) -> Array:
    """Put the median of the scores in place of those that are missing, and bound the distances.

    A loss that exploded once would set the scale on which the others are told apart.
    """
    scores = values[np.isfinite(values)]
    top, median = scores.max(), np.median(scores)
    lowest = top - FARTHEST * (top - median) if top > median else -math.inf
    return np.maximum(np.where(np.isfinite(values), values, median), lowest)


def _thinned(number: int) -> NDArray[np.int64]:
    """Give the places of at most `MAX_ROWS` rows."""
    if number <= MAX_ROWS:
        return np.arange(number)
    half = MAX_ROWS // 2
    early = np.linspace(0, number - half - 1, half).astype(np.int64)
    return np.concatenate([early, np.arange(number - half, number)])
