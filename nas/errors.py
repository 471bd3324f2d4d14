"""Mistakes a user can mend: one line that says what was asked, what was found, what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class UserError(ValueError):
    """Raised for bad input; the command line prints it as one line and exits with code 2."""


class DeviceLostError(UserError):
    """Raised where a GPU failed: in this process nothing runs on it any more."""


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say of each entry that differs, in JSON's types, how."""
    return [
        f"{key} is {_shown(found.get(key))} there, {_shown(wanted.get(key))} asked"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)


def brief(error: BaseException) -> str:
    """Put what an error says on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
