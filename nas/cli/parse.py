"""What people type, as numbers: 5e6, 5M, 250k; 2h, 90m, 1h30m; 3,3,3,3."""

from __future__ import annotations

import math
import re

from nas.errors import UserError

LARGEST_COUNT = 1e15
SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "b": 1_000_000_000}
UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_count(text: str) -> float:
    """Read 5e6, 5M, 5_000_000, 5,000,000 or 250k.

    Raises:
        UserError: Anything else, and what is not positive.
    """
    digits = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)"
    match = re.fullmatch(rf"\s*({digits}(?:\.[0-9]*)?(?:[eE][+]?[0-9]+)?)\s*([kKmMgGbB]?)\s*", text)
    value = float(re.sub("[_,]", "", match[1])) * SUFFIXES[match[2].lower()] if match else 0
    if not 1 <= value < math.inf:
        raise UserError(f"{text!r} is not a number of at least 1 such as 5e6, 5M, 5_000_000, 250k")
    if value > LARGEST_COUNT:
        raise UserError(f"{text!r} is more than any network has; at most {LARGEST_COUNT:g}")
    return value


def parse_duration(text: str) -> float:
    """Read 2h, 90m, 45s, 1h30m, or plain seconds; gives seconds.

    Raises:
        UserError: Anything else, and what is not positive.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        seconds = float(text)
    elif re.fullmatch(r"([0-9]+(\.[0-9]+)?[dhms])+", text):
        parts = re.findall(r"([0-9.]+)([dhms])", text)
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    else:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise UserError(f"{text!r} is not a duration such as 2h, 90m, 1h30m or 45s")
    return seconds


def parse_integers(text: str) -> list[int]:
    """Read 3,3,3,3 (UserError for anything else)."""
    try:
        return [int(entry) for entry in text.split(",")]
    except ValueError:
        raise UserError(f"{text!r} is not a list of whole numbers such as 3,3,3,3") from None
