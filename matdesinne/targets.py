"""Properties with units and floors, and targets: values or intervals of properties."""

from __future__ import annotations

__all__ = ["Property", "Target"]

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError, TargetError


@dataclass(frozen=True)
class Property:
    """A quantity that a design has.

    Args:
        name: the field's term, e.g. ``"band_gap"``; it names the column of every table.
        unit: e.g. ``"eV"``; ``"1"`` for a number without unit.
        floor: smallest physical value, ``None`` where there is none: the gap of a metal is 0, however far its bands overlap,
            although labels may be lower. A target at the floor means "at or below".
        margin: how far below the floor the generative models distinguish values; they treat lower ones as equal.
        censored: whether labels below the floor were set to it, so that a label at the floor means "at or below".
        resolution: difference that does not matter: the standard deviation of the noise that is added to y in the training of
            generative models, so that the designs with f(x) = y form a layer of finite width.
    """

    name: str
    unit: str
    floor: float | None = None
    margin: float = 0.0
    censored: bool = False
    resolution: float = 0.0

    @property
    def suffix(self) -> str:
        """What follows a number in a sentence: a space and the unit, nothing where there is no unit."""
        return "" if self.unit == "1" else f" {self.unit}"

    @property
    def lowest(self) -> float:
        """The lowest value that counts: the floor less the margin, or minus infinity. Lower values are equal to it."""
        return -math.inf if self.floor is None else self.floor - self.margin

    def __post_init__(self) -> None:
        """Check the name, the ranges and the floor."""
        if not self.name.isidentifier():
            raise ConfigError(f"Expected a property name made of letters, digits and _, got {self.name!r}: rename it.")
        if not (self.margin >= 0 and self.resolution >= 0):
            raise ConfigError(
                f"Expected margin and resolution of at least 0 for {self.name!r}, got {self.margin} and {self.resolution}: "
                "correct them."
            )
        if self.censored and self.floor is None:
            raise ConfigError(f"Expected a floor for the censored property {self.name!r}, got none: state where it is cut.")


@dataclass(frozen=True)
class Target:
    """A closed interval for each property in its unit, with infinite edges where it is open, and equal ones for a value.

    A property with two infinite edges is not asked for.

    Example:
        >>> gap = Property("band_gap", "eV", floor=0.0)
        >>> Target.parse(1.0, [gap])
        Target(lower=(1.0,), upper=(1.0,))
        >>> Target.parse(0.0, [gap])
        Target(lower=(-inf,), upper=(0.0,))
        >>> Target.parse([0.5, 0.7], [gap])
        Target(lower=(0.5,), upper=(0.7,))
        >>> Target.parse({"energy": [None, 0.1]}, [gap, Property("energy", "eV")])
        Target(lower=(-inf, -inf), upper=(inf, 0.1))
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def parse(cls, value: object, properties: Sequence[Property]) -> Target:
        """Read a target as a user writes it.

        A value at a property's floor becomes "at or below".

        Args:
            value: a number or ``[lower, upper]`` (``null``: open) by the names of some of the properties, which leaves the
                others open; or one of these for each property, in order, alone for a single property.
            properties: what can be asked for.

        Raises:
            TargetError: if `value` is anything else.
        """
        if isinstance(value, Mapping):
            edges = _named_edges(value, properties)
        else:
            entries = [value] if len(properties) == 1 else value
            if not isinstance(entries, Sequence) or isinstance(entries, str) or len(entries) != len(properties):
                names = [p.name for p in properties]
                raise TargetError(
                    f"Expected one number or [lower, upper] for each of {names}, got {value!r}: name what you ask for, e.g. "
                    f"target={{{names[0]}: 1.0}}."
                )
            edges = [_edges(entry, prop) for entry, prop in zip(entries, properties, strict=True)]
        return cls(tuple(e[0] for e in edges), tuple(e[1] for e in edges))

    def aligned(self, properties: Sequence[Property], others: Sequence[Property]) -> Target:
        """Return the target for other properties: those of `properties` keep their interval by name, the others are open.

        Example:
            >>> gap, energy = Property("band_gap", "eV"), Property("energy", "eV")
            >>> Target((1.0,), (1.0,)).aligned([gap], [energy, gap])
            Target(lower=(-inf, 1.0), upper=(inf, 1.0))
        """
        known = {prop.name: edges for prop, *edges in zip(properties, self.lower, self.upper, strict=True)}
        edges = [known.get(prop.name, [-math.inf, math.inf]) for prop in others]
        return Target(tuple(low for low, _ in edges), tuple(high for _, high in edges))

    def to_list(self) -> list[list[float | None]]:
        """Return ``[lower, upper]`` for each property, for JSON; an infinite edge is ``None``."""
        edges = zip(self.lower, self.upper, strict=True)
        return [[None if math.isinf(edge) else edge for edge in pair] for pair in edges]

    @classmethod
    def from_list(cls, plain: Sequence[Sequence[float | None]]) -> Target:
        """Rebuild a target from the result of `to_list`."""
        lower = tuple(-math.inf if low is None else low for low, _ in plain)
        return cls(lower, tuple(math.inf if high is None else high for _, high in plain))

    @property
    def is_interval(self) -> tuple[bool, ...]:
        """For each property, whether the target is wider than one value."""
        return tuple(low < high for low, high in zip(self.lower, self.upper, strict=True))

    @property
    def asked(self) -> tuple[bool, ...]:
        """For each property, whether the target has a finite edge."""
        return tuple(math.isfinite(low) or math.isfinite(high) for low, high in zip(self.lower, self.upper, strict=True))

    @property
    def asked_columns(self) -> list[int]:
        """The numbers of the properties that are asked for."""
        return [column for column, asked in enumerate(self.asked) if asked]

    @property
    def values(self) -> tuple[float, ...]:
        """One number for each property: the value, the finite edge, or the middle of the interval; NaN where it is open."""
        return tuple(map(_representative, self.lower, self.upper))

    @property
    def rank(self) -> tuple[float, ...]:
        """What targets are sorted by: their `values`, a property that is not asked for first."""
        return tuple(-math.inf if math.isnan(value) else value for value in self.values)

    def residual(self, y: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        """Signed distance of physical values to the target: 0 inside an interval, else y minus the nearest edge."""
        return y - y.clamp(y.new_tensor(self.lower), y.new_tensor(self.upper))

    def format(self, properties: Sequence[Property]) -> str:
        """Write what is asked with units, e.g. ``band_gap = 1 eV``."""
        entries = zip(properties, self.lower, self.upper, self.asked, strict=True)
        return ", ".join(_words(prop, low, high) for prop, low, high, asked in entries if asked) or "any property"


def _representative(low: float, high: float) -> float:
    if math.isinf(low) and math.isinf(high):
        return math.nan
    return high if math.isinf(low) else low if math.isinf(high) else low / 2 + high / 2


def _named_edges(value: Mapping[object, object], properties: Sequence[Property]) -> list[tuple[float, float]]:
    names = [prop.name for prop in properties]
    unknown = [name for name in value if name not in names]
    if unknown or not value:
        raise TargetError(f"Expected a target by names out of {names}, got {unknown[0] if unknown else 'none'!r}: correct it.")
    return [_edges(value[prop.name], prop) if prop.name in value else (-math.inf, math.inf) for prop in properties]


def _edges(entry: object, prop: Property) -> tuple[float, float]:
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        if len(entry) != 2:
            raise TargetError(f"Expected [lower, upper] for {prop.name}, got {list(entry)}: give two edges.")
        low = -math.inf if entry[0] is None else _number(entry[0], prop)
        high = math.inf if entry[1] is None else _number(entry[1], prop)
        if low > high or low == math.inf or high == -math.inf:
            raise TargetError(f"Expected lower <= upper for {prop.name}, got [{low}, {high}] {prop.unit}: swap the edges.")
        if math.isinf(low) and math.isinf(high):
            raise TargetError(f"Expected one finite edge for {prop.name}, got none: e.g. target=[0.5,null].")
    else:
        low = high = _number(entry, prop)
        if math.isinf(low):
            raise TargetError(f"Expected a finite {prop.name} in {prop.unit}, got {low}: give a number or an interval.")
    if prop.floor is not None:
        if high < prop.floor:
            raise TargetError(
                f"Expected a {prop.name} of at least {prop.floor} {prop.unit} (its floor), got {high}: ask for {prop.floor}."
            )
        low = -math.inf if low <= prop.floor and math.isfinite(high) else low
    return low, high


def _number(entry: object, prop: Property) -> float:
    try:
        value = float(entry) if isinstance(entry, numbers.Real) and not isinstance(entry, bool) else math.nan
    except OverflowError:
        value = math.nan
    if math.isnan(value):
        raise TargetError(f"Expected a number for {prop.name} in {prop.unit}, got {entry!r}: e.g. target=1.0.")
    return value


def _words(prop: Property, low: float, high: float) -> str:
    if low == high:
        return f"{prop.name} = {low:g}{prop.suffix}"
    if math.isinf(low):
        return f"{prop.name} <= {high:g}{prop.suffix}"
    if math.isinf(high):
        return f"{prop.name} >= {low:g}{prop.suffix}"
    return f"{low:g} <= {prop.name} <= {high:g}{prop.suffix}"
