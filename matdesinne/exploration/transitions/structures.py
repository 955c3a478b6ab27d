"""The structures before and after transitions, as atoms and as files."""

from __future__ import annotations

__all__ = ["structure_pairs", "write_structures"]

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from matdesinne.exploration.transitions.transition import Transitions
from matdesinne.exports import cif_text
from matdesinne.files import atomic_path
from matdesinne.structures import CELL_PARAMETERS, Prototype

if TYPE_CHECKING:
    import ase


def structure_pairs(transitions: Transitions, prototype: Prototype) -> list[tuple[ase.Atoms, ase.Atoms]]:
    """Returns the structures before and after each transition; ``info`` has its number, the end, the prediction and units."""
    prototype.check(transitions.space)
    names, prop = transitions.space.names, transitions.prop
    units = {p.name: p.unit for p in transitions.space.parameters if p.name not in CELL_PARAMETERS}
    unit_text = ", ".join(f"{name}: {unit}" for name, unit in {**units, prop.name: prop.unit}.items())

    def structure(row: int, end: int) -> ase.Atoms:
        design = (transitions.before, transitions.after)[end][row].tolist()
        atoms = prototype.atoms(dict(zip(names, design, strict=True)))
        atoms.info |= {
            "transition": row + 1,
            "end": ("before", "after")[end],
            prop.name: transitions.value[row, end].item(),
            f"{prop.name}_std": transitions.std[row, end].item(),
            "units": unit_text,
        }
        return atoms

    return [(structure(row, 0), structure(row, 1)) for row in range(len(transitions))]


def write_structures(transitions: Transitions, prototype: Prototype, folder: Path) -> None:
    """Write ``transitions.extxyz``, each start followed by its end, and a folder ``transitions`` of CIF files."""
    from ase.io import write

    structures = [atoms for pair in structure_pairs(transitions, prototype) for atoms in pair]
    with atomic_path(folder / "transitions.extxyz") as temporary:
        write(temporary, structures, format="extxyz")
    shutil.rmtree(folder / "transitions", ignore_errors=True)
    for atoms in structures:
        remarks = [f"{key} = {value}" for key, value in atoms.info.items()]
        name = f"{atoms.info['transition']:03d}_{atoms.info['end']}.cif"
        with atomic_path(folder / "transitions" / name) as temporary:
            temporary.write_text(cif_text(atoms, remarks), encoding="ascii")
