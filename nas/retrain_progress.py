"""What a caller of `retrain` may want to hear of, and what it is given in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.formats import Exported
    from nas.full_training import Row


@dataclass(frozen=True, slots=True)
class Retrained:
    """What one seed reached.

    Attributes:
        folder: What it left.
        trial: Its number in the sister study.
        name: Of the network.
        seed: Of initial weights, order and augmentation.
        epochs: Passes over the training images; the whole schedule.
        split: "test", or "val" where that was held out.
        accuracy: On that split, in [0, 1].
        flip_accuracy: The same, logits averaged with those of the mirrored images.
        loss: Mean cross-entropy there.
        elapsed_seconds: Of training.
    """

    folder: Path
    trial: int
    name: str
    seed: int
    epochs: int
    split: str
    accuracy: float
    flip_accuracy: float
    loss: float
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class RetrainListener:
    """Who wants to hear of retraining.

    Attributes:
        on_start: With folder, seed and epochs in all, before each training.
        on_step: With (steps done, steps in all).
        on_epoch: With the row of each epoch.
        on_warning: With a line, such as a damaged checkpoint's.
        on_export: With each model that was saved in another format.
        on_failure: With a line on each training, or model in another format, that failed.
        on_end: With what a seed reached, also one that was finished before.
        on_winner: With the name of the network that was best on val, before any is tested.
    """

    on_start: Callable[[Path, int, int], None] = lambda _folder, _seed, _epochs: None
    on_step: Callable[[int, int], None] = lambda _done, _total: None
    on_epoch: Callable[[Row], None] = lambda _row: None
    on_warning: Callable[[str], None] = lambda _line: None
    on_export: Callable[[Exported], None] = lambda _exported: None
    on_failure: Callable[[str], None] = lambda _line: None
    on_end: Callable[[Retrained], None] = lambda _retrained: None
    on_winner: Callable[[str], None] = lambda _name: None
