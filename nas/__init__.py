"""Neural architecture search under a parameter budget, with honest numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.progress import Progress
from nas.retrain import retrain
from nas.search import search

if TYPE_CHECKING:
    from nas.saved_model import load_model

__all__ = ["Progress", "load_model", "retrain", "search"]


def __getattr__(name: str) -> object:
    """Import on demand what needs torch: `import nas` takes a moment."""
    if name == "load_model":
        from nas.saved_model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
