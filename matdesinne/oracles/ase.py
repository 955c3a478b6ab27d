"""Band edges by any calculator of ASE, e.g. VASP or Quantum ESPRESSO."""

from __future__ import annotations

__all__ = ["ASEOracle", "ase_oracle"]

import contextlib
import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor

from matdesinne.bands import band_edges
from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Labels, Oracle, Value
from matdesinne.oracles.relaxation import Relaxation
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

_NO_FIELD = 1e-9
"""Weaker fields are left out, in V/angstrom."""


class ASEOracle(Oracle):
    """The signed gap from the eigenvalues of an ASE calculator; each calculation runs in a temporary folder.

    References:
        Larsen et al., The atomic simulation environment, J. Phys. Condens. Matter 29, 273002 (2017),
        doi 10.1088/1361-648X/aa680e.

    Args:
        space: the designs; they have the six lattice parameters and may have ``electric_field`` [V/angstrom].
        prototype: atoms and fractional positions.
        calculator: the calculator's class under ``_target_`` and its keywords; it must give eigenvalues at its irreducible
            k-points.
        valence_bands: number of occupied bands of the cell; ``None``: half the calculator's number of electrons.
        field_keyword: the calculator's keyword for the field along z; ``None``: a design in a field fails.
        field_factor: factor from V/angstrom to the unit of that keyword.
        relax: whether the atoms are relaxed at fixed cell first; all labels are then those of the relaxed atoms.
        relax_force: largest force on a relaxed atom in eV/angstrom.
        relax_steps: largest number of steps; a design that needs more fails.
    """

    prototype: Prototype
    packages = ("ase",)

    def __init__(
        self,
        space: DesignSpace,
        prototype: Prototype,
        calculator: Mapping[str, object],
        valence_bands: int | None,
        field_keyword: str | None,
        field_factor: float,
        relax: bool,
        relax_force: float,
        relax_steps: int,
    ) -> None:
        super().__init__(space)
        prototype.check(space)
        if "_target_" not in calculator:
            raise ConfigError("Expected the class of an ASE calculator, got none: add oracle.calculator._target_=...")
        self.prototype, self.calculator = prototype, dict(calculator)
        self.valence_bands, self.field_keyword, self.field_factor = valence_bands, field_keyword, field_factor
        self.relaxation = Relaxation(relax_force, relax_steps) if relax else None

    def columns(self) -> dict[str, Column]:
        """Gaps, band edges with their fractional k-points, energy."""
        edges = ("band_gap", "direct_gap", "valence_maximum", "conduction_minimum", "fermi_level", "energy")
        kpoints = {name: Column("", "list") for name in ("valence_kpoint", "conduction_kpoint")}
        relaxed = {} if self.relaxation is None else self.relaxation.columns()
        return {name: Column("eV") for name in edges} | kpoints | relaxed

    def settings(self) -> dict[str, object]:
        """Atoms and the calculator's keywords; a relaxation that is off is left out."""
        names = ("calculator", "valence_bands", "field_keyword", "field_factor")
        relaxation = {} if self.relaxation is None else {"relaxation": asdict(self.relaxation)}
        return {"oracle": "ase", "prototype": self.prototype.to_dict(), **{n: getattr(self, n) for n in names}, **relaxation}

    def check(self) -> None:
        """Check that the calculator can be imported."""
        module, _, name = str(self.calculator["_target_"]).rpartition(".")
        try:
            getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"Expected an ASE calculator, got {self.calculator['_target_']!r} ({error}): install its package or "
                "correct oracle.calculator._target_."
            ) from error

    def _label(self, x: Float[Tensor, "1 dx"]) -> Labels:
        design = self.space.design(x[0].tolist())
        atoms = self.prototype.atoms(design)
        # a code that works on files must not read those of another calculation
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            calculator = instantiate({**self.calculator, **self._field(design)}, _convert_="all")
            atoms.calc = calculator
            labels: dict[str, Value] = {} if self.relaxation is None else self.relaxation.run(atoms)
            labels["energy"] = float(atoms.get_potential_energy())
            labels["fermi_level"] = float(calculator.get_fermi_level())
            kpoints = np.asarray(calculator.get_ibz_k_points())
            energies = np.array([calculator.get_eigenvalues(kpt=k) for k in range(len(kpoints))])
            count = self.valence_bands or round(calculator.get_number_of_electrons() / 2)
        edges = band_edges(energies[:, count - 1], energies[:, count])
        for edge in ("valence", "conduction"):
            labels[f"{edge}_kpoint"] = kpoints[int(edges.pop(f"{edge}_k"))].tolist()
        labels |= edges
        return {name: [labels[name]] for name in self.columns()}

    def _field(self, design: Mapping[str, float]) -> dict[str, float]:
        field = design.get("electric_field", 0.0)
        if abs(field) <= _NO_FIELD:
            return {}
        if self.field_keyword is None:
            raise ConfigError(f"Expected no field without oracle.field_keyword, got {field:g} V/angstrom: give the keyword.")
        return {self.field_keyword: self.field_factor * field}


def ase_oracle(space: object, prototype: object, calculator: Mapping[str, object], **settings: object) -> ASEOracle:
    """Builds the oracle from plain containers of a YAML file; each design gets a new calculator."""
    return ASEOracle(instantiate(space, _convert_="all"), instantiate(prototype, _convert_="all"), calculator, **settings)  # type: ignore[arg-type]
