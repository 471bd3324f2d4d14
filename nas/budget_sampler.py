"""BudgetSampler: a sampler of Optuna's under known cost limits.

Rejected draws never become trials. On tables of trained networks Optuna 5's TPE names better
networks so (0.26 and 0.21 points from the best after 100 and 200 trials) than where they are pruned
or violate a constraint (0.37 and 0.32; benchmarks/results/search_quality.md).
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from random import Random, SystemRandom
from threading import Lock
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GridSampler,
    PartialFixedSampler,
    TPESampler,
)

from nas.errors import UserError
from nas.feasible import Key, Params, Region, snap
from nas.proposed import Known, num_proposals
from nas.study_view import StudyView

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from nas.feasible import Limit

MAX_DRAWS = 20
DRAWS_TIMES_TRIALS = 600  # a draw of TPE costs 10 ms at 200 trials, 23 ms at 2,000: 3 and 1 draws
MAX_REPAIRS = 4  # drawn parameters that are repaired, the latest first
MAX_RANDOM = 50
MAX_COMPLETIONS = 10  # of parameters of which some are given
MAX_WALK = 2_000  # neighbours of earlier proposals, looked at when nothing else is new
ENUMERABLE = 20_000  # points of a space small enough to look at every one
ONE_BY_ONE = (BruteForceSampler, GridSampler, PartialFixedSampler)  # they see no whole proposal

Factory = Callable[[int], BaseSampler]


class NothingFits(UserError):  # noqa: N818 - reads as the message
    """Raised when no parameters within the limits were found; names those seen."""


class Exhausted(Exception):  # noqa: N818 - the end of a finite space is not an error
    """Raised when everything within the limits has been proposed."""


class BudgetSampler(BaseSampler):
    """Proposes only parameters within the limits that were not proposed before.

    Between processes the latter needs a `claim`: each lists the others' trials before it proposes,
    and two that do so in the same moment may propose the same.

    A proposal is drawn from `base`: redrawn where a draw is cheap (TPE: 20 times at first, fewer
    in a large study, where each costs more), then repaired, then replaced by a random one within
    the limits; every step is bounded. While `base` has no model (start-up, random search) the
    proposal is random within the limits. Optuna asks no sampler for parameters of one value: where
    all are such, it checks nothing.

    Example:
        >>> import optuna
        >>> from nas.feasible import Limit
        >>> space = {"width": optuna.distributions.IntDistribution(1, 100)}
        >>> limit = Limit("area", lambda params: params["width"] ** 2, maximum=400)
        >>> sampler = BudgetSampler(lambda seed: TPESampler(seed=seed), space, [limit], seed=0)
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(lambda trial: trial.suggest_int("width", 1, 100) / 100, n_trials=5)
        >>> max(trial.params["width"] for trial in study.trials) <= 20
        True

    Args:
        base: A sampler that proposes all parameters at once, or a factory from a seed to one. With
            a factory the randomness of proposal k derives from `seed` and k alone, so that a
            resumed study neither repeats its draws nor departs from an undisturbed one.
        search_space: The parameters, as the objective suggests them. Others that a trial suggests
            go to `base` unchecked.
        limits: Known cost limits.
        repair: Maps parameters outside to some within, or `None`; by default bisection on the
            line to a random point within, then each parameter put back where it may be.
        random_feasible: Draws parameters within, or `None`; by default rejection, then descent.
        claim: Called last, with the trial and its parameters; False if another worker has them.
        seed: An integer; `None` takes one from the operating system.

    Attributes:
        counts: Draws by fate: over, under, known (rejected); base, repaired, random (proposed).
        draws: The same for the latest proposal alone.
        origin: Which of base, repaired and random it is; "enqueued" if nothing was proposed.

    Raises:
        TypeError: A base that gives parameters one by one, such as `GridSampler`.
        ValueError: An objective that suggests a parameter otherwise than the search space says.
        NothingFits: When a proposal is asked for and nothing within the limits is found.
        Exhausted: When everything within them has been proposed; ends `study.optimize`.
    """

    def __init__(
        self,
        base: BaseSampler | Factory,
        search_space: Mapping[str, BaseDistribution],
        limits: Sequence[Limit],
        *,
        repair: Callable[[Params, Random], Params | None] | None = None,
        random_feasible: Callable[[Random], Params | None] | None = None,
        claim: Callable[[FrozenTrial, Params], bool] | None = None,
        seed: int | None = None,
    ) -> None:
        self.region = Region(search_space, tuple(limits))
        self.seed = SystemRandom().randrange(2**32) if seed is None else seed
        self.counts: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()
        self.origin = "random"
        self._seeded_for: tuple[Study, int] | None = None
        self._known = Known(self.region)
        self._lock = Lock()  # of the threads of `study.optimize(n_jobs=2)`
        self._base = base
        self._sampler = base if isinstance(base, BaseSampler) else base(self.seed)
        if isinstance(self._sampler, ONE_BY_ONE):
            name = type(self._sampler).__name__
            raise TypeError(f"{name} gives parameters one by one, which limits cannot be kept by")
        self._repair = repair or self.region.repair
        self._random_feasible = random_feasible or self.region.random
        self._claim = claim

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out of a pickle, and the study, whose URL may hold a password."""
        own = vars(self) | {"_seeded_for": None, "_known": Known(self.region)}
        return {name: value for name, value in own.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a lock anew."""
        vars(self).update(state, _lock=Lock())

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole search space, but for parameters with one value."""
        del study, trial
        return {name: d for name, d in self.region.search_space.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose parameters; what `enqueue_trial` fixed of them is kept as it is."""
        study = _whole(study)
        with self._lock:
            proposed = self._propose(study, trial)
            self._known.note(trial, proposed)
        return {name: proposed[name] for name in search_space}

    def _propose(self, study: Study, trial: FrozenTrial) -> Params:
        trials = study.get_trials(deepcopy=False)
        self._renew_base(study, trial, trials)
        rng = self._rng(trial, trials)
        known = self._known.of_others(study, trial, trials)
        view = StudyView(study, trials, self.region.search_space.keys())
        fixed = trial.system_attrs.get("fixed_params", {})
        completed: Params | None = None
        numbered = trial
        if isinstance(self._sampler, CmaEsSampler):  # which seeds by the number of the trial
            numbered = copy.copy(trial)
            numbered.number = num_proposals(self.region, trial, trials)
        for origin, candidate in self._candidates(view, numbered, rng, known):
            params = candidate | {name: fixed[name] for name in candidate if name in fixed}
            verdict = self.region.verdict(params) or self._taken(trial, params, known)
            self.draws[verdict or origin] += 1
            self.counts[verdict or origin] += 1
            if verdict is None:
                self.origin = origin
                return params
            completed = completed or params
        if fixed and completed:
            for _ in range(MAX_COMPLETIONS):
                found = self._completion(fixed, rng)
                if found is None or self._taken(trial, found, known) is None:
                    break
            return found or completed  # what does not fit the pruner judges
        raise self._nothing(study, known)

    def _completion(self, fixed: Params, rng: Random) -> Params | None:
        """Find parameters within the limits, some but not all of them given."""
        if self.region.search_space.keys() <= fixed.keys():
            return None
        given = {n: CategoricalDistribution([v]) for n, v in fixed.items()}
        space = {n: given.get(n, dist) for n, dist in self.region.search_space.items()}
        return Region(space, self.region.limits).random(rng)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's parameter
        """Leave a parameter outside the search space to `base`."""
        if (expected := self.region.search_space.get(param_name)) is not None:
            raise ValueError(
                f"{param_name!r} is suggested as {param_distribution}, but is {expected} in the "
                "search space of the limits: they must be the same"
            )
        study = _whole(study)
        with self._lock:
            base = self._sampler
            if not isinstance(self._base, BaseSampler):
                trials = study.get_trials(deepcopy=False)
                base = self._base(self._rng(trial, trials, param_name).randrange(2**31))
            return base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell `base`; where there is a factory, a base begins with its proposal."""
        self.origin, self.draws = "enqueued", Counter()  # until something must be proposed
        if isinstance(self._base, BaseSampler):
            self._base.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell `base`."""
        self._sampler.after_trial(_whole(study), trial, state, values)

    def reseed_rng(self) -> None:
        """Take another seed, as Optuna asks of samplers that are copied to threads."""
        self.seed = SystemRandom().randrange(2**32)
        self._sampler.reseed_rng()

    def _renew_base(self, study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> None:
        """Make the proposal's own `base`, where there is a factory."""
        if not isinstance(self._base, BaseSampler) and self._seeded_for != (study, trial.number):
            self._sampler = self._base(self._rng(trial, trials).randrange(2**31))
            self._sampler.before_trial(study, trial)
            self._seeded_for = study, trial.number

    def _rng(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], use: str = "") -> Random:
        """Seed by the number of the proposal."""
        number = num_proposals(self.region, trial, trials)
        return Random(f"{self.seed}/{number}" + (f"/{use}" if use else ""))

    def _taken(self, trial: FrozenTrial, params: Params, known: set[Key]) -> str | None:
        """Say "known" of parameters that this or another worker proposed, or claim them."""
        key = self.region.key(params)
        if key not in known and (self._claim is None or self._claim(trial, params)):
            return None
        known.add(key)
        return "known"

    def _candidates(
        self, study: Study, trial: FrozenTrial, rng: Random, known: set[Key]
    ) -> Iterator[tuple[str, Params]]:
        """Yield (origin, parameters), the wanted first, what is left of a small space last."""
        drawn = []
        for _ in range(self._num_draws(len(known))):
            if (params := self._draw(study, trial)) is None:
                break
            drawn.append(params)
            yield "base", params
        for params in drawn[: -MAX_REPAIRS - 1 : -1]:
            if (repaired := self._repair(params, rng)) is not None:
                yield "repaired", repaired
                yield from (("repaired", near) for near in self.region.neighbours(repaired, rng))
        for _ in range(MAX_RANDOM):
            if (params := self._random_feasible(rng) or self.region.random(rng)) is None:
                break
            yield "random", params
        if self.region.cardinality() <= ENUMERABLE:
            rest = [p for p in self.region.enumerate() if self.region.key(p) not in known]
            yield from (("random", params) for params in rng.sample(rest, len(rest)))
        else:
            yield from (("random", params) for params in self._near_known(known, rng))

    def _near_known(self, known: set[Key], rng: Random) -> Iterator[Params]:
        """Yield what lies a step beside earlier proposals, up to a bound."""
        keys = sorted(known, key=repr)
        around = (
            near
            for key in rng.sample(keys, len(keys))
            for near in self.region.neighbours(self._params(key), rng)
            if self.region.key(near) not in known
        )
        yield from itertools.islice(around, MAX_WALK)

    def _params(self, key: Key) -> Params:
        return dict(zip(self.region.search_space, key, strict=True))

    def _num_draws(self, num_trials: int) -> int:
        if not isinstance(self._sampler, TPESampler):
            return 1
        return max(1, min(MAX_DRAWS, DRAWS_TIMES_TRIALS // max(1, num_trials)))

    def _draw(self, study: Study, trial: FrozenTrial) -> Params | None:
        """Draw from `base`; `None` while it has no model."""
        base = self._sampler
        space = self.infer_relative_search_space(study, trial)
        if isinstance(base, CmaEsSampler):
            space = {n: d for n, d in space.items() if not isinstance(d, CategoricalDistribution)}
        if getattr(base, "_group", False):  # TPE with group=True keeps what this call finds
            base.infer_relative_search_space(study, trial)
        params = base.sample_relative(study, trial, space)
        if not params:
            return None
        return {
            name: snap(params[name], dist)
            if name in params
            else base.sample_independent(study, trial, name, dist)
            for name, dist in self.region.search_space.items()
        }

    def _nothing(self, study: Study, known: set[Key]) -> Exception:
        seen = self.region.describe_seen()
        is_any_inside = any(self.region.verdict(self._params(key)) is None for key in known)
        if not is_any_inside and not self.counts["known"]:
            is_sure = self.region.cardinality() <= ENUMERABLE
            what = "nothing in the search space fits" if is_sure else "nothing that fits was found"
            return NothingFits(f"{what}; seen: {seen}")
        with suppress(RuntimeError):  # outside `study.optimize` there is nothing to stop
            study.stop()
        if self.region.cardinality() <= ENUMERABLE:
            return Exhausted(f"the search space is exhausted: all that fits was proposed ({seen})")
        return Exhausted(
            f"the search space seems exhausted: nothing new was found beside {len(known):,} "
            f"proposals ({seen})"
        )


def _whole(study: Study) -> Study:
    """Give the study of which Optuna's `HyperbandPruner` shows samplers the trials of a bracket."""
    whole: Study = getattr(study, "_study", study)
    return whole
