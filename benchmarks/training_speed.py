"""Where the seconds of a proxy trial go, and how near the loop is to what its steps alone cost.

    python benchmarks/training_speed.py [--data DIR] [--device cpu] [--sizes 5000000] [--out FILE]

For three sizes of the hand-made shape, a few steps of the `quick` schedule on CPUs and of
`standard` on CUDA, with a ninth as many validation images as training images:

- `trial`: `run_proxy`, everything included;
- its parts, each alone: `data` (augmented, normalized batches), `forward and backward` on one
  resident batch, `optimizer`, `validation`; `bookkeeping` is what the trial takes beyond them,
  building the network among it: few steps make it look large;
- `resident batch`: the same steps on one batch that is there already, validation as in the trial:
  the ceiling;
- `DataLoader`: the loop that is usually written: a `DataLoader` over images that are augmented one
  by one, the same model, schedule and validation.

All are measured turn by turn, so that what else the machine does meets all alike. On a CPU the
seconds are those of the process's CPU on one thread, on CUDA those of the clock, with the device
idle before and after. There steps on the resident batch are replayed, as those of the trial are.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from measured import machine, write_rows
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nas.budget import Budget
from nas.complexity import count
from nas.data import load_training_data
from nas.evaluation import evaluate
from nas.model import build_model
from nas.presets import hand_made_network
from nas.proxy import ProxyConfig, ProxyData, run_proxy
from nas.replayed import Replayed
from nas.training import autocast, lr_at, make_optimizer, start_training

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.architecture import Architecture
    from nas.batches import Batches
    from nas.replayed import Step
    from nas.split import Split

SIZES = {"cpu": (30_000, 100_000, 1_000_000), "cuda": (250_000, 1_000_000, 5_000_000)}
PROXIES = {"cpu": "quick", "cuda": "standard"}
STEPS = {"cpu": 8, "cuda": 87}  # 87 batches of 512 are an epoch of CIFAR-10's 45,000
PLAIN = "DataLoader"
PARTS = ("data", "forward and backward", "optimizer", "validation")


@dataclass(frozen=True)
class Case:
    """One network and the steps it is trained for."""

    arch: Architecture
    data: ProxyData
    config: ProxyConfig

    @property
    def batches(self) -> Batches:
        """The batches of the proxy run."""
        return self.data.batches(self.config)

    @property
    def ways(self) -> dict[str, Callable[[], object]]:
        """What is timed; preparation is done before the clock starts."""
        resident = _Resident(self)
        return {
            "trial": lambda: run_proxy(self.arch, self.data, self.config),
            "data": lambda: [None for _ in self.batches.epoch(0)],
            "forward and backward": resident.forward_backward,
            "optimizer": resident.optimize,
            "validation": resident.validate,
            "resident batch": resident.train,
            PLAIN: _Plain(self).train,
        }


class _Resident:
    """Steps on one batch that is there already, at a learning rate of zero."""

    def __init__(self, case: Case) -> None:
        self.case, device = case, case.data.device
        self.images, self.labels = next(case.batches.epoch(0))
        model = build_model(case.arch, device=device)
        self.state = start_training(model, case.config.training, device)
        for group in self.state.optimizer.param_groups:
            group["lr"] = 0.0
        self.autocast = autocast(device, case.config.precision)
        self._backward(self.images, self.labels)
        self._run_backward = self._runner(device)
        self._run_optimizer = self._runner(device)
        self._run_both = self._runner(device)

    def forward_backward(self) -> None:
        """All steps but the optimizer's part."""
        for _ in range(self.case.batches.num_steps):
            self._run_backward(self._backward, self.images, self.labels)

    def optimize(self) -> None:
        """The optimizer's part of all steps."""
        for _ in range(self.case.batches.num_steps):
            self._run_optimizer(self._optimize, self.images, self.labels)

    def validate(self) -> None:
        """Score on val, as the trial does."""
        data = self.case.data
        precision = self.case.config.precision
        evaluate(self.state.model, data.val, data.normalization, precision=precision)

    def train(self) -> None:
        """All steps, then the score."""
        for _ in range(self.case.batches.num_steps):
            self._run_both(self._both, self.images, self.labels)
        self.validate()

    @staticmethod
    def _runner(device: torch.device) -> Callable[[Step, Tensor, Tensor], None]:
        return Replayed(device) if device.type == "cuda" else _called

    def _both(self, images: Tensor, labels: Tensor) -> None:
        self._backward(images, labels)
        self._optimize(images, labels)

    def _optimize(self, _images: Tensor, _labels: Tensor) -> None:
        self.state.optimizer.step()

    def _backward(self, images: Tensor, labels: Tensor) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            logits = self.state.model(images)
            smoothing = self.case.config.label_smoothing
            loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]


def _called(step: Step, images: Tensor, labels: Tensor) -> None:
    step(images, labels)


class _Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, each changed by itself."""

    def __init__(self, split: Split, transform: v2.Compose) -> None:
        self.images, self.labels, self.transform = split.images.cpu(), split.labels.cpu(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class _Plain:
    """The loop that is usually written."""

    def __init__(self, case: Case) -> None:
        self.case, data, resolution = case, case.data, case.data.resolution
        device = data.device
        moments = (data.normalization.mean, data.normalization.std)
        mean, std = ((each / 255).flatten().tolist() for each in moments)
        normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        padding = round(case.config.translate * resolution / 32)
        crop = v2.RandomCrop(resolution, padding=padding, padding_mode="reflect")
        augment = v2.Compose([v2.RandomHorizontalFlip(), crop, *normalize])
        batch_size = case.config.batch_size
        workers = 0 if device.type == "cpu" else 4
        self.train_loader = DataLoader(
            _Images(data.train, augment),
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=workers > 0,
        )
        self.val_loader = DataLoader(_Images(data.val, v2.Compose(normalize)), batch_size)
        self.model = build_model(case.arch, device=device)
        self.optimizer = make_optimizer(self.model, case.config.training)
        self.device = device

    def train(self) -> None:
        """All steps, then the score."""
        config = self.case.config
        self.model.train()
        for step, (images, labels) in enumerate(self.train_loader):
            for group in self.optimizer.param_groups:
                group["lr"] = lr_at(step, len(self.train_loader), config.training)
            self.optimizer.zero_grad()
            images, labels = images.to(self.device), labels.to(self.device)  # noqa: PLW2901
            with autocast(self.device, config.precision):
                loss = functional.cross_entropy(
                    self.model(images), labels, label_smoothing=config.label_smoothing
                )
            loss.backward()
            self.optimizer.step()
        self.model.eval()
        with torch.no_grad(), autocast(self.device, config.precision):
            for images, labels in self.val_loader:
                images, labels = images.to(self.device), labels.to(self.device)  # noqa: PLW2901
                logits = self.model(images) + self.model(images.flip(-1))
                (logits.argmax(1) == labels).sum().item()


def seconds_of(way: Callable[[], object], device: str) -> float:
    """Time one call."""
    if device == "cpu":
        started = time.process_time()
        way()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    way()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(case: Case, device: str, repeats: int) -> dict[str, float]:
    """Give the median seconds of every way, measured turn by turn, and what follows from them.

    The usual loop is left out where its workers cannot run, as with little shared memory.
    """
    ways = case.ways
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in list(ways.items()):
            try:
                taken = seconds_of(way, device)
            except RuntimeError as error:
                if name != PLAIN:
                    raise
                print(f"{name} left out: {error}", flush=True)
                del ways[name]
                continue
            if turn:  # the first one warms up
                seconds[name].append(taken)
    medians = {name: median(seconds[name]) for name in ways}
    medians["bookkeeping"] = medians["trial"] - sum(medians[name] for name in PARTS)
    return medians


def cases(
    dataset: str, root: str, device: str, sizes: Sequence[int], steps: int
) -> dict[int, Case]:
    """Prepare the networks and as many images as the steps take."""
    config = ProxyConfig.load(PROXIES[device], max(sizes))[1].model_copy(update={"epochs": 1})
    whole = load_training_data(dataset, root)
    data = ProxyData.prepare(whole, config.resolution, device)
    num_train = min(steps * config.batch_size, len(data.train))
    train, val = (
        split.select(torch.arange(number, device=data.device))
        for split, number in ((data.train, num_train), (data.val, num_train // 9))
    )
    few = ProxyData(train, val, data.normalization, data.num_classes)
    shape = hand_made_network("ResNet26_97")
    return {size: Case(scaled(shape, size), few, config) for size in sizes}


def scaled(shape: Architecture, max_params: int) -> Architecture:
    """Scale the widths to 90-100 % of the budget."""
    factors = (k / 1000 for k in range(1000, 0, -1))
    return next(a for a in map(shape.scaled, factors) if Budget(max_params).admits(a))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", default="studies/data")
    parser.add_argument("--sizes", type=int, nargs="+", help="most parameters of each network")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = arguments.device
    if device == "cpu":
        torch.set_num_threads(1)
    steps = arguments.steps or STEPS[device]
    default = Path(__file__).parent / "results" / f"training_speed-{device}.csv"
    rows = []
    sizes = arguments.sizes or SIZES[device]
    prepared = cases(arguments.dataset, arguments.data, device, sizes, steps)
    for size, case in prepared.items():
        medians = measure(case, device, arguments.repeats)
        num_params = count(case.arch).num_params
        for name, seconds in medians.items():
            share = seconds / medians["trial"]
            rows.append(
                {
                    "num_params": num_params,
                    "what": name,
                    "seconds": f"{seconds:.4f}",
                    "share_of_trial": f"{share:.3f}",
                }
            )
            print(f"{num_params:>9,} {name:22} {seconds:9.3f} s {share:7.1%}", flush=True)
        print(f"{size:>9,} of the ceiling {medians['resident batch'] / medians['trial']:.1%}")
        # At once: the next size takes longer.
        write_rows(arguments.out or default, rows, machine(device) | {"steps": steps})


if __name__ == "__main__":
    main()
