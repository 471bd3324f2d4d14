"""The headline's scripts: what is run next, for how long, what counts as better."""

from __future__ import annotations

import json
import math
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headline_records
import headline_session
import headline_table
import measured
import pytest
from headline_pieces import (
    FULL,
    PIECES,
    ROOT,
    SHORT,
    Command,
    Plan,
    fitting_epochs,
    plan_epochs,
)
from headline_session import EXIT_LEFT, Log, Session

from nas.architecture import Architecture
from nas.presets import read_architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCH = Architecture.of([3, 3, 3, 3], [128, 100, 164, 200])
PLAN = Plan(
    study=FULL.study,
    seconds_an_epoch={"strong": 2.0, "seed": 3.0},
    seconds_a_proxy_epoch=1.0,
    winner={"trial": 42},
    pace=1.5,
    strong_epochs=200,
    longest_epochs=600,
)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "results").mkdir()
    return Session(FULL, tmp_path, tmp_path, "cpu", time.monotonic() + 600)


def finish(session: Session, *pieces: str) -> None:
    for _, command in session.left(pieces):
        session.log.add(command, 0.0, 1.0, 0)


# What is run


def test_the_longest_schedule_is_chosen_that_fits_its_minutes() -> None:
    schedules = (50, 100, 200)
    assert fitting_epochs(schedules, 12.0, 54.0) == 200  # 2,400 of 2,916 s
    assert fitting_epochs(schedules, 12.0, 44.0) == 100  # 2,400 of 2,376 s
    assert fitting_epochs(schedules, 600.0, 1.0) == 50, "the shortest, where none fits"
    assert fitting_epochs(schedules, None, 54.0) == 50, "the shortest, where nothing is known"


def test_a_winner_of_slow_steps_gets_fewer_epochs_and_more_time(tmp_path: Path) -> None:
    def planned(speed: int) -> Plan:
        row = {"recipe": "strong", "loop": "nas", "images_per_second": speed}
        measured.write_rows(tmp_path / "winner_throughput.csv", [row])
        return plan_epochs(FULL, PLAN, tmp_path)

    slow, as_fast = planned(8_333), planned(25_000)
    assert (slow.pace, as_fast.pace) == (3.0, 1.0)
    # Three seeds of each, 2 s an epoch of the hand-made one: 24 and 12 s; 54 minutes are 2,916 s.
    assert (slow.strong_epochs, as_fast.strong_epochs) == (100, 200)
    assert (slow.longest_epochs, as_fast.longest_epochs) == (200, 600)
    seconds = {c.text.split(" --recipe")[0]: c.seconds for c in PIECES["strong"](FULL, slow)}
    assert seconds == {
        "retrain.py --model ResNet26_97": 200.0,
        "retrain.py --trial 42": 600.0,
    }


def test_the_short_scale_has_every_piece_that_its_winner_needs() -> None:
    assert SHORT.pieces == ("speed", "search", "pace", "strong")
    commands = [command.text for piece in SHORT.pieces for command in PIECES[piece](SHORT, PLAN)]
    assert sum("--seeds 1 " in text for text in commands) == 2
    assert all(SHORT.study in text for text in commands if "retrain.py" in text)


def test_what_does_not_end_is_killed_at_one_moment_for_all() -> None:
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    started = time.monotonic()
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    codes = [
        headline_session.wait_or_kill(each, started + 1 - time.monotonic()) for each in running
    ]
    assert codes == [-signal.SIGKILL] * 3
    assert time.monotonic() - started < 30


def test_both_networks_get_the_same_recipe_epochs_and_seeds() -> None:
    commands = [command.text for command in PIECES["strong"](FULL, PLAN)]
    baseline = [text for text in commands if "--model ResNet26_97" in text]
    winner = [text for text in commands if "--trial 42" in text]
    assert len(baseline) == len(winner) == FULL.seeds
    assert baseline == [text.replace("--trial 42", "--model ResNet26_97") for text in winner]


def test_what_is_finished_is_left_out_and_what_was_stopped_is_not(session: Session) -> None:
    first, second = (command for _, command in session.left(["speed"]))
    session.log.add(first, 0.0, 100.0, 128 + signal.SIGINT)
    assert [command for _, command in session.left(["speed"])] == [first, second]
    assert session.log.seconds_left(first) == 80.0
    session.log.add(first, 0.0, 100.0, 0)
    assert [command for _, command in session.left(["speed"])] == [second]


def test_what_failed_twice_no_longer_keeps_the_others_from_running(session: Session) -> None:
    command = Command("retrain.py")
    for code, is_given_up in ((128 + signal.SIGINT, False), (2, False), (0, False), (2, True)):
        session.log.add(command, 0.0, 1.0, code)
        assert session.log.has_failed_for_good(command) == is_given_up
    assert session.exit_code(["speed"]) == EXIT_LEFT
    for _, each in session.left(["speed"]):
        session.log.add(each, 0.0, 1.0, 2)
        session.log.add(each, 0.0, 1.0, 2)
    assert len(session.left(["speed"])) == 2
    assert not session.do(["speed"]), "nothing is started"
    assert session.exit_code(["speed"]) == 1, "a loop on 3 ends"


class WithoutSpeeds(Session):
    """Fails to measure speeds, and does everything else at once."""

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        code = 2 if Path(arguments[0]).parent.name == "benchmarks" else 0
        return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])


def test_speeds_that_cannot_be_measured_keep_no_search_from_running(session: Session) -> None:
    without = WithoutSpeeds(**vars(session))
    assert without.do(["speed", "search"])
    rows = measured.read_rows(session.log.path)
    assert [row["exit_code"] for row in rows] == ["2", "2", "0"]
    assert [piece for piece, _ in without.left(["speed", "search"])] == ["speed", "speed"]


def test_without_speeds_the_shortest_schedules_are_planned(session: Session) -> None:
    for _, each in session.left(["speed"]) * 2:
        session.log.add(each, 0.0, 1.0, 2)
    session.decide()
    plan = Plan.load(session.results)
    assert plan == Plan(study=FULL.study, seconds_an_epoch={}, seconds_a_proxy_epoch=None)
    plan = plan_epochs(FULL, plan, session.results)
    assert plan.pace == 1.0
    (first, *_) = PIECES["strong"](FULL, plan)
    assert (f"--epochs {FULL.schedules[0]} " in first.text, first.seconds) == (True, None)


def test_trainings_wait_for_the_search(session: Session) -> None:
    with pytest.raises(SystemExit, match="strong comes after speed"):
        session.do(["strong"])


class WithLeaderboard(Session):
    """Has a study whose trial 3 is the best after the hand-made network."""

    def leaderboard(self) -> list[dict[str, Any]]:
        return leaderboard((0, "baseline"), (3, "default"), (7, "default"))

    def network_of(self, trial: int) -> str:
        return {3: ARCH.to_json()}[trial]


def test_speeds_winner_and_epochs_are_decided_in_turn_and_once(session: Session) -> None:
    def write(speed: int, name: str = "retrain_throughput.csv") -> None:
        rows = [
            {"recipe": recipe, "loop": loop, "images_per_second": images}
            for recipe in ("strong", "seed")
            for loop, images in {"nas": speed, "dataloader": 1}.items()
        ]
        measured.write_rows(session.results / name, rows)

    session = WithLeaderboard(**vars(session))
    trial = {"num_params": 5, "what": "trial", "seconds": 1.5}
    measured.write_rows(session.results / "training_speed.csv", [trial])
    finish(session, "speed")
    write(25_000)
    session.decide()
    speeds = {"strong": 2.0, "seed": 2.0}
    assert Plan.load(session.results) == Plan(
        study=FULL.study, seconds_an_epoch=speeds, seconds_a_proxy_epoch=1.5
    )
    write(1)
    finish(session, "search")
    session.decide()
    plan = Plan.load(session.results)
    assert plan is not None
    assert plan.seconds_an_epoch == speeds
    assert plan.winner is not None
    assert (plan.winner["trial"], plan.pace, plan.strong_epochs) == (3, None, None)
    assert read_architecture(session.results / "winner.json") == ARCH
    with pytest.raises(SystemExit, match="strong comes after pace"):
        session.require_ready("strong")
    finish(session, "pace")
    write(12_500, "winner_throughput.csv")
    session.decide()
    session.require_ready("strong")
    planned = Plan.load(session.results)
    assert planned is not None
    assert planned == plan_epochs(FULL, plan, session.results)
    assert planned.pace == 2.0
    write(1, "winner_throughput.csv")
    session.decide()
    assert Plan.load(session.results) == planned


def test_what_was_decided_at_another_scale_decides_nothing(session: Session) -> None:
    PLAN.save(session.results)
    short = replace(session, scale=SHORT)
    with pytest.raises(SystemExit, match="need a folder of their own"):
        short.left(["strong"])


def leaderboard(*ranked: tuple[int, str]) -> list[dict[str, Any]]:
    """Make its rows of (trial, proposed by)."""
    columns = (
        "architecture", "num_params", "num_macs", "val_accuracy", "denoised", "finalist_accuracy",
        "finalist_std", "finalist_seeds", "arch_id",
    )  # fmt: skip
    return [
        dict.fromkeys(columns, 0) | {"rank": rank, "trial": trial, "proposed_by": who}
        for rank, (trial, who) in enumerate(ranked)
    ]


def test_the_winner_is_the_best_that_the_search_proposed() -> None:
    rows = leaderboard((0, "baseline"), (7, "default"), (3, "default"))
    winner = headline_records.choose_winner(rows)
    assert (winner["trial"], winner["best_of_all"]) == (7, 0)


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_command_is_stopped_as_by_ctrl_c_when_time_is_up(
    monkeypatch: pytest.MonkeyPatch, *, is_deaf: bool
) -> None:
    """One that does not stop is killed: not as one that failed, so that none comes after it."""
    monkeypatch.setattr(headline_session, "STOP_SECONDS", 0.2 if is_deaf else 60.0)
    code = "import time; print('ready', flush=True); time.sleep(60)"
    if is_deaf:
        code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        ended = headline_session.wait_or_stop(process, lambda: 0.0)
    assert ended == (-signal.SIGKILL if is_deaf else -signal.SIGINT, True)


def test_a_command_that_fails_is_told_from_one_that_ran_out_of_time(
    session: Session, tmp_path: Path
) -> None:
    session.out = tmp_path / "out"
    command = Command("search.py --budget nothing")
    assert session.run(command), "it ended by itself"
    assert session.failed == {command}
    assert list(session.out.iterdir()) == [session.out / "work.tgz.00"]
    late = replace(session, deadline=time.monotonic() - 1, failed=set())
    assert not late.run(command)
    assert not late.failed
    codes = [row["exit_code"] for row in measured.read_rows(session.log.path)]
    assert codes == ["2", "130"]


@dataclass
class Ending(Session):
    """Every command ends at once."""

    exit_code_of_all: int = 0

    def start(self, _arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        code = f"raise SystemExit({self.exit_code_of_all})"
        return subprocess.Popen([sys.executable, "-S", "-c", code])


@pytest.mark.parametrize(
    ("out", "exit_code", "num_tried"),
    [("out", 1, 1), ("out", 0, FULL.seeds), (None, 1, FULL.seeds)],
)
def test_a_training_that_fails_ends_a_call_that_packs_one_checkpoint(
    session: Session, tmp_path: Path, out: str | None, exit_code: int, num_tried: int
) -> None:
    (session.work / "studies").mkdir()
    finish(session, "speed", "search", "pace")
    num_before = len(measured.read_rows(session.log.path))
    PLAN.save(session.results)
    session.failed = {Command("another")}
    ending = Ending(**vars(session), exit_code_of_all=exit_code)
    ending.out = tmp_path / out if out else None
    assert ending.do(["seed"])
    assert len(measured.read_rows(session.log.path)) == num_before + num_tried


def test_a_script_that_is_told_to_end_packs_first(tmp_path: Path) -> None:
    """As `timeout` tells it; the command that runs ends too, and did not fail."""
    flags = ("--tiny", "--device", "cpu", "--work", "work", "--pack", "out")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "headline.py"), "next", *flags],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("$ python"))
        process.terminate()
        told = process.stdout.read()
    assert process.returncode == EXIT_LEFT, told
    assert "packed" in told
    headline_records.unpack(tmp_path / "out", tmp_path / "again")
    (row,) = measured.read_rows(tmp_path / "again" / "results" / "commands.csv")
    assert row["exit_code"] == "130"


def test_a_package_that_is_too_old_is_named_before_anything_runs(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(headline_session, "version", lambda _name: "0.1")
    with pytest.raises(SystemExit) as ended:
        session.require_usable()
    assert ended.value.code == 2
    assert re.search(r"error: \S+>=\S+ is needed, found 0.1\n$", capsys.readouterr().err)


def test_commands_find_this_package_and_what_was_on_the_path(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "carried.py").write_text("found = 1")
    monkeypatch.chdir(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", ".")
    code = "import carried, nas, pathlib; assert pathlib.Path(nas.__file__).parents[1].samefile(R)"
    process = session.start(["-S", "-c", code.replace("R)", f"{str(ROOT)!r})")])
    assert process.wait() == 0


def test_a_pack_holds_databases_results_and_the_newest_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    folder = work / "studies" / "s" / "trial-1" / "strong" / "seed-0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"large")
    for step in ("000000001-aa", "000000002-bb"):
        (folder / "checkpoints" / f"step-{step}.safetensors").write_text(step)
    (work / "results").mkdir()
    Log(work / "results" / "commands.csv").add(Command("search.py"), 0.0, 1.0, 0)
    (work / "results" / "report.html").write_text("large, and made again")
    database = sqlite3.connect(work / "studies" / "s.db")
    database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    monkeypatch.setattr(headline_records, "PART_BYTES", 100)
    headline_records.pack(work, out)
    (out / "work.tgz.99").write_text("of a larger pack before")
    headline_records.pack(work, out)
    database.close()
    copy = tmp_path / "copy"
    headline_records.unpack(out, copy)
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert names == {
        "results/commands.csv",
        "studies/s.db",
        "studies/s/trial-1/strong/seed-0/checkpoints/step-000000002-bb.safetensors",
    }
    copied = sqlite3.connect(copy / "studies" / "s.db")
    assert copied.execute("SELECT x FROM t").fetchall() == [(1,)]
    copied.close()
    assert f"in {len(list(out.iterdir()))} parts in {out}" in capsys.readouterr().out
    assert max(path.stat().st_size for path in out.iterdir()) == 100
    (copy / "new").touch()
    headline_records.unpack(out, copy)
    assert (copy / "new").exists(), "a folder that is there stays"
    Log(copy / "results" / "commands.csv").add(Command("retrain.py"), 0.0, 1.0, 0)
    headline_records.unpack(out, copy)
    headline_records.pack(copy, tmp_path / "later")
    with pytest.raises(FileExistsError, match="knows nothing of commands"):
        headline_records.unpack(tmp_path / "later", work)
    with pytest.raises(FileNotFoundError, match=r"no work\.tgz"):
        headline_records.unpack(tmp_path / "nowhere", tmp_path / "other")


def test_a_full_training_becomes_a_row_with_its_device_but_not_its_host() -> None:
    made_with = {"device_name": "a GPU", "host": "secret", "torch": "2.11.0"}
    attributes = {
        "network": "n",
        "seed": 1,
        "architecture_json": ARCH.to_json(),
        "provenance": json.dumps(made_with),
    }
    row = headline_records.record(attributes)
    assert (row["network"], row["seed"], row["device_name"]) == ("n", 1, "a GPU")
    assert row["num_macs"] == 1_179_483_088
    assert "secret" not in row.values()


# What it comes to


def training(network: str, seed: int, accuracy: float, **others: Any) -> dict[str, str]:
    row = {
        "network": network,
        "recipe": "strong-epochs200",
        "split": "test",
        "num_params": 4_900_000,
        "num_macs": 1_200_000_000,
        "epochs": 200,
        "device_name": "a GPU",
        "seed": seed,
        "accuracy": accuracy,
        "flip_accuracy": accuracy,
        "elapsed_seconds": 100.0,
    }
    return {name: str(value) for name, value in (row | others).items()}


def seeds_of(network: str, *accuracies: float, **others: Any) -> list[dict[str, str]]:
    return [training(network, seed, value, **others) for seed, value in enumerate(accuracies)]


def verdict_of(winner: list[float], baseline: list[float]) -> str:
    rows = seeds_of("trial-42", *winner) + seeds_of("ResNet26_97", *baseline)
    (verdict,) = headline_table.verdicts(headline_table.groups(rows), "trial-42")
    return verdict


def test_the_standard_error_of_a_difference_is_that_of_both_means() -> None:
    # Variances 1 and 4 (of n - 1), three values each: sqrt(1/3 + 4/3).
    error = headline_table.standard_error([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert error == pytest.approx(math.sqrt(5 / 3))


def test_more_than_two_standard_errors_is_better_and_less_is_not_distinguishable() -> None:
    # Deviations of 0.1 points, three seeds each: the standard error is 0.0816 points.
    baseline = [0.970, 0.971, 0.969]
    assert verdict_of([0.9717, 0.9727, 0.9707], baseline) == (
        "trial-42 beats ResNet26_97 under strong-epochs200 by 0.17 points, standard error 0.08"
    )
    assert "not distinguishable (0.16 points" in verdict_of([0.9716, 0.9726, 0.9706], baseline)
    assert verdict_of(baseline, [0.980, 0.981, 0.979]).startswith("ResNet26_97 beats trial-42")


def test_fewer_than_three_common_seeds_are_never_better() -> None:
    assert "not distinguishable (fewer than 3 common seeds)" in verdict_of(
        [0.99, 0.991], [0.5, 0.51, 0.52]
    )


def test_a_seed_that_one_network_has_alone_does_not_count() -> None:
    baseline = [0.970, 0.971, 0.969]
    assert "beats ResNet26_97 under strong-epochs200 by 0.17 points" in verdict_of(
        [0.9717, 0.9727, 0.9707, 0.1], baseline
    )


def test_the_page_is_made_from_the_files_alone(tmp_path: Path) -> None:
    fast = {"recipe": "strong-epochs10", "epochs": 10, "elapsed_seconds": 12.5}
    rows = [
        *seeds_of("ResNet26_97", 0.970, 0.971, 0.969),
        *seeds_of("trial-42", 0.9740, 0.9750, 0.9730),
        *seeds_of("trial-42", 0.951, 0.953, **fast),
    ]
    measured.write_rows(tmp_path / "trainings.csv", rows)
    log = Log(tmp_path / "commands.csv")
    log.add(Command("search.py --budget 5e6"), 0.0, 540.0, 128 + signal.SIGINT)
    log.add(Command("search.py --budget 5e6"), 0.0, 360.0, 0)
    log.add(Command("retrain.py --trial 42"), 0.0, 60.0, 0)
    winner = {"trial": 42, "architecture": "3x128", "num_params": 4_900_000}
    (tmp_path / "plan.json").write_text(json.dumps({"winner": winner}))
    page = headline_table.page(tmp_path)
    assert "The search, finalists included, took 15.0 min in 2 call(s)." in page
    assert (
        "| trial-42 | 4,900,000 | 1,200M | strong-epochs200 | 200 | 3 | test | 97.40 % +- 0.10 "
        "| 97.40 % +- 0.10 | 100 | a GPU |"
    ) in page
    assert "- trial-42 beats ResNet26_97 under strong-epochs200 by 0.40 points" in page
    assert "- 95 % on test: first after 12.5 s of training and saving (trial-42, 10 epochs" in page
    assert "- 97 % on test: first after 100.0 s of training and saving (ResNet26_97" in page
    assert "- 97.5 % on test: by none of these." in page
