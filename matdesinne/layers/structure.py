"""The layer in a structure file, its design space, and numerics that fit it."""

from __future__ import annotations

__all__ = ["Layer", "complete_oracle", "cutoffs", "layer_space", "read_layer"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import get_class

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.layers.symmetries import found_symmetries
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.space import DesignSpace, Parameter
from matdesinne.start_files import read_structure
from matdesinne.structures import CELL_PARAMETERS, Prototype

if TYPE_CHECKING:
    import ase

_RIGHT = 0.1
"""Largest difference of alpha and beta from 90 degrees."""
_APART = 5.0
"""Empty space along c in angstrom that divides layers; bulk crystals of layers have 3 to 4 between them."""
_GRID = 28.8
"""Divisions of the grid of k-points times the shorter vector in angstrom: 9 for 3.2 angstrom, as in `tmd_strain`."""
_SOFT, _HARD = (300.0, 600.0), (500.0, 800.0)
"""Cutoffs of the plane waves in eV, for labels and for the stress of the relaxation of the cell: at 300 eV it is 10 kbar off in
MoS2 and at 600 eV 0.2 kbar, at 500 eV 42 kbar in hBN and at 800 eV 0.4 kbar; 10 kbar change a by 1 %."""
_HARD_ELEMENTS = {*range(3, 11), *range(21, 31)}
"""Atomic numbers whose valence electrons sit close to the core: Li to Ne, Sc to Zn."""
_EXTRA = {"c": "angstrom", "electric_field": "V/angstrom"}
_DECIMALS = 6


@dataclass(frozen=True)
class Layer:
    """A layer in the middle of its cell.

    Args:
        prototype: its atoms.
        cell: values of `CELL_PARAMETERS`.
    """

    prototype: Prototype
    cell: Mapping[str, float]

    def moved_to(self, atoms: ase.Atoms) -> Layer:
        """The same layer with the cell and the positions of ASE's atoms, but for the height."""
        lengths = atoms.cell.cellpar()
        cell = [*lengths[:2], self.cell["c"], 90.0, 90.0, lengths[5]]
        return _layer(self.prototype.symbols, cell, atoms.get_scaled_positions(wrap=False))


def read_layer(path: str | Path, height: float, vacuum: float) -> Layer:
    """Read a layer, move it into the middle of its cell, and set the height of the cell.

    Args:
        path: CIF, POSCAR, extended XYZ or anything else that ``ase.io.read`` takes.
        height: smallest c in angstrom.
        vacuum: smallest distance of the layer and its image along c in angstrom.

    Raises:
        DatasetError: if the file holds anything but one layer with vacuum along c.
    """
    atoms = read_structure(path)
    cell = atoms.cell.cellpar()
    if np.abs(cell[3:5] - 90).max() > _RIGHT:
        raise DatasetError(
            f"Expected c perpendicular to a and b, got alpha = {cell[3]:.5g} and beta = {cell[4]:.5g} degree in {path}: give "
            "the cell of a layer with vacuum along c."
        )
    positions = atoms.get_scaled_positions()
    order = np.sort(positions[:, 2])
    empty = cell[2] * np.diff(order, append=order[0] + 1)
    if (empty > _APART).sum() != 1:
        raise DatasetError(
            f"Expected one layer with more than {_APART:g} angstrom of vacuum along c, got {(empty > _APART).sum()} such gaps "
            f"(the widest has {empty.max():.3g} angstrom) in {path}: give the cell of a free-standing layer."
        )
    lowest = order[(empty.argmax() + 1) % len(order)]
    z = cell[2] * ((positions[:, 2] - lowest) % 1.0)
    c = max(height, math.ceil(np.ptp(z) + vacuum))
    positions[:, 2] = 0.5 + (z - (z.min() + z.max()) / 2) / c
    lengths = [*cell[:2], c, 90.0, 90.0, cell[5]]
    symbols = [str(symbol) for symbol in atoms.get_chemical_symbols()]
    return _layer(symbols, lengths, positions)


def _layer(symbols: Sequence[str], cell: Sequence[float], positions: np.ndarray) -> Layer:
    values = np.round(cell, _DECIMALS).tolist()
    prototype = Prototype(list(symbols), np.round(positions, 9).tolist())
    return Layer(prototype, dict(zip(CELL_PARAMETERS, values, strict=True)))


def layer_space(layer: Layer, strain: Sequence[float], angle: float, extra: Mapping[str, Sequence[float]]) -> DesignSpace:
    """Strained cells of a layer, with the symmetries that its structure has.

    Args:
        layer: the unstrained one.
        strain: smallest and largest change of a and b as a fraction.
        angle: largest change of gamma in degrees.
        extra: bounds of further parameters, ``electric_field`` [V/angstrom] or ``c`` [angstrom].

    Raises:
        ConfigError: if a bound is out of order, or there is no such parameter.
    """
    low, high = strain
    if not (-1 < low < 0 < high and 0 < angle < 60):
        raise ConfigError(
            f"Expected strain=[lower,upper] around 0 and an angle from 0 to 60 degree, got {list(strain)} and {angle:g}: "
            "correct them."
        )
    if unknown := set(extra) - set(_EXTRA):
        raise ConfigError(f"Expected further parameters out of {list(_EXTRA)}, got {unknown}: correct parameters=.")
    cell = dict(layer.cell)
    parameters = []
    for name in ("a", "b"):
        lower, upper = (round(cell[name] * (1 + edge), _DECIMALS) for edge in strain)
        parameters.append(Parameter(name, "angstrom", lower, upper, cell[name]))
    parameters.append(Parameter("gamma", "degree", cell["gamma"] - angle, cell["gamma"] + angle, cell["gamma"]))
    for name, (lower, upper) in extra.items():
        parameters.append(Parameter(name, _EXTRA[name], lower, upper, cell.get(name, 0.0)))
    names = [parameter.name for parameter in parameters]
    constants = {name: value for name, value in cell.items() if name not in names}
    space = DesignSpace(parameters, constants=constants)
    return replace(space, symmetries=found_symmetries(space, layer.prototype))


def cutoffs(layer: Layer) -> tuple[float, float]:
    """Cutoffs of the plane waves in eV for labels and for the relaxation of the cell."""
    numbers = layer.prototype.atoms(dict(layer.cell)).numbers.tolist()
    return _HARD if _HARD_ELEMENTS & set(numbers) else _SOFT


def complete_oracle(settings: Mapping[str, Any], layer: Layer) -> dict[str, Any]:
    """Settings of a `GPAWOracle` in which those that are ``None`` fit the layer.

    The cutoff is 500 eV with elements of the rows of Li to Ne or Sc to Zn, else 300 eV. The grid has a multiple of 3 divisions,
    so that it holds the corners of a hexagonal zone, and the second one twice as many.
    A quarter more bands than are occupied, and at least three, are calculated; the lowest empty one must converge.

    Raises:
        ConfigError: if the oracle is another one, or the number of electrons is odd.
    """
    kind = get_class(settings["_target_"])
    if not issubclass(kind, GPAWOracle):
        raise ConfigError(f"Expected oracle=gpaw_relaxed or gpaw for a layer, got {kind.__name__}: choose one.")
    electrons = kind.valence_electrons(layer.prototype.symbols, settings["functional"])
    if electrons % 2:
        raise ConfigError(
            f"Expected an even number of electrons, all paired, got {electrons} of {' '.join(layer.prototype.symbols)}: give a "
            "layer without unpaired electrons."
        )
    size = 3 * math.ceil(_GRID / 3 / min(layer.cell["a"], layer.cell["b"]) - 0.1)
    occupied = electrons // 2
    fitting = {
        "cutoff": cutoffs(layer)[0],
        "kpoints": size,
        "second_kpoints": 2 * (settings["kpoints"] or size),
        "bands": occupied + max(3, occupied // 4),
        "converged_bands": occupied + 1,
    }
    return {**settings, **{name: value for name, value in fitting.items() if settings[name] is None}}
