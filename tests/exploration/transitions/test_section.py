import ase.io
import numpy as np
import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.transitions.figures import _magnified, draw_structures, structure_pairs, write_structures
from matdesinne.exploration.transitions.search import small_transitions
from matdesinne.exploration.transitions.section import find_transitions, transitions_section
from matdesinne.exploration.transitions.transition import Levels, Transitions
from matdesinne.reporting.report import Section

from ...toys import Linear, box, candidates, load_part, prop, rows

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def pairs() -> Transitions:
    """Transitions of cells from the whole box and from its most sheared corners."""
    space = load_part("space")
    surrogate = Linear(space, [prop("band_gap", floor=0.0)], [[0.0] * 5 + [0.05, 1.0]]).eval()
    x = space.sample(6, torch.Generator().manual_seed(1))
    x[:2, 3:6] = torch.tensor([[72.0, 72.0, 140.0], [108.0, 108.0, 143.9]])
    after = x.clone()
    after[:, 5] -= 0.5
    return Transitions.between(surrogate, Levels(-0.1, 0.1), x, after, ["gamma"] * 6)


def settings(**changes) -> OmegaConf:
    search = {
        "_target_": "matdesinne.exploration.transitions.search.TransitionSearch",
        "levels": [0.05, 0.1],
        "edges": 30,
        "small": 0.3,
        "refined": 10,
        "apart": 0.1,
        "starts": 4,
        "knobs": None,
        "remote": 8,
        "best": 3,
    }
    return OmegaConf.create({"run": "pretrained", "design": None, "transitions": search, **changes})


def section_of(designs: Exploration, config: OmegaConf) -> Section:
    return transitions_section(designs, find_transitions(designs, config))


def exploration(folder, surrogate=None) -> Exploration:
    surrogate = surrogate or Linear(box(), [prop("y", floor=0.0)], [[1.0, 0.5]]).eval()
    tables = tuple(candidates(surrogate, rows(surrogate.space, 30, seed=seed).x, 6.0) for seed in range(2))
    return Exploration(tables, surrogate, None, folder, 0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("switching")
    return section_of(exploration(folder), settings()), folder


@pytest.mark.slow
def test_files(drawn):
    names = {path.name for path in drawn[1].iterdir()}
    tables = {f"{name}.{suffix}" for name in ("transitions", "transitions_by_knobs", "remote") for suffix in ("csv", "parquet")}
    pictures = {f"{name}.{suffix}" for name in ("transitions", "transitions_by_knobs", "remote") for suffix in ("pdf", "png")}
    assert names == tables | pictures | {"transitions_lines.parquet"}


@pytest.mark.slow
def test_table_holds_every_transition(drawn):
    table = pyarrow.parquet.read_table(drawn[1] / "transitions.parquet").to_pydict()
    count = len(table["size"])
    assert count > 3 and f"{count} distinct transitions" in drawn[0].text
    before, after = np.array(table["y_before"]), np.array(table["y_after"])
    assert (before * after < 0).all() and (np.abs(before) > 0.0499).all() and max(table["size"]) < 0.3
    changes = np.array([table["x1_change"], table["x2_change"]])
    assert np.sqrt((changes**2).sum(axis=0)) == pytest.approx(table["size"], abs=1e-6)
    knobs = np.array(table["knobs"])
    assert (changes[1][knobs == "x1"] == 0).all() and (changes[0][knobs == "x2"] == 0).all()


@pytest.mark.slow
def test_small_changes_are_drawn_many_times_as_large(pairs, tmp_path):
    """Also from corners of the box, where the larger change would leave no cell."""
    prototype = load_part("prototype")
    for row in range(len(pairs)):
        seen, factor = _magnified(pairs, row, prototype)
        gamma = pairs.before[row, 5].item() + factor * (pairs.after[row, 5] - pairs.before[row, 5]).item()
        assert seen.cell.angles()[2] == pytest.approx(gamma, abs=1e-3)
        assert factor == round(0.4 / pairs.size[row].item()) or row < 2
    picture = draw_structures(pairs, prototype, tmp_path)
    assert picture.path.stat().st_size > 10_000 and picture.path.with_suffix(".pdf").is_file()


def test_section(drawn):
    section = drawn[0]
    assert section.title == "Transitions" and [len(table.rows) for table in section.tables] == [3, 3, 3]
    assert "less than 30 % of half the range of one knob" in section.text
    assert all(picture.path.is_file() for picture in section.figures)


@pytest.mark.slow
def test_one_given_design(tmp_path):
    section = section_of(exploration(tmp_path), settings(design={"x1": 0.25, "x2": 0.5}))
    table = pyarrow.parquet.read_table(tmp_path / "transitions_by_knobs.parquet").to_pydict()
    assert set(table["x1_before"]) == {0.25} and set(table["knobs"]) == {"x1", "x2", "x1+x2"}
    assert section.tables[1].rows[0][1] == "1 of 1"


@pytest.mark.slow
def test_nothing_to_find(tmp_path):
    """A property that never crosses its floor."""
    flat = Linear(box(), [prop("y", floor=5.0)], [[1.0, 0.5]]).eval()
    section = section_of(exploration(tmp_path, flat), settings())
    assert "0 distinct transitions" in section.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cif", "extxyz"])
def test_structures_read_back(kind, pairs, prototype, tmp_path):
    write_structures(pairs, prototype, tmp_path)
    if kind == "extxyz":
        found = ase.io.read(tmp_path / "transitions.extxyz", index=":")
    else:
        names = [f"{row + 1:03d}_{end}.cif" for row in range(len(pairs)) for end in ("before", "after")]
        found = [ase.io.read(tmp_path / "transitions" / name) for name in names]
    written = [atoms for pair in structure_pairs(pairs, prototype) for atoms in pair]
    assert len(found) == 12
    for atoms, expected in zip(found, written, strict=True):
        assert np.abs(atoms.cell.array - expected.cell.array).max() < TOLERANCE
        assert np.abs(atoms.get_scaled_positions() - expected.get_scaled_positions()).max() < TOLERANCE
        assert atoms.get_chemical_symbols() == expected.get_chemical_symbols()


def test_ends_say_what_they_are(pairs, prototype):
    before, after = structure_pairs(pairs, prototype)[2]
    assert (before.info["transition"], before.info["end"], after.info["end"]) == (3, "before", "after")
    assert before.info["electric_field"] == pytest.approx(pairs.before[2, 6].item())
    assert "electric_field: V/angstrom" in before.info["units"] and "band_gap: eV" in before.info["units"]
    assert after.cell.cellpar()[5] == pytest.approx(pairs.after[2, 5].item(), abs=1e-5)


def test_files_of_earlier_transitions_go(pairs, prototype, tmp_path):
    write_structures(pairs, prototype, tmp_path)
    write_structures(pairs.take(torch.tensor([4])), prototype, tmp_path)
    assert {path.name for path in (tmp_path / "transitions").iterdir()} == {"001_before.cif", "001_after.cif"}


def test_small_transitions_stay_in_narrower_bounds():
    surrogate = Linear(box().narrowed({"x1": [-0.1, 0.02]}), [prop()], [[1.0, 0.5]]).eval()
    found = small_transitions(surrogate, torch.tensor([[-0.1, 0.0]]), Levels(-0.1, 0.05), 2.0)
    assert found.knobs == ["x2"]
