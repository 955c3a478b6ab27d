import pyarrow.parquet
import pytest
import torch

from matdesinne.exploration.designs import Exploration
from matdesinne.exploration.shear import floor_shares
from matdesinne.exploration.strain import StrainKind, strain_section
from matdesinne.space import DesignSpace, Parameter

from ..toys import candidates, linear
from .conftest import GAP, Linear, Tilted, crystal, explored, mos2, table

NAMES = ("a", "b", "c", "alpha", "beta", "gamma")


def design(**changes: float) -> torch.Tensor:
    """The reference of MoS2 with some parameters multiplied."""
    space = mos2()
    factors = torch.tensor([changes.get(name, 1.0) for name in space.names])
    return (space.reference * factors).unsqueeze(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (StrainKind.IN_PLANE, [0.1, -0.04, 0.02]),
        (StrainKind.OUT_OF_PLANE, [0.05, -0.1, 0.0]),
        (StrainKind.TENSILE, [0.1, -0.04, 0.05]),
        (StrainKind.SHEAR, [-0.1, 0.0, 0.02]),
    ],
)
def test_strain_is_the_deviation_from_the_reference(kind, expected, close):
    x = design(a=1.1, b=0.96, c=1.05, alpha=0.9, gamma=1.02)
    close(mos2().strains(x, kind.value)[0], expected)


@pytest.mark.slow
def test_averages_keep_or_drop_the_sign(tmp_path, undrawn):
    surrogate = crystal()
    x = torch.cat([design(a=1.1, b=0.9), design(a=1.1, b=0.9, gamma=0.9)])
    exploration = Exploration((candidates(surrogate, x, 0.5),), surrogate, None, tmp_path, 0)
    means, tails = strain_section(exploration, 0.1).tables
    data = pyarrow.parquet.read_table(tmp_path / "figure_5.parquet")
    assert data["tensile_average"].to_pylist() == pytest.approx([0, 0], abs=1e-4)
    assert data["tensile_average_absolute"].to_pylist() == pytest.approx([20 / 3, 20 / 3], rel=1e-5)
    assert data["shear_average"].to_pylist() == pytest.approx([0, -10 / 3], abs=1e-5)
    assert data.schema.field("shear_average").metadata == {b"unit": b"%"}
    assert means.rows[0][5] == "-1.67 (-3.33 to 0)"
    assert tails.rows[0][3:5] == [0, 0]


@pytest.mark.slow
def test_sheared_designs_are_counted(tmp_path, undrawn):
    surrogate = crystal()
    x = torch.cat([design(alpha=1.1, beta=0.9), design(alpha=1.1, beta=1.1), design()])
    section = strain_section(Exploration((candidates(surrogate, x, 0.5),), surrogate, None, tmp_path, 0), 0.1)
    assert section.tables[1].rows[0][3:5] == pytest.approx([200 / 3, 100 / 3])
    assert "67 % have an average absolute shear strain above 5 % and 33 % an average one beyond ±5 %" in section.text


@pytest.mark.slow
def test_share_at_the_floor_by_shear(tmp_path):
    """A property that falls with gamma from 120 degree is at its floor for every gamma above 120 degree."""
    surrogate = Tilted(mos2(), [GAP], [[0.0] * 5 + [-1.0, 0.0]]).eval()
    shares = floor_shares(Exploration((candidates(surrogate, design(), 0.5),), surrogate, None, tmp_path, 0))
    assert shares["designs"].sum() > 19_900
    assert ((shares["share_lower"] <= 0.52) & (shares["share_upper"] >= 0.48)).all()
    large = shares[shares["designs"] > 1000]
    assert large["share"].to_numpy() == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_rows_stand_beside_candidates(tmp_path, undrawn):
    """Rows near a value; all rows at or below a floor."""
    surrogate = crystal()
    x = torch.cat([design(b=1 - gap / 6.32) for gap in (-0.3, -0.01, 0.45, 0.55, 0.7)])
    generated = tuple(candidates(surrogate, design(), target) for target in (0.0, 0.5))
    section = strain_section(Exploration(generated, surrogate, table(surrogate, x), tmp_path, 0), 0.1)
    counts = {(target, name): number for target, name, number, *_ in section.tables[0].rows}
    assert counts["band gap ≤ 0 eV", "rows of the data set"] == 2
    assert counts["band gap = 0.5 eV", "rows of the data set"] == 2


@pytest.mark.slow
def test_figures(tmp_path):
    section = strain_section(explored(crystal(), tmp_path, [0.0, 0.5, 1.0]), 0.1)
    assert [figure.path.name for figure in section.figures] == ["figure_4.png", "figure_5.png", "figure_5_floor.png"]
    assert all((tmp_path / f"figure_{number}.pdf").read_bytes().startswith(b"%PDF") for number in (4, 5))
    shown = pyarrow.parquet.read_table(tmp_path / "figure_4.parquet")
    assert set(shown["target"].to_pylist()) == {"band gap ≤ 0 eV", "band gap = 1 eV"}
    assert shown.schema.field("in_plane").metadata == {b"unit": b"%"}


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [None, 1])
def test_one_design_has_no_interval(tmp_path, undrawn, labelled):
    section = strain_section(explored(crystal(), tmp_path, [0.5], 1, labelled), 0.1)
    assert [figure.path.name for figure in section.figures] == ["figure_4.png", "figure_5.png", "figure_5_floor.png"]
    assert not any("to" in mean for mean in section.tables[0].rows[0][3:])


def without_reference() -> DesignSpace:
    return DesignSpace([Parameter(name, "1", 1.0, 2.0) for name in NAMES])


@pytest.mark.parametrize(
    ("surrogate", "why"),
    [(linear(), "no parameters a, b"), (Linear(without_reference(), linear().properties, [[1.0] * 6]), "reference of zero")],
    ids=["parameters", "reference"],
)
def test_designs_without_a_cell(tmp_path, surrogate, why):
    section = strain_section(explored(surrogate, tmp_path, [0.5]), 0.1)
    assert why in section.text and not section.figures
