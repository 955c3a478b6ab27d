"""The design space: named parameters with units and bounds, and the symmetries that leave a property unchanged."""

from __future__ import annotations

__all__ = ["DesignSpace", "Parameter", "Symmetry"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.bounds import narrower_edges, read_edges
from matdesinne.errors import ConfigError

_EQUAL = 1e-6
"""Two values of a parameter that differ by less, as a fraction of its width, are one."""


class SpaceDict(TypedDict):
    """Plain form of a `DesignSpace`, as checkpoints and JSON files store it."""

    parameters: list[dict[str, object]]
    symmetries: list[dict[str, object]]
    order: list[str]


@dataclass(frozen=True)
class Parameter:
    """One physical knob of a design.

    Args:
        name: the field's term, e.g. ``"electric_field"``; it names the column of every table.
        unit: e.g. ``"angstrom"``; ``"1"`` for a number without unit.
        lower: smallest allowed value in `unit`; ``-inf`` where there is none.
        upper: largest allowed value in `unit`; ``inf`` where there is none; the smallest for a parameter that is fixed.
        reference: the value of the unmodified material in `unit`, from which strains are counted.
    """

    name: str
    unit: str
    lower: float = -math.inf
    upper: float = math.inf
    reference: float = 0.0

    def __post_init__(self) -> None:
        """Check that the bounds enclose something, if only one value."""
        if not self.name.isidentifier():
            raise ConfigError(f"Expected a parameter name made of letters, digits and _, got {self.name!r}: rename it.")
        if not self.lower <= self.upper:
            raise ConfigError(
                f"Expected lower <= upper for parameter {self.name!r}, got {self.lower} and {self.upper}: swap or widen them."
            )

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)


@dataclass(frozen=True)
class Symmetry:
    """An operation x -> A x + b on designs that leaves the property unchanged.

    Args:
        substitutions: for each parameter that changes, ``[factor, source, offset]``: new value = factor * source + offset.
        reciprocal: integer 2 x 2 matrix that maps fractional k-points under the operation.
    """

    substitutions: Mapping[str, Sequence[float | str]]
    reciprocal: Sequence[Sequence[int]] = ((1, 0), (0, 1))

    def __post_init__(self) -> None:
        """Check the rules and make lists tuples, so that equal operations compare equal."""
        for name, rule in self.substitutions.items():
            if len(rule) != 3 or not isinstance(rule[0], int | float) or not isinstance(rule[2], int | float):
                raise ConfigError(
                    f"Expected [factor, source, offset] for {name!r} in a symmetry, got {list(rule)}: e.g. [-1, alpha, 180]."
                )
        object.__setattr__(self, "substitutions", {name: tuple(rule) for name, rule in self.substitutions.items()})
        object.__setattr__(self, "reciprocal", tuple(tuple(row) for row in self.reciprocal))


@dataclass(frozen=True)
class GroupElement:
    """One element of the symmetry group in matrix form: x -> x A^T + b, k -> k M^T."""

    matrix: Float[Tensor, "dx dx"]
    offset: Float[Tensor, " dx"]
    reciprocal: Float[Tensor, "2 2"]

    def __call__(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Apply the operation to designs in physical units."""
        return x @ self.matrix.to(x).T + self.offset.to(x)


@dataclass(frozen=True)
class DesignSpace:
    """The set of allowed designs: a box over named parameters, with its symmetry group.

    Args:
        parameters: the knobs, in the order of the columns of every design tensor.
        symmetries: generators of the group that leaves the property unchanged.
        order: all names, those that decide the property given the others last, for models that take one parameter after
            another; empty where the data are to tell.

    Example:
        >>> space = DesignSpace([Parameter("strain", "1", -0.2, 0.2), Parameter("field", "V/angstrom", -1.0, 1.0)])
        >>> space.names
        ('strain', 'field')
        >>> space.contains(torch.tensor([[0.1, 0.5], [0.3, 0.0]])).tolist()
        [True, False]
    """

    parameters: Sequence[Parameter]
    symmetries: Sequence[Symmetry] = ()
    order: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the names and that symmetries and order speak of them."""
        object.__setattr__(self, "order", tuple(self.order))
        if self.order and sorted(self.order) != sorted(self.names):
            raise ConfigError(f"Expected an order of {list(self.names)}, got {list(self.order)}: name each once.")
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "symmetries", tuple(self.symmetries))
        if not self.parameters:
            raise ConfigError("Expected at least one parameter, got none: list the columns of a design.")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"Expected distinct parameter names, got {list(self.names)}: rename the repeated one.")
        for symmetry in self.symmetries:
            for name, (_, source, _) in symmetry.substitutions.items():
                if name not in self.names or source not in self.names:
                    raise ConfigError(
                        f"Expected a symmetry over {list(self.names)}, got {name!r} from {source!r}: correct the name."
                    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in column order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def dimension(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    @property
    def bounded(self) -> bool:
        """Whether every parameter has two finite bounds."""
        return all(parameter.bounded for parameter in self.parameters)

    @property
    def lower(self) -> Float[Tensor, " dx"]:
        """Lower bounds in physical units."""
        return torch.tensor([p.lower for p in self.parameters], dtype=torch.get_default_dtype())

    @property
    def upper(self) -> Float[Tensor, " dx"]:
        """Upper bounds in physical units."""
        return torch.tensor([p.upper for p in self.parameters], dtype=torch.get_default_dtype())

    @property
    def reference(self) -> Float[Tensor, " dx"]:
        """The unmodified material in physical units."""
        return torch.tensor([p.reference for p in self.parameters], dtype=torch.get_default_dtype())

    def index(self, name: str) -> int:
        """Column of a parameter.

        Raises:
            ConfigError: if there is no such parameter.
        """
        if name not in self.names:
            raise ConfigError(f"Expected one of the parameters {list(self.names)}, got {name!r}: correct the name.")
        return self.names.index(name)

    def contains(self, x: Float[Tensor, "n dx"], tolerance: float = 1e-5) -> Bool[Tensor, " n"]:
        """Tell which designs lie inside the bounds.

        Args:
            x: designs in physical units.
            tolerance: slack as a fraction of the width, for rounding in float32.
        """
        lower, upper = self.lower.to(x), self.upper.to(x)
        slack = torch.nan_to_num(tolerance * (upper - lower), posinf=0.0)
        return ((x >= lower - slack) & (x <= upper + slack)).all(dim=-1)

    def narrowed(
        self, bounds: Mapping[str, Sequence[float | None]] | None = None, fixed: Mapping[str, float] | None = None
    ) -> DesignSpace:
        """The part of the space within narrower bounds, with some parameters fixed.

        A bound that no float32 number equals is rounded inwards, so that it holds for the number as it was given.

        Args:
            bounds: ``[lower, upper]`` by the name of a parameter in its unit, ``None`` for the bound that it has.
            fixed: the value by the name of a parameter in its unit.

        Raises:
            ConfigError: if a name is unknown or in both, or a bound or value lies outside the space.
        """
        wanted = {name: read_edges(name, edges) for name, edges in (bounds or {}).items()}
        twice = sorted(set(wanted) & set(fixed or {}))
        if twice:
            raise ConfigError(f"Expected bounds or a fixed value, got both for {twice}: drop one.")
        for name, value in (fixed or {}).items():
            if value is None:
                raise ConfigError(f"Expected a number to fix {name} at, got none: give one, or drop it.")
            wanted[name] = (value, value)
        parameters = list(self.parameters)
        for name, (low, high) in wanted.items():
            place = self.index(name)
            known = parameters[place]
            first, last = narrower_edges(name, known.unit, (known.lower, known.upper), (low, high))
            parameters[place] = replace(known, lower=first, upper=last)
        return replace(self, parameters=parameters)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Draw designs uniformly from the box.

        Args:
            count: number of designs.
            generator: source of randomness; torch's global one when omitted.

        Returns:
            Designs in physical units, shape [count, dx].

        Raises:
            ConfigError: if a bound is infinite.
        """
        if not self.bounded:
            open_names = [p.name for p in self.parameters if not p.bounded]
            raise ConfigError(f"Expected finite bounds to sample uniformly, got none for {open_names}: declare them.")
        unit = torch.rand(count, self.dimension, generator=generator)
        return self.lower + unit * (self.upper - self.lower)

    def group(self) -> tuple[GroupElement, ...]:
        """All operations that the symmetries generate, the identity first."""
        return self._group

    @cached_property
    def _group(self) -> tuple[GroupElement, ...]:
        identity = GroupElement(torch.eye(self.dimension), torch.zeros(self.dimension), torch.eye(2))
        elements, generators = [identity], [self._element(symmetry) for symmetry in self.symmetries]
        frontier = [identity]
        while frontier:
            fresh = []
            for element in frontier:
                for generator in generators:
                    product = _compose(generator, element)
                    if not any(_same(product, known) for known in elements):
                        elements.append(product)
                        fresh.append(product)
            frontier = fresh
            if len(elements) > 200:
                raise ConfigError("Expected symmetries of a finite group, got over 200 operations: correct them.")
        return tuple(elements)

    def images(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n g dx"]:
        """Every design under all operations of `group`, the design itself first."""
        return torch.stack([element(x) for element in self.group()], dim=1)

    def canonicalize(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """One image for all designs that the symmetries make equal.

        Of those inside the bounds it is the last in lexicographic order: the one with the largest first parameter that differs.

        Args:
            x: designs in physical units, inside the bounds.
        """
        width = torch.nan_to_num(self.upper - self.lower, posinf=1.0).to(x)
        best = x
        for element in self.group()[1:]:
            image = element(x)
            ahead = (image - best) / width
            first = (ahead.abs() > _EQUAL).int().argmax(dim=1, keepdim=True)
            better = (ahead.gather(1, first).squeeze(1) > _EQUAL) & self.contains(image)
            best = torch.where(better.unsqueeze(1), image, best)
        return best

    def random_images(self, x: Float[Tensor, "n dx"], level: Float[Tensor, " n"]) -> Float[Tensor, "n dx"]:
        """For each design one of its images inside the bounds, all of them equally likely.

        Args:
            x: designs in physical units, inside the bounds.
            level: uniform random numbers in [0, 1), one for each design.
        """
        images = self.images(x)
        inside = self.contains(images)
        inside[:, 0] = True
        place = (level * inside.sum(dim=1)).long().unsqueeze(1)
        chosen = (inside.cumsum(dim=1) > place).int().argmax(dim=1)
        return images[torch.arange(len(x)), chosen]

    def to_dict(self) -> SpaceDict:
        """Plain containers, for checkpoints and JSON; an infinite bound is left out."""
        return {
            "parameters": [
                {key: value for key, value in asdict(parameter).items() if value not in (-math.inf, math.inf)}
                for parameter in self.parameters
            ],
            "symmetries": [
                {
                    "substitutions": {name: list(rule) for name, rule in symmetry.substitutions.items()},
                    "reciprocal": [list(row) for row in symmetry.reciprocal],
                }
                for symmetry in self.symmetries
            ],
            "order": list(self.order),
        }

    @classmethod
    def from_dict(cls, plain: SpaceDict) -> DesignSpace:
        """Rebuild what `to_dict` wrote."""
        return cls(
            [Parameter(**entry) for entry in plain["parameters"]],  # type: ignore[arg-type]
            [Symmetry(**entry) for entry in plain["symmetries"]],  # type: ignore[arg-type]
            plain.get("order", ()),
        )

    def _element(self, symmetry: Symmetry) -> GroupElement:
        matrix, offset = torch.eye(self.dimension), torch.zeros(self.dimension)
        for name, (factor, source, shift) in symmetry.substitutions.items():
            row = self.index(name)
            matrix[row] = 0.0
            matrix[row, self.index(str(source))] = float(factor)
            offset[row] = float(shift)
        return GroupElement(matrix, offset, torch.tensor(symmetry.reciprocal, dtype=torch.float32))


def _compose(second: GroupElement, first: GroupElement) -> GroupElement:
    return GroupElement(
        second.matrix @ first.matrix,
        second.matrix @ first.offset + second.offset,
        second.reciprocal @ first.reciprocal,
    )


def _same(left: GroupElement, right: GroupElement) -> bool:
    return torch.allclose(left.matrix, right.matrix) and torch.allclose(left.offset, right.offset, atol=1e-4)
