"""Ctrl-C and SIGTERM amid what must not be cut in two."""

from __future__ import annotations

import signal

import pytest

from nas.interruption import Interruption
from nas.training import DivergedError


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_before_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert not interruption.is_waiting
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
