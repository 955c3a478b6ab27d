"""Down-selection: which candidates are worth refining."""

from __future__ import annotations

__all__ = ["All", "Expression", "InsideSpace", "Selection", "Spread", "Tolerance"]

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.expressions import Column, Columns, Rule
from matdesinne.space import Parameter

_ROUNDING = 4 * torch.finfo(torch.float32).eps
"""Part of a parameter's largest bound, or of a prediction, within which two of its values are equal."""


class Selection(ABC):
    """A rule that keeps or drops each candidate on its own."""

    @abstractmethod
    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Tell which rows to keep."""

    def rules_after_localization(self) -> Sequence[Selection]:
        """Those of its rules that must hold for the moved candidates, too; none unless a subclass says so."""
        return ()


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


class Expression(Selection):
    """Keep what a rule on named columns holds for, before the localization and after it.

    Names are those of the parameters (``a``, ``electric_field``); of their strains (``strain_a``: deviation from the reference
    divided by the reference, also of angles; only where the reference is not 0); of the predicted properties (``band_gap``)
    and their spread (``band_gap_std``). Values are in the units of the table. Two values of a parameter are equal when they
    differ by no more than four units of rounding in float32 at its largest bound, 1.8e-6 angstrom for a lattice constant that
    may reach 3.8 angstrom.

    Args:
        text: see `Rule`.

    Raises:
        ConfigError: if the text is not a rule.

    Example:
        >>> rule = Expression("abs(strain_a) < 0.05 and electric_field == 0")
    """

    def __init__(self, text: str) -> None:
        self.rule = Rule(text)

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """True where the rule holds.

        Raises:
            ConfigError: if it has a name that the candidates have not.
        """
        return self.rule.holds(_columns(candidates)).expand(len(candidates))

    def rules_after_localization(self) -> Sequence[Selection]:
        """The rule itself: a design that has left it is not what was asked for."""
        return (self,)


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

    def rules_after_localization(self) -> Sequence[Selection]:
        """Those of the rules that must hold after localization."""
        return [kept for rule in self.rules for kept in rule.rules_after_localization()]


def _columns(candidates: Candidates) -> Columns:
    columns: dict[str, Column] = {}
    for j, prop in enumerate(candidates.properties):
        for name, values in ((prop.name, candidates.mean[:, j]), (f"{prop.name}_std", candidates.std[:, j])):
            columns[name] = Column(values.double(), _ROUNDING * values.double().abs())
    strains, parameters = {}, {}
    for i, parameter in enumerate(candidates.space.parameters):
        values = candidates.designs[:, i].double()
        rounding = _ROUNDING * _largest(parameter, values)
        parameters[parameter.name] = Column(values, rounding)
        if parameter.reference != 0:
            strains[f"strain_{parameter.name}"] = Column(parameter.strain(values), rounding / abs(parameter.reference))
    return {**strains, **columns, **parameters}


def _largest(parameter: Parameter, values: Tensor) -> Tensor:
    """Largest magnitude of a parameter, or that of each value where there are no bounds."""
    if not parameter.bounded:
        return values.abs()
    return torch.full_like(values, max(abs(parameter.lower), abs(parameter.upper)))
