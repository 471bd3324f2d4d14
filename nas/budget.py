"""Budget: the limits of a study as numbers, and as limits on a search space's parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from nas.complexity import count_macs, count_params, size_bytes
from nas.errors import UserError
from nas.feasible import Limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nas.architecture import Architecture
    from nas.space import SearchSpace


def costs(image_size: int | None = None) -> dict[str, Callable[[Architecture], int]]:
    """Give what can be limited by its name, counted for images of so many pixels a side.

    Without a size: as `nas.complexity.count` says.
    """
    return {
        "num_params": count_params,
        "num_macs": partial(count_macs, resolution=image_size),
        "size_bytes": size_bytes,
    }


@dataclass(frozen=True)
class Budget:
    """The limits of a study, by the names of `costs`.

    Attributes:
        max_params: Trainable parameters.
        fill: The least share of `max_params` a network uses.
        max_macs: Multiply-adds of one image, or `None`.
        max_bytes: Bytes as float32, or `None`.
        image_size: As in `costs`.
    """

    max_params: int
    fill: float = 0.9
    max_macs: int | None = None
    max_bytes: int | None = None
    image_size: int | None = None

    @classmethod
    def of(
        cls, max_params: float, *, fill: float, max_macs: float | None, max_bytes: float | None
    ) -> Budget:
        """Check what a user asked for (UserError) and make whole numbers of it."""
        asked = {"--budget": max_params, "--max-macs": max_macs, "--max-bytes": max_bytes}
        for flag, value in asked.items():
            is_left_out = value is None and flag != "--budget"
            if not is_left_out and not (isinstance(value, Real) and 1 <= value < math.inf):
                raise UserError(f"{flag} must be a positive number, not {value!r}")
        if not (isinstance(fill, Real) and 0 <= fill <= 1):
            raise UserError(f"--fill is a share of the budget from 0 to 1, not {fill!r}")
        whole = [None if value is None else int(value) for value in (max_macs, max_bytes)]
        return cls(int(max_params), fill, *whole)

    @cached_property
    def costs(self) -> dict[str, Callable[[Architecture], int]]:
        """What can be limited, counted for this budget's images."""
        return costs(self.image_size)

    @property
    def bounds(self) -> dict[str, tuple[int | None, int]]:
        """Give (minimum, maximum) of each limited cost, the parameters first."""
        least = math.ceil(round(self.fill * self.max_params, 6)) or None  # 0.55 * 100 is above 55
        bounds: dict[str, tuple[int | None, int]] = {"num_params": (least, self.max_params)}
        if self.max_macs is not None:
            bounds["num_macs"] = (None, self.max_macs)
        if self.max_bytes is not None:
            bounds["size_bytes"] = (None, self.max_bytes)
        return bounds

    def limits(self, space: SearchSpace) -> tuple[Limit, ...]:
        """Express the limits on a space's parameters."""

        def cost(name: str) -> Callable[[Mapping[str, Any]], int]:
            return lambda params: self.costs[name](space.decode(params))

        return tuple(
            Limit(name, cost(name), maximum, minimum)
            for name, (minimum, maximum) in self.bounds.items()
        )

    def admits(self, arch: Architecture) -> bool:
        """Tell whether a network lies within every limit."""
        return all(
            (minimum or 0) <= self.costs[name](arch) <= maximum
            for name, (minimum, maximum) in self.bounds.items()
        )


def budget_name(max_params: int) -> str:
    """Write a number of parameters as people do: 5M, 250k, 4978810."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if unit <= max_params < 1000 * unit and max_params * 100 % unit == 0:
            return f"{max_params / unit:g}{letter}"
    return str(max_params)
