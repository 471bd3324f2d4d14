"""The command line in the process of the tests, and Python code in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from nas.cli import main
from nas.interruption import HELD
from nas.parent import PRELOADED

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

FORKSERVER = multiprocessing.get_context("forkserver")  # whoever starts its server, it has torch
FORKSERVER.set_forkserver_preload(PRELOADED)


def run(*arguments: str) -> int:
    """Run a command line, and leave the signals as they were; gives its exit code."""
    handlers = {number: signal.getsignal(number) for number in HELD}
    try:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(left.value.code or 0)


def started(code: str, folder: Path, name: str = "process") -> ForkServerProcess:
    """Start a process in a folder that runs code, with its output in the files NAME.out and .err.

    It is forked from one that has loaded torch, which a new Python takes seconds to, and has the
    environment that this one had when the first such process, or worker, was started.
    """
    process = FORKSERVER.Process(target=_execute, args=(code, folder, name))
    process.start()
    return process


def exit_code(process: ForkServerProcess) -> int | None:
    """Wait for a process, and kill it after five minutes."""
    process.join(300)
    process.kill()
    process.join()
    return process.exitcode


def _execute(code: str, folder: Path, name: str) -> None:
    os.chdir(folder)
    for stream, end in ((sys.stdout, "out"), (sys.stderr, "err")):
        with Path(f"{name}.{end}").open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as workers have it, for one
    torch.set_num_threads(1)
    exec(code, {"__name__": "__main__"})  # noqa: S102 - a test's own
