"""The command line, in the process of the tests."""

from __future__ import annotations

import pytest

from nas.cli import main


def run(*arguments: str) -> int:
    """Run a command line; gives its exit code."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0)
