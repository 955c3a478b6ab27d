"""What a design is made of: numbers, levels, categories, and shares of a mixture."""

from __future__ import annotations

__all__ = ["Category", "Mixture", "Parameter", "read_edges"]

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError

_MOST_INTEGERS = 10_000
_INFINITE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Parameter:
    """One physical parameter of a design.

    Args:
        name: the field's term, e.g. ``"electric_field"``; it names the column of every table.
        unit: e.g. ``"angstrom"``; ``"1"`` for a number without unit.
        lower: ``-inf`` where there is none.
        upper: ``inf`` where there is none; equal to `lower` for a fixed parameter.
        reference: value in the unmodified material; strains are relative to it.
        values: the values that a discrete parameter can have; those within the bounds count. Empty: all within the bounds.
        integer: give true for the whole numbers within the bounds; they become the `values`.
        category: the category whose `label` this parameter stands for, as one of its one-hot columns; see `Category`.

    Example:
        >>> Parameter("layers", "1", 1, 3, integer=True).values
        (1.0, 2.0, 3.0)
    """

    name: str
    unit: str
    lower: float = -math.inf
    upper: float = math.inf
    reference: float = 0.0
    values: Sequence[float] = ()
    integer: bool = False
    category: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        """Check the name and the order of the bounds; keep the values within them."""
        if not self.name.isidentifier():
            raise ConfigError(f"Expected a parameter name made of letters, digits and _, got {self.name!r}: rename it.")
        if not self.lower <= self.upper:
            raise ConfigError(
                f"Expected lower <= upper for parameter {self.name!r}, got {self.lower} and {self.upper}: swap or widen them."
            )
        values = self._integers() if self.integer and not self.values else sorted(set(map(float, self.values)))
        within = tuple(value for value in values if self.lower <= value <= self.upper)
        if values and not within:
            raise ConfigError(
                f"Expected a value of {self.name} within [{self.lower:g}, {self.upper:g}] {self.unit}, got "
                f"{', '.join(f'{value:g}' for value in values[:20])}: widen the bounds, or take one of these."
            )
        object.__setattr__(self, "values", within)
        object.__setattr__(self, "integer", False)
        if within:
            object.__setattr__(self, "lower", within[0])
            object.__setattr__(self, "upper", within[-1])

    def _integers(self) -> Sequence[float]:
        if not self.bounded or self.upper - self.lower > _MOST_INTEGERS:
            raise ConfigError(
                f"Expected bounds of the whole numbers of {self.name} that enclose at most {_MOST_INTEGERS:,}, got "
                f"{self.lower} and {self.upper}: give lower and upper."
            )
        return [float(value) for value in range(math.ceil(self.lower), math.floor(self.upper) + 1)]

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    def strain(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Relative deviation of values in `unit` from the reference, also of angles; not finite where the reference is 0."""
        return (values - self.reference) / self.reference

    def to_dict(self) -> dict[str, object]:
        """Return plain containers; infinite bounds and what is for discrete parameters only are left out where it is empty."""
        entry = {**asdict(self), "values": list(self.values)}
        optional = ("values", "integer", "category", "label")
        return {key: value for key, value in entry.items() if (value or key not in optional) and value not in _INFINITE}

    def narrowed(self, lower: float | str | None, upper: float | str | None) -> Parameter:
        """Return the parameter with bounds inside its own, rounded inwards to float32; see `DesignSpace.narrowed`."""
        lower, upper = self.lower if lower is None else lower, self.upper if upper is None else upper
        if not (_is_number(lower) and _is_number(upper) and self.lower <= lower <= upper <= self.upper):
            raise ConfigError(
                f"Expected {self.lower:g} <= lower <= upper <= {self.upper:g} {self.unit} for {self.name}, got {lower!r} and "
                f"{upper!r}: stay in the design space."
            )
        if self.values:
            return replace(self, lower=lower, upper=upper)
        nearest = torch.tensor([lower, upper], dtype=torch.float32)
        inwards = torch.nextafter(nearest, nearest.flip(0))
        first, last = nearest.tolist()
        first = first if first >= lower else float(inwards[0])
        last = last if last <= upper else float(inwards[1])
        return replace(self, lower=first, upper=max(first, last))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Category:
    """A choice out of labels, such as a solvent: a column of text in tables, one column of 0 or 1 for each label inside.

    Args:
        name: of the column of text.
        values: the labels.

    Example:
        >>> [parameter.name for parameter in Category("solvent", ["water", "2-MeTHF"]).columns()]
        ['solvent_water', 'solvent_2_MeTHF']
    """

    name: str
    values: Sequence[str]

    def columns(self) -> list[Parameter]:
        """One parameter for each label.

        Raises:
            ConfigError: if there are fewer than two labels, or one twice.
        """
        labels = [str(value) for value in self.values]
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ConfigError(f"Expected two or more different values of {self.name}, got {labels}: correct them.")
        names = [re.sub(r"\W+", "_", f"{self.name}_{label}") for label in labels]
        if len(set(names)) < len(names):
            names = [f"{self.name}_{i}" for i in range(len(labels))]
        kept = zip(names, labels, strict=True)
        return [Parameter(name, "1", 0.0, 1.0, category=self.name, label=label) for name, label in kept]


@dataclass(frozen=True)
class Mixture:
    """Parameters that add up to a total, such as the fractions of the components of an alloy.

    Args:
        names: of the parameters, which have finite bounds, one unit and no `values`.
        total: their sum, in this unit.
    """

    names: Sequence[str]
    total: float = 1.0

    def __post_init__(self) -> None:
        """Check the number of names."""
        object.__setattr__(self, "names", tuple(self.names))
        if len(set(self.names)) < max(2, len(self.names)):
            raise ConfigError(f"Expected two or more different parameters of a mixture, got {list(self.names)}: correct them.")


def read_edges(
    bounds: Mapping[str, Sequence[float | None]], fixed: Mapping[str, float | str]
) -> dict[str, Sequence[float | str | None]]:
    """Check the bounds of each parameter as a user writes them; a fixed value is both bounds."""
    twice = sorted(set(bounds) & set(fixed))
    if twice:
        raise ConfigError(f"Expected bounds or a fixed value, got both for {twice}: drop one.")
    for name, pair in bounds.items():
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"Expected [lower, upper] for {name}, got {pair!r}: give two numbers, null to keep a bound.")
    for name, value in fixed.items():
        if value is None:
            raise ConfigError(f"Expected a number to fix {name} at, got none: give one, or drop it.")
    return {name: tuple(pair) for name, pair in bounds.items()} | {name: (value, value) for name, value in fixed.items()}
