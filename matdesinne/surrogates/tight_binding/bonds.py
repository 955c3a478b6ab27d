"""Bonds of a monolayer MX2: the list of neighbours in a design space, and their vectors in each design."""

from __future__ import annotations

__all__ = ["Bonds", "Layer", "LayerBonds", "LayerGeometry"]

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors

_FIELD = "electric_field"
_REACH = range(-3, 4)
"""Cells along a and b that are searched for neighbours."""
_LEVELS = 3
"""Number of values of each lattice parameter, bounds included, for which neighbours are searched."""
_PLANE_EXTRA = 0.7
"""Angstrom by which the cutoff is larger for bonds between equal atoms."""


class Layer(NamedTuple):
    """Positions of the atoms of a monolayer MX2 in the cell.

    Args:
        offset: fractional vector in the plane from the metal to both chalcogens.
        height: fractional height of the upper chalcogen over the metal; the lower one is at the same distance below.
    """

    offset: tuple[float, float]
    height: float

    @classmethod
    def of(cls, prototype: Prototype) -> Layer:
        """Determine the layer of a prototype.

        Raises:
            ConfigError: if the atoms are not one metal and two chalcogens that z -> 1 - z maps onto each other.
        """
        symbols = list(prototype.symbols)
        singles = [i for i, symbol in enumerate(symbols) if symbols.count(symbol) == 1]
        if len(symbols) == 3 and len(singles) == 1:
            metal = prototype.positions[singles[0]]
            others = [position for i, position in enumerate(prototype.positions) if i != singles[0]]
            first, second = ([_to_nearest(p - q) for p, q in zip(other, metal, strict=True)] for other in others)
            mirrored = [_to_nearest(p - q) for p, q in zip(first, (second[0], second[1], -second[2]), strict=True)]
            if max(map(abs, mirrored)) <= 1e-6 <= abs(first[2]):
                return cls((first[0], first[1]), abs(first[2]))
        raise ConfigError(
            "Expected one metal and two equal chalcogens that z -> 1 - z maps onto each other, got "
            f"{symbols} at {[list(position) for position in prototype.positions]}: use surrogate=bands or surrogate=mlp."
        )


class Bonds(NamedTuple):
    """Lengths in angstrom and unit vectors of the bonds of one kind.

    s is 2 for kinds in which the upper and the lower chalcogen have separate bonds, else 1.
    """

    lengths: Float[Tensor, "n s b"]
    directions: Float[Tensor, "n s b 3"]


class LayerGeometry(NamedTuple):
    """All bonds of a batch of designs.

    Args:
        metal_chalcogen: from the metal to the upper (0) and to the lower chalcogen (1).
        plane: between equal atoms in a plane; of a vector and its negative only one.
        cross: from the lower to the upper chalcogen.
        height: of the cell over its ab plane in angstrom.
        area: of the ab plane in square angstrom.
        drop: field times height of the cell in eV.
    """

    metal_chalcogen: Bonds
    plane: Bonds
    cross: Bonds
    height: Float[Tensor, " n"]
    area: Float[Tensor, " n"]
    drop: Float[Tensor, " n"]


class LayerBonds(nn.Module):
    """Bonds that are shorter than a cutoff in some design of the space.

    The list is the same for all designs, so that energies are smooth functions of the design, and is closed under the
    symmetries of the box.

    Args:
        space: has the six lattice parameters with bounds, and no other parameter except an electric field.
        prototype: one metal and two chalcogens.
        cutoff: in angstrom; for bonds between equal atoms it is 0.7 larger.

    Raises:
        ConfigError: if the space or the prototype is not of this kind.
    """

    metal_chalcogen: Tensor
    plane: Tensor
    cross: Tensor
    mirror: Tensor

    def __init__(self, space: DesignSpace, prototype: Prototype, cutoff: float = 3.6) -> None:
        super().__init__()
        _check_space(space, prototype)
        self.layer = Layer.of(prototype)
        self.space = space
        self.field_column = space.index(_FIELD) if _FIELD in space.names else None
        (p, q), height = self.layer.offset, self.layer.height
        images = list(itertools.product(_REACH, _REACH))
        candidates = {
            "metal_chalcogen": ([(p + i, q + j, height) for i, j in images], cutoff),
            "plane": ([(i, j, 0.0) for i, j in images if (i, j) > (0, 0)], cutoff + _PLANE_EXTRA),
            "cross": ([(i, j, 2 * height) for i, j in images], cutoff),
        }
        # a regular grid over the box, corners included, has the symmetries of the box
        lower, upper = (space.values(bound.double().unsqueeze(0), CELL_PARAMETERS)[0] for bound in (space.lower, space.upper))
        steps = torch.linspace(0, 1, _LEVELS, dtype=torch.float64)
        cells = cell_vectors(lower + torch.cartesian_prod(*[steps] * len(lower)) * (upper - lower))
        reference = cell_vectors(space.values(space.reference.double().unsqueeze(0), CELL_PARAMETERS))
        self.reference_lengths: dict[str, float] = {}
        for name, (images_of_kind, limit) in candidates.items():
            vectors = torch.tensor(images_of_kind, dtype=torch.float64)
            near = vectors[torch.linalg.vector_norm(vectors @ cells, dim=2).amin(dim=0) < limit]
            self.reference_lengths[name] = float(torch.linalg.vector_norm(near @ reference[0], dim=1).min())
            self.register_buffer(name, near.float(), persistent=False)
        offsets = {"metal_chalcogen": torch.tensor([p, q]), "plane": torch.zeros(2), "cross": torch.zeros(2)}
        for name, offset in offsets.items():
            self.register_buffer(f"{name}_images", (getattr(self, name)[:, :2] - offset).round(), persistent=False)
        self.register_buffer("mirror", torch.tensor([1.0, 1.0, -1.0]), persistent=False)

    def forward(self, x: Float[Tensor, "n dx"]) -> LayerGeometry:
        """Compute the bonds of designs in physical units."""
        cell = cell_vectors(self.space.values(x, CELL_PARAMETERS))
        height = cell[:, 2, 2]
        drop = torch.zeros_like(height) if self.field_column is None else x[:, self.field_column] * height
        sides = torch.stack([self.metal_chalcogen, self.metal_chalcogen * self.mirror])
        vectors = (sides, self.plane.unsqueeze(0), self.cross.unsqueeze(0))
        near, plane, cross = (_bonds(kind, cell) for kind in vectors)
        return LayerGeometry(near, plane, cross, height, cell[:, 0, 0] * cell[:, 1, 1], drop)

    def angles(self, name: str, kpoints: Float[Tensor, "... k 2"]) -> Float[Tensor, "... k b"]:
        """Compute the Bloch phase, in radians, of the cell in which each bond of a kind ends, at fractional k-points."""
        images: Tensor = getattr(self, f"{name}_images")
        return 2 * math.pi * (kpoints @ images.T)


def _check_space(space: DesignSpace, prototype: Prototype) -> None:
    prototype.check(space)
    unbounded = [p.name for p in space.parameters if p.name in CELL_PARAMETERS and not p.bounded]
    if unbounded:
        raise ConfigError(f"Expected finite bounds of the cell to list its bonds, got none for {unbounded}: declare them.")
    others = [name for name in space.names if name not in (*CELL_PARAMETERS, _FIELD)]
    if others:
        raise ConfigError(
            f"Expected the parameters {[*CELL_PARAMETERS, _FIELD]} for surrogate=tight_binding, got also {others}: "
            "use surrogate=bands or surrogate=mlp."
        )


def _to_nearest(difference: float) -> float:
    """Return a fractional difference to the nearest periodic image."""
    return difference - round(difference)


def _bonds(vectors: Float[Tensor, "s b 3"], cell: Float[Tensor, "n 3 3"]) -> Bonds:
    cartesian = vectors @ cell.unsqueeze(1)
    lengths = torch.linalg.vector_norm(cartesian, dim=3)
    return Bonds(lengths, cartesian / lengths.unsqueeze(3))
