"""Progress: what a caller of `search` may want to hear of, from whichever worker it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Progress:
    """Callbacks; each is called in the process that called `search`.

    Attributes:
        on_start: With the study, the target and the database's URL, before the first trial.
        on_finalists: With the finalists' study and how many of its trials are to come; from then on
            trials are those of that study.
        on_trial_start: With the number of every trial that starts, and its worker, from 0.
        on_step: With (steps done, steps in all, worker) of a running trial; of a worker process
            at most ten times a second.
        on_trial_end: With every trial that ends.
        on_notice: With a line on what went wrong without an end to the search.
        on_end: With the study and why it ended: "complete", "timeout" or a sentence.
    """

    on_start: Callable[[Study, int, str], None] = lambda _study, _target, _url: None
    on_finalists: Callable[[Study, int], None] = lambda _sister, _number: None
    on_trial_start: Callable[[int, int], None] = lambda _number, _worker: None
    on_step: Callable[[int, int, int], None] = lambda _done, _total, _worker: None
    on_trial_end: Callable[[FrozenTrial], None] = lambda _trial: None
    on_notice: Callable[[str], None] = lambda _line: None
    on_end: Callable[[Study, str], None] = lambda _study, _why: None
