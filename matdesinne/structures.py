"""From a design to atoms: the physics of the unit cell."""

from __future__ import annotations

__all__ = ["CELL_PARAMETERS", "Prototype", "draw_structure", "write_extxyz"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path
from matdesinne.space import DesignSpace

if TYPE_CHECKING:
    import ase
    from matplotlib.axes import Axes

CELL_PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")
"""Names under which a design carries its cell: lengths in angstrom, angles in degree."""


@dataclass(frozen=True)
class Prototype:
    """Atoms at fixed fractional positions in a cell that the design sets.

    Args:
        symbols: chemical symbols.
        positions: fractional coordinates, one row an atom.

    Example:
        >>> mos2 = Prototype(["Mo", "S", "S"], [[1/3, 2/3, 0.5], [2/3, 1/3, 0.627], [2/3, 1/3, 0.373]])
        >>> atoms = mos2.atoms({"a": 3.16, "b": 3.16, "c": 12.3, "alpha": 90, "beta": 90, "gamma": 120})
        >>> round(float(atoms.get_distance(0, 1, mic=True)), 3)
        2.402
    """

    symbols: Sequence[str]
    positions: Sequence[Sequence[float]]

    def check(self, space: DesignSpace) -> None:
        """Check that designs of a space carry a whole cell.

        Raises:
            ConfigError: if a lattice parameter is not among the parameters.
        """
        missing = [name for name in CELL_PARAMETERS if name not in space.names]
        if missing:
            raise ConfigError(f"Expected the parameters {list(CELL_PARAMETERS)} for a structure, got no {missing}: add them.")

    def atoms(self, design: dict[str, float]) -> ase.Atoms:
        """Build the structure of one design; what is not a lattice parameter goes to ``Atoms.info``.

        Args:
            design: value of each parameter by name, lengths in angstrom, angles in degree.

        Raises:
            ConfigError: if the three angles enclose no volume.
        """
        import ase
        from ase.geometry import cellpar_to_cell

        lengths_angles = [design[name] for name in CELL_PARAMETERS]
        if not _encloses_volume(*lengths_angles[3:]):
            raise ConfigError(f"Expected angles that enclose a volume, got {lengths_angles[3:]} degree: drop this design.")
        # a along x, b in the xy plane, as the labels were computed
        cell = cellpar_to_cell(lengths_angles, ab_normal=(0, 0, 1), a_direction=(1, 0, 0))
        info = {name: value for name, value in design.items() if name not in CELL_PARAMETERS}
        return ase.Atoms(list(self.symbols), scaled_positions=self.positions, cell=cell, pbc=True, info=info)


def write_extxyz(candidates: Candidates, prototype: Prototype, path: str | Path) -> None:
    """Write every candidate as a structure in the extended XYZ format (angstrom).

    ``info`` holds the parameters that are not the cell, the target, the prediction and its spread, and a key ``units``.

    Args:
        candidates: the designs; their space must hold the six lattice parameters.
        prototype: atoms and fractional positions.
        path: the file to write.
    """
    prototype.check(candidates.space)
    columns = candidates.columns()
    names = candidates.space.names
    units = ", ".join(f"{name}: {unit}" for name, (unit, _) in columns.items() if unit and name not in CELL_PARAMETERS)
    cells = _cells(candidates.designs[:, [names.index(name) for name in CELL_PARAMETERS]].double())
    flat = cells.isnan().flatten(start_dim=1).any(dim=1)
    if flat.any():
        raise ConfigError(f"Expected angles that enclose a volume, got none in {int(flat.sum())} designs: drop these.")
    positions = torch.tensor(prototype.positions, dtype=torch.float64) @ cells
    info = {name: values for name, (_, values) in columns.items() if name not in CELL_PARAMETERS}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for cell, atoms, *values in zip(cells.flatten(start_dim=1).tolist(), positions.tolist(), *info.values(), strict=True):
            words = " ".join(f"{name}={value}" for name, value in zip(info, values, strict=True))
            lattice = " ".join(map(str, cell))
            file.write(
                f'{len(atoms)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 {words} units="{units}" pbc="T T T"\n'
            )
            file.writelines(
                f"{symbol:2s} {x:16.8f} {y:16.8f} {z:16.8f}\n"
                for symbol, (x, y, z) in zip(prototype.symbols, atoms, strict=True)
            )


def _cells(parameters: Float[Tensor, "n 6"]) -> Float[Tensor, "n 3 3"]:
    """Cell vectors as rows, a along x, b in the xy plane; NaN for angles that enclose no volume."""
    a, b, c = parameters[:, :3].unbind(dim=1)
    cosine = torch.where(parameters[:, 3:] == 90, 0.0, torch.deg2rad(parameters[:, 3:]).cos())
    sine, zero = (1 - cosine[:, 2].square()).sqrt(), torch.zeros_like(a)
    y = (cosine[:, 0] - cosine[:, 1] * cosine[:, 2]) / sine
    z = (1 - cosine[:, 1].square() - y.square()).sqrt()
    rows = [(a, zero, zero), (b * cosine[:, 2], b * sine, zero), (c * cosine[:, 1], c * y, c * z)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def draw_structure(atoms: ase.Atoms, axis: Axes) -> None:
    """Draw three by three cells of a layer as seen from above, with the borders of all."""
    from ase.visualize.plot import plot_atoms

    plot_atoms(atoms.repeat((3, 3, 1)), axis, radii=0.4, show_unit_cell=2)


def _encloses_volume(alpha: float, beta: float, gamma: float) -> bool:
    cosines = [math.cos(math.radians(angle)) for angle in (alpha, beta, gamma)]
    squares = sum(cosine * cosine for cosine in cosines)
    return 1 - squares + 2 * math.prod(cosines) > 0
