import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.localization import GradientDescent, Newton

from .conftest import box, candidates, linear, quadratic, rows

BOTH = [Newton(), GradientDescent(rate=0.05, steps=300)]
NAMES = ["newton", "gradient"]


@pytest.fixture
def start() -> torch.Tensor:
    return rows(box(), 64, seed=1).x


@pytest.mark.parametrize("surrogate", [linear(), quadratic()], ids=["linear", "quadratic"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_newton_reaches_its_tolerance(surrogate, tolerance, start):
    moved = Newton(tolerance).refine(candidates(surrogate, start, 0.6), surrogate)
    assert moved.error.max() <= tolerance + 1e-6


def test_newton_in_double_precision(start):
    surrogate = quadratic().double()
    moved = Newton(1e-12).refine(candidates(surrogate, start.double(), 0.6), surrogate)
    assert moved.designs.dtype == torch.float64
    assert moved.error.max() <= 1e-12


def test_newton_solves_a_linear_problem_in_one_step(start):
    surrogate = linear()
    moved = Newton(1e-5, steps=2, longest_step=10.0).refine(candidates(surrogate, 0.1 * start, 0.3), surrogate)
    assert moved.error.max() <= 1e-5


def test_newton_takes_the_shortest_way(start, close):
    surrogate = linear()
    x = 0.1 * start
    moved = Newton().refine(candidates(surrogate, x, 0.3), surrogate)
    shift = (0.3 - x.sum(1, keepdim=True)) / 2
    close(moved.designs, x + shift, factor=10)


def test_newton_converges_on_two_properties(start):
    surrogate = linear(3, outputs=2)
    moved = Newton().refine(candidates(surrogate, rows(box(3), 32).x, [0.5, -0.2]), surrogate)
    assert moved.error.max() < 2e-5


def test_newton_survives_a_flat_surrogate(start):
    surrogate = linear()
    surrogate.matrix.zero_()
    moved = Newton().refine(candidates(surrogate, start, 0.5), surrogate)
    assert torch.equal(moved.designs, start)


def test_newton_slides_along_a_bound():
    surrogate = linear()
    moved = Newton().refine(candidates(surrogate, torch.tensor([[0.99, 0.0]]), 1.8), surrogate)
    assert moved.error.max() < 2e-5


def test_newton_step_is_clipped():
    surrogate = linear()
    x = torch.tensor([[-0.9, -0.9]])
    moved = Newton(steps=2, longest_step=0.1).refine(candidates(surrogate, x, 1.5), surrogate)
    assert (moved.designs - x).norm() <= 0.1 + 1e-6


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("target", [0.5, 1.99, 50.0, [None, -1.99]])
def test_stays_in_the_box(method, target, start):
    surrogate = linear()
    moved = method.refine(candidates(surrogate, start, target), surrogate)
    assert surrogate.space.contains(moved.designs).all()


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_designs_outside_are_brought_inside(method):
    surrogate = linear()
    moved = method.refine(candidates(surrogate, torch.tensor([[3.0, -3.0]]), 0.5), surrogate)
    assert surrogate.space.contains(moved.designs).all()


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_interval_leaves_rows_inside_alone(method, start):
    surrogate = linear()
    table = candidates(surrogate, start, [-0.5, 0.5])
    inside = table.error[:, 0] == 0
    moved = method.refine(table, surrogate)
    assert 0 < inside.sum() < len(table)
    assert torch.equal(moved.designs[inside], start[inside])


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_interval_stops_at_the_edge(method, start):
    surrogate = linear()
    table = candidates(surrogate, start, [-0.5, 0.5])
    outside = table.error[:, 0] > 0
    edge = table.mean[outside].sign() * 0.5
    moved = method.refine(table, surrogate)
    torch.testing.assert_close(moved.mean[outside], edge, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("chunk", [1, 7])
def test_rows_are_independent(method, chunk, start, monkeypatch, close):
    surrogate = quadratic()
    table = candidates(surrogate, start, 0.6)
    together = method.refine(table, surrogate)
    monkeypatch.setattr("matdesinne.localization._CHUNK_ROWS", chunk)
    close(method.refine(table, surrogate).designs, together.designs)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_repeats_exactly(method, start):
    surrogate = quadratic()
    table = candidates(surrogate, start, 0.6)
    assert torch.equal(method.refine(table, surrogate).designs, method.refine(table, surrogate).designs)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_does_not_change_its_input(method, start):
    surrogate = quadratic()
    table = candidates(surrogate, start.clone(), 0.6)
    method.refine(table, surrogate)
    assert torch.equal(table.designs, start)


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_predictions_are_fresh(method, start, close):
    surrogate = quadratic()
    moved = method.refine(candidates(surrogate, start, 0.6), surrogate)
    assert moved.stage == "localized"
    close(moved.mean, surrogate.predict_many(moved.designs)[0])
    close(moved.std, torch.full((64, 1), surrogate.gap / math.sqrt(2)))


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_no_rows(method):
    surrogate = linear()
    assert len(method.refine(candidates(surrogate, torch.empty(0, 2), 0.5), surrogate)) == 0


def test_gradient_descent_converges(start):
    surrogate = quadratic()
    moved = GradientDescent(rate=0.05, steps=500).refine(candidates(surrogate, start, 0.6), surrogate)
    assert moved.error.max() < 1e-4


def test_gradient_descent_step(close):
    surrogate = linear()
    x = torch.tensor([[0.1, 0.3]])
    moved = GradientDescent(rate=0.01, steps=1).refine(candidates(surrogate, x, 1.0), surrogate)
    close(moved.designs, x - 0.01 * 2 * (0.4 - 1.0))


@pytest.mark.parametrize("settings", [{"tolerance": 0}, {"steps": 0}, {"longest_step": -1}, {"tolerance": math.nan}])
def test_newton_rejects(settings):
    with pytest.raises(ConfigError, match="tolerance"):
        Newton(**settings)


@pytest.mark.parametrize("settings", [{"rate": 0}, {"steps": 0}])
def test_gradient_descent_rejects(settings):
    with pytest.raises(ConfigError, match="rate"):
        GradientDescent(**settings)
