"""Relaxation of the atoms of a design at fixed cell, and of a layer with its cell."""

from __future__ import annotations

__all__ = ["SYMMETRY_TOLERANCE", "Relaxation", "relax_layer"]

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Value

if TYPE_CHECKING:
    from ase import Atoms


SYMMETRY_TOLERANCE = 1e-3
"""Largest distance in angstrom of atoms that an operation maps onto each other."""


@dataclass(frozen=True)
class Relaxation:
    """Moves all atoms by BFGS until the force on each is below a limit; the cell stays as the design sets it.

    Args:
        force: the limit in eV/angstrom.
        steps: largest number of steps.

    Raises:
        ConfigError: if a number is not positive.
    """

    force: float
    steps: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.force <= 0 or self.steps < 1:
            raise ConfigError(
                f"Expected relax_force > 0 and relax_steps >= 1, got {self.force} and {self.steps}: correct the oracle's."
            )

    @staticmethod
    def columns() -> dict[str, Column]:
        """The labels of `run`."""
        return {
            **{name: Column("eV") for name in ("energy", "energy_unrelaxed", "energy_gain")},
            "thickness": Column("angstrom"),
            "residual_force": Column("eV/angstrom"),
            "relaxation_steps": Column("", "count"),
            "relaxed_positions": Column("angstrom", "list"),
        }

    def run(self, atoms: Atoms) -> dict[str, Value]:
        """Relax atoms, which have a calculator with forces, in place; returns the labels of `columns`.

        The thickness is the largest distance of two atoms along the normal of the layer; the positions are Cartesian.

        Raises:
            RuntimeError: if the forces are not below the limit after the largest number of steps.
        """
        from ase.optimize import BFGS

        unrelaxed = float(atoms.get_potential_energy())
        optimizer = BFGS(atoms, logfile=None)
        converged = optimizer.run(fmax=self.force, steps=self.steps)
        residual = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        if not converged:
            raise RuntimeError(
                f"The relaxation did not converge: the largest force is {residual:.3g} eV/angstrom after {self.steps} steps."
            )
        energy = float(atoms.get_potential_energy())
        return {
            "energy": energy,
            "energy_unrelaxed": unrelaxed,
            "energy_gain": unrelaxed - energy,
            "thickness": float(np.ptp(atoms.positions[:, 2])),
            "residual_force": residual,
            "relaxation_steps": optimizer.get_number_of_steps(),
            "relaxed_positions": atoms.positions.ravel().tolist(),
        }


def relax_layer(atoms: Atoms, force: float, steps: int, trace: Path) -> Atoms:
    """Relax the atoms of a layer together with a, b and gamma of its cell, and keep its symmetry.

    The relaxation goes on from the last frame of the trace, which gets a frame after each step.

    Args:
        atoms: they have a calculator with forces and stress; c is perpendicular to a and b.
        force: largest force on an atom, and derivative of the energy by the strain over the number of atoms, in eV/angstrom.
        steps: largest number of steps.
        trace: an extended XYZ file.

    Returns:
        The relaxed atoms, without a calculator.

    Raises:
        RuntimeError: if the forces are not below the limit after the largest number of steps.
    """
    import ase.io
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    if trace.is_file():
        last = ase.io.read(trace, index=-1)
        atoms.set_cell(last.cell)
        atoms.positions = last.positions
    plain = atoms.copy()
    atoms.set_constraint(FixSymmetry(atoms, symprec=SYMMETRY_TOLERANCE))
    optimizer = BFGS(FrechetCellFilter(atoms, mask=[True, True, False, False, False, True]), logfile=None)

    def keep() -> None:
        plain.set_cell(atoms.cell)
        plain.positions = atoms.positions
        ase.io.write(trace, plain, append=True)

    optimizer.attach(keep)
    if not optimizer.run(fmax=force, steps=steps):
        raise RuntimeError(f"The relaxation of the cell did not converge in {steps} steps: raise oracle.relax_steps.")
    return plain
