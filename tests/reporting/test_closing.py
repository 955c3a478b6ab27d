"""What a generation says last."""

import csv
from dataclasses import replace

import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.reporting.closing import box_distance, closing_lines, diverse_candidates, write_next_designs

from ..toys import Linear, box, candidates, linear, prop, quadratic


@pytest.fixture
def made():
    surrogate = quadratic()
    x = box().sample(200, torch.Generator().manual_seed(0))
    return surrogate, candidates(surrogate, x, 0.5)


MEASURED = DesignTable(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0], [3.0]]), torch.tensor([7, 9]))


def test_distance_is_a_share_of_the_diagonal():
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    assert box_distance(box(), corners[:1], corners)[0].tolist() == pytest.approx([0.0, 1.0, 0.5**0.5])


def test_the_line_expects_the_interval_of_the_surrogate_not_the_rest_of_the_localization(made):
    surrogate, table = made
    said = closing_lines(table, surrogate, measured=MEASURED)
    for level in (0.68, 0.9):
        expected = (table.error + surrogate.half_width(table.std, level)).median().item()
        assert f"{expected:.3g}" in said
    assert f"(by the surrogate alone: {table.error.mean().item():.1g})" in said and "of the box's diagonal" in said


@pytest.mark.parametrize(("spread", "share"), [(0.001, "1 %"), (0.05, "4.6 %")])
def test_the_line_says_how_many_are_far_off(spread, share):
    """Of a normal error 4.55 % are beyond two standard deviations; one in a hundred is the least that calibration can tell."""
    surrogate = Linear(box(), [replace(prop(), resolution=0.01)], [[1.0, 1.0]]).eval()
    table = candidates(surrogate, box().sample(200, torch.Generator().manual_seed(0)), 0.5)
    table = replace(table, std=torch.full_like(table.std, spread))
    said = closing_lines(table, surrogate)
    assert f"At most {share} are expected to be farther off than 0.1" in said
    assert f"the mean error of the predictions is {surrogate.expected_error(table.std).mean().item():.2g} eV" in said


def test_an_interval_forgives_errors_inside():
    """All predictions are at least 0.3 below the upper end of an open interval, six standard deviations."""
    surrogate = Linear(box(), [replace(prop(), resolution=0.01)], [[1.0, 1.0]]).eval()
    table = candidates(surrogate, torch.full((50, 2), -0.1), [None, 0.1])
    said = closing_lines(replace(table, std=torch.full_like(table.std, 0.05)), surrogate)
    assert "Expect y inside the interval asked for, for at least 90 % of the candidates; the mean error" in said
    assert "At most 1 % are expected" in said


def test_a_property_that_was_not_asked_for_is_told(made):
    surrogate = linear(outputs=2)
    table = candidates(surrogate, torch.tensor([[0.5, 0.0], [0.25, -0.25]]), {"w": 0.5})
    said = closing_lines(table, surrogate)
    assert "y, not asked for: 0 to 0.5 eV, mean error" in said and len(said.splitlines()) == 2
    assert "Expect w within" in said and "Expect y" not in said


def test_diverse_designs_are_apart_and_of_small_spread(made):
    _, table = made
    spread = torch.linspace(0.1, 1.0, 200).unsqueeze(1)
    table = table.take(torch.randperm(200, generator=torch.Generator().manual_seed(1)))
    table = type(table)(table.space, table.properties, table.designs, table.target, table.mean, spread, table.stage)
    chosen = diverse_candidates(table, 10)
    assert len(chosen) == 10 and chosen.std.max() <= 0.56  # the better half
    apart = torch.pdist(chosen.designs).min()
    assert apart > 1.5 * torch.pdist(table.designs[:10]).min()
    assert chosen.std[0] == spread.min()


def test_fewer_candidates_than_wanted_are_all_kept(made):
    _, table = made
    assert len(diverse_candidates(table.take(torch.arange(4)), 10)) == 4


def test_next_designs_name_their_nearest_measured_row(made, tmp_path):
    surrogate, table = made
    write_next_designs(tmp_path / "ten.csv", table.take(torch.arange(3)), surrogate, MEASURED)
    with open(tmp_path / "ten.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row, x in zip(rows, table.designs, strict=False):
        nearest = (MEASURED.x - x).norm(dim=1).argmin()
        assert int(row["nearest_row"]) == MEASURED.ids[nearest]
        assert float(row["nearest_row_y"]) == MEASURED.y[nearest]
        assert float(row["y_within_90"]) > 0
