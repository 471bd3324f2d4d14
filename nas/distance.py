"""How far two architectures are from each other."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.architecture import Architecture, Stage


def distance(one: Architecture, other: Architecture) -> float:
    """Measure the difference of two networks: 0 for equal ones, about 1 for one step of a change.

    A step is one block more, twice the width, the next odd kernel, another block type, in one
    stage. A stage that the other network lacks counts one for itself and one for each of its
    blocks. Steps add up as lengths do: the root of the sum of squares.
    """
    pairs = zip_longest(one.stages, other.stages)
    return math.hypot(*(step for pair in pairs for step in _steps(*pair)))


def _steps(one: Stage | None, other: Stage | None) -> tuple[float, ...]:
    if one is None or other is None:
        only = one or other
        assert only is not None
        return (1 + only.depth,)
    return (
        one.depth - other.depth,
        math.log2(one.width / other.width),
        (one.kernel_size - other.kernel_size) / 2,
        (one.shortcut_kernel_size - other.shortcut_kernel_size) / 2,
        float(one.block != other.block),
    )
