import gzip
import json
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.exports import Exports, structures
from matdesinne.structures import write_extxyz
from matdesinne.targets import Property, Target

from .toys import box, candidates, load_part, quadratic, rows

FORMATS = ["cif", "poscar", "ase_db", "chemiscope"]
COUNT = 12


@pytest.fixture(scope="module")
def table() -> Candidates:
    """Designs from the whole box and from its most sheared corners, with a spread that falls from row to row."""
    space = load_part("space")
    x = space.sample(COUNT, torch.Generator().manual_seed(0))
    corners = torch.tensor([[72.0, 72.0, 140.0], [108.0, 108.0, 143.9], [72.0, 108.0, 96.0], [90.0, 90.0, 120.0]])
    x[:4, 3:6] = corners
    mean = torch.linspace(0.9, 1.1, COUNT).unsqueeze(1)
    spread = torch.linspace(0.3, 0.1, COUNT).unsqueeze(1)
    gap = Property("band_gap", "eV", floor=0.0)
    return Candidates(space, [gap], x, Target((-torch.inf,), (1.0,)), mean, spread, "localized")


@pytest.fixture(scope="module")
def folder(table, prototype, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exports")
    Exports(FORMATS).write(table, prototype, path)
    write_extxyz(table, prototype, path / "candidates.extxyz")
    return path


def chemiscope_file(folder: Path) -> dict:
    with gzip.open(folder / "candidates.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def read_chemiscope(folder: Path) -> list[ase.Atoms]:
    return [
        ase.Atoms(
            entry["names"],
            positions=np.stack([entry["x"], entry["y"], entry["z"]], axis=1),
            cell=np.reshape(entry["cell"], (3, 3)),
            pbc=True,
        )
        for entry in chemiscope_file(folder)["structures"]
    ]


READERS = {
    "extxyz": lambda folder: ase.io.read(folder / "candidates.extxyz", index=":"),
    "cif": lambda folder: [ase.io.read(path) for path in sorted((folder / "cif").iterdir())],
    "poscar": lambda folder: [ase.io.read(path) for path in sorted((folder / "poscar").iterdir())],
    "ase_db": lambda folder: [row.toatoms() for row in ase.db.connect(folder / "candidates.db").select()],
    "chemiscope": read_chemiscope,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_structures_read_back(name, folder, table, prototype):
    found, expected = READERS[name](folder), structures(table, prototype)
    assert len(found) == COUNT
    for atoms, written in zip(found, expected, strict=True):
        assert np.abs(atoms.cell.array - written.cell.array).max() < 1e-6
        assert atoms.get_chemical_symbols() == written.get_chemical_symbols()
        assert np.abs(atoms.get_scaled_positions() - written.get_scaled_positions()).max() < 1e-6
        assert atoms.pbc.all()


def test_structures_have_the_cells_of_the_designs(table, prototype):
    found = torch.tensor([atoms.cell.cellpar().tolist() for atoms in structures(table, prototype)], dtype=torch.float64)
    torch.testing.assert_close(found, table.designs[:, :6].double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cif/candidate_00003.cif", "poscar/POSCAR_00003"])
def test_files_say_the_rest_with_units(name, folder, table):
    text = (folder / name).read_text()
    assert f"electric_field = {table.designs[3, 6].item():.9g} V/angstrom" in text
    assert "target = 1 eV" in text and "band_gap_std = " in text


@pytest.mark.parametrize("name", ["cif", "poscar"])
def test_files_are_those_of_the_smallest_spread(name, table, prototype, tmp_path):
    Exports([name], 8).write(table, prototype, tmp_path)
    Exports([name], 3).write(table, prototype, tmp_path)
    numbers = sorted(int(path.stem.rsplit("_", 1)[1]) for path in (tmp_path / name).iterdir())
    assert numbers == [COUNT - 3, COUNT - 2, COUNT - 1]


def test_database_holds_the_columns(folder, table):
    database = ase.db.connect(folder / "candidates.db")
    for number, row in enumerate(database.select()):
        assert row.electric_field == pytest.approx(table.designs[number, 6].item(), abs=1e-9)
        assert row.band_gap == pytest.approx(table.mean[number, 0].item(), abs=1e-9)
        assert row.band_gap_std == pytest.approx(table.std[number, 0].item(), abs=1e-9)
        assert row.target == 1.0 and row.stage == "localized" and "target_lower" not in row
    assert len(list(database.select("band_gap>1.0"))) == int((table.mean > 1.0).sum())
    assert database.metadata["key_descriptions"]["electric_field"][2] == "V/angstrom"


@pytest.mark.slow
def test_a_name_that_the_database_keeps_for_itself(table, prototype, tmp_path):
    energy = Candidates(
        table.space, [Property("energy", "eV")], table.designs, table.target, table.mean, table.std, table.stage
    )
    Exports(["ase_db"]).write(energy, prototype, tmp_path)
    assert ase.db.connect(tmp_path / "candidates.db").get(1).energy_value == pytest.approx(0.9)


def test_chemiscope_has_properties_with_units(folder, table):
    content = chemiscope_file(folder)
    gap, field = (content["properties"][name] for name in ("band_gap", "electric_field"))
    assert gap["values"] == pytest.approx(table.mean[:, 0].tolist()) and gap["units"] == "eV"
    assert field["values"] == pytest.approx(table.designs[:, 6].tolist()) and field["units"] == "V/angstrom"
    assert content["settings"]["map"]["color"]["property"] == "band_gap"


@pytest.mark.parametrize(("formats", "limit", "named"), [(["cif", "xyz"], 10, "'xyz'"), (["cif"], 0, "at least 1")])
def test_rejects(formats, limit, named):
    with pytest.raises(ConfigError, match=named):
        Exports(formats, limit)


def test_missing_chemiscope(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'matdesinne\[explore\]'"):
        Exports(["chemiscope"])


@pytest.mark.parametrize("name", FORMATS)
def test_designs_without_atoms(name, tmp_path):
    with pytest.raises(ConfigError, match="atoms"):
        Exports([name]).write(candidates(quadratic(), rows(box(), 2).x, 0.5), None, tmp_path)


def test_nothing_by_default(table, tmp_path):
    Exports([]).write(table, None, tmp_path)
    assert list(tmp_path.iterdir()) == []
