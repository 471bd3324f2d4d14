"""Images per second of full training, against the loop users have today and against the ceiling.

    python benchmarks/retrain_throughput.py [--dataset cifar10 --data DIR]
                                            [--model NAME] [--out FILE.csv]

For each recipe, these loops train the same network on the same images, with the recipe's batch
size and optimizer, turn by turn in one run, so that what else the machine does meets all alike:

- `nas`: the loop of retrain.py: images on the device, augmented there in batches;
- `dataloader`: a data set of PIL images, torchvision's transforms, a DataLoader with worker
  processes, a plain PyTorch loop;
- `resident`: the loop of retrain.py on one normalized batch that never changes: the ceiling;
- with `--compile`, `compiled`: the loop of `retrain.py --compile`;
- with `--no-dataloader`, not the second.

A round is an epoch of `--steps` steps of each; what is reported is the median over the rounds of
images per second, and of the ratio to the ceiling of the same round.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from measured import write_rows
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.complexity import count
from nas.data import load_training_data
from nas.distributed import ALONE, Ranks
from nas.failures import is_of_compiler
from nas.full_training import FullData
from nas.model import build_model
from nas.presets import hand_made_network, read_architecture
from nas.provenance import provenance
from nas.recipe import RetrainConfig
from nas.training import (
    autocast,
    choose_device,
    make_optimizer,
    start_training,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from torch import Tensor

    from nas.architecture import Architecture
    from nas.batches import Batches
    from nas.split import Split

PLAIN = "dataloader"
WINNER = Path(__file__).parent.parent / "studies" / "cifar10-100k" / "trial-29.json"


class PilImages(Dataset):  # type: ignore[type-arg]
    """Images as torchvision's data sets give them: PIL, transformed one by one."""

    def __init__(self, split: Split, transform: Callable[[Image], Tensor]) -> None:
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Transform one image."""
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def torchvision_transform(config: RetrainConfig, data: FullData) -> Callable[[Image], Tensor]:
    """Put together torchvision's own version of a recipe's augmentations."""
    statistics = data.normalization.mean, data.normalization.std
    mean, std = (values.flatten().div(255).tolist() for values in statistics)
    own = {
        "crop": transforms.RandomCrop(config.resolution, 4),
        "translate": transforms.RandomCrop(config.resolution, 4, padding_mode="reflect"),
        "flip": transforms.RandomHorizontalFlip(),
        "perspective": transforms.RandomPerspective(),
        "autoaugment": transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
        "trivialaugment": transforms.TrivialAugmentWide(),
    }
    on_images = [own[name] for name in config.augmentations if name in own]
    erasing = [transforms.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))]
    on_tensors = erasing if "cutout" in config.augmentations else []
    to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    return transforms.Compose([*on_images, *to_tensor, *on_tensors])


@dataclass(frozen=True, eq=False)
class ResidentBatch:
    """In place of `Batches`: one normalized batch, `num_steps` times an epoch."""

    split: Split
    images: Tensor
    labels: Tensor
    num_steps: int
    ranks: Ranks = ALONE

    @property
    def step_size(self) -> int:
        """Images a step."""
        return len(self.labels)

    @property
    def num_images(self) -> int:
        """Images an epoch."""
        return self.num_steps * self.step_size

    def epoch(self, _epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch."""
        for _ in range(start, self.num_steps):
            yield self.images, self.labels


Epochs = Iterator[int]  # each `next` trains one epoch and gives the images it took


def nas_epochs(
    arch: Architecture, batches: Batches, config: RetrainConfig, *, is_compiled: bool = False
) -> Epochs:
    """Train as retrain.py does."""
    device = batches.split.labels.device
    model = build_model(arch, device=device)
    state = start_training(model, config.training, device)
    for metrics in train(model, batches, config.training, state=state, is_compiled=is_compiled):
        yield metrics.num_images


def dataloader_epochs(
    arch: Architecture, data: FullData, config: RetrainConfig, num_workers: int
) -> Epochs:
    """Train as a plain PyTorch script does, with the recipe's optimizer and precision."""
    device = data.train.labels.device
    model = build_model(arch, device=device).train().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config.training)
    images = PilImages(data.train.to("cpu"), torchvision_transform(config, data))
    loader = DataLoader(
        images,
        config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
    )
    while True:
        for batch, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            inputs = batch.to(device, non_blocking=True, memory_format=torch.channels_last)
            with autocast(device, config.precision):
                loss = functional.cross_entropy(
                    model(inputs),
                    labels.to(device, non_blocking=True),
                    label_smoothing=config.label_smoothing,
                )
            loss.backward()
            optimizer.step()
        yield len(loader) * config.batch_size


def loops(
    arch: Architecture,
    data: FullData,
    config: RetrainConfig,
    num_workers: int,
    *,
    is_compiled: bool,
) -> dict[str, Epochs]:
    """Give the loops by name, none started."""
    batches = data.batches(config, seed=0)
    images, labels = next(batches.epoch(0))
    resident = ResidentBatch(data.train, images, labels, batches.num_steps)
    compiled = nas_epochs(arch, batches, config, is_compiled=True)
    return {
        **({"compiled": compiled} if is_compiled else {}),
        "resident": nas_epochs(arch, resident, config),  # type: ignore[arg-type]
        "nas": nas_epochs(arch, batches, config),
        PLAIN: dataloader_epochs(arch, data, config, num_workers),
    }


def speed(epochs: Epochs, device: str) -> float:
    """Measure one epoch in images per second."""
    start = time.perf_counter()
    num_images = next(epochs)
    if device == "cuda":
        torch.cuda.synchronize()
    return num_images / (time.perf_counter() - start)


def measure(
    arch: Architecture, data: FullData, config: RetrainConfig, arguments: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """Run the rounds of one recipe; yields a row for each loop."""
    running = loops(arch, data, config, arguments.workers, is_compiled=arguments.compile)
    if not arguments.dataloader:
        del running[PLAIN]
    for name, epochs in list(running.items()):
        try:
            speed(epochs, arguments.device)  # not counted: workers start, memory is allocated
        except RuntimeError as error:  # of workers too, as with little shared memory
            if name != PLAIN and not is_of_compiler(error):
                raise
            print(f"{name} left out: {type(error).__name__}: {str(error)[:200]}", flush=True)
            del running[name]
    rounds = [
        {name: speed(epochs, arguments.device) for name, epochs in running.items()}
        for _ in range(arguments.rounds)
    ]
    for name in running:
        ratios = sorted(each[name] / each["resident"] for each in rounds)
        yield {
            "loop": name,
            "images_per_second": round(median(each[name] for each in rounds), 1),
            "of_ceiling": round(median(ratios), 4),
            "of_ceiling_least": round(ratios[0], 4),
            "of_ceiling_most": round(ratios[-1], 4),
        }


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description="Images per second of full training.")
    parser.add_argument("--dataset", default="synthetic", help="default: synthetic")
    parser.add_argument("--data", type=Path, default=Path("studies/data"))
    parser.add_argument("--architecture", type=Path, default=WINNER, metavar="FILE.json")
    parser.add_argument("--model", help="a hand-made network instead: ResNet26_97")
    parser.add_argument("--compile", action="store_true", help="time retrain.py --compile as well")
    parser.add_argument("--dataloader", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--recipes", nargs="+", default=["strong", "seed"])
    parser.add_argument("--steps", type=int, default=20, help="of each loop a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="CSV to write")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure all recipes, print and write the rows."""
    arguments = parsed(argv)
    arguments.device = choose_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.model is not None:
        arch = hand_made_network(arguments.model)
    else:
        arch = read_architecture(arguments.architecture)
    data = load_training_data(arguments.dataset, arguments.data)
    made_with = {
        "num_params": count(arch).num_params,
        "num_macs": count(arch).num_macs,
        "dataset": arguments.dataset,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "workers": arguments.workers,
        "command": shlex.join(["python", "benchmarks/retrain_throughput.py", *sys.argv[1:]]),
        **{name: value for name, value in provenance(arguments.device).items() if name != "host"},
    }
    rows = []
    for recipe in arguments.recipes:
        _, config = RetrainConfig.load(recipe, epochs=100_000)
        full = FullData.prepare(data, config.resolution, arguments.device, is_held_out=False)
        few = torch.arange(arguments.steps * config.batch_size)
        full = replace(full, train=full.train.select(few.to(full.train.labels.device)))
        for row in measure(arch, full, config, arguments):
            rows.append({"recipe": recipe, **row, **made_with})
            print(
                f"{recipe:8} {row['loop']:10} {row['images_per_second']:>9,} images/s, "
                f"{row['of_ceiling']:.1%} of the ceiling",
                flush=True,
            )
        if arguments.out:  # after each recipe, for time may be up before the next one's end
            write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
