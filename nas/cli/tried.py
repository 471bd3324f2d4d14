"""`nas tried`: whether a network was tried, what came of it, and its nearest neighbours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.choices import (
    AnyStudyFirst,
    ArchitectureFile,
    AsJson,
    Blocks,
    Kernels,
    Model,
    Storage,
    Widths,
)
from nas.cli.network import named_network
from nas.cli.words import ending, one_line, percent, schedule

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.history import Try


def tried(
    study: AnyStudyFirst = None,
    blocks: Blocks = None,
    widths: Widths = None,
    kernels: Kernels = None,
    model: Model = None,
    architecture: ArchitectureFile = None,
    neighbours: Annotated[int, typer.Option(help="How many of the nearest", min=0)] = 5,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether a network was tried, what came of it, and what its nearest neighbours reached.

    \b
    nas tried --blocks 3,3,3,3 --widths 128,100,164,200
    nas tried cifar10-resnet-5M-standard --model ResNet26_97 --json
    """
    from nas.find_study import find_study
    from nas.history import history
    from nas.study import stored_space

    arch = named_network(blocks, widths, kernels, model, architecture)
    found = find_study(study, storage)
    tries = history(found)
    arch = stored_space(found).fitted(arch)
    same = [each for each in tries if each.arch == arch]
    near = _nearest(arch, [each for each in tries if each.arch != arch], neighbours)
    if as_json:
        print(
            json.dumps(
                {
                    "study": found.study_name,
                    "arch_id": arch.arch_id,
                    "tried": [each.to_dict() for each in same],
                    "neighbours": [{"distance": far, **each.to_dict()} for far, each in near],
                }
            )
        )
        return
    is_queued = same and all(each.result == "waiting" for each in same)
    said = "queued, not tried yet," if is_queued else "tried" if same else "not tried"
    print(f"{arch}: {said} in {found.study_name}")
    for each in same:
        print(f"  {_line(each)}")
    if near:
        print("nearest:")
    for far, each in near:
        print(f"  {far:5.2f}  {_line(each)}  {each.arch}")


def _nearest(arch: Architecture, tries: list[Try], count: int) -> list[tuple[float, Try]]:
    """Find the nearest networks, the nearest first, each with its best-measured try."""
    from nas.distance import distance

    best: dict[str, Try] = {}
    for each in tries:
        known = best.get(each.arch.arch_id)
        if known is None or _rank(each) > _rank(known):
            best[each.arch.arch_id] = each
    ranked = sorted((distance(arch, each.arch), i) for i, each in enumerate(best.values()))
    values = list(best.values())
    return [(far, values[i]) for far, i in ranked[:count]]


def _rank(each: Try) -> tuple[float, float]:
    return (each.accuracy or -1, each.val_accuracy or -1)


def _line(each: Try) -> str:
    scores: dict[str, Any] = {"test": each.accuracy, "val": each.val_accuracy}
    shown = " ".join(f"{n} {percent(v)}" for n, v in scores.items() if v is not None)
    where = f"trial {each.trial}" if each.kind == "search" else f"{each.kind} {each.trial}"
    has_name = each.name and not each.name.startswith("trial-")
    named = f" {one_line(each.name)}" if has_name else ""
    how = schedule(each.recipe, each.epochs, each.seed)
    named += f", {how}" if how else ""
    notes = f"  ({one_line(each.notes)})" if each.notes else ""
    return f"{where}{named}: {shown or ending(each.result)}, {each.num_params:,} parameters{notes}"
