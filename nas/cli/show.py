"""`nas show`: one trial in full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.choices import AnyStudy, AsJson, Storage
from nas.cli.words import ending, one_line, percent, schedule

if TYPE_CHECKING:
    from optuna.study import Study


def show(
    trial: Annotated[int, typer.Argument(help="Its number")],
    study: AnyStudy = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial in full: network, score, what was measured later, notes, what made it.

    \b
    nas show 42
    nas show 42 --study cifar10-resnet-100k-quick --json
    """
    from nas.find_study import find_study

    described = _describe(find_study(study, storage), trial)
    if as_json:
        print(json.dumps(described))
    else:
        _print(described)


def _describe(study: Study, number: int) -> dict[str, Any]:
    from nas.architecture import Architecture
    from nas.complexity import count_params
    from nas.history import SEARCH, history
    from nas.notes import notes
    from nas.study import stored_schedule
    from nas.trials import get_trial

    found = get_trial(study, number)
    attrs = {key: _unpacked(value) for key, value in found.user_attrs.items()}
    arch_id = found.user_attrs.get("arch_id")
    if arch_id is None and "architecture_json" in attrs:  # it waits to be scored
        arch = Architecture.from_json(found.user_attrs["architecture_json"])
        arch_id = arch.arch_id
        attrs = {"architecture": str(arch), "num_params": count_params(arch)} | attrs
    later = [
        each.to_dict()
        for each in history(study)
        if each.kind != SEARCH
        and (
            each.source_trial == number
            or (each.source_trial is None and each.arch.arch_id == arch_id)
        )
    ]
    return {
        "study": study.study_name,
        "trial": number,
        "state": found.state.name,
        "val_accuracy": found.value,
        "schedule": stored_schedule(study),
        "started": _iso(found.datetime_start),
        "ended": _iso(found.datetime_complete),
        "arch_id": arch_id,
        "notes": notes(study).get(number, ""),
        "params": found.params,
        "attributes": attrs,
        "later": later,
    }


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - JSON's types
    """Read an attribute that holds JSON as text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _iso(moment: Any) -> str | None:  # noqa: ANN401 - a datetime or None
    return moment.isoformat(timespec="seconds") if moment else None


def _print(described: dict[str, Any]) -> None:
    attrs = described.pop("attributes")
    attrs.pop("architecture_json", None)  # `--json` has it
    if (share := attrs.get("budget_share")) is not None:
        attrs["budget_share"] = percent(share)
    later = described.pop("later")
    print(f"trial {described['trial']} of {described['study']}: {described['state']}")
    val = described["val_accuracy"]
    of = f" (one seed of {described['schedule']})" if described["schedule"] else ""
    lines = {
        "architecture": attrs.pop("architecture", None),
        "val accuracy": None if val is None else f"{percent(val)}{of}",
        "notes": described["notes"],
        "started": described["started"],
        "ended": described["ended"],
        **attrs,
    }
    for name, value in lines.items():
        if value not in (None, ""):
            print(f"  {name.replace('_', ' '):<18} {_shown(value)}")
    for each in later:
        how = schedule(each["recipe"], each["epochs"], each["seed"])
        scores = {"test": each["accuracy"], "val": each["val_accuracy"]}
        reached = [
            f"{split} {percent(score)}" for split, score in scores.items() if score is not None
        ]
        result = reached[0] if reached else ending(each["result"])
        result = f"{how}: {result}" if how else result
        notes = one_line(each["notes"])
        print(f"  {each['kind']} {each['trial']}: {result} {notes}".rstrip())


def _shown(value: object) -> str:
    """Put an attribute in words, on one line."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.5g}"
        case list():
            return ", ".join(map(_shown, value))
        case dict():
            return ", ".join(f"{name.replace('_', ' ')} {_shown(v)}" for name, v in value.items())
    return one_line(str(value))
