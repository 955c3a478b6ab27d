"""A search that starts from a structure file: what is read, what is refused, and the order of the candidates."""

import re

import ase
import ase.io
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.changes import start_sentence, strain_sentence
from matdesinne.selection import All, Expression
from matdesinne.space import DesignSpace
from matdesinne.start import Start
from matdesinne.start_files import read_start
from matdesinne.structures import Prototype
from matdesinne.targets import Target

from .toys import box, load_part, prop

SPACE = load_part("space")
FREE = load_part("space", "tmd_strain/mos2")
CELL = {"a": 3.2, "b": 3.12, "c": 12.3, "alpha": 90.0, "beta": 90.0, "gamma": 118.0}


@pytest.fixture
def prototype() -> Prototype:
    return load_part("prototype")


def sample(prototype: Prototype, **cell: float) -> ase.Atoms:
    return prototype.atoms({**CELL, **cell})


def written(atoms: ase.Atoms, folder, name: str = "sample.cif"):
    ase.io.write(folder / name, atoms, format="vasp" if name == "POSCAR" else None)
    return folder / name


@pytest.mark.parametrize("name", ["sample.cif", "POSCAR", "sample.extxyz"])
def test_formats(name, prototype, tmp_path):
    design = read_start(written(sample(prototype), tmp_path, name), prototype, SPACE)
    assert design.tolist() == pytest.approx([*CELL.values(), 0.0], abs=1e-4)


def test_the_orientation_and_the_origin_do_not_matter(prototype, tmp_path):
    atoms = sample(prototype)
    atoms.rotate(33, "z", rotate_cell=True)
    atoms.translate([0.4, 1.1, 0.7])
    atoms.wrap()
    design = read_start(written(atoms, tmp_path, "POSCAR"), prototype, SPACE)
    assert design.tolist() == pytest.approx([*CELL.values(), 0.0], abs=1e-4)


def test_an_acute_cell_is_the_same_layer(prototype, tmp_path):
    atoms = sample(prototype, a=3.16, b=3.16, gamma=120.0)
    a, b, c = atoms.cell.array
    atoms.set_cell([a, a + b, c])
    design = read_start(written(atoms, tmp_path, "POSCAR"), prototype, SPACE)
    assert design[[0, 1, 5]].tolist() == pytest.approx([3.16, 3.16, 120.0], abs=1e-4)


def test_other_parameters(prototype, tmp_path):
    """From the file where it has them, as our own candidates do; else from the reference; fixed values come first."""
    path = written(sample(prototype, electric_field=0.3), tmp_path, "sample.extxyz")
    assert read_start(path, prototype, SPACE)[6].item() == pytest.approx(0.3)
    assert read_start(path, prototype, SPACE, fixed={"electric_field": -0.2})[6].item() == pytest.approx(-0.2)


def test_more_vacuum_of_a_free_layer(prototype, tmp_path):
    path = written(sample(prototype, c=20.0), tmp_path)
    assert read_start(path, prototype, FREE).tolist() == pytest.approx([3.2, 3.12, 118.0], abs=1e-4)


def test_one_of_several(prototype, tmp_path):
    path = tmp_path / "two.extxyz"
    ase.io.write(path, [sample(prototype), sample(prototype, a=3.3)])
    assert read_start(f"{path}@1", prototype, SPACE)[0].item() == pytest.approx(3.3)
    with pytest.raises(DatasetError, match=r"one structure, got 2.*@0"):
        read_start(path, prototype, SPACE)


def moved(atoms: ase.Atoms) -> ase.Atoms:
    """The phase 1T: one chalcogen on the third site."""
    fractions = atoms.get_scaled_positions()
    fractions[2, :2] = 0.0
    atoms.set_scaled_positions(fractions)
    return atoms


def without_height(atoms: ase.Atoms) -> ase.Atoms:
    atoms.set_cell([atoms.cell[0], atoms.cell[1], [0, 0, 0]])
    return atoms


def left_handed(atoms: ase.Atoms) -> ase.Atoms:
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    return atoms


@pytest.mark.parametrize(
    ("change", "space", "message"),
    [
        (lambda atoms: atoms.repeat((2, 1, 1)), SPACE, "holds 2 cells or layers: give the primitive cell"),
        (lambda atoms: ase.Atoms("WSeSe", cell=atoms.cell, positions=atoms.positions), SPACE, "atoms Mo S S, got WSe2"),
        (moved, SPACE, "the same phase"),
        (without_height, SPACE, "cell of three vectors"),
        (left_handed, SPACE, "right-handed"),
        (lambda atoms: atoms, FREE, "c of at least 16"),
    ],
    ids=["supercell", "other atoms", "other phase", "no height", "left-handed", "too little vacuum"],
)
def test_structures_that_are_refused(change, space, message, prototype, tmp_path):
    with pytest.raises(DatasetError, match=message):
        read_start(written(change(sample(prototype)), tmp_path, "sample.extxyz"), prototype, space)


@pytest.mark.parametrize(
    ("cell", "bounds", "message"),
    [
        ({"c": 20.0}, {}, "with c from 9.84 to 14.76 angstrom, got 20 .*vacuum"),
        ({"a": 4.0}, {}, "with a from 2.528"),
        ({}, {"gamma": [119, 121]}, "with gamma from 119 to 121 degree, got 118"),
        ({"b": 3.16, "gamma": 119.0}, {"strain_shear": [0, 0.005]}, "with strain_shear from 0 to 0.005 1, got 0.01"),
    ],
)
def test_a_start_outside_the_bounds(cell, bounds, message, prototype, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_start(written(sample(prototype, **cell), tmp_path, "POSCAR"), prototype, SPACE, bounds)


def test_no_structure(prototype, tmp_path):
    (tmp_path / "sample.cif").write_text("nothing")
    for name in ("sample.cif", "missing.cif"):
        with pytest.raises(DatasetError, match=re.escape(name)):
            read_start(tmp_path / name, prototype, SPACE)
    with pytest.raises(ConfigError, match="without atoms"):
        read_start(tmp_path / "sample.cif", None, box())


def test_nearest_images_are_equivalent():
    start = Start.of(SPACE, torch.tensor([3.3, 3.0, 12.3, 90.0, 90.0, 120.0, 0.2]))
    designs = SPACE.sample(50, torch.Generator().manual_seed(0))
    near = start.nearest_images(designs, SPACE)
    best = ((SPACE.images(designs) - start.design) / start.half_width).norm(dim=2).amin(dim=1)
    torch.testing.assert_close(start.distance(near), best)
    torch.testing.assert_close(SPACE.canonicalize(near), SPACE.canonicalize(designs))


def table(space: DesignSpace, designs: torch.Tensor, start: torch.Tensor | None) -> Candidates:
    zeros = torch.zeros(len(designs), 1)
    origin = None if start is None else Start.of(space, start)
    return Candidates(space, [prop("gap")], designs, Target((0.0,), (0.0,)), zeros, zeros, "sampled", start=origin)


def test_the_start_is_kept_in_files(tmp_path):
    made = table(box(), torch.tensor([[0.5, 0.0], [0.1, 0.0]]), torch.zeros(2)).nearest_first()
    made.write_parquet(tmp_path / "candidates.parquet")
    again = Candidates.read_parquet(tmp_path / "candidates.parquet")
    assert again.columns()["distance_to_start"] == ("1", pytest.approx([0.1, 0.5]))
    assert Expression("distance_to_start < 0.2").mask(again).tolist() == [True, False]


def test_sentences():
    x = torch.tensor([[3.2, 3.16, 12.3, 90.0, 90.0, 120.0, 0.0], [3.16, 3.16, 12.3, 90.0, 90.0, 120.0, 0.5]])
    made = table(SPACE, x, x[0])
    assert start_sentence(made) == "The smallest change of the start found: none (0 half-widths of the box)."
    assert "electric field from 0 to 0.5 V/angstrom" in start_sentence(made.take(torch.tensor([1])))
    assert strain_sentence(made.take(torch.tensor([1]))) == (
        "Principal in-plane strains, median (range): strain_1 0.0 % (0.0 to 0.0 %), strain_2 0.0 % (0.0 to 0.0 %)."
    )
    assert start_sentence(table(SPACE, x, None)) == strain_sentence(table(box(), x[:, :2], None)) == ""


def test_candidates_near_a_sample(prototype):
    """The packaged weights: all on target, sorted, the first nearer to the sample than any other."""
    design = InverseDesign.load("pretrained", selection=All())
    start = torch.tensor([3.16, 3.2, 12.3, 90.0, 90.0, 120.0, 0.0])
    run = design.run(1.2, 200, torch.Generator().manual_seed(0), start=start, fixed={"electric_field": 0.0})
    distance = torch.tensor(run.candidates.columns()["distance_to_start"][1])
    assert (distance.diff() >= 0).all() and distance[0] < 0.5 * distance.median()
    assert run.candidates.error.max() < 0.01
    assert run.stages["sampled"].designs.shape == (200, 7)
    shortest = InverseDesign.load("pretrained", selection=All(), minimize="distance_to_start")
    least = shortest.run(1.2, 200, torch.Generator().manual_seed(0), start=start, fixed={"electric_field": 0.0}).candidates
    assert 0 < least.start.distance(least.designs)[0] <= distance[0] + 1e-4
    alone = design.run(1.2, 1, torch.Generator().manual_seed(0), start=start, fixed={"electric_field": 0.0})
    torch.testing.assert_close(alone.candidates.designs[0], run.candidates.designs[0], rtol=1e-4, atol=1e-3)
