"""How well each way to score a network ranks networks, and what it costs.

    python benchmarks/proxy_fidelity.py [--data DIR] [--budget 100k] [--networks 24] [--only NAME]
                                        [--architectures FILE.json ...] [--rows FILE.csv]

Draws networks that use 90-100 % of the budget, spread over shapes, trains each under every entry of
`CANDIDATES`, among them the reference, and scores it untrained by `nas.zero_cost`. Every finished
run is a row of the CSV at once; the same command goes on where an earlier one ended, also with more
networks or workers, and its order is such that the first networks are complete early. Reference and
candidates have different seeds: shared initial weights and batches would make them agree for no
merit of a proxy. `--architectures` measures these networks instead, such as those a search found.

Data set, budget, space and base schedule are the CSV's head; a measurement of another kind is
another file. At 5M, on a GPU that is at hand for minutes:

    python benchmarks/proxy_fidelity.py --budget 5e6 --base standard --device cuda --networks 8
        --reference-epochs 12 --only reference epochs4 resolution16 epochs8resolution16
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from fidelity_candidates import REFERENCE

from nas.budget import Budget, budget_name
from nas.cli.parse import parse_count
from nas.complexity import count
from nas.data import TrainingData, load_training_data
from nas.evaluation import evaluate
from nas.presets import read_architecture
from nas.provenance import provenance
from nas.proxy import ProxyConfig, ProxyData, train_proxy
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.training import resolved_precision
from nas.width_scaling import WidthScaling
from nas.zero_cost import SCORES, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nas.architecture import Architecture

RESULTS = Path(__file__).parent / "results"
POOL = 960  # random networks that are chosen from
SHAPES = 24  # classes of depth the pool is cut into
PLASTIC = 1.324717957244746  # root of x**3 = x + 1: the R2 sequence (Roberts 2018) is even in 2-D
REFERENCE_EPOCHS = 30
REFERENCE_SEEDS = (100, 101)
SEEDS = (0, 1)
HIGH_RESOLUTION_NETWORKS = 8
PROBE_IMAGES = 64
FAILURES = (ArithmeticError, RuntimeError)  # of one run: it diverged, or has too little memory


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


@lru_cache(maxsize=4)
def prepared(dataset: str, root: str, resolution: int, share: float, device: str) -> ProxyData:
    """Prepare the images once a process; a share of the training images is a stratified one."""
    data = load_training_data(dataset, root)
    if share < 1:
        data = _with_share(data, share)
    return ProxyData.prepare(data, resolution, device)


def _with_share(data: TrainingData, share: float) -> TrainingData:
    labels = data.train.labels
    kept = [
        members[: round(share * len(members))]
        for members in ((labels == label).nonzero().flatten() for label in labels.unique())
    ]
    return replace(data, train=data.train.select(torch.cat(kept).sort().values))


@dataclass(frozen=True)
class Measure:
    """What a worker process does with a run.

    Attributes:
        setting: The measurement's.
        root: Folder of the data set.
        device: As torch writes it.
    """

    setting: Setting
    root: str
    device: str

    def __call__(self, run: Run) -> dict[str, Any]:
        """Give the run's row."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        measured = self._scored(run) if run.candidate in SCORES else self._trained(run)
        made_with = provenance(self.device)
        return {
            "network": run.network,
            "arch_id": run.arch.arch_id,
            "architecture": str(run.arch),
            "candidate": run.candidate,
            "seed": run.seed,
            **measured,
            "device": made_with["device_name"],
            "threads": made_with["threads"],
            "torch": made_with["torch"],
            "revision": made_with["git_revision"],
        }

    def _trained(self, run: Run) -> dict[str, Any]:
        config = self.setting.schedule(run.candidate, run.seed)
        data = self._data(config.resolution, CANDIDATES[run.candidate].data_share)
        clock = Clock()
        model, losses = train_proxy(run.arch, data, config)
        score_on_val = partial(
            evaluate, model, data.val, data.normalization, precision=config.precision
        )
        score = score_on_val(flip_average=True)
        times = clock.read()
        plain = score_on_val(flip_average=False)
        return {
            "score": score.accuracy,
            "plain_accuracy": plain.accuracy,
            "val_loss": round(score.loss, 6),
            "train_losses": " ".join(f"{loss:.5f}" for loss in losses),
            **times,
        }

    def _scored(self, run: Run) -> dict[str, Any]:
        """Score without training, on the first training images of the order of seed 0."""
        data = self._data(self.setting.base.resolution, 1.0)
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        images = data.train.select(order[:PROBE_IMAGES].to(data.device))
        probe = Probe(data.normalization(images.images), images.labels, run.seed)
        clock = Clock()
        score = SCORES[run.candidate](run.arch, probe)
        return {"score": f"{score:.9g}", **clock.read()}

    def _data(self, resolution: int, share: float) -> ProxyData:
        return prepared(self.setting.dataset, self.root, resolution, share, self.device)


class Clock:
    """Seconds by the wall and of this process's CPU since it was made."""

    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Give both, by their columns."""
        return {
            "elapsed_seconds": round(time.perf_counter() - self._started, 3),
            "cpu_seconds": round(time.process_time() - self._cpu_started, 3),
        }


COLUMNS = (
    "network", "arch_id", "architecture", "candidate", "seed", "score", "plain_accuracy",
    "val_loss", "train_losses", "elapsed_seconds", "cpu_seconds", "device", "threads", "torch",
    "revision",
)  # fmt: skip


class Rows:
    """The CSV: a line that says what was measured, then a row a run, appended as it ends."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self.path = path
        head = f"# {json.dumps(setting.head())}\n"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + ",".join(COLUMNS) + "\n", encoding="utf-8")
        with path.open(encoding="utf-8") as file:
            if (found := file.readline()) != head:
                raise SystemExit(f"{path} holds another measurement: {found.strip()}")

    def done(self) -> set[tuple[str, str, str]]:
        """Give the keys of the rows that are there."""
        with self.path.open(encoding="utf-8", newline="") as file:
            file.readline()
            return {(r["arch_id"], r["candidate"], r["seed"]) for r in csv.DictReader(file)}

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)


def measure_all(
    runs: list[Run], work: Callable[[Run], dict[str, Any]], rows: Rows, workers: int
) -> None:
    """Measure what has no row yet, several runs at a time; one that fails has none."""
    done = rows.done()
    missing = [run for run in runs if run.key not in done]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are in {rows.path}", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(work, run) for run in missing]
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, FAILURES) and not isinstance(error, BrokenExecutor):
                    print(f"a run failed: {type(error).__name__}: {error}", flush=True)
                    continue
                row = future.result()
                rows.append(row)
                print(
                    f"network {row['network']:2} {row['candidate']:12} seed {row['seed']:3} "
                    f"{float(row['score']):12.6g} {row['cpu_seconds']:7.1f} s of CPU",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def default_path(setting: Setting) -> Path:
    """Name the file of a setting."""
    name = f"{setting.dataset}-{budget_name(setting.budget)}-{setting.base.resolution}px"
    name += "" if setting.device == "cpu" else f"-{setting.device}"
    name += f"-reference{setting.reference_epochs}" if setting.is_other_reference else ""
    return RESULTS / f"proxy_fidelity-{name}.csv"


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", default="100k")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--space", default="resnet")
    parser.add_argument("--base", default="quick", help="preset of the base schedule")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", default="studies/data")
    parser.add_argument("--reference-epochs", type=int, default=REFERENCE_EPOCHS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="candidates to measure now")
    parser.add_argument("--architectures", type=Path, nargs="+", help="instead of drawn networks")
    parser.add_argument("--rows", type=Path, help="the CSV")
    arguments = parser.parse_args()
    if arguments.architectures and arguments.rows is None:
        parser.error("--architectures needs --rows: a file of their own")
    precision = resolved_precision(arguments.device, "auto")
    changes = {"epochs": 4, "precision": precision}
    budget = int(parse_count(arguments.budget))
    base = ProxyConfig.load(arguments.base, budget)[1].model_copy(update=changes)
    device, epochs = arguments.device, arguments.reference_epochs
    setting = Setting(arguments.dataset, budget, arguments.space, base, device, epochs)
    data = load_training_data(arguments.dataset, arguments.data)
    given = arguments.architectures
    archs = (
        [read_architecture(path) for path in given]
        if given
        else networks(setting, data.num_classes, arguments.networks)
    )
    rows = Rows(arguments.rows or default_path(setting), setting)
    known = [*SCORES, *CANDIDATES]
    if unknown := set(arguments.only or ()) - set(known):
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    runs = [
        run for run in plan(archs, base.resolution) if run.candidate in (arguments.only or known)
    ]
    work = Measure(setting, arguments.data, arguments.device)
    measure_all(runs, work, rows, arguments.workers)


if __name__ == "__main__":
    main()
