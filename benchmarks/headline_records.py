"""What the headline leaves: rows as CSV, the winner, full trainings, a copy to go on from."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

from measured import write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def choose_winner(leaderboard: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the best network that the search proposed: no hand-made one. Test was never read."""
    proposed = [row for row in leaderboard if row["proposed_by"] != "baseline"]
    if not proposed:
        sys.exit("error: the search has scored no network of its own")
    row = proposed[0]
    kept = ("trial", "architecture", "num_params", "num_macs", "val_accuracy", "denoised")
    kept += ("finalist_accuracy", "finalist_std", "finalist_seeds", "proposed_by", "arch_id")
    best = {name: row[name] for name in kept}
    return best | {"rank": row.get("rank"), "best_of_all": leaderboard[0]["trial"]}


def has_scores(url: str, study_name: str) -> bool:
    """Tell whether there is a study with something to show."""
    from nas.errors import UserError
    from nas.find_study import find_study
    from nas.study import num_scored

    try:
        return num_scored(find_study(study_name, url)) > 0
    except UserError:
        return False


def write_records(url: str, study_name: str, results: Path) -> None:
    """Write the full trainings as CSV, the recipes and the study's identity as JSON."""
    from nas.find_study import find_sister, find_study
    from nas.storage import silence_optuna

    silence_optuna()
    study = find_study(study_name, url)
    (results / "configuration.json").write_text(
        json.dumps(json.loads(study.user_attrs["identity"]), indent=2) + "\n"
    )
    sister = find_sister(study, "retrain")
    attributes = (
        [t.user_attrs for t in sister.get_trials() if t.value is not None] if sister else []
    )
    if attributes:
        write_rows(results / "trainings.csv", [record(attrs) for attrs in attributes])
        recipes = {a["recipe"]: json.loads(a["recipe_settings"]) for a in attributes}
        (results / "recipes.json").write_text(json.dumps(recipes, indent=2) + "\n")


RECORDED = (
    "network", "architecture", "arch_id", "num_params", "source_trial", "recipe", "epochs", "seed",
    "data", "split", "accuracy", "flip_accuracy", "loss", "elapsed_seconds",
)  # fmt: skip
MADE_WITH = ("device_name", "processes", "compiled", "python", "torch", "git_revision", "git_clean")


def record(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give a full training's row: what was trained, what it reached, what it was made with."""
    made_with = json.loads(attributes["provenance"])
    return {name: attributes.get(name) for name in RECORDED} | {
        name: made_with.get(name) for name in MADE_WITH
    }


def pack(work: Path, out: Path) -> None:
    """Copy what a later call goes on from: databases, results, the newest checkpoint of all.

    Not the report, which is large and made again by each call.
    """
    not_packed = shutil.ignore_patterns("report.html")
    shutil.copytree(work / "results", out / "results", dirs_exist_ok=True, ignore=not_packed)
    (out / "studies").mkdir(parents=True, exist_ok=True)
    for path in (work / "studies").glob("*.db"):
        with sqlite3.connect(path) as source, sqlite3.connect(out / "studies" / path.name) as copy:
            source.backup(copy)
        source.close()
        copy.close()
    for old in (out / "studies").rglob("step-*.safetensors"):
        old.unlink()
    checkpoints = (work / "studies").rglob("checkpoints/step-*.safetensors")
    for newest in sorted(checkpoints, key=lambda path: path.stat().st_mtime)[-1:]:
        to = out / newest.relative_to(work)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(newest, to)
    files = [path for path in out.rglob("*") if path.is_file()]
    sizes = sorted(((path.stat().st_size, path) for path in files), reverse=True)
    print(f"\npacked {sum(size for size, _ in sizes) / 1e6:.1f} MB in {out}, the largest:")
    for size, path in sizes[:3]:
        print(f"{size / 1e6:6.1f} MB {path.relative_to(out)}")
