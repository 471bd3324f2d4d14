"""What a TOML file says of a search space: stages, and what may be chosen for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from nas.blocks import BLOCKS
from nas.presets import Config, load

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1_000_000  # of a number in a space file
MAX_STAGES = 16  # each but the first halves the resolution
LARGEST_SCALED = 2**30  # of a width that follows the budget


class IntRange(Config):
    """The whole numbers low, low + step, ..., high; scaled with the budget given `at_params`."""

    low: int = Field(ge=1)
    high: int = Field(le=LARGEST)
    step: int | None = Field(default=None, ge=1)
    at_params: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_not_empty(self) -> IntRange:
        if self.high < self.low:
            raise ValueError(f"the range is empty: high = {self.high} is below low = {self.low}")
        if self.step and (left := (self.high - self.low) % self.step):
            raise ValueError(f"high must be one of its steps, which end at {self.high - left}")
        if self.at_params is not None and self.step is not None:
            raise ValueError("with at_params the step follows the budget; leave step out")
        return self

    def values(self, max_params: int) -> range:
        """Resolve the range for a budget."""
        if self.at_params is None:
            return range(self.low, self.high + 1, self.step or 1)
        step, scale = width_step(max_params), math.sqrt(max_params / self.at_params)
        low, high = (
            min(max(step, round(end * scale / step) * step), LARGEST_SCALED)
            for end in (self.low, self.high)
        )
        return range(low, high + 1, step)


def width_step(max_params: int) -> int:
    """Give the step between widths for a budget: 8 from 1M, 4 from 200k, 2 below."""
    return 8 if max_params >= 1_000_000 else 4 if max_params >= 200_000 else 2


def _one_or_range(value: object) -> str:
    return "range" if isinstance(value, dict | IntRange) else "one"


def _one_or_list(value: object) -> str:
    return "list" if isinstance(value, list) else "one"


# Told apart before they are validated, so that an error is about what was meant.
Integers = Annotated[
    Annotated[int, Tag("one")] | Annotated[IntRange, Tag("range")], Discriminator(_one_or_range)
]
Names = Annotated[
    Annotated[str, Tag("one")] | Annotated[list[str], Tag("list")], Discriminator(_one_or_list)
]


class StageConfig(Config):
    """One stage of a space file; what is absent is filled in from `[stage]`."""

    depth: Integers | None = None
    width: Integers | None = None
    kernel_size: Integers | None = None
    shortcut_kernel_size: Integers | None = None
    block: Names | None = None

    @field_validator("depth", "width", "kernel_size", "shortcut_kernel_size")
    @classmethod
    def _is_positive(cls, value: int | IntRange | None) -> int | IntRange | None:
        if isinstance(value, int) and not 1 <= value <= LARGEST:
            raise ValueError(f"it must be at least 1, and at most {LARGEST:,}")
        return value

    @field_validator("depth", "kernel_size", "shortcut_kernel_size")
    @classmethod
    def _does_not_scale(cls, value: int | IntRange | None) -> int | IntRange | None:
        if isinstance(value, IntRange) and value.at_params is not None:
            raise ValueError("only widths scale with the budget; leave at_params out")
        return value

    @field_validator("kernel_size", "shortcut_kernel_size")
    @classmethod
    def _is_odd(cls, value: int | IntRange | None) -> int | IntRange | None:
        kernels = [value] if isinstance(value, int) else [] if value is None else value.values(1)
        if even := [kernel for kernel in kernels if kernel % 2 == 0]:
            raise ValueError(f"kernels must be odd, {even[0]} is even (use step = 2)")
        return value

    @field_validator("block")
    @classmethod
    def _is_a_choice(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("it must be a list of different block types")
        if not set([value] if isinstance(value, str) else value or []) <= BLOCKS.keys():
            raise ValueError(f"it must name block types of {', '.join(BLOCKS)}")
        return value


class SpaceConfig(Config):
    """A space file: the number of stages, what holds for all, and what holds for one by number."""

    num_stages: int = Field(ge=1, le=MAX_STAGES)
    stage: StageConfig
    overrides: dict[str, StageConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_real_stages(self) -> SpaceConfig:
        known = {str(number) for number in range(1, self.num_stages + 1)}
        if unknown := sorted(set(self.overrides) - known):
            raise ValueError(f"overrides.{unknown[0]}: there are stages 1 to {self.num_stages}")
        for number in range(1, self.num_stages + 1):
            for name in ("depth", "width"):
                if self.stage_setting(number, name) is None:
                    raise ValueError(f"stage {number} has no {name}")
        return self

    def stage_setting(self, number: int, name: str) -> int | IntRange | str | list[str] | None:
        """Give what stage `number` (from 1) says of a field, or `[stage]`, or `None`."""
        own = getattr(self.overrides.get(str(number), StageConfig()), name)
        return getattr(self.stage, name) if own is None else own  # type: ignore[no-any-return]


def load_space(name_or_file: str | Path) -> tuple[str, SpaceConfig]:
    """Read a space preset or TOML file.

    Raises:
        UserError: Not found, or wrong; one line.
    """
    return load("spaces", name_or_file, SpaceConfig)
