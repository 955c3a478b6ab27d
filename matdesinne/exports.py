"""Export of candidates to CIF, POSCAR, an ASE database and chemiscope."""

from __future__ import annotations

__all__ = ["Exports", "cif_text", "structures"]

import gzip
import importlib.util
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.files import atomic_path, write_text
from matdesinne.structures import CELL_PARAMETERS, Prototype

if TYPE_CHECKING:
    import ase


@dataclass(frozen=True)
class Exports:
    """Files to write beside the table of candidates.

    ===============  =============================================================================
    format           files
    ===============  =============================================================================
    ``cif``          ``cif/candidate_00012.cif``: the number is the row in the table, from 0
    ``poscar``       ``poscar/POSCAR_00012``, direct coordinates
    ``ase_db``       ``candidates.db``: every candidate, the columns of the table as key-value pairs
    ``chemiscope``   ``candidates.json.gz``: every candidate, to open at chemiscope.org
    ===============  =============================================================================

    The comments of CIF and POSCAR give the parameters other than the cell (an electric field), the target, the prediction
    and its spread with units. These files are written for the candidates with the smallest spread.

    Args:
        formats: names out of this table.
        limit: largest number of CIF and of POSCAR files.

    Raises:
        ConfigError: if a format is unknown, or its package is not installed.
    """

    formats: Sequence[str]
    limit: int = 100

    def __post_init__(self) -> None:
        """Check the names and the number."""
        known = [*_TEXT_FORMATS, *_WRITERS]
        unknown = [name for name in self.formats if name not in known]
        if unknown:
            raise ConfigError(f"Expected formats out of {known}, got {unknown[0]!r}: correct it.")
        if self.limit < 1:
            raise ConfigError(f"Expected a limit of at least 1 file, got {self.limit}: raise it, or drop cif and poscar.")
        if "chemiscope" in self.formats and importlib.util.find_spec("chemiscope") is None:
            raise ConfigError("Expected the package chemiscope, got none: pip install 'matdesinne[explore]'.")

    def write(self, candidates: Candidates, prototype: Prototype | None, folder: Path) -> None:
        """Write all files.

        Raises:
            ConfigError: if there are formats but no prototype, i.e. the designs are no crystals.
        """
        if not self.formats:
            return
        if prototype is None:
            raise ConfigError(f"Expected designs with atoms for {list(self.formats)}, got none: drop these formats.")
        for name in self.formats:
            if name in _TEXT_FORMATS:
                _write_texts(name, candidates, prototype, folder, self.limit)
            else:
                _WRITERS[name](candidates, prototype, folder)


def structures(candidates: Candidates, prototype: Prototype) -> list[ase.Atoms]:
    """Build the structure of every candidate.

    Raises:
        ConfigError: if the space lacks a lattice parameter, or the angles of a design enclose no volume.
    """
    prototype.check(candidates.space)
    return [prototype.atoms(candidates.space.design(row)) for row in candidates.designs.tolist()]


def cif_text(atoms: ase.Atoms, remarks: Sequence[str]) -> str:
    """Write a structure in the CIF format, with coordinates in full precision."""
    from ase.io.cif import write_cif

    buffer = io.BytesIO()
    write_cif(buffer, [atoms], wrap=False)
    return "".join(f"# {remark}\n" for remark in remarks) + buffer.getvalue().decode("latin-1")


def _poscar_text(atoms: ase.Atoms, remarks: Sequence[str]) -> str:
    from ase.io.vasp import write_vasp

    buffer = io.StringIO()
    write_vasp(buffer, atoms, direct=True)
    _, rest = buffer.getvalue().split("\n", 1)  # the first line is a comment
    return f"{atoms.get_chemical_formula()}; {'; '.join(remarks)}\n{rest}"


_TEXT_FORMATS = {"cif": ("candidate_{:05d}.cif", cif_text), "poscar": ("POSCAR_{:05d}", _poscar_text)}
"""Names of the files in the folder of the format, and what returns the text of a structure."""


def _write_texts(form: str, candidates: Candidates, prototype: Prototype, folder: Path, limit: int) -> None:
    """Write one file for each candidate; files of an earlier run are removed."""
    name, text = _TEXT_FORMATS[form]
    chosen = candidates.std.sum(dim=1).argsort(stable=True)[:limit]
    columns = {key: column for key, column in candidates.columns().items() if key not in CELL_PARAMETERS and column[0]}
    for old in (folder / form).glob(name.replace("{:05d}", "*")):
        old.unlink()
    for row, atoms in zip(chosen.tolist(), structures(candidates.take(chosen), prototype), strict=True):
        remarks = [f"{key} = {values[row]:.9g} {unit}" for key, (unit, values) in columns.items()]
        write_text(folder / form / name.format(row), text(atoms, remarks))


def _write_ase_db(candidates: Candidates, prototype: Prototype, folder: Path) -> None:
    from ase.db import connect
    from ase.db.core import reserved_keys

    columns = {
        f"{name}_value" if name in reserved_keys else name: (unit, values)
        for name, (unit, values) in _finite(candidates).items()
    }
    rows = zip(*(values for _, values in columns.values()), strict=True)
    frames = structures(candidates, prototype)
    with atomic_path(folder / "candidates.db") as temporary:
        with connect(temporary, use_lock_file=False) as database:
            for atoms, row in zip(frames, rows, strict=True):
                database.write(atoms, **dict(zip(columns, row, strict=True)))
        described = {name: (name.replace("_", " "), name.replace("_", " "), unit) for name, (unit, _) in columns.items()}
        database.metadata = {"title": candidates.target.format(candidates.properties), "key_descriptions": described}


def _write_chemiscope(candidates: Candidates, prototype: Prototype, folder: Path) -> None:
    import chemiscope

    columns = _finite(candidates)
    properties = {
        name: {"target": "structure", "values": list(values), **({"units": unit} if unit else {})}
        for name, (unit, values) in columns.items()
    }
    axes = [name for name in candidates.space.names if name not in CELL_PARAMETERS] or ["c"]
    settings = chemiscope.quick_settings(
        x="a", y=axes[0], map_color=candidates.properties[0].name, periodic=True, structure_settings={"supercell": [3, 3, 1]}
    )
    title = candidates.target.format(candidates.properties)
    content = chemiscope.create_input(
        structures=structures(candidates, prototype),
        properties=properties,
        metadata={"name": f"Candidates for {title}", "description": "Designs by MatDesINNe with predicted properties."},
        settings=settings,
    )
    with atomic_path(folder / "candidates.json.gz") as temporary, gzip.open(temporary, "wt", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False)


def _finite(candidates: Candidates) -> Mapping[str, tuple[str, Sequence[float | str]]]:
    """Return the columns without those of infinite edges of a target, which these formats cannot store."""
    return {
        name: (unit, values)
        for name, (unit, values) in candidates.columns().items()
        if all(isinstance(value, str) or math.isfinite(value) for value in values)
    }


_WRITERS: dict[str, Callable[[Candidates, Prototype, Path], None]] = {
    "ase_db": _write_ase_db,
    "chemiscope": _write_chemiscope,
}
