"""RetrainRecord: what one full training leaves, a trial of the sister study and a folder."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from nas.complexity import count_params
from nas.errors import UserError, brief, differences
from nas.files import write_whole
from nas.find_study import database_of
from nas.learning_curve import learning_curve_page
from nas.notes import write_note
from nas.outages import DATABASE_ERRORS, impatient, through_cuts
from nas.proposed import trial_id
from nas.register import DatabaseFile
from nas.saved_model import CONFIG, read_json, save_model
from nas.sisters import (
    ended_elsewhere_in_one_line,
    report_values,
    resume_or_start,
    retrained_table,
)
from nas.trials import described, fail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import Trial

    from nas.architecture import Architecture
    from nas.full_training import Row
    from nas.saved_model import Classifier


class FailedTrainingError(UserError):
    """Raised for a training that was recorded as failed; others may go on."""


METRICS, CURVE = "metrics.csv", "learning-curve.html"


@dataclass(frozen=True, slots=True)
class Network:
    """What is trained, and where it comes from.

    Attributes:
        arch: The architecture.
        name: Its folder: `trial-42`, or the model's name.
        source_trial: Its number in its study, or `None`.
    """

    arch: Architecture
    name: str
    source_trial: int | None = None


@dataclass
class RetrainRecord:
    """Writes a training down while it runs and when it ends.

    Attributes:
        folder: Its files.
        sister: The study of its trial.
        source: The study of the source trial, or `None`.
        network: What is trained.
        identity: What must be equal for a trial or a checkpoint to be continued, flat.
        data: Name of the data set.
        epochs: In all.
        curve: The column of the rows that the dashboard draws.
    """

    folder: Path
    sister: Study
    source: Study | None
    network: Network
    identity: Mapping[str, Any]
    data: str
    epochs: int
    curve: str

    def __post_init__(self) -> None:
        """Remember the file of the database."""
        self._file = DatabaseFile(database_of(self.sister).engine)

    @cached_property
    def trial(self) -> Trial:
        """The trial, started or taken up again when it is first needed.

        Not before the checkpoints have been looked at: what they refuse leaves no trial behind.
        """
        arch = self.network.arch
        return resume_or_start(
            self.sister,
            self.identity,
            data=self.data,
            source_trial=self.network.source_trial,
            network=self.network.name,
            **described(arch),
            epochs=self.epochs,
            curve=self.curve,
        )

    @property
    def _shown_identity(self) -> dict[str, Any]:
        settings = json.loads(self.identity["recipe_settings"])
        return {**self.identity, "recipe_settings": settings}

    def refuse_another(self) -> None:
        """Refuse (UserError) a folder with the model of another training."""
        path = self.folder / CONFIG
        if not path.is_file():
            return
        wanted, found = self._shown_identity, read_json(path)
        found = {key: found.get(key) for key in wanted}
        if found != wanted:
            different = "; ".join(differences(found, wanted))
            raise UserError(
                f"{self.folder} holds the model of another training: {different}; move it away, or "
                "name the recipe, or the architecture's file, otherwise"
            )

    def write_rows(self, rows: list[Row]) -> None:
        """Write the epochs so far to `metrics.csv` and, if the database is there, to the trial.

        Raises:
            UserError: The database's file was deleted or replaced.
        """
        self._file.refuse_lost()
        trial = self.trial
        with ended_elsewhere_in_one_line(self.sister), suppress(*DATABASE_ERRORS), impatient():
            report_values(self.sister, trial, [row[self.curve] for row in rows])
        if rows:
            write_whole(self.folder / METRICS, _csv(rows))

    def fail(self, reason: str, error: Exception) -> FailedTrainingError:
        """End the trial as FAIL; gives the line for the user."""
        detail = brief(error)
        fail(self.sister, trial_id(self.trial), reason, detail)
        what = f"{self.network.name}, seed {self.identity['seed']}"
        return FailedTrainingError(f"{what}: {reason.replace('_', ' ')}: {detail}")

    def finish(
        self,
        classifier: Classifier,
        rows: list[Row],
        measured: Mapping[str, Any],
        made_with: Mapping[str, Any],
    ) -> int:
        """Save the model and complete the trial, waiting for the database; gives its number.

        Raises:
            UserError: The database's file was deleted or replaced.
        """
        config = {
            **self._shown_identity,
            "data": self.data,
            "network": self.network.name,
            "source_trial": self.network.source_trial,
            "num_params": count_params(self.network.arch),
            **measured,
            "provenance": made_with,
        }
        save_model(self.folder, classifier, config)
        write_whole(self.folder / CURVE, learning_curve_page(rows, self._title(measured)))
        with ended_elsewhere_in_one_line(self.sister):
            values = [row[self.curve] for row in rows]
            through_cuts(partial(report_values, self.sister, self.trial, values))
            for name, value in {**measured, "provenance": json.dumps(made_with)}.items():
                through_cuts(partial(self.trial.set_user_attr, name, value))
            tell = partial(self.sister.tell, skip_if_finished=True)  # by an answer that was lost
            told = through_cuts(partial(tell, self.trial, measured["accuracy"]))
        self._file.refuse_lost()
        return told.number

    def write_note(self) -> None:
        """Put what was retrained of the network into the note on its source trial."""
        source_trial = self.network.source_trial
        if self.source is not None and source_trial is not None:
            arch_id = self.network.arch.arch_id
            table = retrained_table(self.source, self.sister, source_trial, arch_id)
            write_note(self.source, source_trial, "Retrained", table)

    def _title(self, measured: Mapping[str, Any]) -> str:
        about = self.identity
        return (
            f"{self.network.name} ({self.network.arch}), {about['recipe']}, seed {about['seed']}: "
            f"{about['split']} accuracy {measured['accuracy']:.2%}"
        )


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
