"""Numbers as people write them in sheets: lists, counts with units, percent and fractions.

`cells` are a row's by their column's name; what cannot be read is a ValueError of one line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def read_integers(cells: Mapping[str, str], name: str, count: int | None = None) -> list[int]:
    """Read "128, 100", "[3, 3]", "(3 3)", "3/3" or "3x3"; one number for `count` equal ones."""
    text = re.sub(r"\b(\d+)\s*[x×]\s*\1\b", r"\1", cells[name].strip())  # noqa: RUF001 - as typed
    inner = re.fullmatch(r"[\[({]?(.*?)[\])}]?", text, flags=re.DOTALL)
    parts = re.split(r"\s*[,;/|]\s*|\s+", inner[1].strip()) if inner else []
    if not all(re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", part) for part in parts):
        raise ValueError(f"{name} is {_quoted(cells[name])}, not whole numbers such as 3,3,3,3")
    numbers = [int(float(part)) if "." in part else int(part) for part in parts]
    if count is not None and len(numbers) == 1:
        numbers *= count
    if count is not None and len(numbers) != count:
        raise ValueError(f"{name} lists {len(numbers)}, blocks {count} stages")
    return numbers


def read_integer(cells: Mapping[str, str], name: str) -> int:
    """Read one whole number, also written 3.0 or [3]."""
    numbers = read_integers(cells, name)
    if len(numbers) > 1:
        raise ValueError(f"{name} is {_quoted(cells[name])}, not one whole number")
    return numbers[0]


def read_counts(text: str, title_unit: str) -> list[tuple[float, float]]:
    """Read 4,978,810, 4.978.810, 4 978 810, 4978810.0, 4.98M; with half of its last digit.

    The title's unit is that of a number which has none, unless that is so large as to need none.
    Of 4,979k both readings are given: 4.979M, and with a decimal comma 4,979.
    """
    plain = re.sub(r"[\s_'’]", "", text)  # noqa: RUF001 - a Swiss separator
    if exponent := re.fullmatch(r"[0-9](?:[.,]([0-9]+))?[eE]\+?([0-9]{1,2})", plain):
        last_digit = 10.0 ** (int(exponent[2]) - len(exponent[1] or ""))
        return [(read_number("parameters", plain.replace("+", "")), last_digit / 2)]
    match = re.fullmatch(r"\+?([0-9.,]*[0-9])([kKmM]?)", plain)
    if not match:
        raise ValueError(f"parameters is {_quoted(text)}, not a number such as 4,978,810 or 4.98M")
    digits, unit = _ungrouped(match[1]), match[2].lower()
    is_large = re.fullmatch(r"[0-9]{1,3}([.,][0-9]{3}){2,}|[0-9]{6,}(\.0+)?", digits)
    factor = UNITS.get(unit or ("" if is_large else title_unit), 1)
    sign = {1: "[.,]", UNITS["k"]: ","}.get(factor)  # 272.474k is 272,474 alone
    written = [digits]
    if sign and re.fullmatch(rf"[0-9]{{1,3}}({sign}[0-9]{{3}})+", digits):
        whole = re.sub(sign, "", digits)
        written = [whole] if factor == 1 or digits.count(",") > 1 else [whole, digits]
    return [_count(each, factor) for each in written]


def _count(digits: str, factor: int) -> tuple[float, float]:
    value = read_number("parameters", digits) * factor
    decimals = len(digits.replace(",", ".").partition(".")[2])
    return value, 0.0 if factor == 1 else factor / 2 / 10**decimals


def _ungrouped(digits: str) -> str:
    """Write 4,978,810.00 and 4.978.810,00, decimals last, without groups."""
    grouped = r"([0-9]{1,3}(?:,[0-9]{3})+)\.([0-9]+)|([0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)"
    if not (match := re.fullmatch(grouped, digits)):
        return digits
    whole, decimals = (part for part in match.groups() if part is not None)
    return f"{re.sub('[.,]', '', whole)}.{decimals}"


def read_share(
    cells: Mapping[str, str], units: Mapping[str | None, str], name: str
) -> float | None:
    """Read 97.12, 97.12 %, 97,12 or 0.9712; up to 1 it is a fraction, unless it says percent.

    Under a title that says percent, a number up to 1 without a sign may be either: it is refused.
    """
    if name not in cells:
        return None
    text = cells[name].strip()
    number = re.sub(r"\s*(%|percent)$", "", text, flags=re.IGNORECASE)
    says_percent = number != text
    value = read_number(name, number)
    if units[name] == "%" and not says_percent and 0 < value <= 1:
        raise ValueError(
            f"{name} is {_quoted(text)} in a column of percent; write {100 * value:g} or {text} %"
        )
    share = value / 100 if says_percent or value > 1 else value
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {_quoted(text)}, not from 0 to 100 %")
    return round(share, 10)


def read_number(name: str, text: str) -> float:
    """Read 0.1, .1, 0,1 or 1e-3; a comma is a decimal one."""
    plain = text.replace(",", ".") if "." not in text else text
    if not re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?", plain):
        raise ValueError(f"{name} is {_quoted(text)}, not a number")
    return float(plain)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
