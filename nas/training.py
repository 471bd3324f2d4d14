"""The one training loop: it yields an EpochMetrics per epoch; its caller decides what they mean."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import UserError
from nas.replayed import Replayed
from nas.training_state import ModelAverage, TrainingState

if TYPE_CHECKING:
    from nas.batches import Batches

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
    """Optimization settings: SGD with momentum under a warm-up and an anneal to zero.

    Attributes:
        epochs: Passes over the images; the whole schedule.
        peak_lr: Learning rate at the end of the warm-up.
        momentum: Of SGD.
        weight_decay: On convolution and linear weights; not on batch norm, not on biases.
        label_smoothing: Share of the target spread over all classes.
        warmup_fraction: Share of the steps with a linearly rising learning rate.
        schedule: Form of the anneal from there to exactly zero at the end.
        precision: `auto` is bfloat16 where the device computes in it, else float16 on CUDA and
            float32 on a CPU. There a proxy trial of 100k parameters takes 1.1 to 1.6 times as
            long in float32 (proxy_fidelity-cifar10-100k-16px.csv).
        is_nesterov: Whether the momentum is of Nesterov's form.
        is_decay_on_all: Whether batch norm and biases decay as well.
        ema_decay: What the running average of the model keeps of itself a step; `None`: no average.
    """

    epochs: int
    peak_lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    warmup_fraction: float = 0.0
    schedule: Schedule = "linear"
    precision: Precision = "auto"
    is_nesterov: bool = True
    is_decay_on_all: bool = False
    ema_decay: float | None = None


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


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainingConfig,
    *,
    on_step: OnStep | None = None,
    num_micro_batches: int = 1,
    state: TrainingState | None = None,
    is_compiled: bool = False,
) -> Iterator[EpochMetrics]:
    """Train `model` in place over the whole schedule, yielding after each epoch.

    Args:
        model: On the device of the batches; put in training mode and channels-last format.
        batches: Epochs of (N, C, H, W) images and (N,) labels, or this rank's share of them; then
            all ranks take part, and each ends with the same model and metrics.
        config: The schedule.
        on_step: Called after every step; what it raises stops the training.
        num_micro_batches: Parts each batch is split in, their gradients summed: less memory at the
            same learning rate. Batch norm then normalizes over parts, so results differ slightly.
        state: Of this model, to go on from, in mid-epoch too; always up to date in `on_step` and
            after each epoch.
        is_compiled: Whether the model runs through `torch.compile`: less time a step after a first
            one of tens of seconds, results other by rounding, which grows.

    Raises:
        DivergedError: The mean loss of an epoch is not finite.
    """
    device = batches.split.labels.device
    state = state or start_training(model, config, device)
    step = _Step(state, config, batches, num_micro_batches, is_compiled=is_compiled)
    num_steps = config.epochs * batches.num_steps
    for epoch in range(state.epoch, config.epochs):
        clock = time.perf_counter() - state.elapsed_seconds
        for images, labels in batches.epoch(epoch, start=state.step - epoch * batches.num_steps):
            step(images, labels, lr_at(state.step, num_steps, config))
            state.elapsed_seconds = time.perf_counter() - clock
            if on_step is not None:
                on_step(state.step, num_steps)
        loss, accuracy = means(state.totals, batches.num_images)  # the one wait for the device
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss of epoch {epoch + 1} is {loss}")
        lr, elapsed = lr_at(state.step, num_steps, config), time.perf_counter() - clock
        state.epoch, state.elapsed_seconds = epoch + 1, 0.0
        state.totals.zero_()
        yield EpochMetrics(epoch, loss, accuracy, batches.num_images, lr, elapsed)
    state.optimizer.zero_grad()  # gradients hold memory that scoring can use


def start_training(model: nn.Module, config: TrainingConfig, device: torch.device) -> TrainingState:
    """Set up the first step of a model that is on `device`."""
    model.train().to(memory_format=torch.channels_last)
    is_half = resolved_precision(device, config.precision) == "float16"
    state = TrainingState(
        model,
        make_optimizer(model, config),
        torch.amp.GradScaler(device.type, enabled=is_half),
        None if config.ema_decay is None else ModelAverage(model, config.ema_decay),
        torch.zeros(2, device=device),
    )
    if is_half:  # a first step that overflows would leave momentum as its memory was
        state.make_room([f"momentum.{name}" for name, _ in model.named_parameters()])
    return state


def means(totals: Tensor, num_images: int) -> tuple[float, float]:
    """Divide (2,) sums, of losses and of hits, by the images; waits for the device."""
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


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """Make the optimizer; only weights of two and more dimensions decay, unless all do."""
    params = list(model.parameters())
    decay, others = config.weight_decay, config.weight_decay if config.is_decay_on_all else 0.0
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": others},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=config.is_nesterov and config.momentum > 0,
        fused=True,
    )


class _Step:
    """One optimizer step of a state over a batch, in parts; replayed where that can be."""

    def __init__(
        self,
        state: TrainingState,
        config: TrainingConfig,
        batches: Batches,
        num_micro_batches: int,
        *,
        is_compiled: bool,
    ) -> None:
        self.state = state
        self.ranks = batches.ranks
        model = self.ranks.with_summed_gradients(state.model)
        if is_compiled:
            torch.compiler.reset()  # of a process it compiles eight networks, and no ninth
        self.model = torch.compile(model) if is_compiled else model
        self.label_smoothing = config.label_smoothing
        self.num_micro_batches = num_micro_batches
        self.divisor = batches.step_size / self.ranks.count  # ranks then average: in all, a mean
        self.autocast = autocast(batches.split.labels.device, config.precision)
        self.scaler = state.scaler
        self.lr: Tensor | None = None  # on the device, for a replayed step
        self.replayed: Replayed | None = None
        device = batches.split.labels.device
        # Of a scaler it was not tried; ranks wait for each other.
        if device.type == "cuda" and not state.scaler.is_enabled() and self.ranks.count == 1:
            self.lr = torch.zeros((), device=device)
            self.replayed = Replayed(device)

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> None:
        state = self.state
        if self.lr is not None:
            self.lr.fill_(lr)
        for group in state.optimizer.param_groups:
            group["lr"] = lr if self.lr is None else self.lr
        if self.replayed is None:
            self._change(images, labels)
        else:
            self.replayed(self._change, images, labels)
        state.step += 1
        if state.average is not None:
            state.average.update(state.step)

    def _change(self, images: Tensor, labels: Tensor) -> None:
        state = self.state
        state.optimizer.zero_grad(set_to_none=True)
        parts = zip(
            images.chunk(self.num_micro_batches), labels.chunk(self.num_micro_batches), strict=True
        )
        state.totals += self.ranks.sum(torch.stack([self._backward(*p) for p in parts]).sum(0))
        self.scaler.step(state.optimizer)
        self.scaler.update()
        self.ranks.average_statistics(state.model)

    def _backward(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.autocast:
            logits = self.model(images)
            loss = functional.cross_entropy(  # on CUDA autocast would leave its softmax in half
                logits.float(), labels, label_smoothing=self.label_smoothing, reduction="sum"
            )
        torch.autograd.backward(self.scaler.scale(loss / self.divisor))
        return torch.stack((loss.detach(), (logits.argmax(1) == labels).sum()))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Make the context in which the forward pass runs."""
    name = resolved_precision(device, precision)
    is_mixed = name != "float32"
    dtype = getattr(torch, name) if is_mixed else None
    return torch.autocast(device.type, dtype, enabled=is_mixed)


def resolved_precision(device: torch.device | str, precision: Precision) -> Precision:
    """Say what `auto` is on a device."""
    if precision != "auto":
        return precision
    if torch.device(device).type != "cuda":
        return "bfloat16" if has_bfloat16_cpu() else "float32"
    with torch.cuda.device(device):  # that one is asked, and they may be unlike
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float16"


@cache
def has_bfloat16_cpu() -> bool:
    """Tell whether the CPU multiplies bfloat16 itself; emulated, it is slower than float32."""
    find: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return any(find().get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def choose_device(name: str) -> str:
    """Resolve `auto` to CUDA where there is one.

    Raises:
        UserError: Neither `auto`, `cpu` nor `cuda`, or no CUDA here.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device is auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu or auto")
    return "cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda"
