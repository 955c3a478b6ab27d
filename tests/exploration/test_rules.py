import csv

import pyarrow.parquet
import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.exploration.rules import design_rules_section, sensitivities
from matdesinne.space import DesignSpace, Parameter

from ..toys import Linear, linear, prop, quadratic
from .conftest import SLOPES, crystal, explored


@pytest.mark.slow
def test_size_is_the_slope_times_half_the_range(tmp_path):
    surrogate = crystal()
    found = sensitivities(surrogate, explored(surrogate, tmp_path, [0.5]).generated, 0)
    half = (surrogate.space.upper - surrogate.space.lower) / 2
    expected = torch.tensor(SLOPES) * half
    assert [entry.parameter for entry in found.itertuples()] == list(surrogate.space.names)
    assert [entry.slope for entry in found.itertuples()] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)
    assert [entry.size for entry in found.itertuples()] == pytest.approx(expected.abs().tolist(), rel=1e-4, abs=1e-5)
    assert all(entry.size_upper - entry.size_lower < 1e-4 for entry in found.itertuples())


def test_interval_holds_the_mean(tmp_path):
    """Of y = x1 / 2 + x2 / 2 + |x|^2 the mean slope over the box is 1/2, the standard error of n rows sqrt(4 / 3 n)."""
    surrogate = quadratic()
    first, _ = sensitivities(surrogate, explored(surrogate, tmp_path, [0.5], 400).generated, 0).itertuples()
    assert first.slope_lower < 0.5 < first.slope_upper
    assert first.slope_upper - first.slope_lower == pytest.approx(2 * 1.96 * (4 / 3 / 400) ** 0.5, rel=0.15)


@pytest.mark.slow
def test_tables_carry_units(tmp_path, undrawn):
    design_rules_section(explored(crystal(), tmp_path, [0.0, 1.0]), None)
    data = pyarrow.parquet.read_table(tmp_path / "design_rules.parquet")
    assert data.schema.field("size").metadata == {b"unit": b"eV"}
    with (tmp_path / "design_rules.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(data) == 14
    assert {row["target"] for row in rows} == {"band gap ≤ 0 eV", "band gap = 1 eV"}


@pytest.mark.slow
def test_strongest_knob_is_named(tmp_path, undrawn):
    assert "γ moves the band gap most: by 2.4" in design_rules_section(explored(crystal(), tmp_path, [1.0]), None).text


def curve(folder, parameter: str, name: str) -> torch.Tensor:
    rows = pyarrow.parquet.read_table(folder / "curves.parquet").to_pylist()
    return torch.tensor([row[name] for row in rows if row["parameter"] == parameter])


@pytest.mark.slow
def test_curves_go_through_the_reference(tmp_path, undrawn, close):
    design_rules_section(explored(crystal(), tmp_path, [1.0]), None)
    a = curve(tmp_path, "a", "value")
    assert (a.min(), a.max()) == (pytest.approx(2.528), pytest.approx(3.792))
    close(curve(tmp_path, "a", "band_gap"), a - 3.16, 100)


@pytest.mark.slow
def test_curves_go_through_a_chosen_design(tmp_path, undrawn, close):
    section = design_rules_section(explored(crystal(), tmp_path, [1.0]), {"b": 3.0})
    assert "reference design with b = 3" in section.figures[1].caption
    close(curve(tmp_path, "a", "band_gap"), curve(tmp_path, "a", "value") - 3.16 + 0.32, 100)


@pytest.mark.slow
def test_band_is_the_calibrated_interval(tmp_path, undrawn):
    surrogate = quadratic()
    design_rules_section(explored(surrogate, tmp_path, [0.5]), None)
    _, std = surrogate.predict_many(torch.zeros(1, 2))
    assert curve(tmp_path, "x1", "y_half_width") == pytest.approx(surrogate.half_width(std, 0.9).item(), rel=1e-4)


@pytest.mark.slow
def test_reference_outside_the_space(tmp_path, undrawn):
    space = DesignSpace([Parameter("x1", "m", 2.0, 4.0), Parameter("x2", "m", -1.0, 1.0)])
    section = design_rules_section(explored(Linear(space, [prop()], [[1.0, 1.0]]).eval(), tmp_path, [0.5]), None)
    assert "the middle of the design space" in section.figures[1].caption
    assert curve(tmp_path, "x2", "y").mean() == pytest.approx(3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("design", [{"wrong": 1.0}, {"a": 9.0}], ids=["name", "outside"])
def test_wrong_design(tmp_path, design):
    with pytest.raises(ConfigError, match=next(iter(design))):
        design_rules_section(explored(crystal(), tmp_path, [1.0]), design)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_few_designs_of_two_properties(tmp_path, count):
    section = design_rules_section(explored(linear(3, outputs=2), tmp_path, [[0.5, 0.1]], count), None)
    assert [figure.path.name for figure in section.figures] == ["design_rules.png", "curves_y.png", "curves_w.png"]
    assert len(section.tables[0].rows) == 6
