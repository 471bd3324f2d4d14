"""Worker processes: real ones, killed, hung and starved, on objectives that take no time."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
import torch
from commands import exit_code, started
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from tiny_search import FLAGS, ON_FILES

from nas import Progress, parent, workers
from nas.budget import Budget
from nas.complexity import count_params
from nas.errors import UserError
from nas.find_study import find_sister, find_study
from nas.parent import Parent
from nas.proposed import trial_id
from nas.register import Register
from nas.samplers import make_sampler
from nas.space import SearchSpace
from nas.space_file import SpaceConfig
from nas.storage import open_storage, sqlite_url
from nas.trials import TrialFailed, claimer, num_scored
from nas.width_scaling import WidthScaling
from nas.workers import Worker, recover_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.trial import FrozenTrial, Trial
    from sqlalchemy.engine import Engine

BUDGET = Budget(3_000)
KERNELS = {"low": 1, "high": 3, "step": 2}
STAGE = {"depth": {"low": 1, "high": 3}, "width": {"low": 2, "high": 16}, "kernel_size": KERNELS}
SPACE = SearchSpace.from_config(
    SpaceConfig.model_validate({"num_stages": 2, "stage": STAGE}), max_params=3_000
)


@dataclass(frozen=True)
class Plan:
    """Workers whose objective is a formula, or does what `faults` says of a trial's number."""

    url: str
    target: int
    faults: dict[int, str] = field(default_factory=dict)

    def open(self) -> tuple[Study, Register]:
        storage = open_storage(self.url)
        study = optuna.create_study(
            storage=storage, study_name="s", direction="maximize", load_if_exists=True
        )
        study.set_user_attr("token", "token")
        return study, Register(storage.engine, "token")

    def work(self, index: int, progress: Progress) -> str:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = open_storage(self.url)
        study = optuna.load_study(storage=storage, study_name="s")
        register = Register(storage.engine, "token")
        claim, limits = claimer(storage, register), BUDGET.limits(SPACE)
        scaling = WidthScaling(SPACE, limits)
        study.sampler = make_sampler(
            "random",
            SPACE.distributions,
            limits,
            repair=scaling.repair,
            random_feasible=scaling.random_feasible,
            claim=lambda trial, params: claim(SPACE.decode(params).arch_id, trial),
            seed=0,
        )
        return Worker(
            study,
            register,
            SPACE,
            partial(self.score, study),
            progress.on_trial_end,
            on_trial_start=lambda number: progress.on_trial_start(number, index),
            on_notice=progress.on_notice,
        ).run(self.target, time.monotonic() + 300)  # for a search that would never end

    def score(self, study: Study, trial: Trial) -> float:
        for name, dist in SPACE.distributions.items():
            trial.suggest_int(name, dist.low, dist.high, step=dist.step)
        arch = SPACE.decode(trial.params)
        trial.set_user_attr("arch_id", arch.arch_id)
        trial.set_user_attr("num_params", count_params(arch))
        fault = self.faults.get(trial.number)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1_000)
        if fault == "taken":
            study._storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)
        if fault == "diverges":
            raise TrialFailed("diverged", "the training loss of epoch 1 is nan")
        if fault is not None and Path(fault).is_dir():
            Path(fault, "cgroup.procs").write_text(str(os.getpid()))
            exhaust_memory()
        if fault == "device":
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if fault == "leaves":
            os._exit(7)
        return formula(arch.arch_id)


def exhaust_memory() -> None:
    taken = []
    while True:
        taken.append(b"x" * 2**20)


def formula(arch_id: str) -> float:
    return int(arch_id, 16) % 1_000 / 1_000


@dataclass
class Heard:
    """What a parent told."""

    ended: list[FrozenTrial] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    started: list[tuple[int, int]] = field(default_factory=list)

    @property
    def progress(self) -> Progress:
        return Progress(
            on_trial_start=lambda number, worker: self.started.append((number, worker)),
            on_trial_end=self.ended.append,
            on_notice=self.notices.append,
        )


def run(plan: Plan, num_workers: int, heard: Heard) -> Study:
    study, register = plan.open()
    assert Parent(plan.work, num_workers, study, register, SPACE, heard.progress).run()
    assert register.num_places() == 0, "no place is left behind"
    return study


def run_with_timeout(
    plan: Plan, num_workers: int, heard: Heard, *, trial: int, seconds: float
) -> Study:
    """Run with a timeout that holds from the start of one trial to the next notice."""
    study, register = plan.open()
    crew = Parent(plan.work, num_workers, study, register, SPACE, Progress())

    def on_trial_start(number: int, _worker: int) -> None:
        if number == trial:
            crew.trial_timeout = seconds

    def on_notice(line: str) -> None:
        crew.trial_timeout = None
        heard.notices.append(line)

    crew.progress = Progress(on_trial_start=on_trial_start, on_notice=on_notice)
    crew.run()
    return study


def check(study: Study, target: int) -> None:
    """Exactly the target, none twice, none outside the window, every record recomputed."""
    scored = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert len(scored) == target
    archs = [SPACE.decode(trial.params) for trial in scored]
    assert len(set(archs)) == target
    for trial, arch in zip(scored, archs, strict=True):
        assert BUDGET.admits(arch)
        assert trial.user_attrs == {"arch_id": arch.arch_id, "num_params": count_params(arch)}
        assert trial.value == formula(arch.arch_id)


def test_workers_together_score_the_target_each_network_once(url: str) -> None:
    heard = Heard()
    check(run(Plan(url, 40), 3, heard), 40)
    assert len(heard.ended) == len(heard.started) == 40
    assert heard.notices == []


def test_a_killed_workers_network_is_tried_again_by_another_worker(url: str) -> None:
    heard = Heard()
    study = run(Plan(url, 8, {2: "killed", 5: "leaves"}), 2, heard)
    check(study, 8)
    failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert [trial.user_attrs["fail_reason"] for trial in failed] == ["lost", "lost"]
    assert {notice.partition(": ")[2] for notice in heard.notices} == {
        "its process was ended by SIGKILL (out of memory?); another one takes its place",
        "its process ended with code 7; another one takes its place",
    }
    scored = {tuple(t.params.items()) for t in study.trials if t.state is TrialState.COMPLETE}
    assert {tuple(trial.params.items()) for trial in failed} <= scored
    assert len(heard.notices) == 2


def test_a_worker_whose_gpu_failed_is_replaced_and_the_network_tried_again(url: str) -> None:
    heard = Heard()
    study = run(Plan(url, 4, {1: "device"}), 1, heard)
    check(study, 4)
    (failed,) = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert failed.user_attrs["fail_reason"] == "lost"
    assert "illegal memory access" in failed.user_attrs["fail_detail"]
    assert failed.params in [t.params for t in study.trials if t.state is TrialState.COMPLETE]
    assert heard.notices == [
        "worker 0: CUDA error: an illegal memory access was encountered; a new process can go on",
        "worker 0: its process ended with code 1; another one takes its place",
    ]


def test_workers_killed_again_and_again_lose_double_and_invent_nothing(url: str) -> None:
    plan = Plan(url, 30)
    study, register = plan.open()
    heard = Heard()

    def on_trial_start(number: int, _worker: int) -> None:
        places = register.places()
        if number % 8 == 7 and places:
            os.kill(places[-1].pid, signal.SIGKILL)

    progress = Progress(on_trial_start=on_trial_start, on_notice=heard.notices.append)
    Parent(plan.work, 3, study, register, SPACE, progress).run()
    check(study, 30)
    assert heard.notices
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert register.num_places() == 0


def test_a_database_that_another_program_locks_for_a_while_is_waited_for(tmp_path: Path) -> None:
    plan, heard = Plan(sqlite_url(tmp_path / "s.db"), 12), Heard()

    def lock() -> None:
        with closing(sqlite3.connect(tmp_path / "s.db", timeout=60)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            locked.set()
            threading.Event().wait(3.0)

    def on_trial_start(number: int, _worker: int) -> None:
        if number == 4:
            locking.start()
            assert locked.wait(90)

    locked, locking = threading.Event(), threading.Thread(target=lock)
    study, register = plan.open()
    progress = Progress(on_trial_start=on_trial_start, on_notice=heard.notices.append)
    Parent(plan.work, 2, study, register, SPACE, progress).run()
    locking.join()
    check(study, 12)
    assert heard.notices == []


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of the system, whose processes may take 64 MB together."""
    limits = (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),  # version 1
        ("/sys/fs/cgroup", "memory.max"),  # version 2
    )
    for root, name in limits:
        group = Path(root, f"nas_test_{os.getpid()}")
        with suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                (group / name).write_text(str(64 * 2**20))
                yield group
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("this user may not limit a process's memory")


def test_networks_that_exhaust_memory_diverge_and_hang_end_alone(
    memory_group: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "KILL_AFTER_SECONDS", 0.5)
    plan, heard = Plan(url, 12, {2: str(memory_group), 5: "diverges", 8: "hangs"}), Heard()
    study = run_with_timeout(plan, 2, heard, trial=8, seconds=3)
    check(study, 12)
    failed = {t.number: t.user_attrs for t in study.trials if t.state is TrialState.FAIL}
    assert {number: attrs["fail_reason"] for number, attrs in failed.items()} == {
        2: "lost", 5: "diverged", 8: "timeout",
    }  # fmt: skip
    assert failed[5]["fail_detail"] == "the training loss of epoch 1 is nan"
    assert failed[8]["fail_detail"] == "killed, 3 s of the trial were long over"
    assert "SIGKILL (out of memory?)" in heard.notices[0]


def test_a_network_that_kills_its_process_every_time_is_given_up(url: str) -> None:
    study = run(Plan(url, 6, {2: "killed", 3: "killed", 4: "killed", 5: "killed"}), 1, Heard())
    check(study, 6)
    failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert [trial.number for trial in failed] == [2, 3, 4, 5]
    assert len({tuple(trial.params.items()) for trial in failed}) == 1


def test_ctrl_c_while_a_worker_starts_leaves_the_caller_as_it_was_and_no_process(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, before, caller = ForkServerProcess.start, dict(os.environ), sys.modules["__main__"]

    def interrupted(process: ForkServerProcess) -> None:
        start(process)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ForkServerProcess, "start", interrupted)
    plan = Plan(url, 300)
    study, register = plan.open()
    with pytest.raises(KeyboardInterrupt):
        Parent(plan.work, 1, study, register, SPACE, Heard().progress).run()
    assert sys.modules["__main__"] is caller
    assert dict(os.environ) == before
    assert not [each for each in active_children() if each.name == "worker 0"]


def test_what_goes_wrong_in_a_callback_is_not_lost(url: str) -> None:
    plan = Plan(url, 3)
    study, register = plan.open()
    progress = Progress(on_trial_end=lambda _trial: Path("no/such/folder").write_text(""))
    with pytest.raises(FileNotFoundError):
        Parent(plan.work, 1, study, register, SPACE, progress).run()


def test_workers_that_all_die_end_the_search_with_a_line(url: str) -> None:
    with pytest.raises(UserError, match="10 worker processes in a row died.*SIGKILL"):
        run(Plan(url, 1, dict.fromkeys(range(20), "killed")), 1, Heard())


def test_a_worker_that_hangs_is_killed_and_its_trial_is_over(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "KILL_AFTER_SECONDS", 0.5)
    study = run_with_timeout(Plan(url, 5, {1: "hangs"}), 1, Heard(), trial=1, seconds=0.5)
    check(study, 5)
    (failed,) = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert failed.number == 1
    assert failed.user_attrs["fail_reason"] == "timeout"


def test_a_worker_whose_trial_was_taken_drops_the_result_with_a_line(url: str) -> None:
    heard = Heard()
    study = run(Plan(url, 4, {1: "taken"}), 1, heard)
    assert study.trials[1].state is TrialState.FAIL
    assert study.trials[1].values is None
    assert heard.notices == ["trial 1 was given to another worker; result dropped"]
    assert len([t for t in study.trials if t.state is TrialState.COMPLETE]) == 4


def test_an_interrupted_parent_leaves_no_process_and_no_running_trial(url: str) -> None:
    plan = Plan(url, 50, dict.fromkeys(range(10, 60), "hangs"))
    study, register = plan.open()
    workers: list[int] = []

    def on_start(number: int, _worker: int) -> None:
        if number == 11:
            workers.extend(place.pid for place in register.places())
            raise KeyboardInterrupt

    progress = Progress(on_trial_start=on_start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parent, "STOP_SECONDS", 0.5)  # these workers do not listen
        with pytest.raises(KeyboardInterrupt):
            Parent(plan.work, 2, study, register, SPACE, progress).run()
    assert not [pid for pid in workers if alive(pid)]
    reasons = [t.user_attrs["fail_reason"] for t in study.trials if t.state is TrialState.FAIL]
    assert reasons == ["interrupted", "interrupted"]
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert register.num_places() == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_search_whose_file_is_deleted_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "RECOVER_SECONDS", 0.0)
    plan = Plan(sqlite_url(tmp_path / "s.db"), 10_000)
    study, register = plan.open()
    progress = Progress(on_trial_end=lambda _: (tmp_path / "s.db").unlink(missing_ok=True))
    with pytest.raises(UserError, match=r"s\.db was deleted or replaced while it was in use"):
        Parent(plan.work, 1, study, register, SPACE, progress).run()


@pytest.mark.parametrize("is_made_anew", [False, True])
@pytest.mark.parametrize("when", ["between trials", "amid a trial"])
def test_a_study_that_is_deleted_meanwhile_ends_its_search_with_a_line(
    url: str, when: str, *, is_made_anew: bool
) -> None:
    """A study made after it may have its id: no network of the search may come into that one."""
    plan = Plan(url, 5)
    plan.open()
    storage = open_storage(url)

    def delete(*_: object) -> None:
        optuna.delete_study(study_name="s", storage=storage)
        if is_made_anew:
            optuna.create_study(study_name="other", storage=storage).ask()

    event = "on_trial_end" if when == "between trials" else "on_trial_start"
    with pytest.raises(UserError, match=r"^study 's' was deleted while it was in use$"):
        plan.work(0, Progress(**{event: delete}))
    if is_made_anew:
        (trial,) = optuna.load_study(study_name="other", storage=storage).trials
        assert trial.state is TrialState.RUNNING


def test_a_search_that_has_its_target_is_complete_whatever_ended_other_workers(url: str) -> None:
    study, register = Plan(url, 0).open()
    endings = ["stopped by --patience: 3 trials brought nothing better", "complete"]
    crew = Parent(Plan(url, 0).work, 0, study, register, SPACE, Progress(), _endings=endings)
    assert crew.run() == "complete"


def test_a_worker_stopped_before_its_trial_has_a_place_leaves_it_interrupted(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_register: Register, _trial_id: int) -> None:
        sys.exit(143)  # as SIGTERM does, here between `ask` and `occupy`

    monkeypatch.setattr(Register, "occupy", stopped)
    plan = Plan(url, 1)
    study, _ = plan.open()
    with pytest.raises(SystemExit):
        plan.work(0, Progress())
    (trial,) = study.trials
    assert trial.state is TrialState.FAIL
    assert trial.user_attrs["fail_reason"] == "interrupted"


def test_what_several_workers_find_lost_is_queued_once(url: str) -> None:
    plan = Plan(url, 1)
    study, register = plan.open()
    lost = study.ask(SPACE.distributions)
    lookout = parent.Lookout()
    for _ in range(3):
        recover_lost(study, register, SPACE, lookout)
    assert study.trials[0].user_attrs["fail_reason"] == "interrupted"
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[1].params == lost.params


def test_a_trial_whose_end_could_not_be_written_twice_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = OperationalError("x", {}, Exception("gone"), connection_invalidated=True)
    score, release = Plan.score, workers.release
    cut: list[int] = []

    def score_cut_off(plan: Plan, study: Study, trial: Trial) -> float:
        if cut:
            return score(plan, study, trial)
        cut.append(trial.number)
        monkeypatch.setattr(workers, "release", release_cut_off)
        raise gone

    def release_cut_off(*_: object) -> None:
        monkeypatch.setattr(workers, "release", release)
        raise gone

    monkeypatch.setattr(Plan, "score", score_cut_off)
    plan = Plan(sqlite_url(tmp_path / "s.db"), 3)
    study, register = plan.open()
    assert plan.work(0, Progress()) == "complete"
    assert register.num_places() == 0
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 3


def test_a_place_that_this_process_could_not_free_before_holds_up_nothing(tmp_path: Path) -> None:
    plan = Plan(sqlite_url(tmp_path / "s.db"), 2)
    study, register = plan.open()
    left = study.ask(SPACE.distributions)
    register.occupy(trial_id(left))
    assert plan.work(0, Progress()) == "complete"
    assert study.trials[left.number].user_attrs["fail_reason"] == "interrupted"
    assert register.num_places() == 0


def test_a_worker_shows_that_it_lives_while_its_trial_runs_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.05)
    plan = Plan(sqlite_url(tmp_path / "s.db"), 1)
    _, register = plan.open()
    seen: list[int] = []

    def wait_for_a_beat(_number: int, _worker: int) -> None:
        until = time.monotonic() + 60
        while not (beats := register.places()[0].beats) and time.monotonic() < until:
            time.sleep(0.01)
        seen.append(beats)

    assert plan.work(0, Progress(on_trial_start=wait_for_a_beat)) == "complete"
    assert seen[0] > 0
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("is_written", [False, True])
def test_a_score_whose_recording_is_cut_off_is_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_written: bool
) -> None:
    gone = OperationalError("x", {}, Exception("gone"), connection_invalidated=True)
    score, tell = Plan.score, Study.tell
    scored: list[int] = []
    told: list[int] = []
    heard = Heard()

    def score_and_count(plan: Plan, study: Study, trial: Trial) -> float:
        scored.append(trial.number)
        return score(plan, study, trial)

    def tell_cut_off(study: Study, trial: Trial, value: float) -> FrozenTrial:
        told.append(trial.number)
        is_cut = told.count(trial.number) == 1
        if is_cut and not is_written:
            raise gone
        ended = tell(study, trial, value)
        if is_cut:
            raise gone
        return ended

    monkeypatch.setattr(Plan, "score", score_and_count)
    monkeypatch.setattr(Study, "tell", tell_cut_off)
    plan = Plan(sqlite_url(tmp_path / "s.db"), 3)
    study, register = plan.open()
    assert plan.work(0, heard.progress) == "complete"
    assert scored == [0, 1, 2]
    assert [trial.state for trial in heard.ended] == [TrialState.COMPLETE] * 3
    assert not heard.notices
    assert register.num_places() == 0
    assert len(study.trials) == 3


def test_the_parents_look_may_fail_while_the_workers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look_in_vain(*_: object) -> None:
        looks.append(1)
        raise OperationalError("x", {}, Exception("refused"))

    monkeypatch.setattr(parent, "recover_lost", look_in_vain)
    monkeypatch.setattr(parent, "RECOVER_SECONDS", 0.0)
    check(run(Plan(sqlite_url(tmp_path / "s.db"), 5), 1, Heard()), 5)
    assert looks


@pytest.mark.postgres
def test_a_database_that_goes_away_for_a_while_costs_no_score(
    server: Engine, postgres_url: str
) -> None:
    plan, heard, name = Plan(postgres_url, 30), Heard(), make_url(postgres_url).database

    def allow(*, is_allowed: bool) -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_allowed}"))
            if not is_allowed:
                backends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                connection.execute(text(f"{backends} WHERE datname = :n"), {"n": name})

    def on_trial_start(number: int, _worker: int) -> None:
        if number == 10:
            allow(is_allowed=False)
            threading.Timer(3.0, allow, kwargs={"is_allowed": True}).start()

    study, register = plan.open()
    progress = Progress(on_trial_start=on_trial_start, on_trial_end=heard.ended.append)
    Parent(plan.work, 2, study, register, SPACE, progress).run()
    check(study, 30)
    assert register.num_places() == 0


def test_one_worker_process_gives_the_study_of_no_worker_process_to_the_last_bit(
    tiny_files: Callable[..., Study],
) -> None:
    inside, outside = tiny_files(3, study="a", workers=0), tiny_files(3, study="b", workers=1)
    for one, two in zip(inside.trials, outside.trials, strict=True):
        assert (one.params, one.values) == (two.params, two.values)
        left, right = dict(one.user_attrs), dict(two.user_attrs)
        assert left.pop("elapsed_seconds") > 0
        assert right.pop("elapsed_seconds") > 0
        assert left == right


@pytest.mark.usefixtures("tiny_files")
def test_a_script_without_a_guard_may_search(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import nas, torch; torch.set_num_threads(1); print('once')\n"
        f"nas.search(3000, 2, **{ON_FILES})\n"
    )
    done = subprocess.run([sys.executable, "mine.py"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert num_scored(find_study(None, None)) == 2


def test_ctrl_c_stops_a_search_and_its_workers_and_the_same_command_goes_on(
    folder: Path, tiny_files: Callable[..., Study]
) -> None:
    flags = f"{FLAGS} --trials 400 --workers 2"
    command = [sys.executable, "-m", "nas", "search", *flags.split()]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "[3/400]" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "interrupted; the same command goes on from here\n"
    left = find_study("few-32-tiny-3k-tiny", None)
    assert not left.get_trials(states=(TrialState.RUNNING,))
    failed = [t for t in left.trials if t.state is TrialState.FAIL]
    assert {t.user_attrs["fail_reason"] for t in failed} <= {"interrupted"}
    target = num_scored(left) + len(failed) + 1
    study = tiny_files(target, study="few-32-tiny-3k-tiny")
    scored = {t.user_attrs["arch_id"] for t in study.trials if t.state is TrialState.COMPLETE}
    assert len(scored) == target
    assert scored >= {t.user_attrs["arch_id"] for t in failed if "arch_id" in t.user_attrs}


@pytest.mark.usefixtures("tiny_files")
def test_workers_leave_ctrl_c_to_their_parent(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import nas, os, psutil, signal, torch; torch.set_num_threads(1)\n"
        "def interrupt(number, worker):\n"
        "    for child in psutil.Process().children(recursive=True):\n"
        "        if child.is_running(): child.send_signal(signal.SIGINT); sent.append(child)\n"
        "sent = []\n"
        f"nas.search(3000, 4, **{ON_FILES},\n"
        "    workers=2, progress=nas.Progress(on_trial_start=interrupt, on_notice=print))\n"
        "assert len(sent) >= 4, sent\n"
    )
    done = subprocess.run([sys.executable, "mine.py"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert [t.state for t in find_study(None, None).trials] == [TrialState.COMPLETE] * 4


def test_a_worker_whose_parent_is_killed_stops_by_itself(
    folder: Path, tiny_files: Callable[..., Study]
) -> None:
    code = (
        "import nas, os, signal, torch; torch.set_num_threads(1)\n"
        "def end(trial): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"nas.search(3000, 40, **{ON_FILES},\n"
        "    study='b', progress=nas.Progress(on_trial_end=end))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    study = tiny_files(5, study="b")
    scored = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert len(scored) == len({t.user_attrs["arch_id"] for t in scored}) == 5


def test_two_full_trainings_of_one_study_at_once_are_both_recorded(
    folder: Path, tiny_files: Callable[..., Study]
) -> None:
    study = tiny_files(2)
    code = "import nas; nas.retrain({}, device='cpu', epochs=1, batch_size=500, resolution=8)"
    trainings = [started(code.format(number), folder, number) for number in "01"]
    assert [exit_code(training) for training in trainings] == [0, 0]
    sister = find_sister(study, "retrain")
    assert sister is not None
    recorded = {trial.user_attrs["source_trial"]: trial.state.name for trial in sister.trials}
    assert recorded == {0: "COMPLETE", 1: "COMPLETE"}
