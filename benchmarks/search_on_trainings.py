"""Whether the networks that searches name differ once they are trained longer.

    python benchmarks/search_on_trainings.py [--seeds 10] [--trials 60] [--budget 10000]

For each seed and sampler `nas.search` scores networks by proxy trainings, in a study of its own
under `--folder` that is continued if it is there. The named network (`nas.surrogate.recommend` for
`default`, the best score for the others) is then trained `--longer` times as many epochs with three
other seeds. A finished pair of seed and sampler is a row of the CSV; what is there is skipped. At
the end: the mean of the paired differences of `default` to the others, and its standard error.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from measured import append_row, read_rows

import nas
from nas.architecture import Architecture
from nas.complexity import log_costs
from nas.data import load_training_data
from nas.proxy import ProxyConfig, ProxyData, run_proxy
from nas.storage import silence_optuna, sqlite_url
from nas.study import stored_space
from nas.surrogate import recommend

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

RESULTS = Path("benchmarks/results/search_on_trainings.csv")
COLUMNS = ("seed", "sampler", "trial", "score", "architecture", "val_accuracy", "spread")
SAMPLERS = ("default", "random", "tpe")
FINAL_SEEDS = (101, 102, 103)


def named(study: Study, sampler: str) -> FrozenTrial:
    """Name the network that a user of the sampler would take."""
    if sampler != "default":
        return study.best_trial
    space = stored_space(study)
    return recommend(study, space.distributions, features=lambda p: log_costs(space.decode(p)))


def measure(arguments: argparse.Namespace, seed: int, sampler: str) -> dict[str, object]:
    """Search, name, train longer; give a row of the CSV."""
    study = nas.search(
        budget=arguments.budget,
        trials=arguments.trials,
        dataset=arguments.dataset,
        data=arguments.data,
        space=arguments.space,
        proxy=arguments.proxy,
        sampler=sampler,
        seed=seed,
        study=f"{sampler}-{seed}",
        storage=sqlite_url(arguments.folder / f"{sampler}-{seed}.db"),
        device="cpu",
        workers=0,
    )
    trial = named(study, sampler)
    arch = Architecture.from_json(trial.user_attrs["architecture_json"])
    proxy = ProxyConfig.load(arguments.proxy, arguments.budget)[1]
    data = ProxyData.prepare(
        load_training_data(arguments.dataset, arguments.data), proxy.resolution, "cpu"
    )
    longer = {"epochs": arguments.longer * proxy.epochs}
    accuracies = [
        run_proxy(arch, data, proxy.model_copy(update={**longer, "seed": each})).val_accuracy
        for each in FINAL_SEEDS
    ]
    found = (trial.number, trial.value, str(arch), fmean(accuracies), stdev(accuracies))
    return dict(zip(COLUMNS, (seed, sampler, *found), strict=True))


def show(rows: list[dict[str, str]]) -> None:
    """Print the paired differences, in points."""
    reached = {(row["seed"], row["sampler"]): 100 * float(row["val_accuracy"]) for row in rows}
    for other in SAMPLERS[1:]:
        seeds = [seed for seed, sampler in reached if sampler == other]
        pairs = [(reached.get((seed, "default")), reached[seed, other]) for seed in seeds]
        gained = [ours - theirs for ours, theirs in pairs if ours is not None]
        if len(gained) > 1:
            error = stdev(gained) / math.sqrt(len(gained))
            print(f"default - {other}: {fmean(gained):+.2f} ± {error:.2f} points, {len(gained)}")


def main() -> None:
    """Measure what the CSV lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--data", type=Path, default=Path("studies/data"))
    parser.add_argument("--space", default="benchmarks/tiny/space.toml")
    parser.add_argument("--proxy", default="benchmarks/tiny/proxy.toml")
    parser.add_argument("--longer", type=int, default=4, help="times the proxy's epochs")
    parser.add_argument("--folder", type=Path, default=Path("studies/search_on_trainings"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    silence_optuna()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    done = {(row["seed"], row["sampler"]) for row in read_rows(arguments.out)}
    for seed in range(arguments.seeds):
        for sampler in SAMPLERS:
            if (str(seed), sampler) in done:
                continue
            row = measure(arguments, seed, sampler)
            append_row(arguments.out, row)
            print(f"seed {seed}, {sampler}: {row['architecture']}, {row['val_accuracy']:.2%}")
    show(read_rows(arguments.out))


if __name__ == "__main__":
    main()
