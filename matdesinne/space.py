"""The design space: named parameters with units, bounds, constraints and symmetries."""

from __future__ import annotations

__all__ = ["Category", "DesignSpace", "Mixture", "Parameter", "Symmetry"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.constraints import Constraints
from matdesinne.design_columns import category_labels, column_names, design_columns, designs_of_columns, plain_space
from matdesinne.errors import ConfigError
from matdesinne.narrowing import narrowed_parameters
from matdesinne.parameters import Category, Mixture, Parameter
from matdesinne.strain import LayerStrain, StrainBounds
from matdesinne.symmetry import GroupElement, Symmetry, chosen_image, generate_group, largest_image

_MOST_ROUNDS = 200
"""How often designs whose strains are outside their bounds are drawn again at most."""


@dataclass(frozen=True)
class DesignSpace:
    """The set of allowed designs: a box over named parameters, constraints inside it, and its symmetry group.

    Args:
        parameters: in the order of the columns of every design tensor.
        symmetries: generators of the group of operations that leave the properties unchanged.
        order: all names in the order in which an autoregressive model draws them; those that determine the property given
            the others come last. Empty: the model determines the order from the data.
        mixtures: parameters that add up to a total.
        categories: each becomes one parameter for each of its labels, after the others.
        constants: what all designs have in common and a structure or a calculation needs, by name, such as ``{"c": 16.0}`` for
            the height of the cell of a free-standing layer; in angstrom, degree or V/angstrom.
        strain_bounds: bounds of the strains of a layer, see `LayerStrain`; `narrowed` sets them.

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
    mixtures: Sequence[Mixture] = ()
    categories: Sequence[Category] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    strain_bounds: StrainBounds = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names, and that the symmetries, the order and the mixtures use no others."""
        one_hot = [column for category in self.categories for column in category.columns()]
        object.__setattr__(self, "parameters", (*self.parameters, *one_hot))
        object.__setattr__(self, "categories", ())
        object.__setattr__(self, "order", tuple(self.order))
        if self.order and sorted(self.order) != sorted(self.names):
            raise ConfigError(f"Expected an order of {list(self.names)}, got {list(self.order)}: name each once.")
        object.__setattr__(self, "symmetries", tuple(self.symmetries))
        object.__setattr__(self, "mixtures", tuple(self.mixtures))
        if not self.parameters:
            raise ConfigError("Expected at least one parameter, got none: list the columns of a design.")
        names = [*self.names, *self.constraints.categories, *self.constants]
        if len(set(names)) != len(names):
            raise ConfigError(f"Expected distinct names of parameters and constants, got {names}: rename the repeated one.")
        for symmetry in self.symmetries:
            symmetry.check(self.names)

    @cached_property
    def constraints(self) -> Constraints:
        """What a design may be inside the bounds; false where it may be anything."""
        return Constraints.of(self.parameters, self.mixtures)

    @cached_property
    def layer(self) -> LayerStrain | None:
        """Strains of the designs in the plane of a layer; ``None`` where a, b and gamma with references are no parameters."""
        return LayerStrain.of(self.parameters)

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
        """Strains of some parameters whose references are not 0, one column for each name; see `Parameter.strain`."""
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

    def has(self, names: Sequence[str]) -> bool:
        """Whether all of these are parameters or constants."""
        return all(name in self.names or name in self.constants for name in names)

    def values(self, x: Float[Tensor, "n dx"], names: Sequence[str]) -> Float[Tensor, "n v"]:
        """The values of parameters and constants of designs by their names, one column for each.

        Raises:
            ConfigError: if one is neither.

        Example:
            >>> space = DesignSpace([Parameter("a", "angstrom", 3.0, 3.4)], constants={"c": 16.0})
            >>> space.values(torch.tensor([[3.2]]), ["c", "a"]).tolist()
            [[16.0, 3.200000047683716]]
        """
        columns = [
            x.new_full((len(x),), self.constants[name]) if name in self.constants else x[:, self.index(name)] for name in names
        ]
        return torch.stack(columns, dim=1)

    def design(self, row: Sequence[float]) -> dict[str, float]:
        """The values of one design's parameters, and the constants, by name."""
        return {**dict(zip(self.names, row, strict=True)), **self.constants}

    def contains(self, x: Float[Tensor, "*n dx"], tolerance: float = 1e-5) -> Bool[Tensor, "*n"]:
        """Return a mask of the designs inside the bounds, up to a rounding error in float32 of this fraction of the width."""
        lower, upper = self.lower.to(x), self.upper.to(x)
        slack = torch.nan_to_num(tolerance * (upper - lower), posinf=0.0)
        inside = ((x >= lower - slack) & (x <= upper + slack)).all(dim=-1)
        return inside & self.layer.contains(x, self.strain_bounds, tolerance) if self.strain_bounds and self.layer else inside

    def allows(self, x: Float[Tensor, "*n dx"], tolerance: float = 1e-5) -> Bool[Tensor, "*n"]:
        """Return a mask of the designs that `contains` holds for and that keep the constraints, up to the same error."""
        inside = self.contains(x, tolerance)
        return (
            inside & ((x - self.snap(x)).abs() <= tolerance * self.half_width.to(x)).all(dim=-1) if self.constraints else inside
        )

    def snap(self, x: Float[Tensor, "*n dx"]) -> Float[Tensor, "*n dx"]:
        """Return the nearest allowed design of each: with allowed values, one label of each category, and the sums of mixtures.

        A space without constraints returns the designs as they are.

        Example:
            >>> space = DesignSpace([Parameter("p", "bar", values=[1, 2, 5])], categories=[Category("solvent", ["H2O", "DMF"])])
            >>> space.snap(torch.tensor([[3.0, 0.4, 0.7]])).tolist()
            [[2.0, 0.0, 1.0]]
        """
        return self.constraints.snap(x) if self.constraints else x

    def narrowed(
        self, bounds: Mapping[str, Sequence[float | None]] | None = None, fixed: Mapping[str, float | str] | None = None
    ) -> DesignSpace:
        """Return the part of the space within bounds ``[lower, upper]`` of some parameters, and with fixed values of others.

        A bound ``None`` is that of the space. A bound that is no float32 number is rounded inwards, so that designs in float32
        satisfy the bound as it was given; a fixed value is rounded to the nearest one. A category is fixed at a label. Bounds
        may name the strains of a layer, too; they narrow a, b and gamma as far as these follow from them.

        Raises:
            ConfigError: if a name is unknown or in both, or a bound or value lies outside the space.
        """
        parameters, strains = narrowed_parameters(self.parameters, self.layer, self.strain_bounds, bounds or {}, fixed or {})
        return replace(self, parameters=parameters, strain_bounds=strains)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Draw allowed designs in physical units, all equally likely.

        Raises:
            ConfigError: if a bound is infinite, or no design keeps the bounds of the strains.
        """
        if not self.bounded:
            open_names = [p.name for p in self.parameters if not p.bounded]
            raise ConfigError(f"Expected finite bounds to sample uniformly, got none for {open_names}: declare them.")
        designs = self._sample_box(count, generator)
        for _ in range(_MOST_ROUNDS if self.strain_bounds else 0):
            outside = ~self.contains(designs, tolerance=0.0)
            if not outside.any():
                return designs
            designs[outside] = self._sample_box(int(outside.sum()), generator)
        if self.strain_bounds:
            raise ConfigError(f"Expected designs within the bounds {dict(self.strain_bounds)}, got too few: widen the bounds.")
        return designs

    def _sample_box(self, count: int, generator: torch.Generator | None) -> Float[Tensor, "n dx"]:
        unit = torch.rand(count, self.dimension, generator=generator)
        if self.constraints:
            return self.constraints.sample(unit, generator)
        return self.lower + unit * (self.upper - self.lower)

    def moved(self, x: Float[Tensor, "n dx"], step: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        """Move designs by steps in widths of the box, reflected at its faces; see `Constraints.moved` where there are some."""
        width = self.upper - self.lower
        unit = ((x - self.lower) / width + step).remainder(2.0)
        moved = self.lower + width * torch.where(unit > 1, 2 - unit, unit)
        return self.constraints.moved(x, step, moved) if self.constraints else moved

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
        return largest_image(x, self.group(), self.half_width, self.contains)

    def random_images(self, x: Float[Tensor, "n dx"], level: Float[Tensor, " n"]) -> Float[Tensor, "n dx"]:
        """Choose one image of each design inside the bounds, all equally likely, by a uniform `level` in [0, 1)."""
        images = self.images(x)
        return chosen_image(images, self.contains(images), level)

    @property
    def labels(self) -> dict[str, list[str]]:
        """The labels of each category, by its name."""
        return category_labels(self.parameters)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a table of designs, in which a category is one column."""
        return column_names(self.parameters)

    def to_columns(self, x: Float[Tensor, "n dx"]) -> dict[str, tuple[str, list[float] | list[str]]]:
        """Return designs as ``{name: (unit, values)}``: categories as text, allowed values and sums in double precision."""
        return design_columns(self.parameters, self.snap(x.double()) if self.constraints else x)

    def from_columns(self, table: Mapping[str, Sequence[float] | Sequence[str]]) -> Float[Tensor, "n dx"]:
        """Read what `to_columns` gave, without the units."""
        return designs_of_columns(self.parameters, table)

    def to_dict(self) -> dict[str, object]:
        """Return plain containers for checkpoints and JSON; infinite bounds and empty fields are left out."""
        return plain_space(self.parameters, self.symmetries, self.order, self.mixtures, self.constants, self.strain_bounds)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DesignSpace:
        """Rebuild what `to_dict` wrote."""
        parameters = [Parameter(**entry) for entry in plain["parameters"]]
        mixtures = [Mixture(**entry) for entry in plain.get("mixtures", ())]
        symmetries = [Symmetry(**entry) for entry in plain["symmetries"]]
        space = cls(parameters, symmetries, plain.get("order", ()), mixtures, constants=plain.get("constants", {}))
        return space.narrowed(plain["strain_bounds"]) if "strain_bounds" in plain else space
