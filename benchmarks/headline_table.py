"""The headline's results table, made from the files that benchmarks/headline.py left.

    python benchmarks/headline_table.py build/headline/results

A row for each network, recipe and split: mean and standard deviation over seeds. One network beats
another under the same recipe if the difference of the means is more than two standard errors of
that difference; otherwise, and with fewer than three seeds that both have, they are not
distinguishable. Equal networks would differ by so much in 12 % of comparisons of three seeds.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from headline_records import BASELINE
from measured import markdown_table, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS = (0.95, 0.96, 0.97, 0.975, 0.98)
NOT_DISTINGUISHABLE = "not distinguishable"
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Group:
    """The seeds of one network under one recipe, scored on one split.

    Attributes:
        network: Its name.
        recipe: Its name, changed settings included.
        split: "test" or "val".
        num_params: Of the network.
        num_macs: Likewise, of an image of 32 pixels.
        epochs: Of each training.
        gpu: What it ran on, all devices there were.
        seeds: Of each training.
        accuracies: One a seed, in [0, 1].
        flip_accuracies: The same, averaged over mirror images.
        seconds: Of each training, what is saved on the way included.
    """

    network: str
    recipe: str
    split: str
    num_params: int
    num_macs: int
    epochs: int
    gpu: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    flip_accuracies: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[dict[str, str]]) -> Group:
        """Sum up rows of `trainings.csv` that are alike."""
        first = rows[0]
        return cls(
            first["network"],
            first["recipe"],
            first["split"],
            int(first["num_params"]),
            int(first["num_macs"]),
            int(first["epochs"]),
            ", ".join(sorted({row["device_name"] for row in rows})),
            tuple(int(row["seed"]) for row in rows),
            tuple(float(row["accuracy"]) for row in rows),
            tuple(float(row["flip_accuracy"]) for row in rows),
            tuple(float(row["elapsed_seconds"]) for row in rows),
        )

    def of_seeds(self, seeds: set[int]) -> list[float]:
        """Give the accuracies of these seeds."""
        pairs = zip(self.seeds, self.accuracies, strict=True)
        return [accuracy for seed, accuracy in pairs if seed in seeds]


def groups(rows: Sequence[dict[str, str]]) -> list[Group]:
    """Put together what differs in the seed alone, in the order of the rows."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("network", "recipe", "split"))
        found.setdefault(key, []).append(row)
    return [Group.of(alike) for alike in found.values()]


def standard_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Give that of the difference of two means, each of at least two independent values."""
    return math.sqrt(stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second))


def verdict(one: Group, other: Group) -> str:
    """Say which of two is better, by how much, or that they are not distinguishable."""
    between = f"{one.network} and {other.network} under {one.recipe}"
    common = set(one.seeds) & set(other.seeds)
    if len(common) < LEAST_SEEDS:
        return f"{between}: {NOT_DISTINGUISHABLE} (fewer than {LEAST_SEEDS} common seeds)"
    first, second = one.of_seeds(common), other.of_seeds(common)
    difference = mean(first) - mean(second)
    error = standard_error(first, second)
    measured = f"{100 * abs(difference):.2f} points, standard error {100 * error:.2f}"
    if abs(difference) <= 2 * error:
        return f"{between}: {NOT_DISTINGUISHABLE} ({measured})"
    better, worse = (one, other) if difference > 0 else (other, one)
    return f"{better.network} beats {worse.network} under {one.recipe} by {measured}"


def verdicts(found: Sequence[Group], winner: str) -> list[str]:
    """Compare the winner with the hand-made network wherever recipe and split are the same."""
    return [
        verdict(one, other)
        for one in found
        for other in found
        if (one.network, other.network) == (winner, BASELINE)
        and (one.recipe, one.split) == (other.recipe, other.split)
    ]


def fastest(found: Sequence[Group], target: float) -> Group | None:
    """Give the schedule of least mean seconds whose mean test accuracy reaches the target."""
    reaching = [g for g in found if g.split == "test" and mean(g.accuracies) >= target]
    return min(reaching, key=lambda group: mean(group.seconds), default=None)


def percent(values: Sequence[float]) -> str:
    """Write mean and standard deviation."""
    shown = f"{100 * mean(values):.2f} %"
    return shown if len(values) < 2 else f"{shown} +- {100 * stdev(values):.2f}"


def table(found: Sequence[Group]) -> str:
    """Write a row a group, in Markdown."""
    titles = (
        "network", "parameters", "multiply-adds", "recipe", "epochs", "seeds", "split",
        "accuracy", "flip-averaged", "seconds a seed", "device",
    )  # fmt: skip
    rows = [
        (
            group.network,
            f"{group.num_params:,}",
            f"{group.num_macs / 1e6:,.0f}M",
            group.recipe,
            str(group.epochs),
            str(len(group.accuracies)),
            group.split,
            percent(group.accuracies),
            percent(group.flip_accuracies),
            f"{mean(group.seconds):,.0f}",
            group.gpu,
        )
        for group in found
    ]
    return markdown_table(titles, rows)


def page(folder: Path) -> str:
    """Write the table and what follows from it."""
    found = groups(read_rows(folder / "trainings.csv"))
    calls = [r for r in read_rows(folder / "commands.csv") if "search.py" in r["command"]]
    searched = sum(float(row["seconds"]) for row in calls)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    winner = plan["winner"]
    named = f"trial {winner['trial']}, {winner['architecture']}"
    lines = [
        f"Winner, named on validation: {named}, {winner['num_params']:,} parameters.",
        f"The search, finalists included, took {searched / 60:.1f} min in {len(calls)} call(s).",
        "",
        table(found),
        "",
        *(f"- {line}." for line in verdicts(found, f"trial-{winner['trial']}")),
    ]
    for target in TARGETS:
        group = fastest(found, target)
        reached = "by none of these" if group is None else _fastest_in_words(group)
        lines.append(f"- {100 * target:g} % on test: {reached}.")
    return "\n".join(lines) + "\n"


def _fastest_in_words(group: Group) -> str:
    reached = f"mean of {len(group.accuracies)} seed(s): {percent(group.accuracies)}"
    return (
        f"first after {mean(group.seconds):,.1f} s of training and saving ({group.network}, "
        f"{group.epochs} epochs, {reached}, {group.gpu})"
    )


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("studies/cifar10-5M"))
    folder = parser.parse_args().folder
    missing = [
        n for n in ("trainings.csv", "plan.json", "commands.csv") if not (folder / n).is_file()
    ]
    if missing:
        parser.error(f"no {missing[0]} in {folder}; benchmarks/headline.py writes it to results/")
    if json.loads((folder / "plan.json").read_text(encoding="utf-8"))["winner"] is None:
        parser.error(f"{folder / 'plan.json'} names no winner; the search is not finished")
    print(page(folder), end="")


if __name__ == "__main__":
    main()
