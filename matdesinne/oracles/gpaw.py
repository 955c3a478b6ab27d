"""Band edges by density functional theory with GPAW."""

from __future__ import annotations

__all__ = ["GPAWOracle"]

import copy
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from jaxtyping import Float
from torch import Tensor

from matdesinne.bands import band_edges
from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Labels, Oracle, Value
from matdesinne.oracles.levels import EdgeBands, check_hybrid, half_grid, hybrid_bands, scalar_bands, spin_orbit_bands
from matdesinne.oracles.relaxation import Relaxation
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

if TYPE_CHECKING:
    from gpaw import GPAW

_NO_FIELD = 1e-9
"""Weaker fields are left out, in V/angstrom."""
_SYMMETRY = {"point_group": False}
"""Time reversal is the only symmetry of a strained cell; with it alone all designs have the same k-points."""
_SHORT_NAMES = {"HSE06": "hse"}
"""Endings of the columns of hybrid functionals; those of the others are their names in lower case."""


class GPAWOracle(Oracle):
    r"""The signed gap of a spin-paired crystal in plane waves.

    .. math:: E_g = \min_k E_c(k) - \max_k E_v(k)

    over all k-points, negative where the bands overlap. The field is a sawtooth potential over the periodic cell.

    The columns of a level of theory have an ending: none for `functional` on the first grid, ``_fine`` on the second grid,
    ``_soc`` with spin-orbit coupling, ``_fine_soc`` with both, and ``_hse``, ``_pbe0``, ... for a hybrid functional on the
    first grid. ``_hse_soc`` has the energies of the hybrid functional, to which the shift of each band at each k-point by
    spin-orbit coupling, as `functional` has it, is added.

    References:
        Mortensen et al., GPAW: an open Python package for electronic structure calculations, J. Chem. Phys. 160, 092503
        (2024), doi 10.1063/5.0182685.

    Args:
        space: the designs; they have the six lattice parameters and may have ``electric_field`` [V/angstrom].
        prototype: atoms and fractional positions.
        cutoff: cutoff of the plane waves in eV.
        functional: exchange-correlation functional.
        kpoints: divisions n of the Gamma-centred n x n x 1 grid; of k and -k one is calculated, no other symmetry is used.
        second_kpoints: divisions of a second, finer grid, calculated at the density of the first; ``None``: no such grid.
        smearing: width of the Fermi-Dirac occupations in eV.
        bands: number of bands.
        mixing: density mixer: fraction, history, damping of short wave vectors.
        density: convergence of the density in electrons per valence electron.
        eigenstates: convergence of the eigenstates in eV^2 per valence electron.
        converged_bands: number of lowest bands that must converge.
        relax: whether the atoms are relaxed at fixed cell first; all labels are then those of the relaxed atoms.
        relax_force: largest force on a relaxed atom in eV/angstrom.
        relax_steps: largest number of steps; a design that needs more fails.
        soc: whether the gaps with spin-orbit coupling are calculated, too, on each grid.
        hybrid: hybrid functional whose gap is calculated, too, on the density of `functional`; ``None``: none.
        reference_energy: energy in eV of the relaxed unstrained cell by the same settings, from which ``strain_energy`` is
            counted; ``None``: no such column.
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
        second_kpoints: int | None,
        smearing: float,
        bands: int,
        mixing: Sequence[float],
        density: float,
        eigenstates: float,
        converged_bands: int,
        relax: bool,
        relax_force: float,
        relax_steps: int,
        soc: bool,
        hybrid: str | None,
        reference_energy: float | None = None,
    ) -> None:
        super().__init__(space)
        prototype.check(space)
        self.prototype = self.start = prototype
        self.cutoff, self.functional = cutoff, functional
        self.smearing, self.bands, self.mixing = smearing, bands, tuple(mixing)
        self.density, self.eigenstates, self.converged_bands = density, eigenstates, converged_bands
        self.relaxation = Relaxation(relax_force, relax_steps) if relax else None
        self.soc, self.hybrid, self.reference_energy = soc, hybrid, reference_energy
        self.grids = {"": kpoints} if second_kpoints is None else {"": kpoints, "_fine": second_kpoints}

    @staticmethod
    def valence_electrons(symbols: Sequence[str], functional: str) -> int:
        """Number of electrons of a cell that the calculation treats, without those in the cores of the PAW data sets."""
        _check_package()
        from gpaw.setup_data import SetupData

        return sum(SetupData(symbol, functional).Nv for symbol in symbols)

    def starting_from(self, prototype: Prototype) -> Self:
        """The same oracle, whose relaxations start from the atoms of a prototype that responds to strain.

        The relaxed atoms, and with them all labels but ``energy_unrelaxed``, ``energy_gain`` and the number of steps, are the
        same up to the limit of the forces: the settings are those of this oracle.
        """
        other = copy.copy(self)
        other.start = prototype
        return other

    def columns(self) -> dict[str, Column]:
        """Gaps, band edges, energy, and the band energies at every k-point."""
        edges = ("band_gap", "direct_gap", "valence_maximum", "conduction_minimum", "fermi_level", "energy")
        columns = {name: Column("eV") for name in edges}
        columns |= {} if self.reference_energy is None else {"strain_energy": Column("eV")}
        columns |= {name: Column("", "count") for name in ("valence_k", "conduction_k", "iterations")}
        columns |= {} if self.relaxation is None else self.relaxation.columns()
        for ending in self._levels():
            columns |= {f"{name}{ending}": Column("eV") for name in ("band_gap", "direct_gap")}
            columns |= {f"{name}{ending}": Column("eV", "list") for name in ("valence_energies", "conduction_energies")}
        return columns

    def settings(self) -> dict[str, object]:
        """Atoms and numerics; an option that is off is left out."""
        names = ("cutoff", "functional", "smearing", "bands", "mixing", "density", "eigenstates", "converged_bands", "grids")
        numerics = {name: getattr(self, name) for name in names}
        options = {name: getattr(self, name) for name in ("soc", "hybrid", "reference_energy") if getattr(self, name)}
        options |= {} if self.relaxation is None else {"relaxation": asdict(self.relaxation)}
        return {"oracle": "gpaw", "prototype": self.prototype.to_dict(), **numerics, "mixing": list(self.mixing), **options}

    def kpoints(self) -> dict[str, list[list[float]]]:
        """The grid of each level, rounded as in the packaged set."""
        return {f"kpoints{ending}": half_grid(size).round(6).tolist() for ending, size in self._levels().items()}

    def check(self) -> None:
        """Check that GPAW is installed and has the hybrid functional."""
        _check_package()
        if self.hybrid is not None:
            check_hybrid(self.hybrid)

    def _levels(self) -> dict[str, int]:
        """Divisions of the grid of each level by the ending of its columns."""
        levels = dict(self.grids)
        if self.soc:
            levels |= {f"{ending}_soc": size for ending, size in self.grids.items()}
        if self.hybrid is not None:
            levels[self._hybrid_ending] = self.grids[""]
            levels |= {f"{self._hybrid_ending}_soc": self.grids[""]} if self.soc else {}
        return levels

    @property
    def _hybrid_ending(self) -> str:
        return f"_{_SHORT_NAMES.get(str(self.hybrid), str(self.hybrid).lower())}"

    def _label(self, x: Float[Tensor, "1 dx"]) -> Labels:
        design = self.space.design(x[0].tolist())
        calculator = self.calculator(design.get("electric_field", 0.0))
        atoms = self.start.atoms(design)
        atoms.calc = calculator
        labels: dict[str, Value] = {} if self.relaxation is None else self.relaxation.run(atoms)
        labels["energy"] = energy = float(atoms.get_potential_energy())
        if self.reference_energy is not None:
            labels["strain_energy"] = energy - self.reference_energy
        labels["fermi_level"] = float(calculator.get_fermi_level())
        labels["iterations"] = int(calculator.get_number_of_iterations())
        for ending, bands in self._bands(calculator):
            labels |= {f"{name}{ending}": value for name, value in band_edges(*bands).items()}
            labels[f"valence_energies{ending}"] = bands.valence.round(6).tolist()
            labels[f"conduction_energies{ending}"] = bands.conduction.round(6).tolist()
        return {name: [labels[name]] for name in self.columns()}

    def _bands(self, calculator: GPAW) -> Iterator[tuple[str, EdgeBands]]:
        """Yields the ending and the bands of every level."""
        convergence = {"bands": self.converged_bands, "eigenstates": self.eigenstates}
        settings = {"symmetry": _SYMMETRY, "txt": None, "convergence": convergence}
        first: dict[str, EdgeBands] = {}
        for ending, size in self.grids.items():
            calculation = calculator.fixed_density(kpts=_monkhorst_pack(size), **settings) if ending else calculator
            levels = {ending: scalar_bands(calculation, size)}
            levels |= {f"{ending}_soc": spin_orbit_bands(calculation, size)} if self.soc else {}
            first = first or levels
            yield from levels.items()
        if self.hybrid is not None:
            bands = hybrid_bands(calculator, self.hybrid)
            yield self._hybrid_ending, bands
            if self.soc:
                yield f"{self._hybrid_ending}_soc", bands.shifted(first[""], first["_soc"])

    def calculator(self, field: float = 0.0, cutoff: float | None = None, symmetric: bool = False) -> GPAW:
        """A calculator with these settings.

        Args:
            field: along z in V/angstrom.
            cutoff: in eV; that of the oracle when omitted.
            symmetric: whether all symmetries save k-points, not time reversal alone.
        """
        from gpaw import GPAW, PW, FermiDirac, Mixer
        from gpaw.external import ConstantElectricField

        external = {"external": ConstantElectricField(field, [0, 0, 1])} if abs(field) > _NO_FIELD else {}
        return GPAW(
            mode=PW(cutoff or self.cutoff),
            xc=self.functional,
            kpts=_monkhorst_pack(self.grids[""]),
            symmetry={"tolerance": 1e-4} if symmetric else _SYMMETRY,
            occupations=FermiDirac(self.smearing),
            nbands=self.bands,
            mixer=Mixer(*self.mixing),
            convergence={"density": self.density, "eigenstates": self.eigenstates, "bands": self.converged_bands},
            txt=None,
            **external,
        )


def _check_package() -> None:
    if importlib.util.find_spec("gpaw") is None:
        raise ConfigError("Expected GPAW, got no such package: install it by `make gpaw`, or choose another oracle.")


def _monkhorst_pack(size: int) -> Mapping[str, object]:
    return {"size": (size, size, 1), "gamma": True}
