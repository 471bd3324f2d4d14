"""Assignment: what rank 0 tells the other ranks to train, and how they do their share of it."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from nas.architecture import Architecture
from nas.data import load_training_data
from nas.errors import UserError
from nas.full_training import FullData, assist
from nas.recipe import RetrainConfig
from nas.training import DivergedError

if TYPE_CHECKING:
    from nas.distributed import Ranks


@dataclass(frozen=True, slots=True)
class Assignment:
    """One seed of one network, in JSON's types.

    Attributes:
        architecture: As JSON.
        recipe: A `RetrainConfig` as JSON.
        seed: Of weights, order and augmentation.
        data: Name of the data set.
        data_root: Where its files are, on every machine.
        data_fingerprint: Of its training images; they must be the same everywhere.
        is_held_out: Whether val is kept out of training.
        device: As torch writes it; each rank has its own of that kind.
        is_compiled: As in `train`.
    """

    architecture: str
    recipe: str
    seed: int
    data: str
    data_root: str
    data_fingerprint: str
    is_held_out: bool
    device: str
    is_compiled: bool

    def to_json(self) -> str:
        """Write it for `Ranks.tell`."""
        return json.dumps(asdict(self))

    def do_share(self, ranks: Ranks) -> None:
        """Train this rank's part of every batch; rank 0 reports what goes wrong.

        Raises:
            UserError: This machine has other images than that of rank 0.
        """
        config = RetrainConfig.model_validate_json(self.recipe)
        data = _full_data(
            self.data,
            self.data_root,
            self.data_fingerprint,
            config.resolution,
            self.device,
            is_held_out=self.is_held_out,
        )
        arch = Architecture.from_json(self.architecture)
        try:
            assist(arch, data, config, self.seed, ranks, is_compiled=self.is_compiled)
        except DivergedError:
            return


def follow(ranks: Ranks) -> None:
    """Do this rank's share of all that rank 0 assigns, until it has no more."""
    while (message := ranks.tell()) is not None:
        Assignment(**json.loads(message)).do_share(ranks)
    ranks.part()


@functools.lru_cache(maxsize=1)
def _full_data(
    name: str, root: str, fingerprint: str, resolution: int, device: str, *, is_held_out: bool
) -> FullData:
    """Read the images, once for all seeds."""
    data = load_training_data(name, root)
    if data.fingerprint != fingerprint:
        raise UserError(
            f"{name} in {root} is not what rank 0 trains on (fingerprint {data.fingerprint}, "
            f"there {fingerprint}); all machines need the same images"
        )
    return FullData.prepare(data, resolution, device, is_held_out=is_held_out)
