"""Retraining: one network by one recipe, a seed at a time: training, final score, record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas.assignment import Assignment
from nas.checkpoint import Checkpoints
from nas.data import fingerprint, load_test_data
from nas.distributed import Ranks, is_lost_rank
from nas.errors import UserError, brief
from nas.evaluation import evaluate
from nas.failures import fail_reason
from nas.files import only_here
from nas.formats import export
from nas.full_training import FullData, Listener, train_in_full
from nas.provenance import provenance
from nas.retrain_progress import Retrained
from nas.retrain_record import RetrainRecord
from nas.saved_model import WEIGHTS, Classifier
from nas.sisters import find_begun, find_finished
from nas.split import resize
from nas.training import DivergedError, resolved_precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from torch import Tensor

    from nas.data import TrainingData
    from nas.full_training import Row, Trained
    from nas.recipe import RetrainConfig
    from nas.retrain_progress import RetrainListener
    from nas.retrain_record import Network
    from nas.split import Split
    from nas.training import Precision


NUM_EXAMPLES = 32
MEASURED = ("accuracy", "flip_accuracy", "loss", "elapsed_seconds")


@dataclass(frozen=True)
class Retraining:
    """Trains networks by one recipe on one data set and records them in one sister study.

    Attributes:
        data: The training images.
        data_root: Where the test images are.
        test_fingerprint: What a folder's test images must have; `None` of other data sets.
        config: The recipe.
        recipe: Its name.
        is_held_out: Whether val is kept out of training, and scored in place of test.
        device: As torch writes it.
        folder: Of the study: `studies/<study>`.
        sister: Where trials are recorded.
        source: The study of the source trials, or `None`.
        keeps_checkpoints: Whether they stay.
        checkpoint_seconds: Between checkpoints.
        listener: Whom to tell.
        ranks: The processes of each training; this is the one that leads.
        is_compiled: As in `train`.
        formats: Of `nas.formats.FORMATS`, in which each model is saved as well.
    """

    data: TrainingData
    data_root: Path
    test_fingerprint: str | None
    config: RetrainConfig
    recipe: str
    is_held_out: bool
    device: str
    folder: Path
    sister: Study
    source: Study | None
    keeps_checkpoints: bool
    checkpoint_seconds: float
    listener: RetrainListener
    ranks: Ranks
    is_compiled: bool
    formats: tuple[str, ...]

    @property
    def split(self) -> str:
        """Name the split that is scored."""
        return "val" if self.is_held_out else "test"

    @cached_property
    def full_data(self) -> FullData:
        """The images on the device, prepared once for all seeds."""
        return FullData.prepare(
            self.data, self.config.resolution, self.device, is_held_out=self.is_held_out
        )

    def folder_of(self, name: str, seed: int) -> Path:
        """Give the folder of a seed of the network of this name."""
        recipe = f"{self.recipe}-holdout" if self.is_held_out else self.recipe
        return self.folder / name / recipe / f"seed-{seed}"

    def identity(self, network: Network, seed: int) -> dict[str, Any]:
        """Give what must be equal for a trial or a checkpoint to be continued, flat.

        A folder of images may be moved: its images have a fingerprint.
        """
        is_folder = self.data.name.startswith("folder:")
        return {
            "arch_id": network.arch.arch_id,
            "recipe": self.recipe,
            "recipe_settings": self.config.model_dump_json(),
            "seed": seed,
            "split": self.split,
            **({} if is_folder else {"data": self.data.name}),
            "data_fingerprint": self.data.fingerprint,
        }

    def run(self, network: Network, seed: int) -> Retrained:
        """Train one seed, score it once at the end, and record it; what is finished stays.

        Raises:
            FailedTrainingError: It diverged or had too little memory.
            UserError: It cannot be trained, and why.
        """
        if self.config.batch_size < self.ranks.count:
            raise UserError(
                f"a batch of {self.config.batch_size} cannot be shared by {self.ranks.count} "
                "processes; raise --batch-size or start fewer"
            )
        begun = find_begun(self.sister, self.identity(network, seed))
        # The same architecture may have been begun by another name; its files lie there.
        name = network.name if begun is None else begun.user_attrs["network"]
        folder = self.folder_of(name, seed)
        with only_here(folder):
            found = find_finished(self.sister, self.identity(network, seed))
            record = self._record(network, seed, folder)
            checkpoints = Checkpoints(
                folder / "checkpoints",
                record.identity,
                self.keeps_checkpoints,
                self.checkpoint_seconds,
                self._made_with(seed),
            )
            if found is not None:
                retrained = self._finished_before(found, network, folder)
            else:
                self.listener.on_start(folder, seed, self.config.epochs)
                retrained = self._run(network, seed, record, checkpoints)
            # Of one finished before too: by another name, or killed right after its record.
            checkpoints.remove()
            record.write_note()
        self.listener.on_end(retrained)
        return retrained

    def export(self, retrained: Retrained) -> None:
        """Save the model of a finished training in the other formats.

        Raises:
            UserError: One of them is not the model, or another process has the folder.
        """
        with only_here(retrained.folder):
            for exported in export(retrained.folder, self.formats, self._example_images()):
                self.listener.on_export(exported)

    def _record(self, network: Network, seed: int, folder: Path) -> RetrainRecord:
        return RetrainRecord(
            folder,
            self.sister,
            self.source,
            network,
            self.identity(network, seed),
            self.data.name,
            epochs=self.config.epochs,
            curve="val_accuracy" if self.is_held_out else "train_accuracy",
        )

    def _run(
        self, network: Network, seed: int, record: RetrainRecord, checkpoints: Checkpoints
    ) -> Retrained:
        record.refuse_another()
        try:
            trained = self._train(network, seed, checkpoints, record)
            measured = self._score(trained)
        except DivergedError as error:
            failed = record.fail("diverged", error)
            checkpoints.remove()
            raise failed from None
        except (RuntimeError, MemoryError) as error:
            if is_lost_rank(error):
                raise UserError(
                    "a process of this training is gone; the same command goes on from the last "
                    f"checkpoint ({brief(error)})"
                ) from None
            reason = fail_reason(error)
            if reason is None:
                raise
            failed = record.fail(reason, error)
            # Other ranks are still in the midst of it: nothing else can be trained with them.
            raise (failed if self.ranks.count == 1 else UserError(str(failed))) from None
        made_with = self._made_with(seed)
        if trained.made_before:
            made_with["before"] = trained.made_before
        number = record.finish(
            self._classifier(network, trained), trained.rows, measured, made_with
        )
        return self._retrained(record.folder, number, network, seed, measured)

    def _retrained(
        self, folder: Path, number: int, network: Network, seed: int, measured: Mapping[str, Any]
    ) -> Retrained:
        epochs = self.config.epochs
        return Retrained(folder, number, network.name, seed, epochs, self.split, **measured)

    def _made_with(self, seed: int) -> dict[str, Any]:
        return provenance(
            self.device,
            precision=self._precision,
            seed=seed,
            processes=self.ranks.count,
            compiled=self.is_compiled,
        )

    @property
    def _precision(self) -> Precision:
        return resolved_precision(self.device, self.config.precision)

    def _train(
        self, network: Network, seed: int, checkpoints: Checkpoints, record: RetrainRecord
    ) -> Trained:
        def on_rows(rows: list[Row]) -> None:
            record.write_rows(rows)
            if rows:
                self.listener.on_epoch(rows[-1])

        config = self.config.model_copy(update={"precision": self._precision})  # of all ranks
        assignment = Assignment(
            architecture=network.arch.to_json(),
            recipe=config.model_dump_json(),
            seed=seed,
            data=self.data.name,
            data_root=str(self.data_root),
            data_fingerprint=self.data.fingerprint,
            is_held_out=self.is_held_out,
            device=self.device,
            is_compiled=self.is_compiled,
        )
        self.ranks.tell(assignment.to_json())
        return train_in_full(
            network.arch,
            self.full_data,
            config,
            seed,
            checkpoints,
            listener=Listener(self.listener.on_step, on_rows, self.listener.on_warning),
            ranks=self.ranks,
            is_compiled=self.is_compiled,
        )

    def _classifier(self, network: Network, trained: Trained) -> Classifier:
        return Classifier(
            trained.model,
            self.full_data.normalization,
            architecture=network.arch,
            class_names=self.data.class_names,
            resolution=self.config.resolution,
            image_size=self.data.image_size,
        )

    def _score(self, trained: Trained) -> dict[str, float]:
        """Score val or test, plain and flip-averaged; the only place that reads test."""
        split = self._scored_split()
        plain, flipped = (
            evaluate(
                trained.model,
                split,
                self.full_data.normalization,
                flip_average=is_averaged,
                precision="float32",
            )
            for is_averaged in (False, True)
        )
        if not math.isfinite(plain.loss):
            raise DivergedError(f"the final loss is {plain.loss}")
        return {
            "accuracy": plain.accuracy,
            "flip_accuracy": flipped.accuracy,
            "loss": plain.loss,
            "elapsed_seconds": round(trained.elapsed_seconds, 3),
        }

    def _example_images(self) -> Tensor:
        """Give some training images to compare exported models on; none of val or test."""
        images = self.data.train.images[:NUM_EXAMPLES]
        return resize(images, self.config.resolution)

    def _scored_split(self) -> Split:
        if self.full_data.val is not None:
            return self.full_data.val
        test = load_test_data(self.data.name, self.data_root)
        if self.test_fingerprint not in (None, fingerprint(test)):
            raise UserError(
                f"the images of {self.data.name} have changed while it was trained, and its test "
                "images are others; with the images as they were the same command goes on"
            )
        return test.resized(self.config.resolution).to(self.device)

    def _finished_before(self, found: FrozenTrial, network: Network, folder: Path) -> Retrained:
        if not (folder / WEIGHTS).is_file():
            self.listener.on_warning(
                f"{folder / WEIGHTS} is gone; trial {found.number} of {self.sister.study_name} "
                "still has the result. To train it once more, beside that, name the recipe "
                "otherwise: --recipe FILE.toml"
            )
        measured = {name: found.user_attrs[name] for name in MEASURED}
        seed = found.user_attrs["seed"]
        return self._retrained(folder, found.number, network, seed, measured)
