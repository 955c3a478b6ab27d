import pyarrow.parquet
import pytest
import torch

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.transitions.close_pairs import close_pairs, close_pairs_section

from ...toys import candidates, linear
from ..conftest import crystal, explored


def test_closest_first_and_no_design_twice():
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.1, 0.0], [0.0, 0.3], [5.0, 0.0]])
    found = close_pairs(first, second, 5)
    assert [(pair.first, pair.second) for pair in found] == [(0, 0), (1, 1)]
    assert found[0].distance == pytest.approx(0.1)


@pytest.mark.slow
def test_table_says_what_changes(tmp_path, flat, undrawn):
    surrogate = crystal()
    space = surrogate.space
    x = space.sample(20, torch.Generator().manual_seed(0))
    near = x[:1].clone()
    near[0, space.index("b")] += 0.01
    tables = tuple(candidates(surrogate, rows, target) for rows, target in ((x, 0.0), (torch.cat([near, x[:3].flip(1)]), 0.5)))
    section = close_pairs_section(Exploration(tables, surrogate, None, tmp_path, 0))
    [table] = section.tables
    best = dict(zip(table.heads, table.rows[0], strict=True))
    assert best["change of b [Å]"] == pytest.approx(0.01, abs=1e-5)
    assert best["change of electric field [V/Å]"] == 0
    assert best["distance [half-widths]"] == pytest.approx(0.01 / 0.632, rel=1e-3)
    assert best["second band gap [eV]"] - best["first band gap [eV]"] == pytest.approx(-0.02, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 30])
def test_figure(tmp_path, flat, count):
    exploration = explored(crystal(), tmp_path, [0.0, 0.5, 1.0], count)
    [picture] = close_pairs_section(exploration).figures
    assert picture.path.stat().st_size > 10_000
    data = pyarrow.parquet.read_table(tmp_path / "figure_6.parquet")
    assert len(data) == 3 * count
    assert data.schema.field("electric_field").metadata == {b"unit": b"V/angstrom"}


@pytest.mark.parametrize(("targets", "count"), [([0.5], 30), ([0.0, 0.5], 1)], ids=["one target", "too few"])
def test_nothing_to_pair(tmp_path, flat, targets, count):
    section = close_pairs_section(explored(linear(), tmp_path, targets, count, None))
    assert "left out" in section.text and not section.figures
