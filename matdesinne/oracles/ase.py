"""Band edges by any calculator of ASE: VASP, Quantum ESPRESSO, and what else speaks its interface."""

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

from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Columns, Oracle, Value
from matdesinne.oracles.edges import band_edges
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype

_NO_FIELD = 1e-9
"""V/angstrom."""


class ASEOracle(Oracle):
    """The signed gap from the eigenvalues of an ASE calculator, each calculation in a folder of its own.

    References:
        Larsen et al., The atomic simulation environment, J. Phys. Condens. Matter 29, 273002 (2017),
        doi 10.1088/1361-648X/aa680e.

    Args:
        space: the designs; they carry the six lattice parameters and may carry ``electric_field`` [V/angstrom].
        prototype: atoms and fractional positions.
        calculator: its class under ``_target_``, its keywords beside it; it must give eigenvalues at its irreducible k-points.
        valence_bands: number of occupied bands of the cell; half the calculator's number of electrons when omitted.
        field_keyword: the calculator's keyword that takes the field along z; without it a design in a field fails.
        field_factor: what the field in V/angstrom is multiplied by for that keyword.
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
    ) -> None:
        super().__init__(space)
        prototype.check(space)
        if "_target_" not in calculator:
            raise ConfigError("Expected the class of an ASE calculator, got none: add oracle.calculator._target_=...")
        self.prototype, self.calculator = prototype, dict(calculator)
        self.valence_bands, self.field_keyword, self.field_factor = valence_bands, field_keyword, field_factor

    def columns(self) -> dict[str, Column]:
        """Gaps, band edges with their k-points in fractional coordinates, energy."""
        edges = ("band_gap", "direct_gap", "valence_maximum", "conduction_minimum", "fermi_level", "energy")
        kpoints = {name: Column("", "list") for name in ("valence_kpoint", "conduction_kpoint")}
        return {name: Column("eV") for name in edges} | kpoints

    def settings(self) -> dict[str, object]:
        """Atoms and the calculator's keywords."""
        names = ("calculator", "valence_bands", "field_keyword", "field_factor")
        return {"oracle": "ase", "prototype": asdict(self.prototype), **{name: getattr(self, name) for name in names}}

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

    def _label(self, x: Float[Tensor, "1 dx"]) -> Columns:
        design = dict(zip(self.space.names, x[0].tolist(), strict=True))
        atoms = self.prototype.atoms(design)
        # codes that work on files must not read each other's
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            calculator = instantiate({**self.calculator, **self._field(design)}, _convert_="all")
            atoms.calc = calculator
            labels: dict[str, Value] = {"energy": float(atoms.get_potential_energy())}
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
            raise ConfigError(f"Expected no field without oracle.field_keyword, got {field:g} V/angstrom: name the keyword.")
        return {self.field_keyword: self.field_factor * field}


def ase_oracle(space: object, prototype: object, calculator: Mapping[str, object], **settings: object) -> ASEOracle:
    """Build the oracle from plain containers, as a YAML file holds them: the calculator is made anew for each design."""
    return ASEOracle(instantiate(space, _convert_="all"), instantiate(prototype, _convert_="all"), calculator, **settings)  # type: ignore[arg-type]
