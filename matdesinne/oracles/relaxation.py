"""Relaxation of the atoms of a design at fixed cell."""

from __future__ import annotations

__all__ = ["Relaxation"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from matdesinne.errors import ConfigError
from matdesinne.oracles.base import Column, Value

if TYPE_CHECKING:
    from ase import Atoms


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
