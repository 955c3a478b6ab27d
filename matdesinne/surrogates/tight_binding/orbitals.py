r"""Two-centre matrices of Slater and Koster between s, p and d orbitals, written without angles.

A p orbital is a unit vector and a d orbital a symmetric traceless matrix :math:`D_a` with :math:`\mathrm{tr} D_a D_b =
\delta_{ab}`. Along a bond u every matrix is a polynomial: with :math:`t_a = u^T D_a u` and :math:`w_a = D_a u` the
projector on d sigma is :math:`\frac{3}{2} t t^T`, that on d pi is :math:`2 (w w^T - t t^T)`.

References:
    Slater and Koster, Simplified LCAO method for the periodic potential problem, Physical Review 94, 1498 (1954),
    doi 10.1103/PhysRev.94.1498.
"""

from __future__ import annotations

__all__ = ["Angular", "bond_sum", "d_matrices", "dd_block", "metal_chalcogen_block", "symmetric_block"]

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_DS, _PD_PI = math.sqrt(1.5), math.sqrt(2.0)


class Angular(NamedTuple):
    """Polynomials in the components of the bond directions: u, u u^T, t, w, t t^T and w w^T, the outer products flat."""

    u: Float[Tensor, "n s b 3"]
    uu: Float[Tensor, "n s b 9"]
    t: Float[Tensor, "n s b 5"]
    w: Float[Tensor, "n s b 5 3"]
    tt: Float[Tensor, "n s b 25"]
    ww: Float[Tensor, "n s b 25"]

    @classmethod
    def of(cls, directions: Float[Tensor, "n s b 3"], matrices: Float[Tensor, "5 3 3"]) -> Angular:
        """Evaluate the polynomials, given `d_matrices`."""
        w = d_products(directions, matrices)
        t = (w * directions.unsqueeze(-2)).sum(dim=-1)
        uu, tt, ww = (outer.flatten(-2) for outer in (_outer(directions, directions), _outer(t, t), w @ w.mT))
        return cls(directions, uu, t, w, tt, ww)


def d_matrices() -> Float[Tensor, "5 3 3"]:
    """Return the orbitals xy, yz, xz, x2-y2 and z2 as orthonormal matrices."""
    matrices = torch.zeros(5, 3, 3)
    half = math.sqrt(0.5)
    for row, (i, j) in enumerate(((0, 1), (1, 2), (0, 2))):
        matrices[row, i, j] = matrices[row, j, i] = half
    matrices[3, 0, 0], matrices[3, 1, 1] = half, -half
    matrices[4] = torch.diag(torch.tensor([-1.0, -1.0, 2.0])) / math.sqrt(6)
    return matrices


def d_products(vectors: Float[Tensor, "... 3"], matrices: Float[Tensor, "5 3 3"]) -> Float[Tensor, "... 5 3"]:
    """Return D v for each d orbital D."""
    return (vectors @ matrices.flatten(0, 1).T).unflatten(-1, (5, 3))


def dd_block(angular: Angular, sigma: Float[Tensor, "n s b"], pi: Float[Tensor, "n s b"]) -> Float[Tensor, "n s b 25"]:
    """Return sigma and pi times the projectors on d sigma and d pi along each bond, summed and flattened."""
    return (1.5 * sigma - 2 * pi).unsqueeze(-1) * angular.tt + (2 * pi).unsqueeze(-1) * angular.ww


def metal_chalcogen_block(
    angular: Angular, dipole: Float[Tensor, "n 2 3"], matrices: Float[Tensor, "5 3 3"], integrals: Mapping[str, Tensor]
) -> Float[Tensor, "n 2 b 24"]:
    r"""Return the flattened matrix between a chalcogen (rows p, s) and the metal (columns d, s) for each bond.

    Beside the two-centre integrals, in eV and of shape [n, 2, b] each, there are three that depend on the dipole v of the
    metal's neighbours on each side: :math:`v t^T`, :math:`u (D v \cdot u)^T` and :math:`(D v)^T`.
    """
    u, t, w = angular.u, angular.t, angular.w
    product = d_products(dipole, matrices)
    along = u @ product.mT
    pi = _PD_PI * integrals["pd_pi"].unsqueeze(-1)
    row = (_DS * integrals["pd_sigma"].unsqueeze(-1) - pi) * t + integrals["pd_along_dipole"].unsqueeze(-1) * along
    column = integrals["p_dipole_d"].unsqueeze(-1) * t
    turned = integrals["pd_dipole"].unsqueeze(-1).unsqueeze(-1) * product.mT.unsqueeze(2)
    pd = _outer(u, row) + _outer(dipole.unsqueeze(2).expand_as(u), column) + pi.unsqueeze(-1) * w.mT + turned
    ps = integrals["ps_sigma"].unsqueeze(-1) * u
    sd = _DS * integrals["sd_sigma"].unsqueeze(-1) * t
    lower = torch.cat([sd, integrals["ss_sigma"].unsqueeze(-1)], dim=-1)
    return torch.cat([torch.cat([pd, ps.unsqueeze(-1)], dim=-1), lower.unsqueeze(-2)], dim=-2).flatten(-2)


def symmetric_block(
    square: Float[Tensor, "... s"], vector: Float[Tensor, "... l"], scalar: Float[Tensor, "*n"], sign: float = 1.0
) -> Float[Tensor, "... l+1 l+1"]:
    """Return the matrix of p or d orbitals and an s orbital on one kind of atom; sign -1 makes their block antisymmetric."""
    width = vector.shape[-1]
    upper = torch.cat([square.unflatten(-1, (width, width)), vector.unsqueeze(-1)], dim=-1)
    lower = torch.cat([sign * vector, scalar.unsqueeze(-1)], dim=-1)
    return torch.cat([upper, lower.unsqueeze(-2)], dim=-2)


def bond_sum(integral: Float[Tensor, "... b"], matrices: Float[Tensor, "... b c"]) -> Float[Tensor, "... c"]:
    """Sum an integral times a flattened matrix over bonds."""
    return (integral.unsqueeze(-2) @ matrices).squeeze(-2)


def _outer(left: Float[Tensor, "... i"], right: Float[Tensor, "... j"]) -> Float[Tensor, "... i j"]:
    return left.unsqueeze(-1) * right.unsqueeze(-2)
