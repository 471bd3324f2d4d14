"""Residual: a branch and a shortcut, added and rectified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)), as in He et al. 2015 (arXiv 1512.03385)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) as branch and shortcut both do."""
        return nn.functional.relu(self.branch(images) + self.shortcut(images), inplace=True)
