r"""How well each way to score a network ranks networks, and what it costs.

    python benchmarks/proxy_fidelity.py [--data DIR] [--budget 100k] [--networks 24] [--only NAME]
                                        [--architectures FILE.json ...] [--rows FILE.csv]

Draws networks that use 90-100 % of the budget, spread over shapes, trains each under every entry of
`CANDIDATES` (fidelity_plan.py), among them the reference, and scores it untrained by
`nas.zero_cost`. Every finished run is a row of the CSV at once; the same command goes on where an
earlier one ended, in mid-training too, also with more networks or workers, and its order is such
that the first networks are complete early. Reference and candidates have different seeds: shared
initial weights and batches would make them agree for no merit of a proxy. `--architectures`
measures these networks instead, such as those a search found.

Data set, budget, space and base schedule are the CSV's head; a measurement of another kind is
another file. Precision is part of it, by default what the device is best at: a file that was begun
in bfloat16 goes on elsewhere with `--precision bfloat16`. At 5M, on a GPU that is at hand for
minutes (by 33 ms a step on an H200, 11 of them; each row is written when its run has ended):

    python benchmarks/proxy_fidelity.py --budget 5e6 --base standard --device cuda --networks 6 \
        --reference-epochs 12 --only reference epochs4 resolution16 epochs8resolution16 --rows FILE
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from fidelity_plan import CANDIDATES, REFERENCE_EPOCHS, Run, Setting, networks, plan
from saved_training import Clock, train_saved

from nas.budget import budget_name
from nas.checkpoint import Checkpoints
from nas.cli.parse import parse_count
from nas.data import TrainingData, load_training_data
from nas.evaluation import evaluate
from nas.presets import read_architecture
from nas.provenance import provenance
from nas.proxy import ProxyConfig, ProxyData
from nas.training import Precision, resolved_precision
from nas.zero_cost import SCORES, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results"
PROBE_IMAGES = 64
FAILURES = (ArithmeticError, RuntimeError)  # of one run: it diverged, or has too little memory


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
        running: Folder of what is saved of runs that take more than a minute.
    """

    setting: Setting
    root: str
    device: str
    running: Path

    def __call__(self, run: Run) -> dict[str, Any]:
        """Give the run's row."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        measured = self._scored(run) if run.candidate in SCORES else self._trained(run)
        made_with = provenance(self.device)
        capability = [made_with["cpu_capability"]] if self.device == "cpu" else []
        return {
            "network": run.network,
            "arch_id": run.arch.arch_id,
            "architecture": str(run.arch),
            "candidate": run.candidate,
            "seed": run.seed,
            **measured,
            "device": " ".join([made_with["device_name"], *capability]),
            "threads": made_with["threads"],
            "torch": made_with["torch"],
            "revision": made_with["git_revision"],
        }

    def _trained(self, run: Run) -> dict[str, Any]:
        config = self.setting.schedule(run.candidate, run.seed)
        data = self._data(config.resolution, CANDIDATES[run.candidate].data_share)
        checkpoints = Checkpoints(
            self.running / "-".join(run.key), {**self.setting.head(), "run": list(run.key)}
        )
        model, losses, clock = train_saved(run.arch, data, config, checkpoints)
        score_on_val = partial(
            evaluate, model, data.val, data.normalization, precision=config.precision
        )
        score = score_on_val(flip_average=True)
        times = clock.read()
        plain = score_on_val(flip_average=False)
        checkpoints.remove()
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
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="candidates to measure now")
    parser.add_argument("--architectures", type=Path, nargs="+", help="instead of drawn networks")
    parser.add_argument("--rows", type=Path, help="the CSV")
    arguments = parser.parse_args()
    if arguments.architectures and arguments.rows is None:
        parser.error("--architectures needs --rows: a file of their own")
    precision = resolved_precision(arguments.device, arguments.precision)
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
    work = Measure(setting, arguments.data, arguments.device, rows.path.with_suffix(".running"))
    measure_all(runs, work, rows, arguments.workers)


if __name__ == "__main__":
    main()
