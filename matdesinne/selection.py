"""Down-selection: which candidates are worth refining."""

from __future__ import annotations

__all__ = ["All", "InsideSpace", "Selection", "Spread", "Tolerance"]

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError


class Selection(ABC):
    """A rule that keeps or drops each candidate on its own."""

    @abstractmethod
    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Tell which rows to keep."""


class InsideSpace(Selection):
    """Keep designs inside the bounds."""

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """True where every parameter is within its bounds."""
        return candidates.space.contains(candidates.designs)


class Tolerance(Selection):
    """Keep designs whose predicted properties are near the target.

    Args:
        tolerance: largest distance to the target, in the unit of each property.
    """

    def __init__(self, tolerance: float) -> None:
        if not tolerance >= 0:
            raise ConfigError(f"Expected a tolerance of at least 0, got {tolerance}: give a distance to the target.")
        self.tolerance = tolerance

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """True where the distance is within the tolerance for every property."""
        return (candidates.error <= self.tolerance).all(dim=1)


class Spread(Selection):
    """Keep designs on which the surrogate's ensemble agrees.

    Args:
        largest: largest standard deviation over the ensemble, in the unit of each property.
    """

    def __init__(self, largest: float) -> None:
        if not largest > 0:
            raise ConfigError(f"Expected a largest spread above 0, got {largest}: give a standard deviation.")
        self.largest = largest

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """True where the spread is small enough for every property."""
        return (candidates.std <= self.largest).all(dim=1)


class All(Selection):
    """Keep what every one of several rules keeps.

    Args:
        rules: the rules; none keeps everything.
    """

    def __init__(self, rules: Sequence[Selection] = ()) -> None:
        self.rules = tuple(rules)

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """True where all rules agree."""
        keep = torch.ones(len(candidates), dtype=torch.bool)
        for rule in self.rules:
            keep &= rule.mask(candidates)
        return keep
