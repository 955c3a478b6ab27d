"""Both structures of transitions, as files."""

from __future__ import annotations

__all__ = ["ends", "write_pairs"]

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.exports import cif_text
from matdesinne.files import atomic_path
from matdesinne.structures import CELL_PARAMETERS, Prototype

if TYPE_CHECKING:
    import ase


def ends(transitions: Transitions, prototype: Prototype) -> list[tuple[ase.Atoms, ase.Atoms]]:
    """The structures before and after each transition; ``info`` says which, with the prediction and units.

    Args:
        transitions: whose space has the six lattice parameters.
        prototype: atoms and fractional positions.
    """
    prototype.check(transitions.space)
    names, prop = transitions.space.names, transitions.prop
    units = {p.name: p.unit for p in transitions.space.parameters if p.name not in CELL_PARAMETERS}
    words = ", ".join(f"{name}: {unit}" for name, unit in {**units, prop.name: prop.unit}.items())
    pairs = []
    for row in range(len(transitions)):
        pair = []
        for end, designs in enumerate((transitions.before, transitions.after)):
            atoms = prototype.atoms(dict(zip(names, designs[row].tolist(), strict=True)))
            atoms.info |= {
                "transition": row + 1,
                "end": ("before", "after")[end],
                prop.name: transitions.value[row, end].item(),
                f"{prop.name}_std": transitions.std[row, end].item(),
                "units": words,
            }
            pair.append(atoms)
        pairs.append((pair[0], pair[1]))
    return pairs


def write_pairs(transitions: Transitions, prototype: Prototype, folder: Path) -> None:
    """Write ``transitions.extxyz``, each start followed by its end, and a folder ``transitions`` of CIF files.

    Args:
        transitions: few.
        prototype: atoms and fractional positions.
        folder: where to write; CIF files of earlier transitions there go.
    """
    from ase.io import write

    pairs = ends(transitions, prototype)
    with atomic_path(folder / "transitions.extxyz") as temporary:
        write(temporary, [atoms for pair in pairs for atoms in pair], format="extxyz")
    shutil.rmtree(folder / "transitions", ignore_errors=True)
    for pair in pairs:
        for atoms in pair:
            remarks = [f"{key} = {value}" for key, value in atoms.info.items()]
            name = f"{atoms.info['transition']:03d}_{atoms.info['end']}.cif"
            with atomic_path(folder / "transitions" / name) as temporary:
                temporary.write_text(cif_text(atoms, remarks), encoding="ascii")
