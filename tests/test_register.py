from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from commands import FORKSERVER

from nas.interruption import HELD
from nas.register import Lookout, Place, Register, this_host
from nas.storage import open_storage

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_storage(url).engine
    yield engine
    engine.dispose()


def test_an_architecture_is_claimed_once(engine: Engine) -> None:
    register = Register(engine, "token")
    assert register.claim("a" * 12, 1, is_void=lambda _: False)
    assert not register.claim("a" * 12, 2, is_void=lambda _: False)
    assert register.claim("a" * 12, 1, is_void=lambda _: False), "its owner still has it"


def test_a_void_claim_is_taken_over(engine: Engine) -> None:
    register = Register(engine, "token")
    register.claim("a" * 12, 1, is_void=lambda _: False)
    assert register.claim("a" * 12, 2, is_void=lambda owner: owner == 1)
    assert not register.claim("a" * 12, 3, is_void=lambda owner: owner == 1)


def test_claims_and_places_of_two_studies_do_not_meet(engine: Engine) -> None:
    for token in ("one", "two"):
        register = Register(engine, token)
        assert register.claim("a" * 12, 1, is_void=lambda _: False)
        register.occupy(1)
        assert register.num_places() == 1


def test_a_place_is_left_once_its_trial_has_ended(engine: Engine) -> None:
    register = Register(engine, "token")
    register.occupy(3)
    register.occupy(4)
    register.leave(3)
    assert [place.trial_id for place in register.places()] == [4]


def _take(url: str, results: multiprocessing.Queue[int]) -> None:
    register = Register(open_storage(url).engine, "token")
    taken = 0
    for _ in range(5):
        with register.lock():
            number = register.num_places()
            if number < 10:
                register.occupy(number)
                taken += 1
    results.put(taken)


def test_processes_starting_together_on_a_fresh_database_share_the_places(url: str) -> None:
    results: multiprocessing.Queue[int] = FORKSERVER.Queue()
    processes = [FORKSERVER.Process(target=_take, args=(url, results)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert sum(results.get(timeout=30) for _ in processes) == 10


def test_threads_of_one_process_exclude_each_other_too(engine: Engine) -> None:
    register, inside, seen = Register(engine, "token"), threading.Semaphore(1), []

    def enter() -> None:
        for _ in range(20):
            with register.lock():
                seen.append(inside.acquire(blocking=False))
                time.sleep(0.001)  # for another thread to come in, if it may
                inside.release()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80


def _occupy_amid(register: Register, number: signal.Signals) -> None:
    with register.lock():
        signal.raise_signal(number)
        register.occupy(3)


@pytest.mark.parametrize("number", HELD)
def test_a_signal_waits_for_the_end_of_what_the_lock_makes_whole(
    engine: Engine, number: signal.Signals
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    register, before = Register(engine, "token"), signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            _occupy_amid(register, number)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    with register.lock():
        assert register.num_places() == 1


def test_a_worker_whose_process_number_was_given_out_anew_is_dead(engine: Engine) -> None:
    register = Register(engine, "token")
    register.occupy(1)
    (place,) = register.places()
    assert not place.is_dead()
    assert place.is_own()
    earlier = Place(1, place.host, place.pid, place.process_started_at - 100, 0)
    assert earlier.is_dead()
    assert not earlier.is_own()


def test_a_heartbeat_moves_the_places_of_this_process_alone(engine: Engine) -> None:
    register = Register(engine, "token")
    register.occupy(1)
    register.beat()
    register.occupy(2)
    register.beat()
    assert [place.beats for place in register.places()] == [2, 1]


def test_another_host_is_lost_once_it_is_silent_for_the_grace_period() -> None:
    now = [0.0]
    lookout = Lookout(clock=lambda: now[0])

    def is_lost(at: float, beats: int) -> bool:
        now[0] = at
        return lookout.is_lost(Place(1, "another host", 1, 0.0, beats))

    assert not is_lost(at=0, beats=7)
    assert not is_lost(at=30, beats=7)
    assert not is_lost(at=60, beats=7)
    assert is_lost(at=61, beats=7)
    assert not is_lost(at=62, beats=8)
    assert not is_lost(at=92, beats=8)
    assert not is_lost(at=122, beats=8)
    assert is_lost(at=123, beats=8)


def test_silence_while_nobody_could_look_is_not_held_against_a_host() -> None:
    now = [0.0]
    lookout = Lookout(clock=lambda: now[0])

    def is_lost(at: float) -> bool:
        now[0] = at
        return lookout.is_lost(Place(1, "another host", 1, 0.0, beats=7))

    assert not is_lost(at=0)
    assert not is_lost(at=100), "the database may have been away for 100 s"
    assert not is_lost(at=130)
    assert not is_lost(at=160)
    assert is_lost(at=161)


def test_copies_of_a_machine_do_not_take_each_others_processes_for_their_own(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register = Register(engine, "token")
    register.occupy(1)
    (place,) = register.places()
    assert place.is_own()
    (tmp_path / "boot_id").write_text("another start\n")
    monkeypatch.setattr("nas.register.BOOT_ID", tmp_path / "boot_id")
    assert not place.is_here
    assert not place.is_dead()


def test_a_process_of_this_host_that_lives_is_never_lost_however_silent(
    engine: Engine,
) -> None:
    now = [0.0]
    register, lookout = Register(engine, "token"), Lookout(clock=lambda: now[0])
    register.occupy(1)
    (place,) = register.places()
    assert place.host == this_host()
    assert not lookout.is_lost(place)
    now[0] = 1e9
    assert not lookout.is_lost(place)
