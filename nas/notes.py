"""The dashboard's notes on trials: sections that this tool writes, and what a person wrote."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import optuna
from optuna.samplers import RandomSampler
from optuna_dashboard import get_note, save_note

from nas.errors import UserError
from nas.proposed import trial_id
from nas.transaction import alone_with
from nas.trials import get_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

# Link definitions that nothing links to, which Markdown shows nothing of.
SECTION_BEGIN, SECTION_END = "\n[//]: # ({0})\n\n", "\n\n[//]: # (end of {0})\n"

HEADING = "Note"  # of the section that holds a person's
BEGIN = re.escape(SECTION_BEGIN.format("HEADING")).replace("HEADING", "(.*?)")
END = re.escape(SECTION_END.format("HEADING")).replace("HEADING", r"\1")
SECTION = re.compile(rf"{BEGIN}## .*?\n\n(.*?){END}", re.DOTALL)
HAS_NOTE = re.compile(r"dashboard:(\d+):note_ver")


def write_note(study: Study, number: int, heading: str, body: str) -> None:
    """Put a section into the dashboard's note on a trial, in place of its last version.

    The only thing that can still be written there: a finished trial never changes. What a person
    wrote around the section stays.
    """
    source = study.get_trials(deepcopy=False)[number]  # read before the lock is held
    with alone_with(study) as own:
        _write_section(_writable(own)(source), heading, body)


def write_note_within(study: Study, number: int, heading: str, body: str) -> None:
    """Write as `write_note`, of a study that was loaded in `one_transaction`."""
    source = study.get_trials(deepcopy=False)[number]
    _write_section(_writable(study)(source), heading, body)


def _writable(study: Study) -> Callable[[FrozenTrial], Trial]:
    """Make what the dashboard's functions take, which refuse a FrozenTrial, of finished trials."""
    own = optuna.load_study(
        storage=study._storage,  # noqa: SLF001 - it has no getter
        study_name=study.study_name,
        sampler=RandomSampler(),  # TPE would write into the finished trial as soon as it is wrapped
    )
    return lambda trial: optuna.trial.Trial(own, trial_id(trial))


def write_study_note(study: Study, heading: str, body: str) -> None:
    """Put a section into the dashboard's note on the study, as `write_note` on a trial."""
    with alone_with(study) as own:
        _write_section(own, heading, body)


def _write_section(noted: Study | Trial, heading: str, body: str) -> None:
    found = get_note(noted)
    before, _, rest = found.partition(SECTION_BEGIN.format(heading))
    after = rest.partition(SECTION_END.format(heading))[2]
    section = f"{SECTION_BEGIN}## {{0}}\n\n{{1}}{SECTION_END}".format(heading, body)
    written = f"{before}{section}{after}"
    if written != found:
        save_note(noted, written)


def set_note(study: Study, number: int, text: str) -> None:
    """Write a person's note on a trial, in place of the one written here before.

    Its text is escaped, so that the dashboard shows it as it was typed.

    Raises:
        UserError: No trial of this number, or a text that is none.
    """
    get_trial(study, number)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the note is not UTF-8 text; type it again") from None
    escaped = html.escape(text, quote=False).replace("[//]", "&#91;//]")  # what ends a section
    write_note(study, number, HEADING, escaped)


def notes(study: Study) -> dict[int, str]:
    """Read the persons' notes by trial number: ours, and what was typed in the dashboard.

    Sections that this tool writes about its own results are left out.
    """
    storage = study._storage  # noqa: SLF001 - it has no getter
    attrs = storage.get_study_system_attrs(study._study_id)  # noqa: SLF001
    noted = {int(match[1]) for key in attrs if (match := HAS_NOTE.fullmatch(key))}
    writable = _writable(study)
    found = {
        trial.number: _by_a_person(get_note(writable(trial)))
        for trial in study.get_trials(deepcopy=False)
        if trial_id(trial) in noted
    }
    return {number: text for number, text in found.items() if text}


def _by_a_person(body: str) -> str:
    typed = SECTION.sub("", body).strip()
    written = [html.unescape(text) for heading, text in SECTION.findall(body) if heading == HEADING]
    return "\n".join(part for part in (*written, typed) if part)
