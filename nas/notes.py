"""A person's notes on trials: a section of the dashboard's note, and what is typed there."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import optuna
from optuna.samplers import RandomSampler
from optuna_dashboard import get_note

from nas.samplers import trial_id
from nas.sisters import SECTION_BEGIN, SECTION_END, write_note
from nas.study import get_trial

if TYPE_CHECKING:
    from optuna.study import Study

HEADING = "Note"
BEGIN = re.escape(SECTION_BEGIN.format("HEADING")).replace("HEADING", "(.*?)")
END = re.escape(SECTION_END.format("HEADING")).replace("HEADING", r"\1")
SECTION = re.compile(rf"{BEGIN}## .*?\n\n(.*?){END}", re.DOTALL)
HAS_NOTE = re.compile(r"dashboard:(\d+):note_ver")


def set_note(study: Study, number: int, text: str) -> None:
    """Write a person's note on a trial, in place of the one written here before.

    Its text is escaped, so that the dashboard shows it as it was typed.

    Raises:
        UserError: No trial of this number.
    """
    get_trial(study, number)
    escaped = html.escape(text, quote=False).replace("[//]", "&#91;//]")  # what ends a section
    write_note(study, number, HEADING, escaped)


def notes(study: Study) -> dict[int, str]:
    """Read the persons' notes by trial number: ours, and what was typed in the dashboard.

    Sections that this tool writes about its own results are left out.
    """
    storage = study._storage  # noqa: SLF001 - it has no getter
    attrs = storage.get_study_system_attrs(study._study_id)  # noqa: SLF001
    noted = {int(match[1]) for key in attrs if (match := HAS_NOTE.fullmatch(key))}
    own = optuna.load_study(
        storage=storage, study_name=study.study_name, sampler=RandomSampler()
    )  # another sampler would write into the finished trial that is wrapped below
    found = {
        trial.number: _by_a_person(get_note(optuna.trial.Trial(own, trial_id(trial))))
        for trial in study.get_trials(deepcopy=False)
        if trial_id(trial) in noted
    }
    return {number: text for number, text in found.items() if text}


def _by_a_person(body: str) -> str:
    typed = SECTION.sub("", body).strip()
    written = [html.unescape(text) for heading, text in SECTION.findall(body) if heading == HEADING]
    return "\n".join(part for part in (*written, typed) if part)
