"""Cell vectors and atomic structures of designs."""

from __future__ import annotations

__all__ = ["CELL_PARAMETERS", "AtomicResponse", "Prototype", "cell_vectors", "enclose_volume", "write_extxyz"]

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path
from matdesinne.space import DesignSpace

if TYPE_CHECKING:
    import ase

CELL_PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")
"""Names of the lattice parameters in a design space: lengths in angstrom, angles in degree."""


_DEGREE = 2
"""Of the polynomial for the positions of relaxed atoms; the third degree is no better for MoS2."""
_POWERS = [powers for powers in itertools.product(range(_DEGREE + 1), repeat=3) if sum(powers) <= _DEGREE]


@dataclass(frozen=True)
class AtomicResponse:
    r"""Where the atoms of a layer go when it is strained in its plane and they relax.

    Each fractional coordinate is a polynomial of second degree in :math:`a/a_0 - 1`, :math:`b/b_0 - 1` and
    :math:`\gamma - \gamma_0` in radian, with the first atom fixed.

    Args:
        reference: a, b in angstrom and gamma in degree of the unstrained cell.
        coefficients: of each term (rows, in the order of `_POWERS`) for all coordinates, atom by atom.
    """

    reference: Sequence[float]
    coefficients: Sequence[Sequence[float]]

    @classmethod
    def fit(
        cls,
        reference: Float[Tensor, " 3"],
        cells: Float[Tensor, "n 6"],
        positions: Float[Tensor, "n a 3"],
        first: Sequence[float],
    ) -> AtomicResponse:
        """Fit it to relaxed atoms by least squares.

        Args:
            reference: see the class.
            cells: lattice parameters in the order of `CELL_PARAMETERS`.
            positions: Cartesian, in angstrom, in the cells of `cell_vectors`.
            first: fractional coordinates of the first atom.
        """
        fractional = positions.double() @ torch.linalg.inv(cell_vectors(cells.double()))
        fractional = fractional - fractional[:, :1] + torch.tensor(first, dtype=torch.float64)
        terms = _terms(cells.double(), reference.double())
        found = torch.linalg.lstsq(terms, fractional.flatten(start_dim=1)).solution
        return cls(reference.tolist(), found.round(decimals=9).tolist())

    def positions(self, cells: Float[Tensor, "n 6"]) -> Float[Tensor, "n a 3"]:
        """Fractional coordinates in cells of the lattice parameters in the order of `CELL_PARAMETERS`."""
        reference, coefficients = (cells.new_tensor(part) for part in (self.reference, self.coefficients))
        return (_terms(cells, reference) @ coefficients).unflatten(1, (-1, 3))


def _terms(cells: Float[Tensor, "n 6"], reference: Float[Tensor, " 3"]) -> Float[Tensor, "n t"]:
    lengths = cells[:, :2] / reference[:2] - 1
    strain = torch.cat([lengths, torch.deg2rad(cells[:, 5:] - reference[2])], dim=1)
    return torch.stack([strain.pow(strain.new_tensor(powers)).prod(dim=1) for powers in _POWERS], dim=1)


@dataclass(frozen=True)
class Prototype:
    """The atoms in the cell that a design describes, at fixed fractional positions or where they relax to.

    Args:
        symbols: chemical symbols.
        positions: fractional coordinates in the unstrained cell, one row an atom.
        response: how they change with the cell; ``None``: not at all.

    Example:
        >>> mos2 = Prototype(["Mo", "S", "S"], [[1/3, 2/3, 0.5], [2/3, 1/3, 0.627], [2/3, 1/3, 0.373]])
        >>> atoms = mos2.atoms({"a": 3.16, "b": 3.16, "c": 12.3, "alpha": 90, "beta": 90, "gamma": 120})
        >>> round(float(atoms.get_distance(0, 1, mic=True)), 3)
        2.402
    """

    symbols: Sequence[str]
    positions: Sequence[Sequence[float]]
    response: AtomicResponse | None = None

    def __post_init__(self) -> None:
        """Read a response from plain containers."""
        if isinstance(self.response, Mapping):
            object.__setattr__(self, "response", AtomicResponse(**self.response))

    def to_dict(self) -> dict[str, object]:
        """Plain containers, without a response where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def fractional(self, cells: Float[Tensor, "n 6"]) -> Float[Tensor, "n a 3"]:
        """Fractional coordinates in cells of the lattice parameters in the order of `CELL_PARAMETERS`."""
        if self.response is not None:
            return self.response.positions(cells)
        return cells.new_tensor(self.positions).expand(len(cells), -1, -1)

    def relaxed(self, space: DesignSpace, x: Float[Tensor, "n dx"], positions: Float[Tensor, "n a 3"]) -> Prototype:
        """The same atoms with a response that is fitted to relaxed ones of some designs, Cartesian in angstrom."""
        reference = space.values(space.reference.double().unsqueeze(0), ("a", "b", "gamma"))[0]
        cells = space.values(x, CELL_PARAMETERS)
        return replace(self, response=AtomicResponse.fit(reference, cells, positions, self.positions[0]))

    def check(self, space: DesignSpace) -> None:
        """Check that the designs of a space describe a cell.

        Raises:
            ConfigError: if a lattice parameter is neither a parameter nor a constant of the space.
        """
        missing = [name for name in CELL_PARAMETERS if not space.has([name])]
        if missing:
            raise ConfigError(
                f"Expected the parameters or constants {list(CELL_PARAMETERS)} for a structure, got no {missing}: add them."
            )

    def atoms(self, design: dict[str, float]) -> ase.Atoms:
        """Build the structure of one design; parameters other than the cell are stored in ``Atoms.info``.

        Raises:
            ConfigError: if the three angles enclose no volume.
        """
        import ase

        parameters = torch.tensor([[design[name] for name in CELL_PARAMETERS]], dtype=torch.float64)
        [cell], [positions] = _checked_cells(parameters).numpy(), self.fractional(parameters).numpy()
        info = {name: value for name, value in design.items() if name not in CELL_PARAMETERS}
        return ase.Atoms(list(self.symbols), scaled_positions=positions, cell=cell, pbc=True, info=info)


def cell_vectors(parameters: Float[Tensor, "n 6"]) -> Float[Tensor, "n 3 3"]:
    """Compute cell vectors from lattice parameters in the order of `CELL_PARAMETERS`.

    Angles that enclose no volume give a flat cell.

    Returns:
        The vectors a, b, c as rows in angstrom: a along x, b in the xy plane, c with a positive z component.
    """
    a, b, c = parameters[:, 0], parameters[:, 1], parameters[:, 2]
    cos_alpha, cos_beta, cos_gamma = torch.deg2rad(parameters[:, 3:]).cos().unbind(dim=1)
    sin_gamma = torch.deg2rad(parameters[:, 5]).sin()
    zero = torch.zeros_like(a)
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    cz = (1 - cos_beta.square() - cy.square()).clamp_min(1e-6).sqrt()
    rows = [(a, zero, zero), (b * cos_gamma, b * sin_gamma, zero), (c * cos_beta, c * cy, c * cz)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def enclose_volume(parameters: Float[Tensor, "n 6"]) -> Bool[Tensor, " n"]:
    """Whether the angles of each cell enclose a volume; lattice parameters in the order of `CELL_PARAMETERS`."""
    cosines = torch.deg2rad(parameters[:, 3:].double()).cos()
    return 1 - cosines.square().sum(dim=1) + 2 * cosines.prod(dim=1) > 0


def _checked_cells(parameters: Float[Tensor, "n 6"]) -> Float[Tensor, "n 3 3"]:
    """Compute `cell_vectors` to 1e-12 angstrom, so that a right angle gives an exact 0.

    Raises:
        ConfigError: if the angles of a design enclose no volume.
    """
    flat = ~enclose_volume(parameters)
    if flat.any():
        example = parameters[flat][0, 3:].tolist()
        raise ConfigError(
            f"Expected angles that enclose a volume, got none in {int(flat.sum())} designs (e.g. {example} degree): drop these."
        )
    return cell_vectors(parameters).round(decimals=12) + 0.0  # turns -0.0 into 0.0


def write_extxyz(candidates: Candidates, prototype: Prototype, path: str | Path) -> None:
    """Write every candidate as a structure in the extended XYZ format (angstrom).

    The comment line of each frame (``Atoms.info`` in ASE) holds the other parameters, the target, the prediction, its
    spread, and their units under ``units``.

    Raises:
        ConfigError: if a lattice parameter is missing, or the angles of a design enclose no volume.
    """
    prototype.check(candidates.space)
    columns = candidates.columns()
    units = ", ".join(f"{name}: {unit}" for name, (unit, _) in columns.items() if unit and name not in CELL_PARAMETERS)
    parameters = candidates.space.values(candidates.designs.double(), CELL_PARAMETERS)
    cells = _checked_cells(parameters)
    positions = prototype.fractional(parameters) @ cells
    info = {name: values for name, (_, values) in columns.items() if name not in CELL_PARAMETERS}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for cell, atoms, *values in zip(cells.flatten(start_dim=1).tolist(), positions.tolist(), *info.values(), strict=True):
            entries = " ".join(f"{name}={value}" for name, value in zip(info, values, strict=True))
            lattice = " ".join(map(str, cell))
            file.write(
                f'{len(atoms)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 {entries} units="{units}" pbc="T T T"\n'
            )
            file.writelines(
                f"{symbol:2s} {x:16.8f} {y:16.8f} {z:16.8f}\n"
                for symbol, (x, y, z) in zip(prototype.symbols, atoms, strict=True)
            )
