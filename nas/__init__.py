"""Neural architecture search under a parameter budget, with honest numbers."""

from nas.search import Progress, search

__all__ = ["Progress", "search"]
