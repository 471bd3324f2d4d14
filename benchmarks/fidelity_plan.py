"""What is measured of proxies: the networks, the ways to score them, and the order of the runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from fidelity_candidates import REFERENCE

from nas.budget import Budget
from nas.complexity import count
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.width_scaling import WidthScaling
from nas.zero_cost import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.architecture import Architecture
    from nas.proxy import ProxyConfig

POOL = 960  # random networks that are chosen from
SHAPES = 24  # classes of depth the pool is cut into
PLASTIC = 1.324717957244746  # root of x**3 = x + 1: the R2 sequence (Roberts 2018) is even in 2-D
REFERENCE_EPOCHS = 30
REFERENCE_SEEDS = (100, 101)
SEEDS = (0, 1)
HIGH_RESOLUTION_NETWORKS = 8


@dataclass(frozen=True)
class Candidate:
    """A way to score a network by a training.

    Attributes:
        changes: Of the base schedule, by `ProxyConfig`'s names.
        seeds: One run each.
        data_share: Of the training images.
        max_networks: Only the first so many networks are scored, or `None`.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = SEEDS[:1]
    data_share: float = 1.0
    max_networks: int | None = None


# The base schedule is a preset's with four epochs. What costs nothing is derived from these rows by
# the report: scores without flip averaging, losses, the mean of two seeds, models of several.
CANDIDATES: dict[str, Candidate] = {
    "epochs1": Candidate({"epochs": 1}),
    "epochs2": Candidate({"epochs": 2}),
    "epochs4": Candidate(seeds=SEEDS),
    "epochs8": Candidate({"epochs": 8}),
    "epochs15": Candidate({"epochs": 15}),
    "width0.5": Candidate({"width_factor": 0.5}),
    "resolution16": Candidate({"resolution": 16}),
    "epochs8resolution16": Candidate({"epochs": 8, "resolution": 16}),
    "resolution24": Candidate({"resolution": 24}),
    "data0.5": Candidate(data_share=0.5),
    "lr0.1": Candidate({"peak_lr": 0.1}),
    "lr0.2": Candidate({"peak_lr": 0.2}),
    "batch64": Candidate({"batch_size": 64, "peak_lr": 0.2}),
    "batch512": Candidate({"batch_size": 512, "peak_lr": 0.8}),
    "float32": Candidate({"precision": "float32"}),
    REFERENCE: Candidate(seeds=REFERENCE_SEEDS),
    f"{REFERENCE}32": Candidate(
        {"resolution": 32},
        seeds=REFERENCE_SEEDS[:1],
        max_networks=HIGH_RESOLUTION_NETWORKS,
    ),
}
UNTRAINED = Candidate()  # under the names of `SCORES`
# Each wave is measured network by network before the next one begins.
WAVES: tuple[tuple[tuple[str, int], ...], ...] = (
    tuple((name, 0) for name in SCORES),
    (
        *((name, 0) for name in ("epochs1", "epochs2", "epochs4")),
        *((name, 0) for name in ("resolution16", "epochs8resolution16")),
        (REFERENCE, 100),
    ),
    ((REFERENCE, 101), ("epochs4", 1), ("width0.5", 0), ("data0.5", 0)),
    (("epochs8", 0), ("lr0.1", 0), ("lr0.2", 0), ("batch64", 0), ("batch512", 0), ("float32", 0)),
    (("resolution24", 0), ("epochs15", 0)),
    ((f"{REFERENCE}32", 100),),
)


@dataclass(frozen=True)
class Setting:
    """What all rows of one file have in common."""

    dataset: str
    budget: int
    space: str
    base: ProxyConfig
    device: str = "cpu"
    reference_epochs: int = REFERENCE_EPOCHS

    def head(self) -> dict[str, Any]:
        """Give it in JSON's types."""
        return {
            "dataset": self.dataset,
            "budget": self.budget,
            "space": self.space,
            "base": self.base.model_dump(),
            **({} if self.device == "cpu" else {"device": self.device}),
            **({"reference_epochs": self.reference_epochs} if self.is_other_reference else {}),
        }

    @property
    def is_other_reference(self) -> bool:
        """Tell whether the reference has other epochs than usual."""
        return self.reference_epochs != REFERENCE_EPOCHS

    def schedule(self, candidate: str, seed: int) -> ProxyConfig:
        """Give the schedule of a candidate."""
        is_reference = candidate.startswith(REFERENCE)
        epochs = {"epochs": self.reference_epochs} if is_reference else {}
        changes = {**epochs, **CANDIDATES[candidate].changes, "seed": seed}
        return self.base.model_copy(update=changes)


@dataclass(frozen=True)
class Run:
    """One training: a network, by its place among the networks, under a candidate, with a seed."""

    network: int
    arch: Architecture
    candidate: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str]:
        """Name it in the CSV's columns."""
        return self.arch.arch_id, self.candidate, str(self.seed)


def networks(setting: Setting, num_classes: int, number: int) -> list[Architecture]:
    """Choose networks in the window, spread evenly over depth and, at equal depth, over MACs.

    The first N are the same whatever the number, and spread as evenly as N networks can be.
    """
    config = load_space(setting.space)[1]
    space = SearchSpace.from_config(config, max_params=setting.budget, num_classes=num_classes)
    pool = _pool(space, Budget(setting.budget))
    per_shape = len(pool) // SHAPES
    shapes = [pool[start : start + per_shape] for start in range(0, len(pool), per_shape)]
    chosen: list[Architecture] = []
    for index in range(number):
        across, within = ((0.5 + (index + 1) / PLASTIC**power) % 1 for power in (1, 2))
        shape = shapes[int(across * SHAPES)]
        by_macs = sorted(shape, key=lambda arch: count(arch).num_macs)
        chosen.append(by_macs[int(within * per_shape)])
    assert len(set(chosen)) == number
    return chosen


def _pool(space: SearchSpace, budget: Budget) -> list[Architecture]:
    """Draw different networks in the window, sorted by blocks, those of equal number at random."""
    scaling, rng = WidthScaling(space, budget.limits(space)), Random(0)
    drawn: dict[Architecture, float] = {}
    while len(drawn) < POOL:
        params = scaling.random_feasible(rng)
        assert params is not None
        drawn.setdefault(space.decode(params), rng.random())
    return sorted(drawn, key=lambda arch: (sum(s.depth for s in arch.stages), drawn[arch]))


def plan(archs: list[Architecture], resolution: int) -> Iterator[Run]:
    """Yield every run, in the order in which a partial measurement is worth most.

    Where the base's resolution is that of a candidate, it is the same as another one.
    """
    for wave in WAVES:
        for network, arch in enumerate(archs):
            for name, seed in wave:
                candidate = CANDIDATES.get(name, UNTRAINED)
                is_wanted = candidate.max_networks is None or network < candidate.max_networks
                if is_wanted and candidate.changes.get("resolution") != resolution:
                    yield Run(network, arch, name, seed)
