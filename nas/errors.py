"""Mistakes a user can mend, each one line that says what to do, and checks of numbers given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class UserError(ValueError):
    """Raised for bad input; the command line prints it as one line and exits with code 2."""


class DeviceLostError(UserError):
    """Raised where a GPU failed: in this process nothing runs on it any more."""


def whole_number(flag: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Check what a user gave as a whole number, numpy's included (UserError: it is none)."""
    from numbers import Integral

    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not (is_whole and least <= value and (most is None or value <= most)):  # type: ignore[operator]
        wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UserError(f"{flag} is a whole number {wanted}, not {value!r}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def check_seconds(flag: str, seconds: object, *, may_be_zero: bool = False) -> None:
    """Refuse (UserError) what is no positive number of seconds, or is not even zero."""
    from numbers import Real

    if seconds is None or (seconds == 0 and may_be_zero):
        return
    if not (isinstance(seconds, Real) and float(seconds) > 0):
        wanted = "number of seconds of at least 0" if may_be_zero else "positive number of seconds"
        raise UserError(f"{flag} is a {wanted}, not {seconds!r}")


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
