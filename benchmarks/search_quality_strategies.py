"""Strategies that search a cell and name a network: ours, Optuna's, and some without Optuna."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd

from nas.feasible import grid
from nas.samplers import make_sampler
from nas.surrogate import recommend

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray
    from optuna.samplers import BaseSampler
    from search_quality_tables import Cell

    Proposals = Generator[int, float, None]  # yields rows of the table, is sent their scores
    Search = Callable[[Cell, int], Proposals]
    Naming = Callable[[Cell, list[int], list[float]], int]  # of the rows tried, by their scores

MAX_ASKS = 600  # of a strategy that spends trials on networks over the cap


# Without Optuna


def evolution(cell: Cell, seed: int) -> Proposals:
    """Regularized evolution (Real et al. 2019): population 20, the best of 5 has a child."""
    rng = random.Random(seed)
    order = rng.sample(list(cell.rows), len(cell.rows))
    tried: dict[int, float] = {}
    population: list[int] = []
    allowed = set(cell.rows.tolist())
    for row in order:
        child = int(row)
        if len(tried) >= 20:
            parent = max(rng.sample(population, 5), key=lambda each: tried[each])
            child = _child(cell, parent, allowed - tried.keys(), rng) or child
        if child in tried:
            continue
        tried[child] = yield child
        population = [*population, child][-20:]


def _child(cell: Cell, parent: int, allowed: set[int], rng: random.Random) -> int | None:
    """Change one parameter, or two where every change of one was tried."""
    params, space = cell.table.params[parent], cell.table.space
    for num_changed in (1, 2):
        changes = [
            dict(change)
            for names in itertools.combinations(space, num_changed)
            for change in itertools.product(
                *([(name, value) for value in grid(space[name])] for name in names)
            )
        ]
        rng.shuffle(changes)
        found = (cell.row(params | change) for change in changes)
        if (child := next((row for row in found if row in allowed), None)) is not None:
            return child
    return None


def ridge(cell: Cell, seed: int) -> Proposals:
    """Bayesian ridge on one-hot choices and log costs; Thompson sampling over all under the cap."""
    rng = np.random.default_rng(seed)
    design = _design(cell)
    tried: list[int] = []
    scores: list[float] = []
    while True:
        left = np.setdiff1d(cell.rows, tried)
        if len(tried) < 10:
            row = int(rng.choice(left))
        else:
            mean, covariance, offset = _bayesian_ridge(design[tried], np.array(scores))
            weights = rng.multivariate_normal(mean, covariance, method="cholesky")
            row = int(left[np.argmax(design[left] @ weights + offset)])
        tried.append(row)
        scores.append((yield row))


def _design(cell: Cell) -> NDArray[np.float64]:
    frame = pd.DataFrame(cell.table.params).astype("category")
    design = np.hstack([pd.get_dummies(frame).to_numpy(float), np.log(cell.table.costs)])
    inside = design[cell.rows]
    spread = inside.std(axis=0)
    standard: NDArray[np.float64] = (design - inside.mean(axis=0)) / np.where(spread, spread, 1)
    return standard


def _bayesian_ridge(
    design: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Fit both precisions by MacKay's fixed point (1992); give mean and covariance of weights."""
    offset = float(scores.mean())
    centred = scores - offset
    values, vectors = np.linalg.eigh(design.T @ design)
    projected = vectors.T @ (design.T @ centred)
    alpha, beta = 1.0, 1 / max(float(centred.var()), 1e-12)
    for _ in range(50):
        mean = beta * projected / (alpha + beta * values)
        gamma = float((beta * values / (alpha + beta * values)).sum())
        error = float(((centred - design @ (vectors @ mean)) ** 2).sum())
        alpha = max(gamma, 1e-9) / max(float(mean @ mean), 1e-12)
        beta = max(len(scores) - gamma, 1e-9) / max(error, 1e-12)
    covariance = (vectors / (alpha + beta * np.maximum(values, 0))) @ vectors.T
    return vectors @ mean, covariance, offset


# Optuna's


def plain(make: Callable[[int], BaseSampler], *, constraint: bool) -> Search:
    """Make a search of Optuna alone: over the cap is pruned, or a constraint besides."""

    def search(cell: Cell, seed: int) -> Proposals:
        study = optuna.create_study(direction="maximize", sampler=make(seed))
        for _ in range(MAX_ASKS):
            trial = study.ask(dict(cell.table.space))
            excess = max(limit.excess(limit.cost(trial.params)) for limit in cell.limits)
            if constraint:
                trial.set_constraint("num_params", excess)
            if excess > 0:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                row = cell.row(trial.params)
                assert row is not None
                study.tell(trial, (yield row))

    return search


def within(make: Callable[[Cell, int], BaseSampler]) -> Search:
    """Make a search of a sampler that keeps the limits."""

    def search(cell: Cell, seed: int) -> Proposals:
        study = optuna.create_study(direction="maximize", sampler=make(cell, seed))
        while True:
            trial = study.ask(dict(cell.table.space))
            row = cell.row(trial.params)
            assert row is not None
            study.tell(trial, (yield row))

    return search


def redrawing(name: str) -> Search:
    """Make a search of an Optuna sampler under `BudgetSampler`."""
    return within(lambda cell, seed: make_sampler(name, cell.table.space, cell.limits, seed=seed))


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


# Naming


def best_score(_: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network of the best score, as Optuna's `study.best_trial` does."""
    return tried[int(np.argmax(scores))]


def ridge_mean(cell: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network of the best posterior mean of the ridge."""
    rows = _design(cell)[tried]
    return tried[int(np.argmax(rows @ _bayesian_ridge(rows, np.array(scores))[0]))]


def estimate(cell: Cell, tried: list[int], scores: list[float]) -> int:
    """Name the network that `nas.surrogate.recommend` does."""
    params, space = cell.table.params, dict(cell.table.space)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.create_trial(params=params[row], distributions=space, value=score)
            for row, score in zip(tried, scores, strict=True)
        ]
    )
    return tried[recommend(study, space, features=cell.features).number]


def default(cell: Cell, seed: int) -> BaseSampler:
    """Make ours, with the features that `search.py` gives it."""
    return make_sampler("default", cell.table.space, cell.limits, features=cell.features, seed=seed)


STRATEGIES: dict[str, tuple[Search, Naming]] = {
    "default": (within(default), estimate),
    "random": (redrawing("random"), best_score),
    "evolution": (evolution, best_score),
    "ridge": (ridge, ridge_mean),
    "tpe, pruned": (plain(_tpe, constraint=False), best_score),
    "tpe, constraint": (plain(_tpe, constraint=True), best_score),
    "tpe, redrawn": (redrawing("tpe"), best_score),
    "nsga2, redrawn": (redrawing("nsga2"), best_score),
    "gp, redrawn": (redrawing("gp"), best_score),
}
