"""Down-selection: rules that keep or drop candidates."""

from __future__ import annotations

__all__ = ["All", "EnclosesVolume", "Expression", "InsideSpace", "Selection", "Spread", "Tolerance", "named_columns"]

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.comparisons import Column, Columns
from matdesinne.errors import ConfigError
from matdesinne.expressions import Rule
from matdesinne.structures import CELL_PARAMETERS, enclose_volume
from matdesinne.targets import Property, Target

_ROUNDING = 4 * torch.finfo(torch.float32).eps
"""Two values are equal when they differ by less than this fraction of the parameter's largest bound, or of the prediction."""


class Selection(ABC):
    """A rule that keeps or drops each candidate independently of the others."""

    @abstractmethod
    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return a mask of the rows to keep."""

    def rules_after_localization(self) -> Sequence[Selection]:
        """Return the rules that are applied again after localization; none by default."""
        return ()

    def margins(self, candidates: Candidates) -> Sequence[Float[Tensor, " n"]]:
        """Return by how much conditions of the rule hold, on the graph of designs and predictions; none by default.

        A margin is below 0 where its condition is broken. Conditions without a slope, such as allowed values, have none.
        """
        return ()

    def parts(self) -> Sequence[Selection]:
        """Return the rules that this one is made of; itself by default."""
        return (self,)

    def rejections(self, candidates: Candidates) -> list[str]:
        """Say for each part that drops candidates how many it drops, and the best value that it saw; the strictest first."""
        counts = [(int((~part.mask(candidates)).sum()), part.describe(candidates)) for part in self.parts()]
        return [f"{text} rejects {count:,}" for count, text in sorted(counts, reverse=True) if count]

    def describe(self, candidates: Candidates) -> str:
        """Say what the rule asks for, and the values nearest to it among some candidates."""
        return type(self).__name__


class InsideSpace(Selection):
    """Keeps designs inside the bounds, with allowed values and the sums of mixtures."""

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return true where the space allows the design."""
        return candidates.space.allows(candidates.designs)

    def margins(self, candidates: Candidates) -> Sequence[Float[Tensor, " n"]]:
        """Return the distances to the bounds of the strains of a layer; those of parameters are faces of the box."""
        space = candidates.space
        if space.layer is None or not space.strain_bounds:
            return ()
        strains = space.layer(candidates.designs)
        bounds = [(strains[name], edges) for name, edges in space.strain_bounds.items() if name != "strain_angle"]
        sides = [(values - lower, upper - values) for values, (lower, upper) in bounds]
        return [side for pair in sides for side in pair if bool(side.isfinite().any())]

    def describe(self, candidates: Candidates) -> str:
        """Name the rule."""
        return "the rule that designs lie inside the bounds"


class EnclosesVolume(Selection):
    """Keeps crystals whose angles enclose a volume; without it no structure can be written."""

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return true where there is a volume."""
        return enclose_volume(candidates.space.values(candidates.designs, CELL_PARAMETERS))

    def describe(self, candidates: Candidates) -> str:
        """Name the rule."""
        return "the rule that the angles of a cell enclose a volume"


class Tolerance(Selection):
    """Keeps designs whose predicted properties are within a distance of the target, in the unit of each property.

    A property that the target does not ask for is at no distance.

    Args:
        tolerance: the distance, one for each property, or one by the name of each property that is asked for.
    """

    def __init__(self, tolerance: float | Sequence[float] | Mapping[str, float]) -> None:
        many = tolerance.values() if isinstance(tolerance, Mapping) else tolerance
        distances = list(many) if isinstance(many, Iterable) else [many]
        if not all(distance >= 0 for distance in distances):
            raise ConfigError(f"Expected a tolerance of at least 0, got {tolerance}: give a distance to the target.")
        self.tolerance = tolerance

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return true where the distance is within the tolerance for every property.

        Raises:
            ConfigError: if there is no tolerance for a property that is asked for.
        """
        return (candidates.error <= torch.tensor(self.distances(candidates.properties, candidates.target))).all(dim=1)

    def describe(self, candidates: Candidates) -> str:
        """Name the distance, and the nearest prediction."""
        nearest = candidates.mean[candidates.error.amax(dim=1).nan_to_num(torch.inf).argmin()].tolist()
        columns = zip(
            candidates.properties,
            self.distances(candidates.properties, candidates.target),
            nearest,
            candidates.target.asked,
            strict=True,
        )
        shown = [(prop, distance, y) for prop, distance, y, asked in columns if asked]
        allowed = ", ".join(f"{distance:.3g}{prop.suffix}" for prop, distance, _ in shown)
        found = ", ".join(f"{prop.name} {y:.4g}{prop.suffix}" for prop, _, y in shown)
        return f"the tolerance of {allowed} around the target (nearest prediction: {found})"

    def distances(self, properties: Sequence[Property], target: Target) -> list[float]:
        """Return the distance for each property.

        Raises:
            ConfigError: if there is no tolerance for a property that is asked for.
        """
        names = [prop.name for prop in properties]
        if isinstance(self.tolerance, Mapping):
            needed = {name for name, asked in zip(names, target.asked, strict=True) if asked}
            if missing := sorted(needed - set(self.tolerance)):
                raise ConfigError(f"Expected a tolerance for {missing[0]}, got {dict(self.tolerance)}: add it.")
            return [float(self.tolerance.get(name, 0.0)) for name in names]
        if isinstance(self.tolerance, Sequence):
            if len(self.tolerance) != len(names):
                raise ConfigError(f"Expected one tolerance for each of {names}, got {list(self.tolerance)}: give {len(names)}.")
            return list(self.tolerance)
        return [self.tolerance] * len(names)


class Spread(Selection):
    """Keeps designs on which the ensemble agrees up to a largest standard deviation, in the unit of each property."""

    def __init__(self, largest: float) -> None:
        if not largest > 0:
            raise ConfigError(f"Expected a largest spread above 0, got {largest}: give a standard deviation.")
        self.largest = largest

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return true where the spread is small enough for every property."""
        return (candidates.std <= self.largest).all(dim=1)

    def describe(self, candidates: Candidates) -> str:
        """Name the largest spread, and the smallest one there is."""
        return f"the largest spread of {self.largest:g} (smallest found: {candidates.std.amax(dim=1).min():.3g})"


class Expression(Selection):
    """Keeps designs for which a rule on named columns holds, before and after localization.

    The names are those of the parameters (``a``, ``electric_field``), of their strains (``strain_a``, see `Parameter.strain`;
    only where the reference is not 0), of the strains of a layer (``strain_1``, see `LayerStrain`; only where ``a``, ``b`` and
    ``gamma`` have references), of the predicted properties (``band_gap``) and of their spread (``band_gap_std``), and, where
    there is a start, ``distance_to_start``.
    Values are in the units of the table. Two values of a parameter are equal when they differ by no more than four units of
    rounding in float32 at its largest bound: 1.8e-6 angstrom for a lattice constant of up to 3.8 angstrom.

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
        """Return true where the rule holds.

        Raises:
            ConfigError: if the rule uses a name that is no column.
        """
        return self.rule.holds(named_columns(candidates)).expand(len(candidates))

    def margins(self, candidates: Candidates) -> Sequence[Float[Tensor, " n"]]:
        """Return those of the statements that ``and`` joins, see `Rule.margins`."""
        return [margin.expand(len(candidates)) for margin in self.rule.margins(named_columns(candidates))]

    def rules_after_localization(self) -> Sequence[Selection]:
        """Return the rule itself: localization may move a design so that the rule no longer holds."""
        return (self,)

    def describe(self, candidates: Candidates) -> str:
        """Name the rule, and the range of each of its columns."""
        values = {name: column.values for name, column in named_columns(candidates).items() if name in self.rule.names}
        ranges = ", ".join(f"{name} from {column.min():.4g} to {column.max():.4g}" for name, column in values.items())
        return f"the rule where={self.rule.text} ({ranges or 'no column'})"


class All(Selection):
    """Keeps the designs that all of several rules keep; without any, all designs are kept."""

    def __init__(self, rules: Sequence[Selection] = ()) -> None:
        self.rules = tuple(rules)

    def mask(self, candidates: Candidates) -> Bool[Tensor, " n"]:
        """Return true where all rules hold."""
        keep = torch.ones(len(candidates), dtype=torch.bool)
        for rule in self.rules:
            keep &= rule.mask(candidates)
        return keep

    def margins(self, candidates: Candidates) -> Sequence[Float[Tensor, " n"]]:
        """Return those of all rules."""
        return [margin for rule in self.rules for margin in rule.margins(candidates)]

    def rules_after_localization(self) -> Sequence[Selection]:
        """Return those of the rules that are applied again after localization."""
        return [again for rule in self.rules for again in rule.rules_after_localization()]

    def parts(self) -> Sequence[Selection]:
        """Return the rules, those of rules of rules, too."""
        return [part for rule in self.rules for part in rule.parts()]


def named_columns(candidates: Candidates) -> Columns:
    """The columns that rules and formulas may name, see `Expression`, with the rounding of each."""
    columns: dict[str, Column] = {}
    for j, prop in enumerate(candidates.properties):
        for name, values in ((prop.name, candidates.mean[:, j]), (f"{prop.name}_std", candidates.std[:, j])):
            columns[name] = Column(values.double(), _ROUNDING * values.double().abs())
    strains, parameters = {}, {}
    for i, parameter in enumerate(candidates.space.parameters):
        values = candidates.designs[:, i].double()
        largest = max(abs(parameter.lower), abs(parameter.upper))
        rounding = _ROUNDING * (torch.full_like(values, largest) if parameter.bounded else values.abs())
        parameters[parameter.name] = Column(values, rounding)
        if parameter.reference != 0:
            strains[f"strain_{parameter.name}"] = Column(parameter.strain(values), rounding / abs(parameter.reference))
    if candidates.start is not None:
        rounding = torch.stack([column.rounding for column in parameters.values()], dim=1) / candidates.start.half_width
        columns["distance_to_start"] = Column(candidates.start.distance(candidates.designs).double(), rounding.norm(dim=1))
    return {**_layer_columns(candidates, parameters), **strains, **columns, **parameters}


def _layer_columns(candidates: Candidates, parameters: Columns) -> Columns:
    layer = candidates.space.layer
    if layer is None:
        return {}
    rounding = layer.rounding(candidates.designs, torch.stack([column.rounding for column in parameters.values()], dim=1))
    return {name: Column(values, rounding[name]) for name, values in layer(candidates.designs).items()}
