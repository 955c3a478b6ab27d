"""Inputs of the networks of the tight-binding model: numbers that are invariant under rotations of the crystal."""

from __future__ import annotations

__all__ = ["BOND_INVARIANTS", "CELL_INVARIANTS", "LayerInvariants", "Moments", "layer_invariants"]

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.surrogates.tight_binding.bonds import Bonds, LayerGeometry

CELL_INVARIANTS, BOND_INVARIANTS = 18, 8
"""Number of invariants for each side of the layer, and for each bond on each side."""
_DECAY = 5.0
"""Decay of the weight of a neighbour with its relative distance."""
_COORDINATION = 3.0
"""Sums over neighbours are divided by this typical number of neighbours of one kind, so that they are of order one."""


class Moments(NamedTuple):
    r"""Sums over the bonds of one kind, weighted by :math:`f = \exp(-5 (d / d_0 - 1))`.

    Args:
        sums: logarithms of the sums of f and of its square.
        dipole: sum of f u.
        quadrupole: sum of f u u^T.
    """

    sums: Float[Tensor, "n s 2"]
    dipole: Float[Tensor, "n s 3"]
    quadrupole: Float[Tensor, "n s 3 3"]

    @classmethod
    def of(cls, bonds: Bonds, length: float) -> Moments:
        """Sum over bonds; `length` is their length in the reference cell in angstrom."""
        weight = (-_DECAY * (bonds.lengths / length - 1)).exp()
        sums = [(part.sum(dim=2) / _COORDINATION).log() for part in (weight, weight.square())]
        weighted = weight.unsqueeze(3) * bonds.directions / _COORDINATION
        return cls(torch.stack(sums, dim=2), weighted.sum(dim=2), weighted.mT @ bonds.directions)

    def flipped(self) -> Moments:
        """Return the moments with the two sides exchanged."""
        return Moments(*(part.flip(1) for part in self))


class LayerInvariants(NamedTuple):
    """Invariants for the upper (0) and the lower side (1); those of the side itself come before those of the other side.

    Args:
        bonds: for each kind of bond, shape [n, 2, b, 8].
        dipole: of the bonds of the metal to each side; a vector that rotates with the crystal.
    """

    cell: Float[Tensor, "n 2 18"]
    bonds: dict[str, Tensor]
    dipole: Float[Tensor, "n 2 3"]


def layer_invariants(geometry: LayerGeometry, lengths: Mapping[str, float]) -> LayerInvariants:
    """Compute all invariants of a batch of designs, given the length of each kind of bond in the reference cell in angstrom."""
    kinds = {"metal_chalcogen": geometry.metal_chalcogen, "plane": geometry.plane, "cross": geometry.cross}
    side, plane, cross = (Moments.of(kind, lengths[name]) for name, kind in kinds.items())
    other, signs = side.flipped(), _signs(geometry.height)
    bonds = {}
    for name, kind in kinds.items():
        dipoles = [_projection(kind.directions, vector) for vector in (side.dipole, other.dipole)]
        if name == "plane":
            # a bond and its reverse have the same invariants
            dipoles = [part.square() for part in dipoles]
        elif name == "cross":
            dipoles = [part * signs.unsqueeze(1) for part in dipoles]
        tensors = (side.quadrupole, other.quadrupole, plane.quadrupole)
        logarithm = (kind.lengths / lengths[name]).log()
        both = [logarithm, logarithm.square(), kind.directions[..., 2].abs()]
        bonds[name] = _joined([*both, *(_stretch(kind.directions, tensor) for tensor in tensors), *dipoles])
    return LayerInvariants(_cell_invariants(geometry, side, plane, cross), bonds, side.dipole)


def _cell_invariants(geometry: LayerGeometry, side: Moments, plane: Moments, cross: Moments) -> Float[Tensor, "n 2 18"]:
    other, drop = side.flipped(), geometry.drop.unsqueeze(1)
    sums = [moments.sums.expand(-1, 2, -1) for moments in (side, other, plane, cross)]
    columns = [
        side.quadrupole[..., 2, 2],
        other.quadrupole[..., 2, 2],
        _overlap(side, plane),
        _overlap(other, plane),
        _overlap(side, other),
        _overlap(plane, plane),
        geometry.height.log().unsqueeze(1),
        geometry.area.log().unsqueeze(1),
        _signs(drop) * drop,
        drop.square(),
    ]
    return torch.cat([*sums, _joined(columns)], dim=2)


def _joined(columns: list[Tensor]) -> Tensor:
    return torch.stack([column.expand(-1, 2, *column.shape[2:]) for column in columns], dim=-1)


def _signs(like: Tensor) -> Float[Tensor, " 2"]:
    """Return 1 for the upper and -1 for the lower side."""
    return 1 - 2 * torch.arange(2, dtype=like.dtype, device=like.device)


def _overlap(left: Moments, right: Moments) -> Float[Tensor, "n s"]:
    return (left.quadrupole * right.quadrupole).sum(dim=(2, 3))


def _stretch(directions: Float[Tensor, "n s b 3"], tensor: Float[Tensor, "n t 3 3"]) -> Float[Tensor, "n st b"]:
    return ((directions @ tensor) * directions).sum(dim=3)


def _projection(directions: Float[Tensor, "n s b 3"], vector: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n 2 b"]:
    return (directions @ vector.unsqueeze(3)).squeeze(3)
