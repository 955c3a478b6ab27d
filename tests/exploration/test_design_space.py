import pyarrow.parquet
import pytest
import torch

from matdesinne.exploration.design_space import design_space_section
from matdesinne.exploration.designs import Exploration

from ..toys import candidates, line, linear
from .conftest import Linear, crystal, explored, fit


@pytest.mark.slow
def test_data_behind_the_figures(tmp_path, flat):
    section = design_space_section(explored(crystal(), tmp_path, [0.0, 1.0]))
    assert [figure.path.name for figure in section.figures] == ["figure_2_distribution.png", "figure_2_map.png"]
    for figure, columns in zip(section.figures, (2, 4), strict=True):
        data = pyarrow.parquet.read_table(figure.path.with_suffix(".parquet"))
        assert data.shape == (40 + 2 * 30, columns)
        assert data.schema.field("band_gap").metadata == {b"unit": b"eV"}
        assert figure.path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_counts(tmp_path, flat, undrawn):
    [table] = design_space_section(explored(crystal(), tmp_path, [0.0, 1.0])).tables
    assert [row[:2] for row in table.rows] == [
        ["rows of the data set", 40],
        ["candidates, band gap ≤ 0 eV", 30],
        ["candidates, band gap = 1 eV", 30],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "labelled"), [("box", None), ("line", 40)])
def test_two_properties(tmp_path, flat, space, labelled):
    surrogate = linear(3, outputs=2)
    if space == "line":
        surrogate = fit(Linear(line(3), list(surrogate.properties), surrogate.matrix.tolist()), torch.randn(50, 3))
    section = design_space_section(explored(surrogate, tmp_path, [[0.5, 0.1]], labelled=labelled))
    assert [figure.path.stem for figure in section.figures] == ["figure_2_distribution", "figure_2_map_y", "figure_2_map_w"]


@pytest.mark.parametrize(
    "rows",
    [torch.zeros(1, 2), torch.zeros(30, 2), torch.cat([torch.full((20, 2), 0.5), torch.full((1, 2), 0.5 + 1e-7)])],
    ids=["one row", "all equal", "equal but for rounding"],
)
def test_too_few_designs_for_a_map(tmp_path, undrawn, rows):
    surrogate = linear()
    exploration = Exploration((candidates(surrogate, rows, 0.5),), surrogate, None, tmp_path, 0)
    section = design_space_section(exploration)
    assert "too few" in section.text and len(section.figures) == 1
