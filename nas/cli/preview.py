"""`search.py --dry-run`: what a search would do and how long it would take, before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.cli.display import table_console
from nas.cli.words import duration

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.plan import Plan
    from nas.preview import Pace

NUM_PROPOSALS = 5
DAY = 86_400  # a longer search is told what would make it fit


def show_preview(plan: Plan, target: int) -> None:
    """Print the space, proposals and the time, each as soon as it is known."""
    from nas import preview
    from nas.complexity import count_activations

    scored = _standing(plan, target)
    _print_space(plan)
    proposed = preview.proposals(plan, NUM_PROPOSALS)
    _print_proposals(plan, proposed, is_new=scored == 0)
    middle = sorted(proposed, key=count_activations)[len(proposed) // 2]
    _print_time(plan, preview.measure(plan, middle), scored, target)


def _standing(plan: Plan, target: int) -> int:
    """Say where the study stands; gives the number of scored networks."""
    from nas.storage import database_failures_in_one_line
    from nas.trials import num_scored

    with database_failures_in_one_line(plan.url):
        study = plan.find()
        scored = 0 if study is None else num_scored(study)
    where = "new" if study is None else f"{scored} of {target} networks scored"
    print(f"study {plan.study}: {where}; a dry run writes nothing into it\n")
    return scored


def _print_space(plan: Plan) -> None:
    from nas import preview

    cost = plan.budget.costs["num_params"]
    print(f"space      {_large(plan.space.cardinality)} networks")
    for word, pick in (("smallest", min), ("largest", max)):
        arch = plan.space.corner(pick, cost)
        print(f"{word:10} {cost(arch):,} parameters  {arch}")
    for name, (least, most) in plan.budget.bounds.items():
        words = name.replace("num_", "").replace("_", " ")
        print(f"limit      {least or 0:,} to {most:,} {words}")
    inside = preview.num_inside(plan)
    share = f"1 in {preview.NUM_DRAWS / inside:,.0f}" if inside else "none"
    print(f"inside     {share} of {preview.NUM_DRAWS:,} random networks; only such are proposed")


def _large(number: int) -> str:
    return f"{number:,}" if number < 1_000_000 else f"{number:.1e}"


def _print_proposals(plan: Plan, proposed: list[Architecture], *, is_new: bool) -> None:
    from rich.table import Table

    from nas.complexity import count_params
    from nas.plan import baselines

    print()
    first = baselines(plan.space, plan.budget)
    for name, arch in first.items():
        print(f"baseline   {arch}  ({name})" + (", scored first" if is_new else ""))
    if not first:
        print("baseline   none: no hand-made network fits these limits, nor one scaled to them")
    print("What it would propose then:" if is_new else "What a new study would propose then:")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("params", "of budget", "MACs"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    macs = plan.budget.costs["num_macs"]
    for arch in proposed:
        params = count_params(arch)
        share = f"{params / plan.budget.max_params:.1%}"
        table.add_row(f"{params:,}", share, f"{macs(arch):,}", str(arch))
    table_console().print(table)


def _print_time(plan: Plan, pace: Pace, scored: int, target: int) -> None:
    import os

    from nas import preview

    num_trials = max(0, target - scored)
    seconds, at_once = preview.trial_seconds(plan, pace), preview.num_at_once(plan)
    total, threads = seconds * num_trials / at_once, plan.num_threads
    print(
        f"\none trial  about {duration(seconds)} (the middle one; steps of "
        f"{pace.batch_size} images on {plan.devices[0]}, {threads} thread{'s'[: threads > 1]})"
    )
    print(f"search     {num_trials} trials, {at_once} at once: about {duration(total)}")
    if final := preview.finalists_seconds(plan, pace) / at_once:
        print(f"finalists  about {duration(final)} more (--finalists 0: none)")
    if total + final > DAY:
        in_a_day = min(num_trials, int(DAY * at_once / seconds))
        same = {f"--trials {scored + in_a_day} --finalists 0": seconds * in_a_day / at_once}
        same = same if in_a_day else {}
        cores = os.cpu_count() or 1
        if plan.devices == ("cpu",) and at_once < cores:
            same[f"--workers {cores} (at best)"] = (total + final) * at_once / cores
        # Another schedule is another study, which begins anew; finalists count as trials.
        trials = target + final * at_once / seconds
        others = preview.cheaper(plan, pace)
        anew = {flags: each * trials / at_once for flags, each in others.items()}
        _print_what_fits(plan, same | anew)


def _print_what_fits(plan: Plan, totals: dict[str, float]) -> None:
    """Say how long it would take otherwise."""
    print("\nThat is days. With one of these added it would be about:")
    width = max(map(len, totals), default=0)
    for flags, total in sorted(totals.items(), key=lambda pair: pair[1]):
        print(f"  {flags:{width}}  {duration(total)}{'' if total > DAY else '  fits a day'}")
    if plan.devices == ("cpu",):
        print("  a GPU: none is used here")
