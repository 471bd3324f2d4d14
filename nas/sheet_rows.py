"""The columns of a hand-kept sheet of networks, and its rows as values."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS, block_type
from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from nas.sheet import Cells

COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("model", "network", "model name"),
    "residual layers": ("layers", "n", "num layers", "number of residual layers", "stages"),
    "blocks": ("residual blocks", "b", "blocks per stage", "blocks per layer", "num blocks"),
    "kernel sizes": ("kernels", "kernel", "kernel size", "f", "conv kernel sizes"),
    "shortcut kernels": ("shortcut kernel sizes", "skip kernels", "skip kernel sizes", "k"),
    "block types": ("block type", "block"),
    "channels": (
        "widths",
        "width",
        "c",
        "filters",
        "channels per stage",
        "widths per stage",
        "channels per layer",
        "widths per layer",
    ),
    "parameters": ("params", "num params", "number of parameters", "total params"),
    "accuracy": ("acc", "test accuracy", "test acc", "final accuracy", "top 1", "top 1 accuracy"),
    "val accuracy": ("validation accuracy", "val acc"),
    "optimizer": ("optimiser",),
    "lr": ("learning rate",),
    "epochs": ("epoch", "num epochs", "number of epochs", "training epochs"),
    "seed": (),
    "notes": ("note", "comment", "comments", "remarks"),
    "date": (),
}
"""A column's own name and the others it goes by.

Case, punctuation, units and all numbers but 1 do not matter.
"""

OF_EXPORTS = (
    "recipe",
    "result",
    "trial",
    "proposed by",
)  # of how and where a try was made; not read

NEEDED = ("blocks", "channels")
HEADER_WITHIN = 20  # rows from the top: titles and merged cells stand above the header
MAX_DEPTH, MAX_WIDTH, MAX_KERNEL = 1_000, 100_000, 99  # so that counts stay numbers of 64 bits
UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
UNIT = re.compile(r"%|\bpercent\b|[(\[]\s*[km]\s*[)\]]")  # in a title
BLANK = ("-", "\N{EN DASH}", "\N{EM DASH}", "?", "n/a", "#n/a", "na", "nan", "none", "tbd")
NUMBERS = (
    "accuracy", "val accuracy", "parameters", "seed", "residual layers", "kernel sizes",
    "shortcut kernels",
)  # fmt: skip
"""Columns where `BLANK` means none."""
LISTS = ("blocks", "channels", "kernel sizes", "shortcut kernels", "block types")


@dataclass(frozen=True)
class Row:
    """One readable row.

    Attributes:
        number: Of its line in the sheet, from 1.
        arch: With ten classes and three channels; the sheet knows of neither.
        num_params: (count, how far it may be off for its digits), or both of which 4,979k may be
            either, or none.
        accuracy: In [0, 1], or `None`; so is `val_accuracy`.
        seed: Or `None`.
        texts: Name, optimizer, lr, epochs, notes and date, those that are not blank.
    """

    number: int
    arch: Architecture
    num_params: list[tuple[float, float]]
    accuracy: float | None
    val_accuracy: float | None
    seed: int | None
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Unreadable:
    """A row that is none, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Column:
    """What a title says: whose column it is (`None`: of none that is known), and its unit.

    Attributes:
        title: As it is written.
        name: One of `COLUMNS`, or `None`.
        unit: "%", "k", "m" or "".
    """

    title: str
    name: str | None
    unit: str

    @classmethod
    def of(cls, title: str) -> Column:
        """Read a title."""
        lower = title.lower().replace("_", " ")
        units = [match.strip("([ ])").replace("percent", "%") for match in UNIT.findall(lower)]
        plain = " ".join(re.findall(r"[a-z]+|(?<!\d)1(?!\d)", UNIT.sub(" ", lower)))
        name = next((name for name, others in COLUMNS.items() if plain in (name, *others)), None)
        return cls(title.strip(), name, units[0] if units else "")


@dataclass(frozen=True)
class Parsed:
    """A sheet's rows, and the titles of columns that are not read because none knows them."""

    rows: list[Row | Unreadable]
    ignored: list[str]


def parse_rows(path: Path, readings: Iterator[Cells]) -> Parsed:
    """Find the header in one of the readings of a sheet, and parse the rows below it.

    Raises:
        UserError: No header, or a column that is there twice; one line.
    """
    nearest: tuple[int, list[Column]] = (0, [])
    for cells in readings:
        for top, line in enumerate(cells[:HEADER_WITHIN]):
            header = [Column.of(title) for title in line]
            names = [column.name for column in header]
            nearest = max(nearest, (sum(map(bool, names)), header), key=lambda each: each[0])
            if all(name in names for name in NEEDED):
                _refuse_doubles(path, names)
                below = enumerate(cells[top + 1 :], top + 2)
                return Parsed(
                    [_parse(number, header, row) for number, row in below if any(row)],
                    [c.title for c in header if not c.name and c.title not in ("", *OF_EXPORTS)],
                )
    titles = ", ".join(repr(column.title) for column in nearest[1] if column.title)
    found = (
        f"the nearest to that has {titles}" if titles else f"known columns: {', '.join(COLUMNS)}"
    )
    raise UserError(f"{path} has no row with the columns blocks and channels; {found}")


def _refuse_doubles(path: Path, names: Sequence[str | None]) -> None:
    for name in COLUMNS:
        if names.count(name) > 1:
            raise UserError(f"{path} has the column {name!r} twice; rename one of them")


def _by_name(header: Sequence[Column], row: Sequence[str]) -> dict[str, str]:
    """Give the cells that are not blank; lists may stand in several cells below one title.

    What has no title is an entry of a list if it and all cells of the list are, and blocks or
    channels is such a list. Else it is a remark.

    Raises:
        ValueError: Cells beyond the last column that are no entries of it.
    """
    cells: dict[str, str] = {}
    joined: dict[str, str] = {}
    name, is_list, is_beyond = None, False, False
    for column, cell in zip_longest(header, row):
        text = (cell or "").strip()
        if column and column.title:
            name, is_list = column.name, column.name in LISTS and _is_entry(text)
            if name and text:
                cells[name] = cell
        elif name and is_list and _is_entry(text):
            joined[name] = f"{joined.get(name, cells[name])}, {text}"
        is_beyond |= column is None and bool(text) and not (name in joined and _is_entry(text))
    are_lists = all(n in joined or not _is_entry(cells.get(n, "").strip()) for n in NEEDED)
    if is_beyond or (not are_lists and any(cell.strip() for cell in row[len(header) :])):
        raise ValueError("more cells than columns; a list of numbers needs quotes")
    return cells | joined if any(n in joined for n in NEEDED) else cells


def _is_entry(text: str) -> bool:
    return text in BLOCKS or re.fullmatch(r"[0-9]+(\.0+)?", text) is not None


def _parse(number: int, header: Sequence[Column], row: Sequence[str]) -> Row | Unreadable:
    units = {column.name: column.unit for column in header}
    try:
        cells = _by_name(header, row)
        for name in NUMBERS:
            if cells.get(name, "").strip().lower() in BLANK:
                del cells[name]
        return Row(
            number,
            _architecture(cells),
            _counts(cells["parameters"], units["parameters"]) if "parameters" in cells else [],
            _share(cells, units, "accuracy"),
            _share(cells, units, "val accuracy"),
            _integer(cells, "seed") if "seed" in cells else None,
            _texts(cells),
        )
    except ValueError as error:
        return Unreadable(number, " ".join(str(error).split()))


def _texts(cells: Mapping[str, str]) -> dict[str, str]:
    named = ("name", "optimizer", "lr", "epochs", "date")
    texts = {name: cells[name].strip() for name in named if name in cells}
    if "notes" in cells:
        texts["notes"] = cells["notes"]
    if "lr" in texts:
        with contextlib.suppress(ValueError):  # "0.1, halved twice" is welcome too
            texts["lr"] = f"{_number('lr', texts['lr']):g}"
    if "epochs" in texts:  # a workbook's 200 is 200.0
        texts["epochs"] = re.sub(r"^([0-9]+)\.0+$", r"\1", texts["epochs"])
    return texts


def _architecture(cells: Mapping[str, str]) -> Architecture:
    for name in NEEDED:
        if name not in cells:
            raise ValueError(f"{name} is blank")
    depths, widths = (_integers(cells, name) for name in NEEDED)
    if len(depths) != len(widths):
        raise ValueError(f"blocks lists {len(depths)} stages, channels {len(widths)}")
    count = len(depths)
    if "residual layers" in cells and _integer(cells, "residual layers") != count:
        said = cells["residual layers"].strip()
        raise ValueError(f"residual layers is {said}, blocks lists {count} stages")
    if sum(depths) > MAX_DEPTH or max(widths) > MAX_WIDTH:
        raise ValueError("blocks or channels are too many; is a list joined to one number?")
    kernels = _integers(cells, "kernel sizes", count) if "kernel sizes" in cells else [3] * count
    shortcuts = (
        _integers(cells, "shortcut kernels", count) if "shortcut kernels" in cells else [1] * count
    )
    if max(kernels + shortcuts) > MAX_KERNEL:
        raise ValueError(f"a kernel is larger than {MAX_KERNEL}; is a list joined to one number?")
    blocks = [block.strip() for block in cells.get("block types", "basic").split(",")]
    blocks = blocks * count if len(blocks) == 1 else blocks
    if len(blocks) != count:
        raise ValueError(f"block types lists {len(blocks)} stages, blocks {count}")
    for block in blocks:
        block_type(block)
    entries = zip(depths, widths, kernels, shortcuts, blocks, strict=True)
    return Architecture(tuple(Stage(*entry) for entry in entries))


def _integers(cells: Mapping[str, str], name: str, count: int | None = None) -> list[int]:
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


def _integer(cells: Mapping[str, str], name: str) -> int:
    numbers = _integers(cells, name)
    if len(numbers) > 1:
        raise ValueError(f"{name} is {_quoted(cells[name])}, not one whole number")
    return numbers[0]


def _counts(text: str, title_unit: str) -> list[tuple[float, float]]:
    """Read 4,978,810, 4.978.810, 4 978 810, 4978810.0, 4.98M; with half of its last digit.

    The title's unit is that of a number which has none, unless that is so large as to need none.
    Of 4,979k both readings are given: 4.979M, and with a decimal comma 4,979.
    """
    plain = re.sub(r"[\s_'’]", "", text)  # noqa: RUF001 - a Swiss separator
    if exponent := re.fullmatch(r"[0-9](?:[.,]([0-9]+))?[eE]\+?([0-9]{1,2})", plain):
        last_digit = 10.0 ** (int(exponent[2]) - len(exponent[1] or ""))
        return [(_number("parameters", plain.replace("+", "")), last_digit / 2)]
    match = re.fullmatch(r"([0-9.,]*[0-9])([kKmM]?)", plain)
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
    value = _number("parameters", digits) * factor
    decimals = len(digits.replace(",", ".").partition(".")[2])
    return value, 0.0 if factor == 1 else factor / 2 / 10**decimals


def _ungrouped(digits: str) -> str:
    """Write 4,978,810.00 and 4.978.810,00, decimals last, without groups."""
    grouped = r"([0-9]{1,3}(?:,[0-9]{3})+)\.([0-9]+)|([0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)"
    if not (match := re.fullmatch(grouped, digits)):
        return digits
    whole, decimals = (part for part in match.groups() if part is not None)
    return f"{re.sub('[.,]', '', whole)}.{decimals}"


def _share(cells: Mapping[str, str], units: Mapping[str | None, str], name: str) -> float | None:
    """Read 97.12, 97.12 %, 97,12 or 0.9712; up to 1 it is a fraction, unless it says percent.

    Under a title that says percent, a number up to 1 without a sign may be either: it is refused.
    """
    if name not in cells:
        return None
    text = cells[name].strip()
    says_percent = text.endswith("%")
    value = _number(name, text.removesuffix("%").strip())
    if units[name] == "%" and not says_percent and 0 < value <= 1:
        raise ValueError(
            f"{name} is {_quoted(text)} in a column of percent; write {100 * value:g} or {text} %"
        )
    share = value / 100 if says_percent or value > 1 else value
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {_quoted(text)}, not from 0 to 100 %")
    return round(share, 10)


def _number(name: str, text: str) -> float:
    plain = text.replace(",", ".") if "." not in text else text
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,2})?", plain):
        raise ValueError(f"{name} is {_quoted(text)}, not a number")
    return float(plain)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
