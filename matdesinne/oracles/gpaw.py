"""Band edges by density functional theory with GPAW."""

from __future__ import annotations

__all__ = ["GPAWOracle", "half_grid"]

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Columns, Oracle, Value
from matdesinne.oracles.edges import band_edges
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

if TYPE_CHECKING:
    from gpaw import GPAW

_NO_FIELD = 1e-9
"""V/angstrom; weaker fields are left out."""


class GPAWOracle(Oracle):
    r"""The signed gap of a spin-paired crystal in plane waves.

    .. math:: E_g = \min_k E_c(k) - \max_k E_v(k)

    over all k-points, negative where the bands overlap. The field is a sawtooth potential over the periodic cell.

    References:
        Mortensen et al., GPAW: an open Python package for electronic structure calculations, J. Chem. Phys. 160, 092503
        (2024), doi 10.1063/5.0182685.

    Args:
        space: the designs; they carry the six lattice parameters and may carry ``electric_field`` [V/angstrom].
        prototype: atoms and fractional positions.
        cutoff: of the plane waves in eV.
        functional: exchange and correlation.
        kpoints: divisions n of the Gamma-centred n x n x 1 grid; k and -k are taken once, no other symmetry is used.
        smearing: width of the Fermi-Dirac occupations in eV.
        bands: number of bands.
        mixing: density mixer: fraction, history, damping of short wave vectors.
        density: convergence of the density in electrons per valence electron.
        eigenstates: convergence of the eigenstates in eV^2 per valence electron.
        converged_bands: lowest bands that must converge.
        fine: whether a second pass, at the fixed density of the first, gives the gap on a finer grid, too.
        fine_kpoints: divisions of that grid.
    """

    prototype: Prototype
    packages = ("gpaw", "gpaw-data", "ase")

    def __init__(
        self,
        space: DesignSpace,
        prototype: Prototype,
        cutoff: float,
        functional: str,
        kpoints: int,
        smearing: float,
        bands: int,
        mixing: Sequence[float],
        density: float,
        eigenstates: float,
        converged_bands: int,
        fine: bool,
        fine_kpoints: int,
    ) -> None:
        super().__init__(space)
        prototype.check(space)
        self.prototype = prototype
        self.cutoff, self.functional = cutoff, functional
        self.smearing, self.bands, self.mixing = smearing, bands, tuple(mixing)
        self.density, self.eigenstates, self.converged_bands = density, eigenstates, converged_bands
        self.grids = {"": kpoints, "_fine": fine_kpoints} if fine else {"": kpoints}

    def columns(self) -> dict[str, Column]:
        """Gaps, band edges, energy, and the band energies at every k-point."""
        edges = ("band_gap", "direct_gap", "valence_maximum", "conduction_minimum", "fermi_level", "energy")
        columns = {name: Column("eV") for name in edges}
        columns |= {name: Column("", "count") for name in ("valence_k", "conduction_k", "iterations")}
        for ending in self.grids:
            columns |= {f"{name}{ending}": Column("eV") for name in ("band_gap", "direct_gap")}
            columns |= {f"{name}{ending}": Column("eV", "list") for name in ("valence_energies", "conduction_energies")}
        return columns

    def settings(self) -> dict[str, object]:
        """Atoms and numerics."""
        names = ("cutoff", "functional", "smearing", "bands", "mixing", "density", "eigenstates", "converged_bands", "grids")
        numerics = {name: getattr(self, name) for name in names}
        return {"oracle": "gpaw", "prototype": asdict(self.prototype), **numerics, "mixing": list(self.mixing)}

    def kpoints(self) -> dict[str, list[list[float]]]:
        """The grids, to the decimals that the packaged set has."""
        return {f"kpoints{ending}": half_grid(size).round(6).tolist() for ending, size in self.grids.items()}

    def check(self) -> None:
        """Check that GPAW is installed."""
        if importlib.util.find_spec("gpaw") is None:
            raise ConfigError("Expected GPAW, got no such package: install it as README.md says, or choose another oracle.")

    def _label(self, x: Float[Tensor, "1 dx"]) -> Columns:
        design = dict(zip(self.space.names, x[0].tolist(), strict=True))
        calculator = self._calculator(design.get("electric_field", 0.0))
        atoms = self.prototype.atoms(design)
        atoms.calc = calculator
        labels: dict[str, Value] = {"energy": float(atoms.get_potential_energy())}
        labels["fermi_level"] = float(calculator.get_fermi_level())
        labels["iterations"] = int(calculator.get_number_of_iterations())
        labels |= _edges(calculator, self.grids[""])
        if "_fine" in self.grids:
            size = self.grids["_fine"]
            convergence = {"bands": self.converged_bands, "eigenstates": self.eigenstates}
            second = calculator.fixed_density(kpts=_monkhorst_pack(size), symmetry=_SYMMETRY, txt=None, convergence=convergence)
            labels |= {f"{name}_fine": value for name, value in _edges(second, size).items()}
        return {name: [labels[name]] for name in self.columns()}

    def _calculator(self, field: float) -> GPAW:
        from gpaw import GPAW, PW, FermiDirac, Mixer
        from gpaw.external import ConstantElectricField

        external = {"external": ConstantElectricField(field, [0, 0, 1])} if abs(field) > _NO_FIELD else {}
        return GPAW(
            mode=PW(self.cutoff),
            xc=self.functional,
            kpts=_monkhorst_pack(self.grids[""]),
            symmetry=_SYMMETRY,
            occupations=FermiDirac(self.smearing),
            nbands=self.bands,
            mixer=Mixer(*self.mixing),
            convergence={"density": self.density, "eigenstates": self.eigenstates, "bands": self.converged_bands},
            txt=None,
            **external,
        )


_SYMMETRY = {"point_group": False}
"""Time reversal only: a strained cell has nothing else, and all designs then have the same k-points."""


def half_grid(size: int) -> Float[np.ndarray, "k 2"]:
    """Fractional points of the Gamma-centred size x size grid, of k and -k the later one, in lexicographic order."""
    steps = range(-((size - 1) // 2), size // 2 + 1)

    def opposite(step: int) -> int:
        return step if 2 * step == size else -step  # 1/2 and -1/2 are one point

    return np.array([(i, j) for i in steps for j in steps if (i, j) >= (opposite(i), opposite(j))]) / size


def _monkhorst_pack(size: int) -> Mapping[str, object]:
    return {"size": (size, size, 1), "gamma": True}


def _edges(calculator: GPAW, size: int) -> dict[str, Value]:
    """Highest valence and lowest conduction band at every k-point, and the gaps between them."""
    kpoints = calculator.get_ibz_k_points()[:, :2]
    expected = half_grid(size)
    if kpoints.shape != expected.shape or np.abs(kpoints - expected).max() > 1e-6:
        raise RuntimeError(f"GPAW orders the k-points of the {size} x {size} grid in another way than the data sets do.")
    lowest_empty = round(calculator.get_number_of_electrons() / 2)
    energies = np.array([calculator.get_eigenvalues(kpt=k) for k in range(len(kpoints))])
    valence, conduction = energies[:, lowest_empty - 1], energies[:, lowest_empty]
    return {
        **band_edges(valence, conduction),
        "valence_energies": valence.round(6).tolist(),
        "conduction_energies": conduction.round(6).tolist(),
    }
