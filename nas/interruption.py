"""Interruption: Ctrl-C, SIGTERM and SIGHUP wait for the end of what must not be cut in two."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


def leave_when_terminated() -> None:
    """Leave at SIGTERM, and where the terminal is closed (SIGHUP), as at Ctrl-C.

    So the trial in flight is recorded as interrupted. What nohup ignores stays ignored.
    """
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:  # nothing can be written to a terminal that is gone
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            with suppress(OSError):  # it may be closed
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nowhere, descriptor)
    sys.exit(EXIT_TERMINATED)


class Interruption:
    """Holds the first signal back until it is let through; a second one is not held.

    Outside the main thread, which alone receives signals, it does nothing. Signals that were
    ignored before stay ignored.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, object] = {}
        self._waiting: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a signal is held back."""
        return self._waiting is not None

    def let_through(self) -> None:
        """Do what the signal would have done, if one is held back."""
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            signal.raise_signal(number)

    def __enter__(self) -> Self:
        """Begin to hold."""
        if threading.current_thread() is threading.main_thread():
            try:
                for number in HELD:
                    if signal.getsignal(number) not in (signal.SIG_IGN, None):
                        self._handlers[number] = signal.signal(number, self._hold)
            except BaseException:  # a signal that came before it was held
                self._restore()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let through what no step came after, also where the step failed; not amid an exit."""
        self._restore()
        if error is None or isinstance(error, Exception):
            self.let_through()

    def _hold(self, number: int, _frame: FrameType | None) -> None:
        self._restore()
        self._waiting = number

    def _restore(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
