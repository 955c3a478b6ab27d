"""The search for the frontier: for each value of a property, the design that costs least."""

from __future__ import annotations

__all__ = ["Frontier", "FrontierSearch"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.localization import Newton
from matdesinne.minimization import Descent
from matdesinne.objective import Objective
from matdesinne.reachability import find_reach
from matdesinne.refinement import Refinement
from matdesinne.selection import All
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property, Target

_BY_DEFAULT = "strain_energy"
_DRAWN = 4096
"""Uniform designs among which the starts are chosen."""
_NEAR = 8
"""The starts cost least among so many times as many designs, those nearest to the value."""
_ON_VALUE = 1e-4
"""Distance to the value up to which a design is on it, in the unit of the property."""
_PATIENCE, _LEAST_GAIN = 8, 1e-4
"""A minimum is found when so many evaluations gain less than this share of the range of the objective."""
_EVALUATIONS = 80


@dataclass(frozen=True)
class Frontier:
    """The designs that cost least, one for each value of a property.

    Args:
        prop: the property.
        objective: what was minimised.
        unit: of the objective.
        values: of the property, in its unit; the lowest may stand for all at or below the property's floor.
        designs: one row for each value, in this order, with predictions.
        cost: the objective of each.
    """

    prop: Property
    objective: Objective
    unit: str
    values: Float[Tensor, " n"]
    designs: Candidates
    cost: Float[Tensor, " n"]


@dataclass(frozen=True)
class FrontierSearch:
    """Settings of the search for a frontier.

    Args:
        minimize: property or formula of columns, see `Objective`; ``None``: ``strain_energy`` where the surrogate predicts it,
            else there is no frontier.
        property_name: whose values are asked for; ``None``: the first one that `minimize` does not name.
        points: largest number of values, multiples of a round step over the interval that designs reach.
        starts: designs from which each descent begins.
        checked: folders of ``label.py`` whose labels are shown beside the predictions.
    """

    minimize: str | None = None
    property_name: str | None = None
    points: int = 25
    starts: int = 16
    checked: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.points < 1 or self.starts < 1:
            raise ConfigError(f"Expected frontier.points and frontier.starts of at least 1, got {self.points}, {self.starts}.")

    @property
    def names(self) -> set[str]:
        """Names of columns that a user asks for."""
        return (Objective(self.minimize).formula.names if self.minimize else set()) | (
            {self.property_name} if self.property_name else set()
        )

    def find(self, surrogate: Surrogate) -> Frontier | None:
        """Find the design that costs least for each value; ``None`` where nothing is to be minimised.

        For each value, of uniform designs near to it those that cost least are moved onto it and descend, and with them the
        result for the value before. It is deterministic.

        Raises:
            ConfigError: if a name is unknown, or a bound of the design space is infinite.
        """
        properties = {prop.name: prop for prop in surrogate.properties}
        if self.minimize is None and _BY_DEFAULT not in properties:
            return None
        objective = Objective(self.minimize or _BY_DEFAULT)
        others = [name for name in properties if name not in objective.formula.names]
        name = self.property_name or next(iter(others), None)
        if name not in properties:
            raise ConfigError(f"Expected frontier.property_name out of {list(properties)}, got {name!r}: name one.")
        return self._found(surrogate, objective, properties[name])

    def _found(self, surrogate: Surrogate, objective: Objective, prop: Property) -> Frontier | None:
        space, possible = surrogate.space, Refinement(surrogate).possible
        designs = space.sample(_DRAWN, torch.Generator().manual_seed(0))
        mean, std = surrogate.predict_many(designs)
        drawn = Candidates(space, surrogate.properties, designs, _wanted(None, prop, surrogate), mean, std, "sampled")
        drawn = drawn.take(possible.mask(drawn))
        costs = objective.values(drawn)
        known = costs[costs.isfinite()]
        if len(known) == 0:
            raise ConfigError(f"Expected frontier.minimize with a value, got {objective.text} without: correct it.")
        gain = _LEAST_GAIN * float(known.max() - known.min())
        [reach] = find_reach(surrogate, space, _wanted(0.0, prop, surrogate), possible)
        values, best, before = [], [], drawn.take(torch.empty(0, dtype=torch.long))
        for value in _round_values(reach.lower, reach.upper, self.points):
            wanted = _wanted(value, prop, surrogate)
            starts = _joined(self._starts(replace(drawn, target=wanted), costs), replace(before, target=wanted))
            moved = Newton().localize(starts, surrogate)
            moved = moved.take((moved.error <= _ON_VALUE).all(dim=1) & possible.mask(moved))
            if len(moved) > 0:
                before = _least(moved, surrogate, objective, possible, gain)
                values.append(value)
                best.append(replace(before, target=drawn.target))
        if not best:
            return None
        found = _joined(*best)
        found = replace(found, designs=space.canonicalize(found.designs), stage="minimized")
        unit = _units(surrogate).get(objective.text, "")
        return Frontier(prop, objective, unit, torch.tensor(values, dtype=torch.float64), found, objective.values(found))

    def _starts(self, drawn: Candidates, costs: Float[Tensor, " n"]) -> Candidates:
        near = drawn.error.amax(dim=1).argsort()[: _NEAR * self.starts]
        return drawn.take(near[costs[near].argsort()[: self.starts]])


def _wanted(value: float | None, prop: Property, surrogate: Surrogate) -> Target:
    """A value of one property, or nothing."""
    edges = Target((-torch.inf,), (torch.inf,)) if value is None else Target.parse({prop.name: value}, [prop])
    return edges.aligned([prop], surrogate.properties)


def _least(starts: Candidates, surrogate: Surrogate, objective: Objective, possible: All, gain: float) -> Candidates:
    """The design that costs least at the end of a descent from some starts on target."""
    seen: list[float] = []

    def settled(candidates: Candidates) -> bool:
        seen.append(float(objective.values(candidates).min()))
        return len(seen) > _PATIENCE and not seen[-1 - _PATIENCE] - seen[-1] > gain

    found = Descent(evaluations=_EVALUATIONS).descend(starts, surrogate, objective, possible, settled)
    return found.take(objective.values(found).argmin().unsqueeze(0))


def _joined(*tables: Candidates) -> Candidates:
    designs, mean, std = (torch.cat(parts) for parts in zip(*((t.designs, t.mean, t.std) for t in tables), strict=True))
    return replace(tables[0], designs=designs, mean=mean, std=std)


def _round_values(lower: float, upper: float, most: int) -> list[float]:
    """Multiples of a round step from `lower` to `upper`, as many as fit."""
    least = max(upper - lower, 1e-12) / most
    size = 10.0 ** math.floor(math.log10(least))
    step = next(factor * size for factor in (1.0, 2.0, 5.0, 10.0) if factor * size >= least * (1 - 1e-9))
    first, last = math.ceil(lower / step - 1e-9), math.floor(upper / step + 1e-9)
    return [float(f"{step * number:.10g}") for number in range(first, last + 1)][:most]


def _units(surrogate: Surrogate) -> dict[str, str]:
    """Units of the columns that an objective may be."""
    units = {prop.name: prop.unit for prop in surrogate.properties}
    return units | {parameter.name: parameter.unit for parameter in surrogate.space.parameters}
