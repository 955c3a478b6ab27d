"""Tight-binding Hamiltonian of a monolayer MX2 with learned two-centre integrals."""

from __future__ import annotations

__all__ = ["SlaterKoster", "Surroundings"]

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional

from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.tight_binding.bonds import LayerBonds, LayerGeometry
from matdesinne.surrogates.tight_binding.invariants import BOND_INVARIANTS, CELL_INVARIANTS, LayerInvariants, layer_invariants
from matdesinne.surrogates.tight_binding.orbitals import (
    Angular,
    bond_sum,
    d_matrices,
    dd_block,
    metal_chalcogen_block,
    symmetric_block,
)

_OCCUPIED = 9
"""Number of valence bands of the 14 orbitals: a group-6 metal and two chalcogens have 18 valence electrons."""
_FADE_LENGTH, _FADE_WIDTH = 5.4, 0.35
"""Bond length at which integrals decay to zero, and the width of the decay, in angstrom."""
_MATRICES = 1 << 15
"""Hermitian matrices that are solved in one call: cuSOLVER's memory for more is larger than a GPU's."""
_FAR = 4.0
"""Standardised invariants of a bond are cut off at this absolute value."""
_INTEGRALS: dict[str, dict[str, float]] = {
    "metal_chalcogen": {
        "pd_sigma": 3.689, "pd_pi": -1.241, "p_dipole_d": 0.0, "pd_along_dipole": 0.0, "pd_dipole": 0.0, "sd_sigma": -2.0,
        "ps_sigma": 2.0, "ss_sigma": -1.0, "metal_dd_sigma": 0.0, "metal_dd_pi": 0.0, "metal_sd": 0.0, "chalcogen_pp": 0.0,
        "chalcogen_ps": 0.0,
    },
    "metal_metal": {
        "dd_sigma": -0.895, "dd_pi": 0.252, "dd_delta": 0.228, "ss_sigma": -0.5, "sd_sigma": -0.5, "metal_dd_sigma": 0.0,
        "metal_dd_pi": 0.0, "metal_sd": 0.0,
    },
    "chalcogen_chalcogen": {"pp_sigma": 1.225, "pp_pi": -0.467, "ss_sigma": -0.3, "sp_sigma": 0.3, "chalcogen_pp": 0.0},
    "cross": {"pp_sigma": 1.2, "pp_pi": -0.4, "ss_sigma": -0.3, "sp_sigma": 0.5, "chalcogen_pp": 0.0, "chalcogen_ps": 0.0},
}  # fmt: skip
"""Initial values in eV at the bond length of the reference cell: for p and d those of MoS2, for s rounded guesses. A name that
begins with an atom denotes the contribution of the bond to an on-site energy of that atom (crystal field)."""
_KIND = {"metal_chalcogen": "metal_chalcogen", "metal_metal": "plane", "chalcogen_chalcogen": "plane", "cross": "cross"}
"""Kind of bonds of each group of integrals."""
_DECAY = {"metal_chalcogen": 4.0, "metal_metal": 5.0, "chalcogen_chalcogen": 5.0, "cross": 5.0}
"""Initial decay of the integrals with the relative bond length."""
_METAL = (-0.6, 0.6, 0.0, 6.0)
"""Initial on-site energies of the metal in eV: d, d sigma and d pi along the normal, s."""
_CHALCOGEN = (-3.5, -0.8, -13.0, 0.0)
"""Initial on-site energies of the chalcogens in eV: p, p along the normal, s, s-p along the normal."""


class Surroundings(NamedTuple):
    """What the Hamiltonians of a batch of designs depend on, apart from learned parameters."""

    geometry: LayerGeometry
    invariants: LayerInvariants
    metal_chalcogen: Angular
    plane: Angular
    cross: Angular


class SlaterKoster(nn.Module):
    r"""Valence and conduction energies of a monolayer MX2 at any k-point.

    Orbitals are d and s of the metal, p and s of both chalcogens. Each integral is

    .. math:: V(d) = e^{-q (d / d_0 - 1)} \left(V_0 (1 + \alpha) + \beta\right) s(d)

    with the bond length d, learned :math:`V_0` and q, networks :math:`\alpha, \beta` of invariants of bond and cell, and a
    smooth cutoff s. The energies therefore have the exact symmetries of the layer: E(g k; g x) = E(k; x). Their gradient
    follows from the Hellmann-Feynman theorem, :math:`dE = v^\dagger\, dH\, v`, without derivatives of eigenvectors.

    References:
        Slater and Koster, Physical Review 94, 1498 (1954), doi 10.1103/PhysRev.94.1498. Feynman, Forces in molecules,
        Physical Review 56, 340 (1939), doi 10.1103/PhysRev.56.340. Integrals corrected by the surroundings follow the idea of
        DeePTB: Gu et al., Nature Communications 15, 6772 (2024), doi 10.1038/s41467-024-51006-4.

    Args:
        cutoff: of bonds, in angstrom.

    Raises:
        ConfigError: see `LayerBonds`.
    """

    matrices: Tensor
    mean_cell: Tensor
    std_cell: Tensor

    def __init__(self, space: DesignSpace, prototype: Prototype, hidden: int = 32, cutoff: float = 3.6) -> None:
        super().__init__()
        self.bonds = LayerBonds(space, prototype, cutoff)
        self.register_buffer("matrices", d_matrices(), persistent=False)
        self.reference_integrals = nn.ParameterDict(
            {name: torch.tensor(list(values.values())) for name, values in _INTEGRALS.items()}
        )
        self.decay = nn.ParameterDict({name: torch.full((len(_INTEGRALS[name]),), value) for name, value in _DECAY.items()})
        self.corrections = nn.ModuleDict(
            {name: _Correction(BOND_INVARIANTS, 2 * len(values), hidden) for name, values in _INTEGRALS.items()}
        )
        self.metal = nn.Parameter(torch.tensor(_METAL))
        self.chalcogen = nn.Parameter(torch.tensor(_CHALCOGEN))
        self.screening = nn.Parameter(torch.zeros(()))
        self.metal_correction = _Correction(0, len(_METAL), hidden)
        self.chalcogen_correction = _Correction(0, len(_CHALCOGEN), hidden)
        self.register_buffer("mean_cell", torch.zeros(CELL_INVARIANTS))
        self.register_buffer("std_cell", torch.ones(CELL_INVARIANTS))
        for name in _INTEGRALS:
            self.register_buffer(f"mean_{name}", torch.zeros(BOND_INVARIANTS))
            self.register_buffer(f"std_{name}", torch.ones(BOND_INVARIANTS))

    @torch.no_grad()
    def fit_scales(self, x: Float[Tensor, "n dx"]) -> None:
        """Compute mean and standard deviation of the invariants; bonds are weighted by their closeness."""
        invariants = layer_invariants(self.bonds(x), self.bonds.reference_lengths)
        self.mean_cell.copy_(invariants.cell.mean(dim=(0, 1)))
        spread = invariants.cell.std(dim=(0, 1))
        self.std_cell.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        for name, kind in _KIND.items():
            values = invariants.bonds[kind]
            weight = (-5 * values[..., :1].exp() + 5).exp().clamp_max(1.0)
            mean = (weight * values).sum(dim=(0, 1, 2)) / weight.sum()
            variance = (weight * (values - mean).square()).sum(dim=(0, 1, 2)) / weight.sum()
            self.get_buffer(f"mean_{name}").copy_(mean)
            self.get_buffer(f"std_{name}").copy_(variance.sqrt() + 1e-3)

    def forward(self, x: Float[Tensor, "n dx"], kpoints: Float[Tensor, "*n k 2"]) -> Float[Tensor, "n 2 k"]:
        """Compute the highest valence (0) and lowest conduction energy (1) in eV at k-points that designs share or each has."""
        return self.energies(self.surroundings(x), kpoints)

    def surroundings(self, x: Float[Tensor, "n dx"]) -> Surroundings:
        """Compute what does not depend on learned parameters, so that the members of an ensemble can share it."""
        geometry = self.bonds(x)
        kinds = (geometry.metal_chalcogen, geometry.plane, geometry.cross)
        angular = [Angular.of(bonds.directions, self.matrices) for bonds in kinds]
        return Surroundings(geometry, layer_invariants(geometry, self.bonds.reference_lengths), *angular)

    def energies(self, around: Surroundings, kpoints: Float[Tensor, "*n k 2"]) -> Float[Tensor, "n 2 k"]:
        """Do the same as `forward` for designs whose surroundings are known."""
        hamiltonian = self.hamiltonian(around, kpoints)
        edges = slice(_OCCUPIED - 1, _OCCUPIED + 1)
        if not hamiltonian.requires_grad:
            parts = hamiltonian.flatten(end_dim=1).split(_MATRICES)
            energies = torch.cat([torch.linalg.eigvalsh(part)[..., edges] for part in parts])
            return energies.unflatten(0, hamiltonian.shape[:2]).mT
        vectors = torch.linalg.eigh(hamiltonian.detach())[1][..., edges]
        return (vectors.conj() * (hamiltonian @ vectors)).real.sum(dim=2).mT

    def hamiltonian(self, around: Surroundings, kpoints: Float[Tensor, "*n k 2"]) -> Complex[Tensor, "n k 14 14"]:
        """Build Hermitian matrices in eV; rows: metal d and s, upper chalcogen p and s, lower chalcogen p and s."""
        cell = (around.invariants.cell - self.mean_cell) / self.std_cell
        integrals = {name: self._integrals(name, around, cell) for name in _INTEGRALS}
        kpoints = kpoints.to(cell)
        metal = self._metal_block(around, cell, integrals, kpoints)
        chalcogens = self._chalcogen_blocks(around, cell, integrals, kpoints)
        hops = metal_chalcogen_block(
            around.metal_chalcogen, around.invariants.dipole, self.matrices, integrals["metal_chalcogen"]
        )
        angles = self.bonds.angles("metal_chalcogen", kpoints).unsqueeze(-3)
        upper, lower = torch.complex(angles.cos() @ hops, -(angles.sin() @ hops)).unflatten(3, (4, 6)).unbind(dim=1)
        cross = self._cross_block(around, integrals["cross"], kpoints)
        rows = (
            torch.cat([metal, upper.mH, lower.mH], dim=3),
            torch.cat([upper, chalcogens[:, 0], cross.mH], dim=3),
            torch.cat([lower, cross, chalcogens[:, 1]], dim=3),
        )
        return torch.cat(rows, dim=2)

    def _integrals(self, name: str, around: Surroundings, cell: Float[Tensor, "n 2 18"]) -> dict[str, Float[Tensor, "n 2 b"]]:
        kind = _KIND[name]
        bonds = getattr(around.geometry, kind)
        inputs = (around.invariants.bonds[kind] - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"std_{name}")
        scale, shift = self.corrections[name](cell, inputs.clamp(-_FAR, _FAR)).chunk(2, dim=3)
        length = bonds.lengths.unsqueeze(3)
        decay = (-self.decay[name] * (length / self.bonds.reference_lengths[kind] - 1)).exp()
        fade = torch.sigmoid((_FADE_LENGTH - length) / _FADE_WIDTH)
        values = decay * (self.reference_integrals[name] * (1 + scale) + shift) * fade
        return dict(zip(_INTEGRALS[name], values.unbind(dim=3), strict=True))

    def _metal_block(
        self, around: Surroundings, cell: Tensor, integrals: dict[str, dict[str, Tensor]], kpoints: Tensor
    ) -> Complex[Tensor, "n k 6 6"]:
        near = integrals["metal_chalcogen"]
        plane = {name: value.mean(dim=1, keepdim=True) for name, value in integrals["metal_metal"].items()}
        site = self.metal + self.metal_correction(cell).mean(dim=1)
        normal = Angular.of(_normal(cell), self.matrices)
        flat = torch.eye(5, dtype=cell.dtype, device=cell.device).flatten()
        projected = dd_block(normal, site[:, 1, None, None], site[:, 2, None, None])[:, 0, 0]
        on_site = torch.cat([site[:, :1] * flat + projected, torch.zeros_like(site[:, :1]).expand(-1, 5), site[:, 3:]], dim=1)
        for angular, energies, count in ((around.metal_chalcogen, near, 1), (around.plane, plane, 2)):
            dd = _dd_sum(angular, energies["metal_dd_sigma"], energies["metal_dd_pi"])
            sd = math.sqrt(1.5) * bond_sum(energies["metal_sd"], angular.t)
            on_site = on_site + count * functional.pad(torch.cat([dd, sd], dim=2).sum(dim=1), (0, 1))
        delta = plane["dd_delta"]
        dd = delta.unsqueeze(3) * flat + dd_block(around.plane, plane["dd_sigma"] - delta, plane["dd_pi"] - delta)
        sd = math.sqrt(1.5) * plane["sd_sigma"].unsqueeze(3) * around.plane.t
        hops = torch.cat([dd, sd, plane["ss_sigma"].unsqueeze(3)], dim=3)[:, 0]
        both = on_site.unsqueeze(1) + 2 * self.bonds.angles("plane", kpoints).cos() @ hops
        real = symmetric_block(both[..., :25], both[..., 25:30], both[..., 30])
        return torch.complex(real, torch.zeros_like(real))

    def _chalcogen_blocks(
        self, around: Surroundings, cell: Tensor, integrals: dict[str, dict[str, Tensor]], kpoints: Tensor
    ) -> Complex[Tensor, "n 2 k 4 4"]:
        near, plane, cross = (integrals[name] for name in ("metal_chalcogen", "chalcogen_chalcogen", "cross"))
        site = self.chalcogen + self.chalcogen_correction(cell)
        sides = 1 - 2 * torch.arange(2, dtype=cell.dtype, device=cell.device)
        shift = sides * (self.screening * self.bonds.layer.height * around.geometry.drop).unsqueeze(1)
        normal = _normal(cell)[0, 0]
        flat = torch.eye(3, dtype=cell.dtype, device=cell.device).flatten()
        pp = (site[..., 0] + shift).unsqueeze(2) * flat + site[..., 1:2] * (normal.mT * normal).flatten()
        pp = pp + bond_sum(near["chalcogen_pp"], around.metal_chalcogen.uu) + bond_sum(cross["chalcogen_pp"], around.cross.uu)
        pp = pp + 2 * bond_sum(plane["chalcogen_pp"], around.plane.uu)
        ps = sides.unsqueeze(1) * (site[..., 3:] * normal + bond_sum(cross["chalcogen_ps"], around.cross.u))
        ps = ps + bond_sum(near["chalcogen_ps"], around.metal_chalcogen.u)
        on_site = torch.cat([pp, ps, site[..., 2:3] + shift.unsqueeze(2)], dim=2)
        hops = torch.cat([_pp_block(around.plane, plane, flat), plane["ss_sigma"].unsqueeze(3)], dim=3)
        angles = self.bonds.angles("plane", kpoints).unsqueeze(-3)
        even = 2 * angles.cos() @ hops
        odd = -2 * angles.sin() @ (plane["sp_sigma"].unsqueeze(3) * around.plane.u)
        pp, ps, ss = on_site.unsqueeze(2).split([9, 3, 1], dim=3)
        real = symmetric_block(pp + even[..., :9], ps.expand_as(odd), (ss + even[..., 9:]).squeeze(3))
        imaginary = symmetric_block(torch.zeros_like(even[..., :9]), odd, torch.zeros_like(even[..., 9]), sign=-1.0)
        return torch.complex(real, imaginary)

    def _cross_block(self, around: Surroundings, integrals: dict[str, Tensor], kpoints: Tensor) -> Complex[Tensor, "n k 4 4"]:
        """Build the block with the rows of the lower and the columns of the upper chalcogen."""
        mean = {name: value.mean(dim=1, keepdim=True) for name, value in integrals.items()}
        upper, lower = integrals["sp_sigma"].split(1, dim=1)
        u = around.cross.u
        flat = torch.eye(3, dtype=u.dtype, device=u.device).flatten()
        pp = _pp_block(around.cross, mean, flat).unflatten(3, (3, 3))
        first = torch.cat([pp, -(upper.unsqueeze(3) * u).unsqueeze(4)], dim=4)
        last = torch.cat([lower.unsqueeze(3) * u, mean["ss_sigma"].unsqueeze(3)], dim=3)
        hops = torch.cat([first, last.unsqueeze(3)], dim=3).flatten(3)[:, 0]
        angles = self.bonds.angles("cross", kpoints)
        return torch.complex(angles.cos() @ hops, angles.sin() @ hops).unflatten(2, (4, 4))


class _Correction(nn.Module):
    """A perceptron of the invariants of a cell and optionally of a bond; its initial output is small."""

    def __init__(self, bond_inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.bond_inputs = bond_inputs
        self.first = nn.Linear(bond_inputs + CELL_INVARIANTS, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, outputs)
        nn.init.normal_(self.last.weight, std=0.02 / math.sqrt(hidden))
        nn.init.zeros_(self.last.bias)

    def forward(self, cell: Float[Tensor, "n s c"], bond: Float[Tensor, "n s b i"] | None = None) -> Float[Tensor, "n s *b o"]:
        """Compute corrections for each side, or for each bond on each side."""
        of_bond, of_cell = self.first.weight.split([self.bond_inputs, CELL_INVARIANTS], dim=1)
        h = functional.linear(cell, of_cell, self.first.bias)
        if bond is not None:
            h = h.unsqueeze(2) + functional.linear(bond, of_bond)
        output: Tensor = self.last(functional.silu(self.second(functional.silu(h))))
        return output


def _normal(like: Tensor) -> Float[Tensor, "1 1 1 3"]:
    return functional.pad(torch.ones(1, 1, 1, 1, dtype=like.dtype, device=like.device), (2, 0))


def _dd_sum(angular: Angular, sigma: Float[Tensor, "n s b"], pi: Float[Tensor, "n s b"]) -> Float[Tensor, "n s 25"]:
    return bond_sum(1.5 * sigma - 2 * pi, angular.tt) + bond_sum(2 * pi, angular.ww)


def _pp_block(angular: Angular, integrals: dict[str, Tensor], flat: Float[Tensor, " 9"]) -> Float[Tensor, "n s b 9"]:
    sigma, pi = integrals["pp_sigma"].unsqueeze(3), integrals["pp_pi"].unsqueeze(3)
    return pi * flat + (sigma - pi) * angular.uu
