import math

import pytest
import torch

from matdesinne.benchmark.metrics import coverage, mean_target_error, spread_ratio, surrogate_errors
from matdesinne.data.table import DesignTable
from matdesinne.targets import Target

from ..toys import Linear, box, linear, prop, rows

HALF = torch.ones(2)


def points(count: int = 500, seed: int = 0) -> torch.Tensor:
    return box().sample(count, torch.Generator().manual_seed(seed))


def test_error_of_a_value(close):
    x = points()
    close(mean_target_error(x, Target((0.5,), (0.5,)), linear()), (x.sum(1) - 0.5).abs().mean())


def test_error_at_the_floor(close):
    x = points()
    close(mean_target_error(x, Target((-math.inf,), (0.0,)), linear()), x.sum(1).clamp_min(0).mean())


def test_error_on_the_target():
    x = points()
    assert mean_target_error(torch.stack([x[:, 0], 0.5 - x[:, 0]], 1), Target((0.5,), (0.5,)), linear()) < 1e-6


@pytest.mark.parametrize(("lost", "expected"), [([], 0.5), ([3], 0.5), (range(4), None)], ids=["none", "one", "all"])
def test_designs_without_a_prediction_are_left_out(lost, expected):
    x = torch.zeros(4, 2)
    x[list(lost)] = math.nan
    assert mean_target_error(x, Target((0.5,), (0.5,)), linear()) == expected


def test_spread_of_equals(close):
    close(spread_ratio(points(), points(), HALF), 1.0)


def test_spread_is_that_of_the_scale(close):
    close(spread_ratio(0.3 * points(), points(), HALF), 0.3)


def test_spread_is_free_of_units(close):
    units = torch.tensor([1000.0, 1e-3])
    close(
        spread_ratio(units * points(), units * points(seed=1), units), spread_ratio(points(), points(seed=1), HALF), factor=10
    )


def test_spread_of_many_is_that_of_some():
    assert spread_ratio(points(50_000), points(seed=1), HALF) == pytest.approx(1.0, abs=0.05)


def test_coverage_of_equals():
    assert coverage(points(), points(), HALF) == 1.0


def test_coverage_of_the_same_distribution():
    assert coverage(points(seed=1), points(), HALF) > 0.9


def test_coverage_of_one_half():
    x = points()
    assert coverage(x[x[:, 0] > 0], x, HALF) == pytest.approx(0.5, abs=0.1)


def test_coverage_of_a_collapsed_model():
    assert coverage(torch.zeros(500, 2), points(), HALF) < 0.05


def test_coverage_grows_with_the_neighbourhood():
    shares = [coverage(points(50, seed=1), points(), HALF, neighbours=k) for k in (1, 5, 50)]
    assert shares[0] < shares[1] < shares[2]


def test_coverage_with_few_references():
    assert coverage(points(), points(3), HALF, neighbours=5) == 1.0


def surrogate(floor: float | None, name: str = "band_gap", censored: bool = False) -> Linear:
    return Linear(box(), [prop(name, floor, censored)], [[1.0, 1.0]]).eval()


def table(shift: float = 0.1) -> DesignTable:
    batch = rows(box(), 400)
    return DesignTable(batch.x, batch.y + shift, torch.arange(400))


def test_errors_without_a_floor(close):
    made = surrogate_errors(surrogate(None), table())
    close(made["mae"], 0.1, factor=10)
    close(made["rmse"], 0.1, factor=10)
    assert made["rows"] == 400
    assert "mae_above_floor" not in made


def test_errors_below_the_floor_do_not_count(close):
    labelled = table()
    made = surrogate_errors(surrogate(0.0), labelled)
    expected = (labelled.y.clamp_min(0) - labelled.x.sum(1, keepdim=True).clamp_min(0)).abs()
    close(made["mae"], expected.mean(), factor=10)
    close(made["rmse"], expected.square().mean().sqrt(), factor=10)
    close(made["mae_above_floor"], expected[labelled.y > 0].mean(), factor=10)
    close(made["mae_above_-0.2"], 0.1, factor=10)


@pytest.mark.parametrize(("name", "censored"), [("energy", False), ("band_gap", True)])
def test_errors_near_the_gap_are_those_of_gaps(name, censored):
    assert "mae_above_-0.2" not in surrogate_errors(surrogate(0.0, name, censored), table())


def test_rows_without_a_label_do_not_count():
    """The gap on the finer grid is known of few rows."""
    labelled = table()
    labelled.y[::3] = torch.nan
    known = labelled.take(labelled.y[:, 0].isfinite().nonzero()[:, 0])
    made = surrogate_errors(surrogate(0.0), labelled)
    assert made == surrogate_errors(surrogate(0.0), known)
    assert made["rows"] == len(known) == 266
    labelled.y[:] = torch.nan
    assert surrogate_errors(surrogate(0.0), labelled) == {"rows": 0.0}


def test_interval_coverage_is_the_share_inside():
    """A surrogate without spread is right nowhere; one with a wide spread is right everywhere."""
    made = surrogate(None)
    assert (surrogate_errors(made, table())["coverage_50"], surrogate_errors(made, table())["coverage_90"]) == (0.0, 0.0)
    made.spread_offset.fill_(0.1 / 1.0)
    errors = surrogate_errors(made, table())
    # the error is 0.1 everywhere: one standard deviation holds it at 90 %, not at 50 %
    assert (errors["coverage_50"], errors["coverage_90"]) == (0.0, 1.0)


def test_interval_coverage_needs_exact_labels():
    batch = rows(box(), 50)
    floored = DesignTable(batch.x, torch.zeros(50, 1), torch.arange(50))
    assert "coverage_50" not in surrogate_errors(surrogate(0.0, censored=True), floored)
