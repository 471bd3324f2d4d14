from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from commands import run
from fake_study import fake_study
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from tiny_search import FLAGS

import nas
from nas.cli.parse import parse_count, parse_duration
from nas.errors import UserError
from nas.files import write_whole
from nas.find_study import find_study, study_url
from nas.storage import open_storage
from nas.trials import num_scored

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study

ROOT = Path(__file__).parent.parent


def test_count_prints_the_hand_made_networks_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "--blocks", "3,3,3,3", "--widths", "128,100,164,200") == 0
    assert "4,978,810 parameters" in capsys.readouterr().out


def test_count_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "--model", "ResNet26_97", "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["num_params"] == 4_978_810
    assert counts["num_macs"] == 1_179_483_088
    assert counts["size_bytes"] == 19_948_392


def test_count_reads_back_the_architecture_that_it_prints(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("count", "--blocks", "1,2", "--widths", "8,16", "--kernels", "3,5", "--json")
    first = json.loads(capsys.readouterr().out)
    (folder / "a.json").write_text(json.dumps(first["architecture"]))
    run("count", "--architecture", "a.json", "--json")
    assert json.loads(capsys.readouterr().out) == first


def test_count_waits_for_neither_torch_nor_optuna() -> None:
    code = (
        "import sys; from nas.cli import main\n"
        "try: main(['count', '--model', 'ResNet26_97'])\n"
        "finally: print({'torch', 'optuna', 'pandas', 'sqlalchemy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_versions_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    told = capsys.readouterr().out
    assert f"optuna {optuna.__version__}" in told
    assert told.count("\n") == 1


def test_one_kernel_size_is_that_of_all_stages(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for kernels in ("5", "5,5"):
        assert run("count", "--blocks", "2,1", "--widths", "4,8", "--kernels", kernels) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("count", "name one network"),
        ("count --model ResNet26_97 --kernels 3,3,3,3", "name one network"),
        ("count --model Nope", "unknown model 'Nope'; known: ResNet26_97"),
        ("count --blocks 3,3 --widths 8", "one entry a stage"),
        ("count --blocks 3,x --widths 8,8", "whole numbers such as 3,3,3,3"),
        ("count --blocks 3 --widths 0", "width must be a whole number of at least 1, not 0"),
        ("count --blocks 3 --widths 8 --kernels 2", "kernel_size must be odd"),
        ("count --architecture missing.json", "cannot read missing.json"),
        ("search --budget lots", "'lots' is not a number"),
        ("search --trials 0", "--trials is a whole number of at least 1"),
        ("search --dataset synthetic --seed -1", "--seed is a whole number from 0 to 4294967295"),
        ("search --trials 2e2", "unable to parse string as an integer; found '2e2'"),
        ("search --nope", "No such option: --nope"),
        ("search --dataset synthetic --proxy nope", "known: quick, standard, thorough"),
        ("search --dataset synthetic --space nope", "known: resnet"),
        (
            "search --dataset nope",
            "known: cifar10, cifar100, fashion-mnist, synthetic, folder:PATH",
        ),
        ("search --dataset cifar10 --image-size 64", "--image-size is for --dataset folder:PATH"),
        ("search --dataset folder:nowhere", "cannot read nowhere"),
        ("search --dataset folder:a --image-size 100000", "8 to 512 pixels, not 100000"),
        ("search --dataset synthetic --sampler nope", "known: default, tpe"),
        ("search --dataset synthetic --device tpu", "--device is auto, cpu or cuda"),
        ("search --dataset synthetic --budget 100", "the smallest"),
        ("search --dataset synthetic --epochs 0", "--epochs: input should be"),
        ("search --dataset synthetic --study ../x", "cannot name a study; give --study a name"),
        ("search --dataset synthetic --storage nonsense", "no database URL"),
        ("search --dataset synthetic --timeout soon", "not a duration"),
        ("search --dataset synthetic --fill 1.5", "--fill is a share"),
        (
            "leaderboard",
            "/studies; run search.py first, or this where it ran",
        ),
        ("search --dataset synthetic --study=", "'' cannot name a study; give --study a name"),
        ("search --data nowhere --study a/b", "'a/b' cannot name a study"),
        ("leaderboard --top 0", "Invalid value for '--top'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert run(*arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(folder.rglob("*.db"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget", "20k", "--budget must be a positive number, not '20k'"),
        ("budget", 0, "--budget must be a positive number, not 0"),
        ("max_macs", "4M", "--max-macs must be a positive number, not '4M'"),
        ("fill", "0.9", "--fill is a share of the budget from 0 to 1, not '0.9'"),
        ("budget", None, "--budget must be a positive number, not None"),
        ("workers", "2", "--workers is a whole number from 0 to 1000, not '2'"),
        ("trials", "3", "--trials is a whole number of at least 1, not '3'"),
        ("trials", True, "--trials is a whole number of at least 1, not True"),
        ("seed", 0.5, "--seed is a whole number from 0 to 4294967295, not 0.5"),
        ("dataset", 3, "--dataset is a name or folder:PATH, not 3"),
        ("space", None, "spaces have names and .toml files, not None"),
        ("patience", 1.5, "--patience is a whole number of at least 1, not 1.5"),
        ("timeout", "1m", "--timeout is a number of seconds of at least 0, not '1m'"),
        ("trial_timeout", "10m", "--trial-timeout is a positive number of seconds, not '10m'"),
        ("trial_timeout", 0, "--trial-timeout is a positive number of seconds, not 0"),
    ],
)
def test_what_python_passes_is_checked_as_what_is_typed(
    folder: Path, name: str, value: object, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        nas.search(**{"dataset": "synthetic", name: value})
    assert str(caught.value) == message
    assert not list(folder.iterdir())


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"^unknown setting epoch; known: budget, fill, .*, seed$"):
        nas.search(epoch=3)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("mine-finalists.toml", "ends as what is measured of a study later is called"),
        ("quick (2).toml", "cannot name a study; give --study a name"),
        ("what?.toml", "cannot name a study; give --study a name"),
    ],
)
def test_a_name_that_is_made_of_a_files_is_checked_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, message: str
) -> None:
    (folder / file).write_text("epochs = 1\nresolution = 8\npeak_lr = 0.1\n")
    flags = ["--dataset", "synthetic", "--budget", "60k", "--trials", "1", "--device", "cpu"]
    assert run("search", *flags, "--proxy", f"./{file}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == [file]


def test_cifar10_that_is_not_there_names_the_ways_out(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy"):  # a port of this machine that nobody serves
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert run("search", "--data", str(folder / "data")) == 2
    error = capsys.readouterr().err
    assert "--data" in error
    assert "--dataset synthetic" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("tiny_files")
def test_search_prints_a_line_a_trial_the_table_and_the_commands_to_go_on_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("search", *FLAGS.split(), "--trials", "2") == 0
    out = capsys.readouterr().out
    assert "study few-32-tiny-3k-tiny: 0 of 2 networks scored" in out
    assert "[2/2] trial 1:" in out
    assert "look:    python -m nas dashboard few-32-tiny-3k-tiny\n" in out
    assert "report:  python -m nas report few-32-tiny-3k-tiny\n" in out
    assert "--study few-32-tiny-3k-tiny" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith("retrain: python -m nas retrain --trial ")


def test_quiet_search_prints_the_result_alone(
    tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(1)
    flags = "--budget 3k --trials 1 --dataset synthetic --space tiny --proxy tiny --quiet"
    assert run("search", *flags.split()) == 0
    assert capsys.readouterr().out.startswith("rank")


def test_leaderboard_writes_all_rows_as_csv(
    folder: Path, tiny: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(3)
    assert run("leaderboard", "--csv", "out.csv") == 0
    assert (folder / "out.csv").read_text().count("\n") == 4
    assert run("leaderboard", "--json", "--top", "2") == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])) == 2
    assert run("leaderboard", "--json", "--csv", "both.csv") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert (folder / "both.csv").read_text() == (folder / "out.csv").read_text()


def test_the_leaderboard_of_a_study_without_scores_says_so(
    scored: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    scored()
    assert run("leaderboard") == 0
    assert capsys.readouterr().out == "no network is scored yet\n"


@pytest.mark.parametrize("columns", [50, 80])
def test_the_table_fits_the_terminal(
    tiny: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    tiny(2)
    monkeypatch.setenv("COLUMNS", str(columns))
    run("leaderboard")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert "architecture" in lines[0]
    assert len(lines) < 10


@pytest.mark.parametrize("text", ["5e6", "5M", "5m", "5_000_000", "5,000,000", "5000k", "0.005g"])
def test_five_million_can_be_written_in_many_ways(text: str) -> None:
    assert parse_count(text) == 5_000_000


@pytest.mark.parametrize("text", ["5,5M", "1,5e6", "5,00,000", ",5", "5,0000"])
def test_a_comma_parts_thousands_alone(text: str) -> None:
    with pytest.raises(UserError, match="is not a number of at least 1 such as"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("45", 45), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=12))
def test_what_is_typed_becomes_a_positive_number_or_one_line(text: str) -> None:
    for parse in (parse_count, parse_duration):
        try:
            value = parse(text)
        except UserError as error:
            assert "\n" not in str(error) or "\n" in text  # noqa: PT017 - both ends are right
        else:
            assert 0 < value < float("inf")


@pytest.mark.parametrize("command", ["-m nas count", "search.py", "retrain.py"])
def test_ctrl_c_before_a_command_runs_prints_no_traceback(folder: Path, command: str) -> None:
    (folder / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["count --model ResNet26_97", "search --help"])
def test_a_full_disk_under_the_output_is_one_line(command: str) -> None:
    arguments = [sys.executable, "-m", "nas", *command.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: cannot go on: No space left on device\n"


def test_a_search_whose_reader_leaves_says_so_and_goes_on_with_the_same_command(
    folder: Path, tiny_files: Callable[..., Study]
) -> None:
    """`tiny_files` stands for its space and its proxy, which are files."""
    asked = f"search {FLAGS} --trials 4 --workers 0"
    command = f"{sys.executable} -m nas {asked} | head -n 1"
    done = subprocess.run(  # noqa: S602 - a pipe
        f"set -o pipefail; {command}", shell=True, executable="/bin/bash", cwd=folder,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: nobody reads the output any more; ")
    begun = num_scored(find_study(None, None))
    assert begun < 4
    scored = tiny_files(4).get_trials(states=(TrialState.COMPLETE,))
    assert len({t.user_attrs["arch_id"] for t in scored}) == 4


@pytest.mark.parametrize("command", ["leaderboard", "list"])
def test_a_table_whose_reader_leaves_is_no_failure(folder: Path, command: str) -> None:
    fake_study(open_storage(study_url("mine")), name="mine", number=12)
    done = subprocess.run(  # noqa: S602 - a pipe
        f"set -o pipefail; {sys.executable} -m nas {command} | true", shell=True,
        executable="/bin/bash", cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_caller_that_closed_the_output_gets_the_exit_code(folder: Path) -> None:
    done = subprocess.run(  # noqa: S602 - what only a shell does
        f"{sys.executable} -m nas list >&-", shell=True, executable="/bin/bash", cwd=folder,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("folder")
def test_a_table_that_goes_into_a_file_is_not_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    study = fake_study(open_storage(study_url("mine")), name="mine", number=12)
    assert run("leaderboard", "--top", "12") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    for trial in study.trials[:12]:
        assert sum(trial.user_attrs["architecture"] in line for line in lines) >= 1


@pytest.mark.usefixtures("folder")
def test_what_does_not_go_on_is_not_said_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_study(open_storage(study_url("mine")), name="mine", number=3)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.results.leaderboard", interrupt)
    assert run("leaderboard") == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(sys.modules["nas.cli.search"], "run_search", interrupt)
    assert run("search", "--dataset", "synthetic") == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_what_is_wrong_with_a_flag_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "--trial-timeout", "5x") == 2
    assert "error: --trial-timeout: '5x' is not a duration" in capsys.readouterr().err


def test_databases_that_cannot_be_read_are_not_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "studies").mkdir()
    (folder / "studies" / "s.db").write_text("x" * 1_000)
    assert run("list") == 0
    told = capsys.readouterr()
    assert "warning: " in told.err
    assert told.out == ""


def test_what_is_no_file_is_not_written_over(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="pipe: it is no regular file"):
        write_whole(folder / "pipe", b"content")
    assert (folder / "pipe").is_fifo()
