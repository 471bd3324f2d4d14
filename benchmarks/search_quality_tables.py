"""Tables in which every network was really trained, and cells: a table under a cap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, IntDistribution

from nas.feasible import Limit, num_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Table:
    """Networks that were trained.

    Attributes:
        space: The parameters.
        params: One dict a network.
        costs: (N, 2) parameters and multiply-adds, or what grows as they do.
        scores: (N, runs) in percent, of which a trial reads one.
        truth: (N,) accuracy that counts.
        unseen: (N,) accuracy of a run that no strategy reads.
    """

    space: Mapping[str, BaseDistribution]
    params: list[dict[str, Any]]
    costs: NDArray[np.float64]
    scores: NDArray[np.float64]
    truth: NDArray[np.float64]
    unseen: NDArray[np.float64]


def channel_bench(folder: Path) -> Table:
    """Widths of seven MobileNet layers, four choices each; three runs on CIFAR-10."""
    frame = pd.read_csv(folder / "channel_bench_mobilenet.csv.gz", dtype={"arch": str})
    names = [f"width_{number}" for number in range(1, 8)]
    return Table(
        space={name: IntDistribution(1, 4) for name in names},
        params=[dict(zip(names, map(int, arch), strict=True)) for arch in frame["arch"]],
        costs=frame[["params", "flops"]].to_numpy(float),
        scores=frame[["acc_run1", "acc_run2"]].to_numpy(float),
        truth=frame["acc_denoised"].to_numpy(float),
        unseen=frame["acc_run3"].to_numpy(float),
    )


def nas_bench_201(folder: Path, score: str = "cifar10_valid", truth: str = "cifar10_test") -> Table:
    """One of five operations on each of six edges; scored on val, judged on test."""
    frame = pd.read_csv(folder / "nas_bench_201.csv.gz")
    names = ["e01", "e02", "e12", "e03", "e13", "e23"]
    return Table(
        space={name: CategoricalDistribution(range(5)) for name in names},
        params=frame[names].to_dict("records"),
        costs=frame[["params", "flops_conv"]].to_numpy(float) + 1,
        scores=frame[[score]].to_numpy(float),
        truth=frame[truth].to_numpy(float),
        unseen=frame[truth].to_numpy(float),
    )


def naap440(folder: Path) -> Table:
    """Tiny networks on CIFAR-10; scored after 20 epochs, judged by the best of 90."""
    frame = pd.read_csv(folder / "naap440.csv.gz")
    columns = {
        f"width_{index + 1}": frame["widths"].str.split(":").str.get(index).fillna("none")
        for index in range(4)
    }
    columns |= {name: frame[name] for name in ("kernel_sizes", "strides", "residuals")}
    return _listed(
        pd.DataFrame(columns),
        categorical=True,
        costs=frame[["params", "macs"]].to_numpy(float),
        score=100 * frame["acc_ep20"].to_numpy(float),
        truth=100 * frame["acc_best"].to_numpy(float),
    )


def mit_resnets(folder: Path) -> Table:
    """Narrow, deep ResNets on TinyImageNet; scored after 40 epochs, judged by the best of 140."""
    frame = pd.read_csv(folder / "mit_deep_resnets_tinyimagenet.csv.gz")
    names = ["num_blocks", "num_filters", "filter_size", "ss"]
    frame = frame.drop_duplicates(names).dropna(subset=["acc_ep40", "acc_best"])
    weights = frame["depth"] * (frame["num_filters"] * frame["filter_size"]) ** 2
    return _listed(
        frame[names],
        categorical=False,
        costs=np.stack([weights, frame["depth"]], axis=1).astype(float),
        score=100 * frame["acc_ep40"].to_numpy(float),
        truth=100 * frame["acc_best"].to_numpy(float),
    )


def _listed(
    columns: pd.DataFrame,
    *,
    categorical: bool,
    costs: NDArray[np.float64],
    score: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> Table:
    """Make a table of networks that are a part of all combinations of their settings."""
    space: dict[str, BaseDistribution] = {}
    params: dict[str, list[Any]] = {}
    for name, column in columns.items():
        known = sorted(column.unique().tolist())
        if categorical:
            space[str(name)] = CategoricalDistribution(known)
            params[str(name)] = column.tolist()
        else:  # the place among those there are
            space[str(name)] = IntDistribution(0, len(known) - 1)
            params[str(name)] = [known.index(value) for value in column]
    rows = [dict(zip(params, row, strict=True)) for row in zip(*params.values(), strict=True)]
    return Table(space, rows, costs, score[:, None], truth, truth)


TABLES: dict[str, Callable[[Path], Table]] = {
    "channel_bench_mobilenet": channel_bench,
    "nas_bench_201": nas_bench_201,
    "nas_bench_201_val": partial(nas_bench_201, truth="cifar10_valid"),  # judged by what is seen
    "nas_bench_201_cifar100": partial(nas_bench_201, score="cifar100_valid", truth="cifar100_test"),
    "nas_bench_201_imagenet16": partial(
        nas_bench_201, score="imagenet16_valid", truth="imagenet16_test"
    ),
    "naap440": naap440,
    "mit_resnets": mit_resnets,
}


class Cell:
    """A table under a cap on parameters.

    Attributes:
        table: The table.
        rows: Rows of it within the cap.
        limits: The cap; where the table lists a part of all combinations, also what it lists.
    """

    def __init__(self, table: Table, cap: float) -> None:
        self.table = table
        self._index = {self._key(params): row for row, params in enumerate(table.params)}
        largest = float(np.quantile(table.costs[:, 0], cap))
        self.rows = np.flatnonzero(table.costs[:, 0] <= largest)
        self.limits = [Limit("num_params", self._num_params, largest)]
        if self._is_listed():
            self.limits.append(Limit("unlisted", lambda p: float(self.row(p) is None), 0))

    def row(self, params: Mapping[str, Any]) -> int | None:
        """Give the row of a network, if the table has it."""
        return self._index.get(self._key(params))

    def features(self, params: Mapping[str, Any]) -> list[float]:
        """Give the logarithms of the costs."""
        row = self.row(params)
        return [0.0, 0.0] if row is None else [math.log(cost) for cost in self.table.costs[row]]

    def _num_params(self, params: Mapping[str, Any]) -> float:
        row = self.row(params)
        return 0.0 if row is None else float(self.table.costs[row, 0])

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params[name] for name in self.table.space)

    def _is_listed(self) -> bool:
        return math.prod(map(num_values, self.table.space.values())) > len(self._index)


@cache
def cell_of(folder: Path, table: str, cap: float) -> Cell:
    """Read a cell once a process."""
    return Cell(_table(folder, table), cap)


@cache
def _table(folder: Path, name: str) -> Table:
    return TABLES[name](folder)
