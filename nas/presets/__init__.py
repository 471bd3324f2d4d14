"""Presets: named TOML files shipped with the package; one of the same name under `studies/` wins.

A kind is a folder: `spaces`, `proxies`, `recipes`. The hand-made networks are in `hand_made.csv`.
"""

from __future__ import annotations

import csv
import tomllib
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from nas.architecture import Architecture
from nas.blocks import block_type
from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from importlib.resources.abc import Traversable

STUDIES = Path("studies")


class Config(BaseModel):
    """What every TOML preset is read into: frozen, unknown keys refused, numbers not guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def names(kind: str) -> list[str]:
    """List the presets of a kind, shipped and own."""
    shipped = [entry.name for entry in _package(kind).iterdir()]
    own = [entry.name for entry in (STUDIES / kind).glob("*.toml")]
    return sorted({Path(name).stem for name in shipped + own if name.endswith(".toml")})


def load(kind: str, name_or_file: str | Path, config: type[ConfigT]) -> tuple[str, ConfigT]:
    """Read a preset by name, or a TOML file by path, and validate it.

    Returns:
        Its name (a file's name without the ending) and its validated content.

    Raises:
        UserError: No such preset or file, no TOML, or a setting that is wrong; one line.
    """
    source, settings = read(kind, name_or_file)
    return Path(source).stem, validated(source, settings, config)


def read(kind: str, name_or_file: str | Path) -> tuple[str, dict[str, Any]]:
    """Read a preset or a file as `load` does, not yet validated; the first is what errors name.

    Raises:
        UserError: No such preset or file, or no TOML; one line.
    """
    if not isinstance(name_or_file, str | Path):
        raise UserError(f"{kind} have names and .toml files, not {name_or_file!r}")
    source, text = _read(kind, str(name_or_file))
    try:
        return source, tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number or a nesting without end
        raise UserError(f"{source} is not TOML: {error}") from None


def validated(source: str, settings: Mapping[str, object], config: type[ConfigT]) -> ConfigT:
    """Make a config of what was read from `source` (UserError: one line)."""
    try:
        return config.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"{source}: {_first_line(error, config)}") from None


def changed(config: ConfigT, settings: Mapping[str, object]) -> ConfigT:
    """Change what flags of the settings' names gave; a wrong one becomes one line (UserError)."""
    same = {name: getattr(config, name) for name in type(config).model_fields}
    settings = {  # numpy's numbers, too
        name: int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value
        for name, value in settings.items()
    }
    try:
        return type(config).model_validate({**same, **settings})
    except ValidationError as error:
        line, where = _first_line(error, type(config)), error.errors()[0]["loc"]
        named = [name for name in settings if name in where[:1]]
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in named or settings)
        raise UserError(
            f"{flags}: {line.removeprefix(f'{named[0]}: ') if named else line}"
        ) from None


def label(config: BaseModel, names: Container[str]) -> str:
    """Write settings as the end of a name, however they were given: `-epochs3-peaklr0.5`."""
    return "".join(
        f"-{name.replace('_', '')}{_in_a_name(getattr(config, name))}"
        for name in type(config).model_fields
        if name in names
    )


def _in_a_name(value: object) -> str:
    return "+".join(value) if isinstance(value, tuple) else str(value).removesuffix(".0")


def hand_made() -> dict[str, Architecture]:
    """Return the hand-made networks by name, in the order of the table."""
    with (files(__name__) / "hand_made.csv").open(encoding="utf-8") as rows:
        return {
            row["name"]: Architecture.of(_integers(row["blocks"]), _integers(row["widths"]))
            for row in csv.DictReader(rows)
        }


def hand_made_network(name: str) -> Architecture:
    """Look a hand-made network up (UserError: no such name; the known ones are listed)."""
    networks = hand_made()
    if name not in networks:
        raise UserError(f"unknown model {name!r}; known: {', '.join(networks)}")
    return networks[name]


def read_architecture(path: Path) -> Architecture:
    """Read an architecture's JSON file (UserError: unreadable, or no architecture; one line)."""
    text = _read_text(path)
    try:
        arch = Architecture.from_json(text)
        for stage in arch.stages:
            block_type(stage.block)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return arch


def _read(kind: str, name_or_file: str) -> tuple[str, str]:
    if name_or_file.endswith(".toml") or "/" in name_or_file:
        return name_or_file, _read_text(Path(name_or_file))
    own = STUDIES / kind / f"{name_or_file}.toml"
    if own.is_file():
        return str(own), _read_text(own)
    shipped = _package(kind) / f"{name_or_file}.toml"
    if not shipped.is_file():
        known = ", ".join(names(kind))
        raise UserError(
            f"no preset {name_or_file!r} in {kind}; known: {known}; or give a .toml file"
        )
    return f"{name_or_file}.toml", shipped.read_text(encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows write a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"cannot read {path}: {reason}") from None


def _package(kind: str) -> Traversable:
    return files(__name__) / kind


def _integers(cell: str) -> list[int]:
    return [int(entry) for entry in cell.split(",")]


def _table(config: type[BaseModel], names: list[str]) -> type[BaseModel]:
    """Find what describes a table of a file, by the keys that lead to it."""
    for name in names:
        if name in config.model_fields:  # not the number of a stage
            config = next(_models(config.model_fields[name].annotation))
    return config


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _first_line(error: ValidationError, config: type[BaseModel]) -> str:
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]  # a key that is unknown rather than that which is missing for it
    names = [str(part) for part in first["loc"] if part not in ("one", "range", "list")]
    where = ".".join(names)
    if first["type"] == "extra_forbidden":
        known = _table(config, names[:-1]).model_fields
        line = f"unknown key {where!r}; known: {', '.join(known)}"
    elif first["type"] == "missing":
        line = f"{where} is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        line = f"{message[:1].lower()}{message[1:]}"
        if where:
            is_ours = first["type"] == "value_error"  # it may end with a list
            joined = "; given" if is_ours else ", not"
            line = f"{where}: {line}{joined} {first['input']!r}"
    return line if len(errors) == 1 else f"{line} (and {len(errors) - 1} more)"
