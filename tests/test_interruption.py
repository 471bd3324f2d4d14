"""Ctrl-C, SIGTERM and SIGHUP amid what must not be cut in two."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from nas.interruption import EXIT_TERMINATED, HELD, Interruption, leave_when_terminated
from nas.training import DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_second_signal_does_not_wait_for_the_end_of_the_step() -> None:
    interruption = Interruption()
    with interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.is_waiting
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interruption.let_through()


def test_a_signal_of_which_no_step_came_after_is_let_through_in_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)


def test_a_signal_in_a_step_that_fails_is_not_forgotten() -> None:
    def diverge_after_a_signal() -> None:
        with Interruption():
            signal.raise_signal(signal.SIGINT)
            raise DivergedError

    with pytest.raises(KeyboardInterrupt):
        diverge_after_a_signal()


@pytest.mark.parametrize("number", HELD)
def test_a_signal_that_was_ignored_before_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert not interruption.is_waiting
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put back what the signals do."""
    before = {number: signal.getsignal(number) for number in HELD}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("handlers")
def test_a_closed_terminal_is_left_as_sigterm_is(number: signal.Signals) -> None:
    leave_when_terminated()
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(number)
    assert left.value.code == EXIT_TERMINATED


@pytest.mark.usefixtures("handlers")
def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    leave_when_terminated()
    signal.raise_signal(signal.SIGHUP)
