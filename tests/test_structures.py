import dataclasses
import json

import ase.io
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.data.sources import PackagedSource
from matdesinne.errors import ConfigError
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors, write_extxyz
from matdesinne.targets import Property, Target

from .toys import box, candidates, load_part, quadratic, rows


@pytest.fixture(scope="module")
def table() -> Candidates:
    space = load_part("space")
    x = torch.cat([space.reference.unsqueeze(0), space.sample(20, torch.Generator().manual_seed(0))])
    mean = torch.linspace(0.9, 1.1, 21).unsqueeze(1)
    gap = Property("band_gap", "eV", floor=0.0)
    return Candidates(space, [gap], x, Target((1.0,), (1.0,)), mean, 0.1 * mean, "localized")


@pytest.fixture(scope="module")
def frames(table, prototype, tmp_path_factory) -> list[ase.Atoms]:
    path = tmp_path_factory.mktemp("structures") / "candidates.extxyz"
    write_extxyz(table, prototype, path)
    return ase.io.read(path, index=":")


@pytest.mark.slow
def test_one_frame_a_candidate(frames, table):
    assert len(frames) == len(table)


def test_cell_reads_back(frames, table):
    cells = torch.tensor([atoms.cell.cellpar().tolist() for atoms in frames], dtype=torch.float64)
    torch.testing.assert_close(cells, table.designs[:, :6].double(), rtol=0, atol=1e-6)


def test_cell_orientation(frames):
    for atoms in frames:
        a, b, c = atoms.cell.array
        assert abs(a[1]) < 1e-8 and abs(a[2]) < 1e-8 and abs(b[2]) < 1e-8
        assert c[2] > 0


def test_atoms(frames):
    assert all(atoms.get_chemical_symbols() == ["Mo", "S", "S"] for atoms in frames)
    assert all(atoms.pbc.all() for atoms in frames)


def test_fractional_positions(frames, prototype):
    for atoms in frames:
        assert abs(atoms.get_scaled_positions() - prototype.positions).max() < 1e-6


def test_reference_bond_length(frames):
    assert frames[0].get_distance(0, 1, mic=True) == pytest.approx(2.4018, abs=1e-3)
    assert frames[0].get_distance(0, 2, mic=True) == pytest.approx(2.4018, abs=1e-3)


def test_info_holds_field_target_and_prediction(frames, table):
    for row, atoms in enumerate(frames):
        assert atoms.info["electric_field"] == pytest.approx(table.designs[row, 6].item(), abs=1e-6)
        assert atoms.info["target"] == 1.0
        assert atoms.info["band_gap"] == pytest.approx(table.mean[row, 0].item(), abs=1e-6)
        assert atoms.info["band_gap_std"] == pytest.approx(table.std[row, 0].item(), abs=1e-6)
        assert atoms.info["stage"] == "localized"


def test_a_frame_is_the_structure_of_its_design(frames, table, prototype):
    names = table.space.names
    for atoms, design in zip(frames, table.designs.double().tolist(), strict=True):
        expected = prototype.atoms(dict(zip(names, design, strict=True)))
        assert abs(atoms.cell.array - expected.cell.array).max() < 1e-8
        assert abs(atoms.positions - expected.positions).max() < 1e-7


def test_no_file_of_designs_without_volume(table, prototype, tmp_path):
    designs = table.designs.clone()
    designs[3, 3:6] = torch.tensor([60.0, 60.0, 130.0])
    with pytest.raises(ConfigError, match="got none in 1 designs"):
        write_extxyz(dataclasses.replace(table, designs=designs), prototype, tmp_path / "candidates.extxyz")
    assert list(tmp_path.iterdir()) == []


def test_info_names_units(frames):
    assert "electric_field: V/angstrom" in frames[0].info["units"]
    assert "band_gap: eV" in frames[0].info["units"]


@pytest.mark.parametrize("angles", [(60, 60, 130), (120, 120, 121), (100, 150, 140), (90, 90, 180)])
def test_angles_without_volume(prototype, angles):
    design = dict(zip(CELL_PARAMETERS, (3.0, 3.0, 12.0, *angles), strict=True))
    with pytest.raises(ConfigError, match="volume"):
        prototype.atoms(design)


def test_space_without_a_cell(prototype, tmp_path):
    table = candidates(quadratic(), rows(box(), 2).x, 0.5)
    with pytest.raises(ConfigError, match="gamma"):
        write_extxyz(table, prototype, tmp_path / "candidates.extxyz")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def relaxed_layer():
    """Space, atoms, and the relaxed rows of the packaged set of MoS2."""
    space, atoms = (load_part(group, "tmd_strain/mos2") for group in ("space", "prototype"))
    source = PackagedSource("tmd_strain_mos2")
    table = source.load(space, [Property("thickness", "angstrom")])
    known = source.relaxed_positions()
    positions = torch.tensor([known[number] for number in table.ids.tolist()], dtype=torch.float64)
    return space, atoms, table, positions.unflatten(1, (-1, 3))


def test_atoms_go_where_they_relax_to(relaxed_layer):
    """Fitted to thirty designs, the positions of the others are right to a few thousandths of an angstrom."""
    space, atoms, table, positions = relaxed_layer
    fitted = atoms.relaxed(space, table.x[:30], positions[:30])
    cells = space.values(table.x[30:].double(), CELL_PARAMETERS)
    still = dataclasses.replace(atoms, response=None)
    found, frozen = (each.fractional(cells) @ cell_vectors(cells) for each in (fitted, still))
    true = positions[30:] - positions[30:, :1]
    assert ((found - found[:, :1]) - true).abs().mean() < 0.004
    assert ((frozen - frozen[:, :1]) - true).abs().mean() > 0.01
    one = fitted.atoms(space.design(table.x[30].tolist()))
    assert float(one.positions[1, 2] - one.positions[2, 2]) == pytest.approx(table.y[30, 0].item(), abs=0.01)


def test_unstrained_atoms_stay(relaxed_layer):
    space, atoms, table, positions = relaxed_layer
    fitted = atoms.relaxed(space, table.x, positions)
    cell = space.values(space.reference.double().unsqueeze(0), CELL_PARAMETERS)
    torch.testing.assert_close(fitted.fractional(cell)[0], torch.tensor(atoms.positions).double(), atol=1e-3, rtol=0)


def test_response_survives_plain_containers(relaxed_layer):
    space, atoms, table, positions = relaxed_layer
    fitted = atoms.relaxed(space, table.x, positions)
    again = Prototype(**json.loads(json.dumps(dataclasses.asdict(fitted))))
    cells = space.values(table.x.double(), CELL_PARAMETERS)
    assert torch.equal(again.fractional(cells), fitted.fractional(cells))
