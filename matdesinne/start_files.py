"""Structure files, and the design that a search starts from, read from one."""

from __future__ import annotations

__all__ = ["read_start", "read_structure"]

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS, Prototype

if TYPE_CHECKING:
    import ase

_RIGHT = 0.5
"""Largest difference of an angle from that of the layer's cell, in degrees, where the design space holds it constant."""
_SITE = 0.1
"""Largest distance of an atom from its site in the plane, in fractions of the cell vectors."""


def read_start(
    path: str | Path,
    prototype: Prototype | None,
    space: DesignSpace,
    bounds: Mapping[str, Sequence[float | None]] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Float[Tensor, " dx"]:
    """Read a structure as a design: its cell, and its other parameters from `fixed`, from the file, or their references.

    A hexagonal cell may be given with an angle of 60 or 120 degrees. Where the height of the cell is a constant of the space,
    as for a free-standing layer, the file may have more vacuum.

    Args:
        path: CIF, POSCAR, extended XYZ or anything else that ``ase.io.read`` takes; ``file.xyz@0`` is the first of several.
        prototype: the atoms of a design.
        space: of the designs.
        bounds: narrower bounds, see `DesignSpace.narrowed`.
        fixed: fixed values; they replace those of the file.

    Raises:
        DatasetError: if the file cannot be read, or holds no cell, or other atoms than a design.
        ConfigError: if designs are no crystals, or the design lies outside the bounds.
    """
    if prototype is None:
        raise ConfigError("Expected crystals for start=, got designs without atoms: start= is for structures.")
    prototype.check(space)
    atoms = read_structure(path)
    _check_symbols(atoms, prototype, path)
    gamma = float(space.values(space.reference.unsqueeze(0), ["gamma"]))
    cell = dict(zip(CELL_PARAMETERS, _standard_cell(atoms, gamma, path).cellpar().tolist(), strict=True))
    _check_sites(atoms, prototype, path)
    _check_constants(cell, space, path)
    narrow = space.narrowed(bounds, fixed)
    stored = {name: float(atoms.info[name]) for name in space.names if isinstance(atoms.info.get(name), int | float)}
    values = {**space.design(space.reference.tolist()), **stored, **cell}
    design = torch.tensor([values[name] for name in space.names], dtype=torch.get_default_dtype())
    design = torch.where(narrow.lower == narrow.upper, narrow.lower, design)
    _check_bounds(design, narrow, path)
    return design


def read_structure(path: str | Path) -> ase.Atoms:
    """Read the one structure of a file, with a right-handed cell.

    Raises:
        DatasetError: if the file cannot be read, or holds several structures, or no cell.
    """
    import ase.io

    try:
        frames = ase.io.read(path, index=None if "@" in Path(path).name else ":")
    except Exception as error:  # the parsers may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(
            f"Expected a structure that ASE reads, got {path} ({reason}): give CIF, POSCAR or extxyz."
        ) from error
    frames = frames if isinstance(frames, list) else [frames]
    if len(frames) != 1:
        raise DatasetError(f"Expected one structure, got {len(frames)} in {path}: choose one, e.g. {path}@0.")
    if frames[0].cell.rank < 3 or frames[0].cell.volume <= 0 or np.linalg.det(frames[0].cell) < 0:
        raise DatasetError(
            f"Expected a right-handed cell of three vectors in {path}, got {frames[0].cell.tolist()}: "
            "give the cell of the layer with its height."
        )
    return frames[0]


def _check_symbols(atoms: ase.Atoms, prototype: Prototype, path: str | Path) -> None:
    found, wanted = Counter(atoms.get_chemical_symbols()), Counter(prototype.symbols)
    if found != wanted:
        cells = len(atoms) / len(prototype.symbols)
        larger = {symbol: count * cells for symbol, count in wanted.items()} == dict(found)
        advice = f"it holds {cells:g} cells or layers: give the primitive cell of one." if larger else "give that material."
        raise DatasetError(f"Expected the atoms {' '.join(prototype.symbols)}, got {atoms.symbols} in {path}: {advice}")


def _standard_cell(atoms: ase.Atoms, gamma: float, path: str | Path) -> ase.cell.Cell:
    """Set the equivalent cell whose angle of a and b is obtuse, or acute, as that of the reference."""
    a, b, c = atoms.cell.array
    acute = float(a @ b) > 1e-6 * np.linalg.norm(a) * np.linalg.norm(b)
    obtuse = float(a @ b) < -1e-6 * np.linalg.norm(a) * np.linalg.norm(b)
    if (acute and gamma > 90) or (obtuse and gamma < 90):
        atoms.set_cell([a, b - a if acute else b + a, c])
    return atoms.cell


def _check_sites(atoms: ase.Atoms, prototype: Prototype, path: str | Path) -> None:
    """Check that the atoms are those of the prototype in the plane, up to a translation and a rotation by 180 degrees."""
    symbols, wanted = atoms.get_chemical_symbols(), np.array(prototype.positions)[:, :2]
    found = atoms.get_scaled_positions(wrap=False)[:, :2]
    for sign in (1, -1):
        for atom in (i for i, symbol in enumerate(symbols) if symbol == prototype.symbols[0]):
            sites = sign * (wanted - wanted[0]) + found[atom]
            apart = found[:, None] - sites[None]
            same = np.array(symbols)[:, None] == np.array(prototype.symbols)[None]
            near = same & (np.abs(apart - np.round(apart)).max(axis=2) < _SITE)
            if near.any(axis=0).all() and near.any(axis=1).all():
                return
    raise DatasetError(
        f"Expected atoms near the sites {wanted.round(3).tolist()} of the cell, got {found.round(3).tolist()} in {path}: "
        "give the same phase."
    )


def _check_constants(cell: Mapping[str, float], space: DesignSpace, path: str | Path) -> None:
    for name, constant in space.constants.items():
        if name not in cell:
            continue
        enough = cell[name] >= (1 - 1e-3) * constant if name == "c" else abs(cell[name] - constant) <= _RIGHT
        if not enough:
            kind = "at least " if name == "c" else ""
            raise DatasetError(
                f"Expected {name} of {kind}{constant:g}, a constant of this design space, got {cell[name]:.5g} in {path}: "
                "give the cell of a free-standing layer, with vacuum along c."
            )


def _check_bounds(design: Float[Tensor, " dx"], space: DesignSpace, path: str | Path) -> None:
    """Raise an error that names the first parameter, or strain, outside its bounds."""
    values = [(p.name, float(x), p.lower, p.upper, p.unit) for p, x in zip(space.parameters, design, strict=True)]
    if space.layer is not None:
        strains = space.layer(design.unsqueeze(0))
        values += [(n, strains[n].item(), *edges, space.layer.unit(n)) for n, edges in space.strain_bounds.items()]
    for name, value, lower, upper, unit in values:
        if not lower - 1e-5 * abs(lower) <= value <= upper + 1e-5 * abs(upper):
            advice = ", or take out vacuum" if name == "c" and value > upper else ""
            raise ConfigError(
                f"Expected a start with {name} from {lower:g} to {upper:g} {unit}, got {value:.5g} in {path}: "
                f"give another structure, widen the bounds{advice}."
            )
