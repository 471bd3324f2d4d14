"""The ledger: a study's tries as a sheet like those people keep by hand, and such a sheet read in.

What a sheet says of full trainings becomes trials of the sister `<name>-retrain`, recipe
"imported": an accuracy as a scored trial, a row without one as a failed trial that says so. So a
network that was tried elsewhere is known here, and its row comes back with the next export.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from nas.budget import costs
from nas.complexity import count_params
from nas.errors import UserError
from nas.find_study import RETRAIN
from nas.history import SEARCH, history
from nas.notes import write_note_within
from nas.sheet import read_sheet, write_sheet
from nas.sheet_rows import Row, Unreadable, parse_rows
from nas.sisters import open_sister, retrained_table
from nas.study import IMPORTED, stored_identity, stored_limits, stored_space
from nas.transaction import alone_with
from nas.trials import described, enqueue

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import RDBStorage
    from optuna.study import Study

    from nas.architecture import Architecture
    from nas.history import Try

BAD = ("unreadable", "over budget", "outside the space")  # verdicts that --strict refuses
NO_ACCURACY = "no accuracy"  # why the record of a row without one is no score


def export_sheet(study: Study, path: Path) -> int:
    """Write the tries that ended as a sheet, by the ending: .csv, .xlsx or .parquet.

    Returns:
        The number of rows.

    Raises:
        UserError: As `write_sheet`.
    """
    frame = ledger(study)
    write_sheet(path, frame)
    return len(frame)


def ledger(study: Study) -> pd.DataFrame:
    """List the tries that ended, one row each, with the columns people keep by hand and ours."""
    rows = [_columns(each) for each in history(study) if each.is_over]
    kinds = {"residual layers": "Int64", "parameters": "Int64", "seed": "Int64"}
    kinds |= {"accuracy": "Float64", "val accuracy": "Float64"}
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(kinds)


COLUMNS = (
    "name", "residual layers", "blocks", "kernel sizes", "shortcut kernels", "block types",
    "channels", "parameters", "accuracy", "optimizer", "lr", "epochs", "notes", "date",
    "val accuracy", "seed", "recipe", "result", "trial", "proposed by",
)  # fmt: skip


def _columns(each: Try) -> dict[str, Any]:
    stages = each.arch.stages
    blocks = list(dict.fromkeys(stage.block for stage in stages))
    return {
        "name": each.name,
        "residual layers": len(stages),
        "blocks": _listed(stage.depth for stage in stages),
        "kernel sizes": _listed(stage.kernel_size for stage in stages),
        "shortcut kernels": _listed(stage.shortcut_kernel_size for stage in stages),
        "block types": blocks[0] if len(blocks) == 1 else _listed(s.block for s in stages),
        "channels": _listed(stage.width for stage in stages),
        "parameters": each.num_params,
        "accuracy": _rounded(each.accuracy),
        "optimizer": each.optimizer,
        "lr": each.lr,
        "epochs": each.epochs,
        "notes": each.notes,
        "date": each.date,
        "val accuracy": _rounded(each.val_accuracy),
        "seed": each.seed,
        "recipe": each.recipe,
        "result": each.result,
        "trial": f"{each.kind} {each.trial}",
        "proposed by": each.proposed_by,
    }


def _listed(values: Any) -> str:  # noqa: ANN401 - any values
    return ", ".join(map(str, values))


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 10)


@dataclass(frozen=True)
class Verdict:
    """What became of a row of a sheet.

    Attributes:
        line: Its number in the sheet, from 1.
        name: Of the network, or "".
        verdict: "imported", "outside the space", "over budget", "tried already" or "unreadable".
        detail: Why, and where the sheet differs from what is counted here.
        is_recorded: Whether it became a trial of the sister study.
        is_enqueued: Whether the network will be scored.
    """

    line: int
    name: str
    verdict: str
    detail: str = ""
    is_recorded: bool = False
    is_enqueued: bool = False


@dataclass(frozen=True)
class Imported:
    """What became of a sheet.

    Attributes:
        verdicts: One a row, in order.
        ignored: Titles of its columns that are not known, and so were not read.
    """

    verdicts: list[Verdict]
    ignored: list[str]


def import_sheet(
    storage: RDBStorage,
    name: str,
    path: Path,
    *,
    is_strict: bool = False,
    enqueues: bool = False,
    is_dry_run: bool = False,
) -> Imported:
    """Read a sheet into a study: all of it in one transaction, what is known already not again.

    Args:
        storage: The study's database.
        name: The study.
        path: A .csv, .tsv, .txt, .xlsx or .parquet file.
        is_strict: Whether one row that is unreadable, over budget or outside the space refuses all.
        enqueues: Whether networks within the budget are queued to be scored.
        is_dry_run: Whether nothing is written.

    Raises:
        UserError: The file cannot be read as a whole, or `is_strict` refuses it.
    """
    parsed = parse_rows(path, read_sheet(path))
    study = optuna.load_study(storage=storage, study_name=name)
    with nullcontext(study) if is_dry_run else alone_with(study) as own:
        importing = _Import(own, enqueues)
        verdicts = importing.run(parsed.rows)
        _refuse_bad(path, verdicts, is_strict=is_strict)
        if not is_dry_run:
            importing.write()
    return Imported(verdicts, parsed.ignored)


def _refuse_bad(path: Path, verdicts: list[Verdict], *, is_strict: bool) -> None:
    bad = [each for each in verdicts if each.verdict in BAD]
    if is_strict and bad:
        first = bad[0]
        raise UserError(
            f"{path}: {len(bad)} of {len(verdicts)} rows are bad, nothing was imported; line "
            f"{first.line} is {first.verdict}{f': {first.detail}' if first.detail else ''}"
        )


class _Import:
    """Judges rows one after the other, and remembers what there is to write."""

    def __init__(self, study: Study, enqueues: bool) -> None:  # noqa: FBT001 - inner
        self._study, self._enqueues = study, enqueues
        self._space = stored_space(study)
        self._costs = costs(stored_identity(study).get("image_size"))
        self._maxima = {name: bounds[1] for name, bounds in stored_limits(study).items()}
        tries = history(study)
        self._keys = {_key_of_try(each) for each in tries}
        self._known = {each.arch.arch_id for each in tries}
        self._searched = {
            each.arch.arch_id: each.trial for each in reversed(tries) if each.kind == SEARCH
        }
        self._records: list[optuna.trial.FrozenTrial] = []
        self._queue: dict[str, tuple[Architecture, str]] = {}

    def run(self, rows: list[Row | Unreadable]) -> list[Verdict]:
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row | Unreadable) -> Verdict:
        if isinstance(row, Unreadable):
            return Verdict(row.number, "", "unreadable", row.reason)
        arch = self._space.fitted(row.arch)
        key, arch_id = _key_of_row(row, arch), arch.arch_id
        over = self._over_budget(arch)
        is_queued = self._enqueues and not over and self._is_new_here(arch_id)
        if is_queued:
            self._queue[arch_id] = (arch, row.texts.get("name", ""))
        has_score = row.accuracy is not None or row.val_accuracy is not None
        is_known = key in self._keys if has_score else arch_id in self._known
        outside = self._space.why_outside(arch)
        detail = "; ".join(part for part in (over or outside, _difference(row, arch)) if part)
        if not is_known:
            self._keys.add(key)
            self._known.add(arch_id)
            self._records.append(self._record(row, arch))
        verdict = (
            "tried already"
            if is_known
            else "over budget"
            if over
            else "outside the space"
            if outside
            else "imported"
        )
        name = row.texts.get("name", "")
        return Verdict(row.number, name, verdict, detail, not is_known, is_queued)

    def _is_new_here(self, arch_id: str) -> bool:
        return arch_id not in self._searched and arch_id not in self._queue

    def _over_budget(self, arch: Architecture) -> str:
        return ", ".join(
            f"{name} {self._costs[name](arch):,} of at most {maximum:,}"
            for name, maximum in self._maxima.items()
            if self._costs[name](arch) > maximum
        )

    def _record(self, row: Row, arch: Architecture) -> optuna.trial.FrozenTrial:
        texts = dict(row.texts)
        attrs: dict[str, Any] = {
            "recipe": IMPORTED,
            "split": "test",
            "network": texts.pop("name", None),
            "source_trial": self._searched.get(arch.arch_id),
            **described(arch),
            "val_accuracy": row.val_accuracy,
            "seed": row.seed,
            "fail_reason": NO_ACCURACY if row.accuracy is None else None,
            **texts,
        }
        return optuna.create_trial(
            state=TrialState.FAIL if row.accuracy is None else TrialState.COMPLETE,
            value=row.accuracy,
            user_attrs={key: value for key, value in attrs.items() if value is not None},
        )

    def write(self) -> None:
        """Add the records, the notes on their source trials, and the networks to be scored."""
        if self._records:
            storage, name = self._study._storage, self._study.study_name  # noqa: SLF001
            sister = open_sister(storage, name, RETRAIN)
            for record in self._records:
                sister.add_trial(record)
            scored = [r.user_attrs for r in self._records if r.state is TrialState.COMPLETE]
            sources = {a["source_trial"]: a["arch_id"] for a in scored if "source_trial" in a}
            for source, arch_id in sorted(sources.items()):
                table = retrained_table(self._study, sister, source, arch_id)
                write_note_within(self._study, source, "Retrained", table)
        for arch, name in self._queue.values():
            enqueue(self._study, self._space, arch, proposed_by="imported", name=name)


def _difference(row: Row, arch: Architecture) -> str:
    counted = count_params(arch)
    if not row.num_params or any(abs(said - counted) <= off for said, off in row.num_params):
        return ""
    said, _ = min(row.num_params, key=lambda reading: abs(reading[0] - counted))
    shown = f"{said:,.0f}" if said >= 1_000 else f"{said:g}"
    return f"the sheet says {shown} parameters, they are {counted:,}"


def _key_of_row(row: Row, arch: Architecture) -> tuple[object, ...]:
    named = (row.texts.get(name, "") for name in ("name", "optimizer", "lr", "date"))
    return (arch.arch_id, row.accuracy, row.val_accuracy, row.seed, *named)


def _key_of_try(each: Try) -> tuple[object, ...]:
    accuracies = (_rounded(each.accuracy), _rounded(each.val_accuracy))
    texts = (each.name, each.optimizer, each.lr, each.date)
    return (each.arch.arch_id, *accuracies, each.seed, *(text.strip() for text in texts))
