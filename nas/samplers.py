"""make_sampler: who proposes, under known cost limits. SAMPLERS: those of Optuna to choose from."""

from __future__ import annotations

from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.budget_sampler import BudgetSampler, Exhausted, NothingFits
from nas.encoding import Encoding
from nas.errors import UserError
from nas.feasible import Limit, Region
from nas.surrogate_sampler import Candidates, SurrogateSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from nas.budget_sampler import Factory
    from nas.encoding import Features
    from nas.feasible import Params

__all__ = [
    "DEFAULT",
    "SAMPLERS",
    "BudgetSampler",
    "Exhausted",
    "Limit",
    "NothingFits",
    "check_sampler",
    "make_sampler",
]

DEFAULT = "default"


def _made(kind: Callable[..., BaseSampler], seed: int, **options: bool) -> BaseSampler:
    return kind(seed=seed, **options)


SAMPLERS: dict[str, Factory] = {  # no lambdas: Optuna tells people to pickle samplers
    "tpe": partial(_made, TPESampler),
    "random": partial(_made, RandomSampler),
    "gp": partial(_made, GPSampler, deterministic_objective=False),
    "cmaes": partial(_made, CmaEsSampler),
    "nsga2": partial(_made, NSGAIISampler),
}
NEEDS = {"cmaes": ("cmaes",)}  # the packages of the extra `samplers`


def make_sampler(
    name: str,
    search_space: Mapping[str, BaseDistribution],
    limits: Sequence[Limit],
    *,
    features: Features | None = None,
    seed: int | None = None,
    repair: Callable[[Params, Random], Params | None] | None = None,
    random_feasible: Callable[[Random], Params | None] | None = None,
    claim: Callable[[FrozenTrial, Params], bool] | None = None,
) -> BudgetSampler:
    """Make an Optuna sampler that proposes only what keeps the limits, and nothing twice.

    Example:
        >>> import optuna
        >>> space = {name: optuna.distributions.IntDistribution(1, 9) for name in "abc"}
        >>> limit = Limit("sum", lambda params: sum(params.values()), maximum=12)
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> sampler = make_sampler("default", space, [limit], seed=0)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> def objective(trial):
        ...     a, b, c = (trial.suggest_int(name, 1, 9) for name in "abc")
        ...     return a * b + c
        >>> study.optimize(objective, n_trials=30)
        >>> study.best_value  # of 37: a = b = 6 is over the limit, c being at least 1
        31.0

    Args:
        name: "default" for a model of the scores (`SurrogateSampler`), or a name of `SAMPLERS`.
        search_space: The parameters.
        limits: Known cost limits.
        features: Maps parameters to numbers that scores may depend on, such as logarithms of
            costs; only the default sampler uses them.
        seed: An integer; `None` takes one from the operating system.
        repair: See `BudgetSampler`, as for the two that follow.
        random_feasible: Draws parameters within the limits.
        claim: False if another worker has the parameters.

    Raises:
        UserError: No such name, or its package is not installed.
        TypeError: A parameter that is no distribution of Optuna's, or whose choices have no hash.
        ValueError: Two limits of one name.
    """
    check_sampler(name)
    seed = SystemRandom().randrange(2**32) if seed is None else seed
    options: dict[str, Any] = {"repair": repair, "random_feasible": random_feasible}
    if name != DEFAULT:
        base = SAMPLERS[name]
    else:
        region = Region(search_space, tuple(limits))
        candidates = Candidates(
            region,
            Encoding(search_space, features),
            random_feasible or region.random,
            repair or region.repair,
            seed,
        )
        base = partial(SurrogateSampler, candidates)
    return BudgetSampler(base, search_space, limits, claim=claim, seed=seed, **options)


def check_sampler(name: str) -> None:
    """Refuse a sampler that cannot be.

    Raises:
        UserError: No such name, or its package is not installed.
    """
    from importlib.util import find_spec

    if name not in (DEFAULT, *SAMPLERS):
        raise UserError(f"unknown sampler {name!r}; known: {', '.join((DEFAULT, *SAMPLERS))}")
    if missing := [package for package in NEEDS.get(name, ()) if find_spec(package) is None]:
        raise UserError(
            f"the sampler {name} needs {', '.join(missing)}; "
            'install the extra: pip install "nas-under-budget[samplers]"'
        )
