"""What the headline leaves: rows as CSV, the winner, full trainings, a copy to go on from."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measured import read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

BASELINE = "ResNet26_97"
COMMANDS = Path("results", "commands.csv")
PART_NAME = "work.tgz."
PART_BYTES = 15_000_000


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


def network_of(url: str, study_name: str, trial: int) -> str:
    """Read the network of a trial, as JSON."""
    from nas.find_study import find_study

    found: str = find_study(study_name, url).trials[trial].user_attrs["architecture_json"]
    return found


def has_scores(url: str, study_name: str) -> bool:
    """Tell whether there is a study with something to show."""
    from nas.errors import UserError
    from nas.find_study import find_study
    from nas.trials import num_scored

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
    "network", "architecture", "arch_id", "num_params", "num_macs", "source_trial", "recipe",
    "epochs", "seed", "data", "split", "accuracy", "flip_accuracy", "loss", "elapsed_seconds",
)  # fmt: skip
MADE_WITH = ("device_name", "processes", "compiled", "python", "torch", "git_revision", "git_clean")


def record(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give a full training's row: what was trained, what it reached, what it was made with."""
    from nas.architecture import Architecture
    from nas.complexity import count_macs

    made_with = json.loads(attributes["provenance"])
    num_macs = count_macs(Architecture.from_json(attributes["architecture_json"]))
    found = attributes | {"num_macs": num_macs}
    devices = [each["device_name"] for each in (*made_with.get("before", ()), made_with)]
    return (
        {name: found.get(name) for name in RECORDED}
        | {name: made_with.get(name) for name in MADE_WITH}
        | {"device_name": ", then ".join(dict.fromkeys(devices))}
    )


def pack(work: Path, out: Path) -> None:
    """Keep what a later call goes on from: databases, results, the newest checkpoint of all.

    They become one archive in parts of 15 MB, in the place of those that are in `out`. Not the
    report, which `status` makes again.
    """
    with tempfile.TemporaryDirectory() as folder, io.BytesIO() as archive:
        _copy(work, Path(folder))
        with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
            tar.add(folder, arcname=".")
        content = archive.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.glob(f"{PART_NAME}*"))
    starts = range(0, len(content), PART_BYTES)
    parts = [out / f"{PART_NAME}{number:02}" for number in range(len(starts))]
    for part, start in zip(parts, starts, strict=True):
        part.with_name("new").write_bytes(content[start : start + PART_BYTES])
        part.with_name("new").replace(part)
    for part in before.difference(parts):
        part.unlink()
    print(f"\npacked {len(content) / 1e6:.1f} MB in {len(starts)} parts in {out}")


def unpack(folder: Path, work: Path) -> None:
    """Make a work folder of the parts of `pack`; one that came of them already stays as it is.

    Raises:
        FileNotFoundError: No parts in `folder`.
        EOFError: Parts that do not belong together, likewise tarfile.TarError and zlib.error.
        FileExistsError: A work folder that knows nothing of a command that ran before the packing.
    """
    parts = sorted(folder.glob(f"{PART_NAME}*"))
    if not parts:
        raise FileNotFoundError(f"no {PART_NAME}* in {folder}")
    content = b"".join(part.read_bytes() for part in parts)
    part_of = work.with_name(work.name + ".part")
    shutil.rmtree(part_of, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        tar.extractall(part_of, filter="data")
    if not work.exists():
        part_of.rename(work)
        return
    packed, present = (read_rows(each / COMMANDS) for each in (part_of, work))
    shutil.rmtree(part_of)
    if present[: len(packed)] != packed:
        raise FileExistsError(
            f"{work} is there and knows nothing of commands in {folder}; name another --work"
        )


def _copy(work: Path, to: Path) -> None:
    not_packed = shutil.ignore_patterns("report.html")
    shutil.copytree(work / "results", to / "results", ignore=not_packed)
    (to / "studies").mkdir()
    for path in (work / "studies").glob("*.db"):
        with sqlite3.connect(path) as source, sqlite3.connect(to / "studies" / path.name) as copy:
            source.backup(copy)
        source.close()
        copy.close()
    checkpoints = (work / "studies").rglob("checkpoints/step-*.safetensors")
    for newest in sorted(checkpoints, key=lambda path: path.stat().st_mtime)[-1:]:
        copied = to / newest.relative_to(work)
        copied.parent.mkdir(parents=True)
        shutil.copy2(newest, copied)
