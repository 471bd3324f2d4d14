"""Parent: worker processes on one study; it replaces those that die and stops all of them.

Workers live on between trials. They are forked from a server that has imported torch once, and
tell the parent what happens through a pipe; one that finds nobody reading stops.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import ModuleType
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from nas.errors import DeviceLostError, UserError
from nas.interruption import EXIT_TERMINATED, Interruption, leave_when_terminated
from nas.outages import DATABASE_ERRORS, RECONNECT_SECONDS, impatient
from nas.progress import Progress
from nas.register import Lookout
from nas.workers import MAX_FAILURES, RECOVER_SECONDS, recover_lost, release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

    from optuna.study import Study

    from nas.register import Place, Register
    from nas.space import SearchSpace

    Work = Callable[[int, Progress], str]

# What workers work by, and with it torch and Optuna; and what these import when first used: the
# first optimizer, a database that is opened. Without those a worker's start took 5 s of CPU more.
PRELOADED = ["nas.plan", "torch._dynamo", "alembic.command"]
HEARING_SECONDS = 1.0  # between looks at the clock while no worker says anything
STEP_SECONDS = 0.1  # between the steps that a worker tells of
# Past its time a trial ends itself, unless its worker hangs, or waits for a database to record it.
KILL_AFTER_SECONDS = 30.0 + RECONNECT_SECONDS
STOP_SECONDS = 10.0  # for the workers to end their trials as interrupted
EXIT_DEVICE_LOST = 1
BLAS_THREADS = "OPENBLAS_NUM_THREADS"  # NumPy's; torch has its own number


@dataclass(eq=False)
class _Member:
    """A worker process, and since when (`time.monotonic()`) it has been at a trial."""

    index: int
    process: ForkServerProcess
    connection: Connection
    trial_since: float | None = None


@dataclass
class Parent:
    """Runs workers until each says that the study is complete.

    Attributes:
        work: What a worker does, in its process: given its index and whom to tell, says why it
            ended. It is pickled, and so is what it tells.
        num_workers: How many.
        study: For the trials of workers that died.
        register: The study's.
        space: The study's.
        progress: Whom to tell.
        trial_timeout: Seconds a trial may take, or `None`; a worker that hangs is killed.
    """

    work: Work
    num_workers: int
    study: Study
    register: Register
    space: SearchSpace
    progress: Progress
    trial_timeout: float | None = None
    _crew: list[_Member] = field(default_factory=list)
    _endings: list[str] = field(default_factory=list)
    _lookout: Lookout = field(default_factory=Lookout)
    _recovered_at: float = 0.0
    _deaths: int = 0

    def run(self) -> str:
        """Start the workers and see them through; says why they ended, as `Worker.run` does.

        Raises:
            UserError: What ended a worker, or ten died in a row.
        """
        self._recovered_at = time.monotonic()
        try:
            for index in range(self.num_workers):
                self._start(index)
            while self._crew:
                self._hear()
                self._kill_those_that_hang()
                self._look_now_and_then()
        finally:
            self._stop()
        return "complete" if "complete" in self._endings else self._endings[0]

    def _start(self, index: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve, args=(self.work, index, writer), daemon=True, name=f"worker {index}"
        )
        with Interruption(), _caller_left_alone():
            process.start()
            self._crew.append(_Member(index, process, reader))
        writer.close()

    def _hear(self) -> None:
        wait(
            [each for m in self._crew for each in (m.connection, m.process.sentinel)],
            HEARING_SECONDS,
        )
        for member in list(self._crew):
            is_dead = not member.process.is_alive()  # before the last of what it said is read
            self._listen(member)
            if is_dead and member in self._crew:
                self._replace(member, "lost", _how_it_ended(member.process.exitcode))

    def _listen(self, member: _Member) -> None:
        while member in self._crew and (said := _said(member)) is not None:
            self._take(member, *said)

    def _take(self, member: _Member, name: str, arguments: tuple[Any, ...]) -> None:
        """Pass on what a worker said, and act on what concerns the parent."""
        if name == "failed":
            raise UserError(*arguments)
        if name == "ended":
            self._crew.remove(member)
            self._endings.append(*arguments)
            return
        if name == "on_trial_start":
            member.trial_since = time.monotonic()
        elif name == "on_notice":  # such as that its trial was given to another worker
            member.trial_since = None
        elif name == "on_trial_end":
            member.trial_since = None
            if arguments[0].state is TrialState.COMPLETE:
                self._deaths = 0
        getattr(self.progress, name)(*arguments)

    def _replace(self, member: _Member, reason: str, detail: str) -> None:
        """End the trial of a dead worker, queue it again, and start another worker."""
        self._crew.remove(member)
        member.connection.close()
        self.progress.on_notice(f"worker {member.index}: {detail}; another one takes its place")
        with suppress(*DATABASE_ERRORS), impatient():  # else whoever looks next finds it lost
            self._release(member.process.pid, reason, detail)
        self._recover_lost()
        self._deaths += 1
        if self._deaths == MAX_FAILURES:
            raise UserError(
                f"{self._deaths} worker processes in a row died, the last one: {detail}; what was "
                "scored is kept; --workers 0 runs trials in this process, for a closer look"
            )
        self._start(member.index)

    def _release(self, pid: int | None, reason: str, detail: str = "") -> None:
        """End the trials of one of the processes as FAIL."""

        def is_it(place: Place) -> bool:
            return place.is_here and place.pid == pid

        for id_ in release(self.study, self.register, is_it, reason, detail):
            self.progress.on_trial_end(self.study._storage.get_trial(id_))  # noqa: SLF001

    def _kill_those_that_hang(self) -> None:
        if self.trial_timeout is None:
            return
        latest = time.monotonic() - self.trial_timeout - KILL_AFTER_SECONDS
        for member in list(self._crew):
            self._listen(member)  # the parent may have been away itself
            if member not in self._crew:
                continue
            if member.trial_since is not None and member.trial_since < latest:
                member.process.kill()
                member.process.join()
                detail = f"killed, {self.trial_timeout:g} s of the trial were long over"
                self._replace(member, "timeout", detail)

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self._recovered_at >= RECOVER_SECONDS:
            self._recover_lost()

    def _recover_lost(self) -> None:
        """Look for lost trials, which can wait where the database is away: workers go on."""
        with suppress(*DATABASE_ERRORS), impatient():
            recover_lost(self.study, self.register, self.space, self._lookout)
        self._recovered_at = time.monotonic()

    def _stop(self) -> None:
        """Have all workers that are left end their trials as interrupted."""
        for member in self._crew:
            member.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for member in self._crew:
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            with suppress(*DATABASE_ERRORS), impatient():  # else whoever looks next finds it lost
                self._release(member.process.pid, "interrupted")


def _said(member: _Member) -> tuple[str, tuple[Any, ...]] | None:
    """Read the next that a worker said, if there is something."""
    with suppress(EOFError, OSError):
        if member.connection.poll():
            said: tuple[str, tuple[Any, ...]] = member.connection.recv()
            return said
    return None


@contextmanager
def _caller_left_alone() -> Iterator[None]:
    """Start processes that do not run the caller's script again, and that Ctrl-C does not reach.

    multiprocessing imports the main module in every child, which runs a script without the
    `if __name__ == "__main__":` guard once more. Nothing of it is needed here.

    NumPy gets one thread: it would have as many as there are cores, which wait for each other in
    loops while other workers train. A proposal of `default` then took 170 to 420 ms of CPU instead
    of 63 to 96 (200 trials, two busy cores).
    """
    has_blas_threads = BLAS_THREADS in os.environ
    os.environ.setdefault(BLAS_THREADS, "1")
    main = sys.modules["__main__"]
    resource_tracker.ensure_running()  # started later, it would unblock what is blocked here
    sys.modules["__main__"] = ModuleType("__main__")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.modules["__main__"] = main
        if not has_blas_threads:
            del os.environ[BLAS_THREADS]


def _serve(work: Work, index: int, connection: Connection) -> None:
    """Be a worker."""
    leave_when_terminated()
    tell = partial(_tell, connection)
    step_told_at = 0.0

    def on_step(done: int, total: int, worker: int) -> None:
        nonlocal step_told_at
        if time.monotonic() - step_told_at >= STEP_SECONDS:
            step_told_at = time.monotonic()
            tell("on_step", done, total, worker)

    told = {name: partial(tell, name) for name in ("on_trial_start", "on_trial_end", "on_notice")}
    try:
        why = work(index, Progress(on_step=on_step, **told))
    except DeviceLostError as error:
        tell("on_notice", f"worker {index}: {error}")
        sys.exit(EXIT_DEVICE_LOST)
    except UserError as error:
        tell("failed", str(error))
    else:
        tell("ended", why)


def _tell(connection: Connection, name: str, *arguments: object) -> None:
    try:
        connection.send((name, arguments))
    except OSError:
        sys.exit(EXIT_TERMINATED)  # the parent is gone


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"its process ended with code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (out of memory?)" if -exit_code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"
