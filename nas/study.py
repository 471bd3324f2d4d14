"""What a study is: its identity, the attributes of its trials, the objective, its sisters.

A study is an Optuna study with user attributes of ours: `identity` (what makes its scores
comparable), `space`, `token`, `attributes_version`. A trial's user attributes are named below.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from nas.architecture import Architecture
from nas.complexity import count, count_macs, count_params, size_bytes
from nas.errors import UserError
from nas.feasible import Limit
from nas.presets import STUDIES
from nas.provenance import provenance
from nas.space import SearchSpace
from nas.storage import open_storage, shown_url, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from nas.proxy import ProxyConfig, ProxyData, ProxyResult
    from nas.samplers import BudgetSampler
    from nas.storage import Register

ATTRIBUTES_VERSION = 1
METRIC = "val_accuracy"
SISTERS = ("finalists", "retrain")
SETUP_SECONDS = 10  # how long a process waits for another one that is creating the study
RETRIED = ("interrupted", "lost")  # a FAIL for these reasons is tried again, at most
MAX_RETRIES = 3  # this many times; a FAIL for any other reason never is

COSTS: dict[str, Callable[[Architecture], int]] = {
    "num_params": count_params,
    "num_macs": count_macs,
    "size_bytes": size_bytes,
}


class TrialFailed(Exception):  # noqa: N818 - named as the state
    """Raised where a trial must end as FAIL; `reason` is one word, `detail` a sentence."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Budget:
    """The limits of a study, by the names of `COSTS`.

    Attributes:
        max_params: Trainable parameters.
        fill: The least share of `max_params` a network uses.
        max_macs: Multiply-adds of one image, or `None`.
        max_bytes: Bytes as float32, or `None`.
    """

    max_params: int
    fill: float = 0.9
    max_macs: int | None = None
    max_bytes: int | None = None

    @classmethod
    def of(
        cls, max_params: float, *, fill: float, max_macs: float | None, max_bytes: float | None
    ) -> Budget:
        """Check what a user asked for (UserError) and make whole numbers of it."""
        asked = {"--budget": max_params, "--max-macs": max_macs, "--max-bytes": max_bytes}
        for flag, value in asked.items():
            if value is not None and not 1 <= value < math.inf:
                raise UserError(f"{flag} must be a positive number, not {value:g}")
        if not 0 <= fill <= 1:
            raise UserError(f"--fill is a share of the budget from 0 to 1, not {fill:g}")
        whole = [None if value is None else int(value) for value in (max_macs, max_bytes)]
        return cls(int(max_params), fill, *whole)

    @property
    def bounds(self) -> dict[str, tuple[int | None, int]]:
        """Give (minimum, maximum) of each limited cost, the parameters first."""
        least = math.ceil(self.fill * self.max_params) or None
        bounds: dict[str, tuple[int | None, int]] = {"num_params": (least, self.max_params)}
        if self.max_macs is not None:
            bounds["num_macs"] = (None, self.max_macs)
        if self.max_bytes is not None:
            bounds["size_bytes"] = (None, self.max_bytes)
        return bounds

    def limits(self, space: SearchSpace) -> tuple[Limit, ...]:
        """Express the limits on a space's parameters."""

        def cost(name: str) -> Callable[[Mapping[str, Any]], int]:
            return lambda params: COSTS[name](space.decode(params))

        return tuple(
            Limit(name, cost(name), maximum, minimum)
            for name, (minimum, maximum) in self.bounds.items()
        )

    def admits(self, arch: Architecture) -> bool:
        """Tell whether a network lies within every limit."""
        return all(
            (minimum or 0) <= COSTS[name](arch) <= maximum
            for name, (minimum, maximum) in self.bounds.items()
        )


def identity(
    data_set: str, fingerprint: str, split: str, budget: Budget, proxy: ProxyConfig
) -> dict[str, Any]:
    """Put together what must be equal for scores to share a study, flat."""
    return {
        "data": data_set,
        "data_fingerprint": fingerprint,
        "split": split,
        "metric": METRIC,
        **{f"limits.{name}": list(bounds) for name, bounds in budget.bounds.items()},
        **{f"proxy.{name}": value for name, value in proxy.model_dump().items()},
    }


def open_study(
    storage: RDBStorage,
    name: str,
    wanted: Mapping[str, Any],
    space: SearchSpace,
    *,
    pruner: BasePruner,
) -> Study:
    """Create the study, or continue it if its identity is the wanted one.

    A space that includes the study's own replaces it.

    Raises:
        UserError: The study differs; the line names the differences and a free name.
    """
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner
        )
        _set_up(study, wanted, space)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
        _check(study, wanted, space)
    return study


def _set_up(study: Study, wanted: Mapping[str, Any], space: SearchSpace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])
    study.set_user_attr("identity", json.dumps(wanted, sort_keys=True))
    study.set_user_attr("space", json.dumps(space.to_dict()))
    study.set_user_attr("attributes_version", ATTRIBUTES_VERSION)
    study.set_user_attr("token", secrets.token_hex(16))  # last: it says that the others are there


def _check(study: Study, wanted: Mapping[str, Any], space: SearchSpace) -> None:
    attrs = _complete_attrs(study, wanted, space)
    if attrs["attributes_version"] != ATTRIBUTES_VERSION:
        raise UserError(
            f"study {study.study_name!r} was written by another version of this tool "
            f"(attributes {attrs['attributes_version']}, this one {ATTRIBUTES_VERSION})"
        )
    found = json.loads(attrs["identity"])
    differences = [
        f"{key} is {_shown(found.get(key))} there, {_shown(wanted.get(key))} asked"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    own = SearchSpace.from_dict(json.loads(attrs["space"]))
    if not space.includes(own):
        differences.append("the search space there is not part of the one asked for")
    if differences:
        raise UserError(
            f"study {study.study_name!r} holds scores that cannot be compared: "
            f"{'; '.join(differences)}. To start a new one: --study {_free_name(study)}"
        )
    if space != own:
        study.set_user_attr("space", json.dumps(space.to_dict()))


def _complete_attrs(study: Study, wanted: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Wait for another process that is setting the study up; do it in its place if it died."""
    deadline = time.monotonic() + SETUP_SECONDS
    while "token" not in (attrs := study.user_attrs):
        if study.get_trials(deepcopy=False):
            raise UserError(f"study {study.study_name!r} was not made by this tool; name another")
        if time.monotonic() > deadline:
            _set_up(study, wanted, space)
        time.sleep(0.1)
    return attrs


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)


def _free_name(study: Study) -> str:
    taken = set(optuna.get_all_study_names(study._storage))  # noqa: SLF001 - it has no getter
    return next(n for k in range(2, 10_000) if (n := f"{study.study_name}-{k}") not in taken)


def study_url(name: str) -> str:
    """Give the URL of a study's own SQLite file under `studies/`.

    Raises:
        UserError: A name that would leave that folder, or that no file can have.
    """
    if not re.fullmatch(r"[A-Za-z0-9_+=@][A-Za-z0-9_.+=@ -]{0,199}", name):
        raise UserError(
            f"{name!r} cannot name a study: letters, digits, _ . + = @ - and spaces, 200 at most"
        )
    return sqlite_url(STUDIES / f"{name}.db")


def find_study(name: str | None, url: str | None) -> Study:
    """Load a study by name, or the only one there is; sisters count with their study.

    Args:
        name: The study, or `None`.
        url: Its database, or `None` for the SQLite files under `studies/`.

    Raises:
        UserError: None, or several to choose from; the line lists them.
    """
    urls = [url] if url else [sqlite_url(path) for path in sorted(STUDIES.glob("*.db"))]
    found = {}
    for each in urls:
        storage = open_storage(each, create=False)
        for known in optuna.get_all_study_names(storage):
            if not known.endswith(tuple(f"-{sister}" for sister in SISTERS)):
                found[known] = storage
    listed = ", ".join(sorted(found)) or "none"
    if not found or (name is not None and name not in found):
        what = f"no study {name!r}" if name else "no study"
        raise UserError(f"{what} in {shown_url(url) if url else STUDIES}; there is: {listed}")
    if name is None and len(found) > 1:
        raise UserError(f"several studies, name one of them: {listed}")
    chosen = name or next(iter(found))
    return optuna.load_study(study_name=chosen, storage=found[chosen])


def budget_name(max_params: int) -> str:
    """Write a number of parameters as people do: 5M, 250k, 4978810."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if unit <= max_params < 1000 * unit and max_params * 100 % unit == 0:
            return f"{max_params / unit:g}{letter}"
    return str(max_params)


def trial_id(trial: FrozenTrial | Trial) -> int:
    """Give the database's id of a trial, for our tables; people see its number."""
    return trial._trial_id  # noqa: SLF001 - Optuna's storages take it, its trials hide it


def num_scored(study: Study) -> int:
    """Count the scored trials."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def enqueue(
    study: Study, space: SearchSpace, arch: Architecture, *, proposed_by: str, **attrs: object
) -> None:
    """Queue an architecture, also one outside the space, to be scored next."""
    params = space.encode(arch) or {}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": params},
            user_attrs={"architecture_json": arch.to_json(), "proposed_by": proposed_by, **attrs},
        )
    )


def requeue(study: Study) -> None:
    """Queue again what failed for no fault of its own and has not been tried again since."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for t in trials for number in t.system_attrs.get("retry_history", ())}
    for trial in trials:
        history = [*trial.system_attrs.get("retry_history", ()), trial.number]
        if (
            trial.state is TrialState.FAIL
            and trial.user_attrs.get("fail_reason") in RETRIED
            and "architecture_json" in trial.user_attrs
            and trial.number not in retried
            and len(history) <= MAX_RETRIES
        ):
            _queue_again(study, trial, history)


def _queue_again(study: Study, trial: FrozenTrial, history: list[int]) -> None:
    """Follow the convention of Optuna's `RetryHeartbeatStaleTrialCallback`."""
    kept = ("architecture_json", "proposed_by", "baseline", "draws")
    fixed = {"fixed_params": trial.system_attrs.get("fixed_params", trial.params)}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={key: trial.user_attrs[key] for key in kept if key in trial.user_attrs},
            system_attrs={**fixed, "failed_trial": history[0], "retry_history": history},
        )
    )


def fail(study: Study, trial: FrozenTrial | Trial, reason: str, detail: str = "") -> None:
    """End a running trial as FAIL with its reason; one that ended meanwhile stays as it is."""
    storage = study._storage  # noqa: SLF001 - a dead worker's trial has no `Trial` to tell
    try:
        storage.set_trial_user_attr(trial_id(trial), "fail_reason", reason)
        if detail:
            storage.set_trial_user_attr(trial_id(trial), "fail_detail", detail)
        storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)
    except (KeyError, optuna.exceptions.UpdateFinishedTrialError):
        return


def claimer(storage: RDBStorage, register: Register) -> Callable[[str, FrozenTrial | Trial], bool]:
    """Make the function that claims an architecture for a trial; False if another has it.

    A claim is void, and may be taken over, if its trial is gone or will be tried again.
    """

    def is_void(owner: int) -> bool:
        try:
            trial = storage.get_trial(owner)
        except KeyError:
            return True
        return trial.state is TrialState.FAIL and trial.user_attrs.get("fail_reason") in RETRIED

    def claim(arch_id: str, trial: FrozenTrial | Trial) -> bool:
        return register.claim(arch_id, trial_id(trial), is_void=is_void)

    return claim


@dataclass
class Objective:
    """Scores a trial's network: `Objective(...)(trial)` is its validation accuracy in [0, 1].

    Attributes:
        space: Decodes the trial's parameters.
        budget: Nothing over it is built.
        data: Train and val on the device.
        proxy: The schedule.
        sampler_name: Recorded with what it proposes.
        proposer: The study's sampler, for the record of each proposal.
        claim: Claims an architecture for a trial; False if another trial has it.
        trial_timeout: Seconds a trial may take, or `None`.
        on_step: Called with (steps done, steps in all).
        seed: The search's, for the record.
    """

    space: SearchSpace
    budget: Budget
    data: ProxyData
    proxy: ProxyConfig
    sampler_name: str
    proposer: BudgetSampler
    claim: Callable[[str, FrozenTrial | Trial], bool]
    trial_timeout: float | None = None
    on_step: Callable[[int, int], None] | None = None
    seed: int | None = None

    def __call__(self, trial: Trial) -> float:
        """Score the trial.

        Raises:
            TrialPruned: The network is over budget; nothing was built.
            TrialFailed: It cannot be scored, and why.
        """
        arch = self._architecture(trial)
        self._describe(trial, arch)
        if trial.should_prune():
            for name, (_, maximum) in self.budget.bounds.items():
                trial.set_constraint(name, COSTS[name](arch) / maximum - 1)
            raise optuna.TrialPruned
        if not self.claim(arch.arch_id, trial):
            raise TrialFailed("duplicate", "another trial has this architecture")
        result = self._run(arch)
        self._record(trial, result)
        return result.val_accuracy

    def _architecture(self, trial: Trial) -> Architecture:
        """Decode a proposal, or read what was enqueued (which may lie outside the space)."""
        queued = trial.user_attrs.get("architecture_json")
        if queued is None or self.space.encode(Architecture.from_json(queued)) is not None:
            for name, dist in self.space.distributions.items():
                trial.suggest_int(name, dist.low, dist.high, step=dist.step)
        if queued is not None:
            return Architecture.from_json(queued)
        origin = self.proposer.origin
        by = self.sampler_name if origin == "base" else f"{self.sampler_name}, {origin}"
        trial.set_user_attr("proposed_by", "random" if origin == "random" else by)
        trial.set_user_attr("draws", dict(self.proposer.draws))
        return self.space.decode(trial.params)

    def _describe(self, trial: Trial, arch: Architecture) -> None:
        cost = count(arch)
        attrs = {
            "architecture": str(arch),
            "arch_id": arch.arch_id,
            "architecture_json": arch.to_json(),
            "num_params": cost.num_params,
            "budget_share": round(cost.num_params / self.budget.max_params, 4),
            "num_macs": cost.num_macs,
            "size_bytes": size_bytes(arch),
        }
        for name, value in attrs.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)

    def _run(self, arch: Architecture) -> ProxyResult:
        """Run the proxy; out of memory once more with each batch in two parts."""
        from nas.training import is_out_of_memory

        try:
            return self._run_proxy(arch, num_micro_batches=1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        try:
            return self._run_proxy(arch, num_micro_batches=2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrialFailed("out_of_memory", _one_line(error)) from None

    def _run_proxy(self, arch: Architecture, *, num_micro_batches: int) -> ProxyResult:
        from nas.proxy import run_proxy
        from nas.training import DivergedError

        started = time.monotonic()

        def on_step(done: int, total: int) -> None:
            if self.trial_timeout is not None and time.monotonic() - started > self.trial_timeout:
                raise TrialFailed("timeout", f"step {done} of {total} at {self.trial_timeout:g} s")
            if self.on_step is not None:
                self.on_step(done, total)

        try:
            return run_proxy(
                arch, self.data, self.proxy, on_step=on_step, num_micro_batches=num_micro_batches
            )
        except DivergedError as error:
            raise TrialFailed("diverged", _one_line(error)) from None

    def _record(self, trial: Trial, result: ProxyResult) -> None:
        measured = asdict(result)
        del measured[METRIC]
        measured["elapsed_seconds"] = round(result.elapsed_seconds, 3)
        measured["provenance"] = json.dumps(provenance(str(self.data.device), seed=self.seed))
        for name, value in measured.items():
            trial.set_user_attr(name, value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
