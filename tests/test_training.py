from __future__ import annotations

import dataclasses
import math
import shutil
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.batches import Batches, Normalization, RandomFlip
from nas.evaluation import evaluate
from nas.failures import is_out_of_memory
from nas.model import build_model
from nas.split import Split
from nas.training import (
    DivergedError,
    TrainingConfig,
    has_bfloat16_cpu,
    lr_at,
    make_optimizer,
    resolved_precision,
    start_training,
    train,
)


def tiny_split(num_images: int = 64, side: int = 8, seed: int = 0) -> Split:
    """Noise whose brightness tells the label, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 2
    noise = torch.randint(200, (num_images, 3, side, side), generator=generator)
    return Split((noise + 50 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def tiny_batches(batch_size: int = 16) -> Batches:
    split = tiny_split()
    return Batches(split, Normalization.of(split.images), batch_size, 0, (RandomFlip(),))


def plain_network(seed: int = 0) -> nn.Module:
    """Build a network without batch norm, so that a batch is the sum of its parts."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(0.3 * torch.randn(param.shape, generator=generator))
    return model


def resnet() -> nn.Module:
    return build_model(Architecture.of([1, 1], [4, 8], num_classes=2))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


CONFIG = TrainingConfig(
    epochs=3, peak_lr=0.1, warmup_fraction=0.25, label_smoothing=0.1, precision="float32"
)


# The schedule


def test_linear_schedule_rises_and_falls_by_exact_steps() -> None:
    config = TrainingConfig(epochs=1, peak_lr=8.0, warmup_fraction=0.2)
    rates = [lr_at(step, 10, config) for step in range(11)]
    assert rates == [8 / 3, 16 / 3, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_cosine_schedule_halves_at_half_time_and_ends_at_exactly_zero() -> None:
    config = TrainingConfig(epochs=1, peak_lr=2.0, schedule="cosine")
    assert lr_at(0, 100, config) == 2.0
    assert lr_at(50, 100, config) == pytest.approx(1.0, rel=1e-15)
    assert lr_at(25, 100, config) == pytest.approx(1 + math.sqrt(0.5), rel=1e-15)
    assert lr_at(100, 100, config) == 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_every_step_learns_and_the_end_is_zero(
    schedule: str, warmup_fraction: float, num_steps: int
) -> None:
    config = TrainingConfig(
        epochs=1, peak_lr=0.5, warmup_fraction=warmup_fraction, schedule=schedule
    )
    rates = [lr_at(step, num_steps, config) for step in range(num_steps + 1)]
    assert all(0 < rate <= 0.5 for rate in rates[:-1])
    assert max(rates) == 0.5
    assert rates[-1] == 0.0


def test_metrics_give_the_rate_at_the_end_of_each_epoch() -> None:
    config = TrainingConfig(epochs=4, peak_lr=8.0)
    rates = [metrics.lr for metrics in train(plain_network(), tiny_batches(), config)]
    assert rates == [6.0, 4.0, 2.0, 0.0]


def test_weight_decay_spares_batch_norm_and_biases() -> None:
    model = resnet()
    decay_of = {
        id(param): group["weight_decay"]
        for group in make_optimizer(model, CONFIG).param_groups
        for param in group["params"]
    }
    decayed = [name for name, param in model.named_parameters() if decay_of[id(param)] > 0]
    expected = [name for name, param in model.named_parameters() if param.ndim > 1]
    assert decayed == expected
    assert len(decay_of) == len(list(model.parameters()))


# The loop


def test_training_equals_plain_sgd_written_out() -> None:
    config = TrainingConfig(epochs=2, peak_lr=0.1, label_smoothing=0.1, precision="float32")
    model, twin, batches = plain_network(), plain_network(), tiny_batches()
    list(train(model, batches, config))
    momenta = [torch.zeros_like(param) for param in twin.parameters()]
    done = 0
    for epoch in range(2):
        for images, labels in batches.epoch(epoch):
            loss = nn.functional.cross_entropy(twin(images), labels, label_smoothing=0.1)
            gradients = torch.autograd.grad(loss, list(twin.parameters()))
            with torch.no_grad():
                for param, momentum, gradient in zip(
                    twin.parameters(), momenta, gradients, strict=True
                ):
                    decayed = gradient + (5e-4 * param if param.ndim > 1 else 0)
                    momentum.mul_(0.9).add_(decayed)
                    param.sub_(0.1 * (1 - done / 8) * (decayed + 0.9 * momentum))
            done += 1
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=1e-6)


def test_equal_runs_are_equal_to_the_last_bit() -> None:
    first, second = resnet(), resnet()
    metrics = [list(train(model, tiny_batches(), CONFIG)) for model in (first, second)]
    assert torch.equal(weights(first), weights(second))
    assert [m.train_loss for m in metrics[0]] == [m.train_loss for m in metrics[1]]


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(train(resnet(), tiny_batches(), CONFIG))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_micro_batches", [2, 3, 16, 40])
def test_micro_batches_sum_to_the_whole_batch(num_micro_batches: int) -> None:
    whole, parts = plain_network(), plain_network()
    expected = list(train(whole, tiny_batches(), CONFIG))
    found = list(train(parts, tiny_batches(), CONFIG, num_micro_batches=num_micro_batches))
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-5)
    assert [m.train_loss for m in found] == pytest.approx([m.train_loss for m in expected])


def test_epoch_metrics_count_images_and_learn() -> None:
    metrics = list(train(resnet(), tiny_batches(24), TrainingConfig(epochs=8, peak_lr=0.05)))
    assert [m.epoch for m in metrics] == list(range(8))
    assert {m.num_images for m in metrics} == {48}
    assert metrics[-1].train_loss < metrics[0].train_loss
    assert metrics[-1].train_accuracy > 0.9
    assert all(m.train_accuracy * 48 == round(m.train_accuracy * 48) for m in metrics)


def test_on_step_is_told_every_step_and_can_stop_the_training() -> None:
    class TimeIsUpError(Exception):
        pass

    told = []

    def on_step(done: int, num_steps: int) -> None:
        told.append((done, num_steps))
        if done == 6:
            raise TimeIsUpError

    epochs = train(plain_network(), tiny_batches(), CONFIG, on_step=on_step)
    assert next(epochs).epoch == 0
    with pytest.raises(TimeIsUpError):
        next(epochs)
    assert told == [(step, 12) for step in range(1, 7)]


def test_loss_that_is_no_number_ends_the_training() -> None:
    config = TrainingConfig(epochs=5, peak_lr=1e30)
    epochs: list[int] = []
    with pytest.raises(DivergedError, match=r"training loss of epoch 1 is (nan|inf)"):
        epochs.extend(metrics.epoch for metrics in train(resnet(), tiny_batches(), config))
    assert epochs == []


def test_bfloat16_trains_to_nearly_the_same_loss() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        config = TrainingConfig(epochs=2, peak_lr=0.05, precision=precision)
        *_, last = train(resnet(), tiny_batches(), config)
        losses.append(last.train_loss)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_auto_is_bfloat16_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    has_bfloat16_cpu.cache_clear()
    try:
        assert resolved_precision("cpu", "auto") == precision
        dtypes: set[torch.dtype] = set()
        network = resnet()
        network.register_forward_hook(lambda _, __, logits: dtypes.add(logits.dtype))
        list(train(network, tiny_batches(), TrainingConfig(epochs=1, peak_lr=0.05)))
    finally:
        has_bfloat16_cpu.cache_clear()
    assert dtypes == {getattr(torch, precision)}


# Evaluation


class Brightness(nn.Module):
    """Logits (0, mean of the left half): sees left from right."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[..., : images.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack((torch.zeros_like(brightness), brightness), dim=1)


@pytest.mark.parametrize("num_images", [20, 21])
def test_accuracy_and_loss_are_those_of_one_image_at_a_time(num_images: int) -> None:
    split = tiny_split(num_images=num_images)
    normalization = Normalization.of(split.images)
    logits = torch.cat([Brightness()(normalization(image[None])) for image in split.images])
    score = evaluate(
        Brightness(), split, normalization, precision="float32", batch_size=8, flip_average=False
    )
    is_hit = (logits.argmax(1) == split.labels).double()
    of_classes = [is_hit[split.labels == label].mean().item() for label in (0, 1)]
    assert score.accuracy == pytest.approx(sum(of_classes) / 2, rel=1e-12)
    assert num_images == 21 or score.accuracy == is_hit.sum().item() / num_images
    assert score.loss == pytest.approx(
        nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5
    )


def test_flip_average_is_the_mean_of_each_images_logits_and_its_mirror_images() -> None:
    split, model = tiny_split(num_images=20), Brightness()
    normalization = Normalization.of(split.images)
    images = [normalization(image[None]) for image in split.images]
    logits = torch.cat([(model(image) + model(image.flip(-1))) / 2 for image in images])
    score = evaluate(
        model, split, normalization, precision="float32", batch_size=8, flip_average=True
    )
    assert score.accuracy == (logits.argmax(1) == split.labels).double().mean().item()
    assert score.loss == pytest.approx(
        nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5
    )


@pytest.mark.parametrize(("side", "most"), [(8, 8), (32, 8), (64, 2), (96, 1)])
def test_large_images_are_scored_fewer_at_a_time_to_the_same_result(side: int, most: int) -> None:
    split = tiny_split(num_images=20, side=side)
    score = partial(evaluate, split=split, normalization=Normalization.of(split.images))
    model, sizes = resnet(), []
    model[0].register_forward_pre_hook(lambda _layer, inputs: sizes.append(len(inputs[0])))  # type: ignore[index]
    together = score(model, precision="float32", batch_size=20 * 3**2, flip_average=False)
    apart = score(model, precision="float32", batch_size=8, flip_average=False)
    assert sizes == [20, *[most] * (20 // most), *([20 % most] if 20 % most else [])]
    assert apart.accuracy == together.accuracy
    assert apart.loss == pytest.approx(together.loss, rel=1e-5)


def test_flip_average_cannot_tell_an_image_from_its_mirror_image() -> None:
    split = tiny_split(num_images=21)
    mirrored = Split(split.images.flip(-1), split.labels)
    normalization = Normalization.of(split.images)
    score = partial(evaluate, normalization=normalization, precision="float32")
    assert score(resnet(), split) == score(resnet(), mirrored)
    plain = [score(Brightness(), each, flip_average=False) for each in (split, mirrored)]
    assert plain[0] != plain[1]


def test_in_bfloat16_logits_have_the_digits_of_float32() -> None:
    """With those of bfloat16 alone the best two classes of an image tie again and again."""
    split = tiny_split(num_images=20)
    seen: list[Tensor] = []
    model = resnet()
    model[-1].register_forward_hook(lambda _layer, _inputs, logits: seen.append(logits))  # type: ignore[index]
    evaluate(model, split, Normalization.of(split.images), precision="bfloat16")
    assert any((logits != logits.bfloat16()).any() for logits in seen)


def test_evaluation_changes_nothing_of_the_model() -> None:
    model, split = resnet().train(), tiny_split()
    before = weights(model)
    evaluate(model, split, Normalization.of(split.images), precision="auto")
    assert model.training
    assert torch.equal(weights(model), before)


# Memory


def test_failed_allocation_on_the_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    assert is_out_of_memory(caught.value)


def test_cuda_and_python_allocation_failures_are_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(MemoryError) as caught:
        bytearray(2**62)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("can't allocate memory"))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_may_run_out_in_the_driver_or_a_library(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


def test_in_float16_momentum_begins_at_zero_for_a_first_step_may_be_left_out() -> None:
    half = dataclasses.replace(CONFIG, precision="float16")
    state = start_training(resnet(), half, torch.device("cpu"))
    momentum = [each["momentum_buffer"] for each in state.optimizer.state.values()]
    assert len(momentum) == len(list(state.model.parameters()))
    assert not any(each.any() for each in momentum)
    assert not start_training(resnet(), CONFIG, torch.device("cpu")).optimizer.state


def test_every_network_is_compiled_however_many_were_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for width in range(2, 12):  # torch keeps 8 kinds of a function
        before = len(graphs)
        batches = tiny_batches()
        model = build_model(Architecture.of([1], [width], num_classes=2))
        next(train(model, batches, dataclasses.replace(CONFIG, epochs=1), is_compiled=True))
        assert len(graphs) > before, width


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_trains_to_the_same_but_for_rounding() -> None:
    plain, compiled = resnet(), resnet()
    expected = list(train(plain, tiny_batches(), CONFIG))
    found = list(train(compiled, tiny_batches(), CONFIG, is_compiled=True))
    assert [m.train_loss for m in found] == pytest.approx(
        [m.train_loss for m in expected], rel=1e-4
    )
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
