"""Symmetries of a space of strained cells, found from the atoms of the unstrained one."""

from __future__ import annotations

__all__ = ["found_symmetries"]

import numpy as np
from jaxtyping import Int

from matdesinne.oracles.relaxation import SYMMETRY_TOLERANCE
from matdesinne.space import DesignSpace
from matdesinne.structures import CELL_PARAMETERS, Prototype
from matdesinne.symmetry import Symmetry, generate_group

_SAME = 1e-6
_ANGLES = {"alpha": (1, 2), "beta": (0, 2), "gamma": (0, 1)}


def found_symmetries(space: DesignSpace, prototype: Prototype) -> list[Symmetry]:
    r"""Find which designs the symmetry of the unstrained layer makes equivalent.

    An operation :math:`x \to W x + w` of its space group maps the atoms onto each other, so that the cell (a, b, c) and the
    cell :math:`(a, b, c) W^{-1}` with atoms at the same fractional coordinates are one crystal. If W permutes a and b or
    changes signs, and c stays or changes its sign, then lattice parameters map onto lattice parameters, an angle between two
    vectors of different sign onto 180 degrees less itself; the field along c changes its sign with c, and fractional k-points
    map by :math:`W^{-T} = W`, up to a sign, since k and -k have the same energies.

    References:
        Togo, Shinohara, Tanaka, Spglib: a software library for crystal symmetry search, Sci. Technol. Adv. Mater. Meth. 4,
        2384822 (2024), doi 10.1080/27660400.2024.2384822.

    Args:
        space: parameters and constants have the six lattice parameters; the references are the unstrained cell.
        prototype: its atoms.

    Returns:
        Generators of the group.
    """
    from ase.spacegroup.symmetrize import check_symmetry

    prototype.check(space)
    design = space.design([parameter.reference for parameter in space.parameters])
    found = check_symmetry(prototype.atoms(design), symprec=SYMMETRY_TOLERANCE)  # by spglib
    generators: list[Symmetry] = []
    for rotation in np.unique(found.rotations, axis=0):
        symmetry = _symmetry(rotation, space) if _permutes(rotation) else None
        if symmetry is None or not symmetry.substitutions:
            continue
        larger = [*generators, symmetry]
        if len(generate_group(space.names, larger)) > len(generate_group(space.names, generators)):
            generators = larger
    return generators


def _permutes(rotation: Int[np.ndarray, "3 3"]) -> bool:
    """Whether it permutes a and b up to their signs, and keeps c up to its sign."""
    once = (np.abs(rotation).sum(axis=0) == 1).all() and (np.abs(rotation).sum(axis=1) == 1).all()
    return bool(once and rotation[2, 2] != 0)


def _symmetry(rotation: Int[np.ndarray, "3 3"], space: DesignSpace) -> Symmetry | None:
    """The operation on designs; ``None`` if it does not keep the constants of the space."""
    place, sign = np.abs(rotation).argmax(axis=1).tolist(), rotation.sum(axis=1).tolist()
    rules: dict[str, tuple[float, str, float]] = {
        name: (1.0, CELL_PARAMETERS[place[row]], 0.0) for row, name in enumerate(CELL_PARAMETERS[:3])
    }
    for name, (first, second) in _ANGLES.items():
        pair = tuple(sorted((place[first], place[second])))
        source = next(angle for angle, vectors in _ANGLES.items() if vectors == pair)
        rules[name] = (1.0, source, 0.0) if sign[first] == sign[second] else (-1.0, source, 180.0)
    rules["electric_field"] = (float(sign[2]), "electric_field", 0.0)
    for name, value in space.constants.items():
        factor, source, offset = rules.get(name, (1.0, name, 0.0))
        if abs(factor * space.constants.get(source, np.inf) + offset - value) > _SAME:
            return None
    changed = {name: rule for name, rule in rules.items() if name in space.names and rule != (1.0, name, 0.0)}
    if any(source not in space.names for _, source, _ in changed.values()):
        return None
    plane = rotation[:2, :2]
    first_sign = plane[0].sum()  # k and -k are the same point
    return Symmetry(changed, (first_sign * plane).tolist())
