"""The design space: named parameters with units, bounds and symmetries."""

from __future__ import annotations

__all__ = ["DesignSpace", "Parameter", "Symmetry"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.symmetry import GroupElement, Symmetry, generate_group

_EQUAL = 2e-6
"""Two values of a parameter are equal when they differ by less than this many half-widths of the box."""


@dataclass(frozen=True)
class Parameter:
    """One physical parameter of a design.

    Args:
        name: the field's term, e.g. ``"electric_field"``; it names the column of every table.
        unit: e.g. ``"angstrom"``; ``"1"`` for a number without unit.
        lower: ``-inf`` where there is none.
        upper: ``inf`` where there is none; equal to `lower` for a fixed parameter.
        reference: value in the unmodified material; strains are relative to it.
    """

    name: str
    unit: str
    lower: float = -math.inf
    upper: float = math.inf
    reference: float = 0.0

    def __post_init__(self) -> None:
        """Check the name and the order of the bounds."""
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

    def strain(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Relative deviation of values in `unit` from the reference, also of angles; not finite where the reference is 0."""
        return (values - self.reference) / self.reference

    def narrowed(self, lower: float | None, upper: float | None) -> Parameter:
        """Return the parameter with bounds inside its own, rounded inwards to float32; see `DesignSpace.narrowed`."""
        lower, upper = self.lower if lower is None else lower, self.upper if upper is None else upper
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (lower, upper))
        if not (numbers and self.lower <= lower <= upper <= self.upper):
            raise ConfigError(
                f"Expected {self.lower:g} <= lower <= upper <= {self.upper:g} {self.unit} for {self.name}, got {lower!r} and "
                f"{upper!r}: stay in the design space."
            )
        nearest = torch.tensor([lower, upper], dtype=torch.float32)
        inwards = torch.nextafter(nearest, nearest.flip(0))
        first, last = nearest.tolist()
        first = first if first >= lower else float(inwards[0])
        last = last if last <= upper else float(inwards[1])
        return replace(self, lower=first, upper=max(first, last))


@dataclass(frozen=True)
class DesignSpace:
    """The set of allowed designs: a box over named parameters, with its symmetry group.

    Args:
        parameters: in the order of the columns of every design tensor.
        symmetries: generators of the group of operations that leave the properties unchanged.
        order: all names in the order in which an autoregressive model draws them; those that determine the property given
            the others come last. Empty: the model determines the order from the data.

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
        """Check the names, and that the symmetries and the order use no others."""
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

    @property
    def center(self) -> Float[Tensor, " dx"]:
        """Middle of the box in physical units; 0 for a parameter without two finite bounds."""
        return ((self.lower + self.upper) / 2).nan_to_num(0.0, posinf=0.0, neginf=0.0)

    @property
    def half_width(self) -> Float[Tensor, " dx"]:
        """Half the width of the box in physical units; 1 for a parameter that is fixed or has no two finite bounds."""
        width = self.upper - self.lower
        return torch.where((width > 0) & width.isfinite(), width / 2, 1.0)

    def to_unit(self, x: Float[Tensor, "*n dx"]) -> Float[Tensor, "*n dx"]:
        """Express designs in half-widths of the box, counted from its centre: the box becomes [-1, 1].

        A parameter without two finite bounds keeps its value in physical units; a fixed one becomes 0.
        """
        return (x - self.center.to(x)) / self.half_width.to(x)

    def strains(self, x: Float[Tensor, "n dx"], names: Sequence[str]) -> Float[Tensor, "n s"]:
        """Strains of some parameters whose references are not 0, one column for each name; see `Parameter.strain`.

        Example:
            >>> space = DesignSpace([Parameter("a", "angstrom", reference=2.0), Parameter("b", "angstrom", reference=4.0)])
            >>> space.strains(torch.tensor([[2.5, 4.0]]), ["b", "a"]).tolist()
            [[0.0, 0.25]]
        """
        columns = [self.index(name) for name in names]
        return torch.stack([self.parameters[i].strain(x[:, i]) for i in columns], dim=1)

    def index(self, name: str) -> int:
        """Column of a parameter.

        Raises:
            ConfigError: if there is no such parameter.
        """
        if name not in self.names:
            raise ConfigError(f"Expected one of the parameters {list(self.names)}, got {name!r}: correct the name.")
        return self.names.index(name)

    def contains(self, x: Float[Tensor, "*n dx"], tolerance: float = 1e-5) -> Bool[Tensor, "*n"]:
        """Return a mask of the designs inside the bounds, up to a rounding error in float32 of this fraction of the width."""
        lower, upper = self.lower.to(x), self.upper.to(x)
        slack = torch.nan_to_num(tolerance * (upper - lower), posinf=0.0)
        return ((x >= lower - slack) & (x <= upper + slack)).all(dim=-1)

    def narrowed(
        self, bounds: Mapping[str, Sequence[float | None]] | None = None, fixed: Mapping[str, float] | None = None
    ) -> DesignSpace:
        """Return the part of the space within bounds ``[lower, upper]`` of some parameters, and with fixed values of others.

        A bound ``None`` is that of the space. A bound that is no float32 number is rounded inwards, so that designs in float32
        satisfy the bound as it was given; a fixed value is rounded to the nearest one.

        Raises:
            ConfigError: if a name is unknown or in both, or a bound or value lies outside the space.
        """
        parameters = list(self.parameters)
        for name, edges in _read_edges(bounds or {}, fixed or {}).items():
            column = self.index(name)
            parameters[column] = parameters[column].narrowed(*edges)
        return replace(self, parameters=parameters)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Draw designs in physical units uniformly from the box.

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
        return generate_group(self.names, self.symmetries)

    def images(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n g dx"]:
        """Return the images of every design under all operations of `group`, the design itself first."""
        return torch.stack([element(x) for element in self.group()], dim=1)

    def canonicalize(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Return the same image for all designs inside the bounds that the symmetries make equivalent.

        It is the largest of the images inside the bounds: the one with the larger value of the first parameter that differs.
        """
        half_width = self.half_width.to(x)
        best = x
        for element in self.group()[1:]:
            image = element(x)
            ahead = (image - best) / half_width
            first = (ahead.abs() > _EQUAL).int().argmax(dim=1, keepdim=True)
            better = (ahead.gather(1, first).squeeze(1) > _EQUAL) & self.contains(image)
            best = torch.where(better.unsqueeze(1), image, best)
        return best

    def random_images(self, x: Float[Tensor, "n dx"], level: Float[Tensor, " n"]) -> Float[Tensor, "n dx"]:
        """Choose one image of each design inside the bounds, all equally likely, by a uniform `level` in [0, 1)."""
        images = self.images(x)
        inside = self.contains(images)
        inside[:, 0] = True
        number = (level * inside.sum(dim=1)).long().unsqueeze(1)
        chosen = (inside.cumsum(dim=1) > number).int().argmax(dim=1)
        return images[torch.arange(len(x)), chosen]

    def to_dict(self) -> dict[str, list]:
        """Return plain containers for checkpoints and JSON; infinite bounds are left out."""
        entries = [asdict(parameter).items() for parameter in self.parameters]
        parameters = [{key: value for key, value in entry if value not in (-math.inf, math.inf)} for entry in entries]
        symmetries = [asdict(symmetry) for symmetry in self.symmetries]
        return {"parameters": parameters, "symmetries": symmetries, "order": list(self.order)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, list]) -> DesignSpace:
        """Rebuild what `to_dict` wrote."""
        parameters = [Parameter(**entry) for entry in plain["parameters"]]
        return cls(parameters, [Symmetry(**entry) for entry in plain["symmetries"]], plain.get("order", ()))


def _read_edges(
    bounds: Mapping[str, Sequence[float | None]], fixed: Mapping[str, float]
) -> dict[str, tuple[float | None, ...]]:
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
