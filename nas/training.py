"""The one training loop: it yields an EpochMetrics per epoch; its caller decides what they mean."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from nas.batches import Batches, Normalization
    from nas.data import Split

Schedule = Literal["linear", "cosine"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
OnStep = Callable[[int, int], None]  # (steps done, steps in all)

ANNEALS: dict[Schedule, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Optimization settings: SGD with Nesterov momentum under a warm-up and an anneal to zero.

    Attributes:
        epochs: Passes over the images; the whole schedule.
        peak_lr: Learning rate at the end of the warm-up.
        momentum: Of SGD, Nesterov's form.
        weight_decay: On convolution and linear weights; not on batch norm, not on biases.
        label_smoothing: Share of the target spread over all classes.
        warmup_fraction: Share of the steps with a linearly rising learning rate.
        schedule: Form of the anneal from there to exactly zero at the end.
        precision: `auto` is bfloat16 (float16 before Ampere) on CUDA, float32 elsewhere.
    """

    epochs: int
    peak_lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_fraction: float = 0.0
    schedule: Schedule = "linear"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one epoch of training measured, on the augmented batches as they were trained on.

    Attributes:
        epoch: From 0.
        train_loss: Mean over the images, with label smoothing.
        train_accuracy: In [0, 1].
        num_images: Images trained on.
        lr: Learning rate that was reached; exactly 0 after the last epoch.
        elapsed_seconds: Of this epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    num_images: int
    lr: float
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on a split: accuracy in [0, 1], mean cross-entropy without smoothing."""

    accuracy: float
    loss: float


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainingConfig,
    *,
    on_step: OnStep | None = None,
    num_micro_batches: int = 1,
) -> Iterator[EpochMetrics]:
    """Train `model` in place over the whole schedule, yielding after each epoch.

    Args:
        model: On the device of the batches; put in training mode and channels-last format.
        batches: Epochs of (N, C, H, W) images and (N,) labels.
        config: The schedule.
        on_step: Called after every step; what it raises stops the training.
        num_micro_batches: Parts each batch is split in, their gradients summed: less memory at the
            same learning rate. Batch norm then normalizes over parts, so results differ slightly.

    Raises:
        DivergedError: The mean loss of an epoch is not finite.
    """
    model.train().to(memory_format=torch.channels_last)
    num_steps = config.epochs * batches.num_steps
    optimizer = make_optimizer(model, config)
    step = _Step(model, optimizer, config, num_micro_batches, batches.split.labels.device)
    done = 0
    for epoch in range(config.epochs):
        start = time.perf_counter()
        totals = torch.zeros(2, device=batches.split.labels.device)
        for images, labels in batches.epoch(epoch):
            _set_lr(optimizer, lr_at(done, num_steps, config))
            totals += step(images, labels)
            done += 1
            if on_step is not None:
                on_step(done, num_steps)
        loss, accuracy = _means(totals, batches.num_images)  # the one wait for the device
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss of epoch {epoch + 1} is {loss}")
        lr, elapsed = lr_at(done, num_steps, config), time.perf_counter() - start
        yield EpochMetrics(epoch, loss, accuracy, batches.num_images, lr, elapsed)


def _means(totals: Tensor, num_images: int) -> tuple[float, float]:
    loss, num_correct = totals.tolist()
    return loss / num_images, num_correct / num_images


def lr_at(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Give the learning rate of step `step`, from 0; that of `num_steps`, the end, is exactly 0."""
    if step >= num_steps:
        return 0.0
    num_warmup = min(round(config.warmup_fraction * num_steps), num_steps - 1)
    if step < num_warmup:
        return config.peak_lr * (step + 1) / (num_warmup + 1)
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return config.peak_lr * ANNEALS[config.schedule](progress)


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """Make the optimizer; only weights of two and more dimensions decay."""
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=True,
    )


class _Step:
    """One optimizer step over a batch, in parts; gives (2,): summed loss, number correct."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        num_micro_batches: int,
        device: torch.device,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.label_smoothing = config.label_smoothing
        self.num_micro_batches = num_micro_batches
        self.autocast = autocast(device, config.precision)
        is_half = autocast_dtype(device, config.precision) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_half)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        parts = zip(
            images.chunk(self.num_micro_batches), labels.chunk(self.num_micro_batches), strict=True
        )
        totals = torch.stack([self._backward(*part, len(labels)) for part in parts]).sum(0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return totals

    def _backward(self, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        with self.autocast:
            logits = self.model(images)
            loss = functional.cross_entropy(
                logits, labels, label_smoothing=self.label_smoothing, reduction="sum"
            )
        torch.autograd.backward(self.scaler.scale(loss / batch_size))
        return torch.stack((loss.detach(), (logits.argmax(1) == labels).sum()))


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    normalization: Normalization,
    *,
    batch_size: int = 500,
    flip_average: bool = True,
    precision: Precision = "auto",
) -> Evaluation:
    """Measure a model on every image of a split; its training mode is restored.

    Args:
        model: On the device of the split.
        split: The images.
        normalization: The one of training.
        batch_size: Images at a time.
        flip_average: Average the logits with those of the mirrored images.
        precision: As in `TrainingConfig`.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=split.labels.device)
    with autocast(split.labels.device, precision):
        for images, labels in zip(
            *(torch.split(t, batch_size) for t in (split.images, split.labels)), strict=True
        ):
            logits = _logits(model, normalization(images), flip_average=flip_average)
            losses = functional.cross_entropy(logits, labels, reduction="sum")
            totals += torch.stack((losses, (logits.argmax(1) == labels).sum()))
    model.train(was_training)
    loss, accuracy = _means(totals, len(split))
    return Evaluation(accuracy, loss)


def _logits(model: nn.Module, images: Tensor, *, flip_average: bool) -> Tensor:
    logits: Tensor = model(images).float()
    return (logits + model(images.flip(-1)).float()) / 2 if flip_average else logits


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Make the context in which the forward pass runs."""
    dtype = autocast_dtype(device, precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Resolve `auto`; `None` is plain float32."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on CUDA or the CPU.

    The CPU allocator raises a bare RuntimeError; its words are "DefaultCPUAllocator: can't allocate
    memory" on Linux and "not enough memory" elsewhere (c10/core/impl/alloc_cpu.cpp).
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
