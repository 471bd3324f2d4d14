"""Scores of a network that is not trained, for comparison and as features; higher is better.

`SCORES` names them all. How well each ranks networks of equal size is a measurement
(`benchmarks/proxy_fidelity.py`), not a promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.complexity import count_activations, count_macs, count_params
from nas.model import build_model
from nas.residual import Residual

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.architecture import Architecture

ZEN_STEP = 0.01  # alpha of the paper's algorithm 1


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What untrained networks are looked at with; the same for all that are compared.

    Attributes:
        images: (N, C, H, W) float32, normalized; some dozens.
        labels: (N,) int64.
        seed: Of weights and noise.
    """

    images: Tensor
    labels: Tensor
    seed: int = 0

    @property
    def generator(self) -> torch.Generator:
        """A CPU generator at its start."""
        return torch.Generator().manual_seed(self.seed)

    def model(self, arch: Architecture) -> nn.Module:
        """Build the network with its initial weights, in training mode."""
        return build_model(arch, generator=self.generator, device=self.images.device)


def synflow(model: nn.Module, shape: torch.Size) -> float:
    """Sum each weight's |w dR/dw|, R the output for ones under |w|; the logarithm of the sum.

    Tanaka et al. 2020 (arXiv 2006.05467), summed over convolutions and linear layers, without batch
    norm and biases, as in Abdelfattah et al. 2021 (arXiv 2101.08134). Changes the model.

    Args:
        model: Any.
        shape: (C, H, W) of an image.
    """
    model.double()
    _replace(model, nn.BatchNorm2d, lambda _norm: nn.Identity())
    weights = _weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_() if any(parameter is w for w in weights) else parameter.zero_()
    device, logs = weights[0].device, []

    def scale(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        """Keep 150 blocks within float64; all that follows scales with it."""
        factor = output.detach().mean()
        logs.append(math.log(factor.item()))
        return output / factor

    for module in model.modules():
        if isinstance(module, Residual):
            module.register_forward_hook(scale)
    output = model(torch.ones((1, *shape), dtype=torch.float64, device=device)).sum()
    gradients = torch.autograd.grad(output, weights)
    total = sum((w * g).abs().sum().item() for w, g in zip(weights, gradients, strict=True))
    return math.log(total) + sum(logs)


def zen_score(model: nn.Module, images: Tensor, noise: Tensor) -> float:
    """Measure how features move with their input, batch norm's scaling undone; a logarithm.

    Lin et al. 2021 (arXiv 2102.01063), algorithm 1: log of the mean ||f(x) - f(x + 0.01 noise)||
    plus, for each batch norm, half the log of the mean variance that it removes.

    Args:
        model: Up to the features before pooling; without shortcuts, weights and images from the
            standard normal distribution (`without_shortcuts`, `draw_normal`).
        images: (N, C, H, W).
        noise: The same shape.
    """
    variances: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variances.append(inputs[0].var((0, 2, 3), correction=0).mean())

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(keep) for norm in norms]
    with torch.no_grad():
        features = model(images)
        for hook in hooks:
            hook.remove()
        moved = model(images + ZEN_STEP * noise)
    distance = (features - moved).flatten(1).norm(dim=1).mean()
    return math.log(distance.item()) + sum(0.5 * math.log(v.item()) for v in variances)


def without_shortcuts(features: nn.Module) -> nn.Module:
    """Put the branch and its ReLU in the place of each residual block."""
    _replace(features, Residual, lambda block: nn.Sequential(block.branch, nn.ReLU()))
    return features


def draw_normal(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions from the standard normal distribution."""
    with torch.no_grad():
        for weight in _weights(model):
            weight.copy_(torch.randn(weight.shape, generator=generator))


def naswot(model: nn.Module, images: Tensor) -> float:
    """Tell how differently the ReLUs answer to different images: log |det K|.

    Mellor et al. 2021 (arXiv 2006.04647): K holds, for each two images, the number of units that
    are both on or both off. Units of ReLU modules and of the sums of residual blocks count.

    Args:
        model: In training mode: batch norm takes the statistics of `images`.
        images: (N, C, H, W).
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        is_on = (output > 0).flatten(1).float()
        is_off = 1 - is_on
        kernel.add_(is_on @ is_on.T + is_off @ is_off.T)

    units = [module for module in model.modules() if isinstance(module, nn.ReLU | Residual)]
    hooks = [unit.register_forward_hook(add) for unit in units]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return float(torch.linalg.slogdet(kernel).logabsdet)


def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum the lengths of the loss's gradients, one for each convolution's or linear layer's weight.

    Abdelfattah et al. 2021 (arXiv 2101.08134).

    Args:
        model: In training mode: batch norm takes the statistics of `images`.
        images: (N, C, H, W).
        labels: (N,) int64.
    """
    weights = _weights(model)
    loss = functional.cross_entropy(model(images), labels)
    return float(sum(gradient.norm() for gradient in torch.autograd.grad(loss, weights)))


def _weights(model: nn.Module) -> list[Tensor]:
    layers = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return [layer.weight for layer in layers]


def _replace(model: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module]) -> None:
    for name, child in list(model.named_children()):
        if isinstance(child, kind):
            setattr(model, name, make(child))
        else:
            _replace(child, kind, make)


def _zen_score(arch: Architecture, probe: Probe) -> float:
    model, generator = probe.model(arch), probe.generator
    up_to_pooling = (model.get_submodule(name) for name in ("stem", "blocks"))
    features = without_shortcuts(nn.Sequential(*up_to_pooling))
    draw_normal(features, generator)
    shape = probe.images.shape
    images, noise = (
        torch.randn(shape, generator=generator).to(probe.images.device) for _ in range(2)
    )
    return zen_score(features, images, noise)


# The first two are the baselines of Krishnakumar et al. 2022 (arXiv 2210.03230), which no other
# score beats on all spaces; the third orders networks of one size nearly as NASWOT does.
SCORES: dict[str, Callable[[Architecture, Probe], float]] = {
    "num_params": lambda arch, _probe: count_params(arch),
    "num_macs": lambda arch, probe: count_macs(arch, probe.images.shape[-1]),
    "num_activations": lambda arch, probe: count_activations(arch, probe.images.shape[-1]),
    "synflow": lambda arch, probe: synflow(probe.model(arch), probe.images.shape[1:]),
    "zen-score": _zen_score,
    "naswot": lambda arch, probe: naswot(probe.model(arch), probe.images),
    "gradient-norm": lambda arch, probe: gradient_norm(
        probe.model(arch), probe.images, probe.labels
    ),
}
