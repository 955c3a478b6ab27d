"""Inputs of a surrogate: the parameters of a design, or the geometry of its unit cell."""

from __future__ import annotations

__all__ = ["BoxFeatures", "CellFeatures", "Features"]

import itertools
import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors
from matdesinne.transforms import BoxScaler, Standardizer


class Features(nn.Module):
    """Computes standardised inputs of a network from designs in physical units; `size` is their number."""

    size: int

    @abstractmethod
    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute the scales from designs in physical units."""


class BoxFeatures(Features):
    """The parameters themselves, the box scaled to [-1, 1].

    Args:
        space: the design space.
        scale: used instead of the scale of the box.
    """

    def __init__(self, space: DesignSpace, scale: Standardizer | None = None) -> None:
        super().__init__()
        self.size = space.dimension
        self.scale = BoxScaler(space) if scale is None else scale

    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute the scales of unbounded parameters."""
        self.scale.fit(x)

    def forward(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        """Return the scaled designs."""
        return self.scale(x)


class CellFeatures(Features):
    """Logarithms of interatomic distances and of the cell height, the potential drop, and the other parameters.

    A band structure depends on the distances between atoms, and is a smoother function of them than of the cell angles. The
    pairs are those closer than a cutoff in the reference cell; pairs that differ by a translation count once. The height is
    that of the cell over its ab plane; the potential drop is the electric field times the height.

    Args:
        space: designs with the six lattice parameters.
        prototype: the atoms.
        cutoff: largest distance of a pair in the reference cell, in angstrom.
    """

    vectors: Tensor

    def __init__(self, space: DesignSpace, prototype: Prototype, cutoff: float = 3.2) -> None:
        super().__init__()
        prototype.check(space)
        self.cell_columns = [space.index(name) for name in CELL_PARAMETERS]
        self.field_column = space.index("electric_field") if "electric_field" in space.names else None
        used = [*self.cell_columns, self.field_column]
        self.other_columns = [i for i in range(space.dimension) if i not in used]
        reference = cell_vectors(space.reference[self.cell_columns].double().unsqueeze(0))[0]
        self.register_buffer("vectors", _pair_vectors(prototype, reference, cutoff).float(), persistent=False)
        self.size = len(self.vectors) + 1 + (self.field_column is not None) + len(self.other_columns)
        self.scale = Standardizer(self.size)

    def fit(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute mean and standard deviation of every feature."""
        self.scale.fit(self._geometry(x))

    def forward(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        """Return the standardised features."""
        return self.scale(self._geometry(x))

    def _geometry(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n f"]:
        cell = cell_vectors(x[:, self.cell_columns])
        distances = torch.linalg.vector_norm(self.vectors @ cell, dim=2)
        height = cell[:, 2, 2:]
        columns = [distances.log(), height.log(), x[:, self.other_columns]]
        if self.field_column is not None:
            columns.append(x[:, self.field_column : self.field_column + 1] * height)
        return torch.cat(columns, dim=1)


def _pair_vectors(prototype: Prototype, cell: Float[Tensor, "3 3"], cutoff: float) -> Float[Tensor, "p 3"]:
    """Return fractional vectors between atoms closer than the cutoff; of a vector and its negative only one."""
    positions = torch.tensor(prototype.positions, dtype=torch.float64)
    reach = [math.ceil(cutoff / float(length)) for length in torch.linalg.vector_norm(cell, dim=1)]
    vectors: list[Tensor] = []
    for first, second in itertools.combinations_with_replacement(range(len(positions)), 2):
        for image in itertools.product(*(range(-n, n + 1) for n in reach)):
            vector = positions[second] - positions[first] + torch.tensor(image, dtype=torch.float64)
            length = float(torch.linalg.vector_norm(vector @ cell))
            known = any(min((vector - v).norm(), (vector + v).norm()) < 1e-6 for v in vectors)
            if 1e-6 < length <= cutoff and not known:
                vectors.append(vector)
    return torch.stack(vectors)
