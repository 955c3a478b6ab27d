import dataclasses
import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.localization import Adam, GradientDescent, MeanGradientDescent, Newton
from matdesinne.pipeline import InverseDesign

from .toys import Quadratic, box, candidates, linear, prop, quadratic, rows

BOTH = [Newton(), GradientDescent(rate=0.05, steps=150), Adam(rate=0.05)]
NAMES = ["newton", "gradient", "adam"]


@pytest.fixture
def start() -> torch.Tensor:
    return rows(box(), 64, seed=1).x


@pytest.mark.parametrize("surrogate", [linear(), quadratic()], ids=["linear", "quadratic"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_newton_reaches_its_tolerance(surrogate, tolerance, start):
    moved = Newton(tolerance).localize(candidates(surrogate, start, 0.6), surrogate)
    assert moved.error.max() <= tolerance + 1e-6


def test_newton_in_double_precision(start):
    surrogate = quadratic().double()
    moved = Newton(1e-12).localize(candidates(surrogate, start.double(), 0.6), surrogate)
    assert moved.designs.dtype == torch.float64
    assert moved.error.max() <= 1e-12


def test_newton_solves_a_linear_problem_in_one_step(start):
    surrogate = linear()
    moved = Newton(1e-5, steps=2, longest_step=10.0).localize(candidates(surrogate, 0.1 * start, 0.3), surrogate)
    assert moved.error.max() <= 1e-5


def test_newton_takes_the_shortest_way(start, close):
    surrogate = linear()
    x = 0.1 * start
    moved = Newton().localize(candidates(surrogate, x, 0.3), surrogate)
    shift = (0.3 - x.sum(1, keepdim=True)) / 2
    close(moved.designs, x + shift, factor=10)


def test_newton_converges_on_two_properties(start):
    surrogate = linear(3, outputs=2)
    moved = Newton().localize(candidates(surrogate, rows(box(3), 32).x, [0.5, -0.2]), surrogate)
    assert moved.error.max() < 2e-5


def test_newton_survives_a_flat_surrogate(start):
    surrogate = linear()
    surrogate.matrix.zero_()
    moved = Newton().localize(candidates(surrogate, start, 0.5), surrogate)
    assert torch.equal(moved.designs, start)


def test_newton_slides_along_a_bound():
    surrogate = linear()
    moved = Newton().localize(candidates(surrogate, torch.tensor([[0.99, 0.0]]), 1.8), surrogate)
    assert moved.error.max() < 2e-5


def test_newton_step_is_clipped():
    surrogate = linear()
    x = torch.tensor([[-0.9, -0.9]])
    moved = Newton(steps=2, longest_step=0.1).localize(candidates(surrogate, x, 1.5), surrogate)
    assert (moved.designs - x).norm() <= 0.1 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("target", [0.5, 1.99, 50.0, [None, -1.99]])
def test_stays_in_the_box(method, target, start):
    surrogate = linear()
    moved = method.localize(candidates(surrogate, start, target), surrogate)
    assert surrogate.space.contains(moved.designs).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_designs_outside_are_brought_inside(method):
    surrogate = linear()
    moved = method.localize(candidates(surrogate, torch.tensor([[3.0, -3.0]]), 0.5), surrogate)
    assert surrogate.space.contains(moved.designs).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_interval_leaves_rows_inside_alone(method, start):
    surrogate = linear()
    table = candidates(surrogate, start, [-0.5, 0.5])
    inside = table.error[:, 0] == 0
    moved = method.localize(table, surrogate)
    assert 0 < inside.sum() < len(table)
    assert torch.equal(moved.designs[inside], start[inside])


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH[:2], ids=NAMES[:2])  # Adam's momentum takes it over the edge
def test_interval_stops_at_the_edge(method, start):
    surrogate = linear()
    table = candidates(surrogate, start, [-0.5, 0.5])
    outside = table.error[:, 0] > 0
    edge = table.mean[outside].sign() * 0.5
    moved = method.localize(table, surrogate)
    torch.testing.assert_close(moved.mean[outside], edge, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("chunk", [1, 3])
def test_rows_are_independent(method, chunk, start, monkeypatch, close):
    surrogate = quadratic()
    table = candidates(surrogate, start[:8], 0.6)
    together = method.localize(table, surrogate)
    monkeypatch.setattr("matdesinne.localization._CHUNK_ROWS", chunk)
    close(method.localize(table, surrogate).designs, together.designs)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_repeats_exactly(method, start):
    surrogate = quadratic()
    table = candidates(surrogate, start, 0.6)
    assert torch.equal(method.localize(table, surrogate).designs, method.localize(table, surrogate).designs)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_does_not_change_its_input(method, start):
    surrogate = quadratic()
    table = candidates(surrogate, start.clone(), 0.6)
    method.localize(table, surrogate)
    assert torch.equal(table.designs, start)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_predictions_are_fresh(method, start, close):
    surrogate = quadratic()
    moved = method.localize(candidates(surrogate, start, 0.6), surrogate)
    assert moved.stage == "localized"
    close(moved.mean, surrogate.predict_many(moved.designs)[0])
    close(moved.std, torch.full((64, 1), surrogate.gap / math.sqrt(2)))


@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_no_rows(method):
    surrogate = linear()
    assert len(method.localize(candidates(surrogate, torch.empty(0, 2), 0.5), surrogate)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", [GradientDescent(rate=0.05, steps=500), Adam(rate=0.05)], ids=["gradient", "adam"])
def test_descent_converges(method, start):
    surrogate = quadratic()
    moved = method.localize(candidates(surrogate, start, 0.6), surrogate)
    assert moved.error.max() < 1e-4


def test_gradient_descent_step(close):
    surrogate = linear()
    x = torch.tensor([[0.1, 0.3]])
    moved = GradientDescent(rate=0.01, steps=1).localize(candidates(surrogate, x, 1.0), surrogate)
    close(moved.designs, x - 0.01 * 2 * (0.4 - 1.0))


@pytest.mark.parametrize(
    "settings", [{"tolerance": 0}, {"steps": 0}, {"longest_step": 0}, {"longest_step": -1}, {"tolerance": math.nan}]
)
def test_newton_rejects(settings):
    with pytest.raises(ConfigError, match="tolerance"):
        Newton(**settings)


@pytest.mark.parametrize("method", [GradientDescent, MeanGradientDescent, Adam])
@pytest.mark.parametrize("settings", [{"rate": 0}, {"steps": 0}, {"rate": math.nan}])
def test_gradient_descent_rejects(method, settings):
    with pytest.raises(ConfigError, match="rate"):
        method(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({"decay": decay} for decay in ([0.9], [0.8, 0.9, 0.9], [0.9, 1.0], [-0.1, 0.9], [0.8, 1.5])),
        *({"tolerance": tolerance} for tolerance in (0.0, -1.0)),
    ],
)
def test_adam_rejects(settings):
    with pytest.raises(ConfigError, match="decays"):
        Adam(**settings)


def test_adam_steps_by_its_rate(close):
    """The first step of each coordinate has the size of the rate, whatever the slope."""
    surrogate = Quadratic(box(scale=2.0), [prop()], [[0.1, 5.0]]).eval()
    x = torch.tensor([[0.5, -0.5]])
    moved = Adam(rate=0.01, steps=1).localize(candidates(surrogate, x, 100.0), surrogate)
    close(moved.designs, x + 0.01 * 2.0 * torch.tensor([[1.0, 1.0]]), factor=10)


def test_adam_stops_within_its_tolerance(start):
    surrogate = quadratic()
    moved = Adam(tolerance=1e-2).localize(candidates(surrogate, start, 0.6), surrogate)
    assert 1e-3 < moved.error.max() <= 1e-2


def within(table, **narrow):
    """Candidates of a narrower space, moved into it."""
    space = table.space.narrowed(**narrow)
    designs = torch.minimum(torch.maximum(table.designs, space.lower), space.upper)
    return dataclasses.replace(table, space=space, designs=designs)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*BOTH, MeanGradientDescent(0.1, 50)], ids=[*NAMES, "mean"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_fixed_parameter_stays(method, value, start):
    surrogate = quadratic()
    table = within(candidates(surrogate, start, 0.9), fixed={"x2": value})
    moved = method.localize(table, surrogate)
    assert (moved.designs[:, 1] == torch.tensor(value)).all()
    assert (moved.designs[:, 0] != table.designs[:, 0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
def test_target_is_reached_in_the_other_parameters(method, start):
    surrogate = quadratic()
    moved = method.localize(within(candidates(surrogate, start, 0.3), fixed={"x2": 0.1}), surrogate)
    assert moved.error.max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTH, ids=NAMES)
@pytest.mark.parametrize("target", [0.3, 50.0, [None, -50.0]])
def test_narrower_bounds_hold(method, target, start):
    surrogate = linear()
    moved = method.localize(within(candidates(surrogate, start, target), bounds={"x1": [-0.3, 0.1]}), surrogate)
    assert (moved.designs[:, 0] >= -0.3).all() and (moved.designs[:, 0].double() <= 0.1).all()


def test_newton_goes_around_a_narrower_bound(start):
    surrogate = linear()
    moved = Newton().localize(within(candidates(surrogate, start, 1.0), bounds={"x1": [-0.1, 0.1]}), surrogate)
    assert moved.error.max() < 2e-5


def test_newton_leaves_rows_that_cannot_move(monkeypatch):
    """A row whose every way is barred costs one evaluation."""
    surrogate, calls = linear(), []
    linearize = type(surrogate).linearize
    monkeypatch.setattr(type(surrogate), "linearize", lambda self, x: calls.append(len(x)) or linearize(self, x))
    Newton().localize(candidates(surrogate, torch.tensor([[1.0, 1.0], [0.5, 0.5]]), 50.0), surrogate)
    assert calls[0] == 2 and len(calls) < 10


RATE = 0.02


def on_the_mean(surrogate, x: torch.Tensor, value: float) -> torch.Tensor:
    """One step of gradient descent on the mean squared error, by autograd."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((surrogate.predict(x)[0] - value).square().sum(1).mean(), x)
    return x.detach() - RATE * slope


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 10.0], ids=["unit", "wide"])
@pytest.mark.parametrize("count", [1, 64])
def test_mean_descent_is_that_of_autograd(count, scale, close):
    """In physical units: the box plays no part."""
    surrogate = Quadratic(box(scale=scale), [prop()], [[0.5, 0.5]]).eval()
    x = rows(box(scale=scale), count, seed=1).x
    expected = x
    for _ in range(3):
        expected = on_the_mean(surrogate, expected, 0.6)
    moved = MeanGradientDescent(RATE, steps=3).localize(candidates(surrogate, x, 0.6), surrogate)
    assert not torch.equal(moved.designs, x)
    close(moved.designs, expected, factor=10)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7])
def test_mean_descent_is_independent_of_the_chunks(chunk, start, monkeypatch, close):
    surrogate = quadratic()
    method = MeanGradientDescent(RATE, steps=5)
    together = method.localize(candidates(surrogate, start, 0.6), surrogate)
    monkeypatch.setattr("matdesinne.localization._CHUNK_ROWS", chunk)
    close(method.localize(candidates(surrogate, start, 0.6), surrogate).designs, together.designs)


def test_mean_descent_moves_many_less(start, close):
    """The step of each is divided by their number."""
    surrogate, method = linear(), MeanGradientDescent(RATE, steps=1)
    together = method.localize(candidates(surrogate, start, 0.6), surrogate).designs - start
    alone = method.localize(candidates(surrogate, start[:1], 0.6), surrogate).designs - start[:1]
    close(together[:1] * len(start), alone, factor=100)


@pytest.mark.slow
def test_mean_descent_may_leave_the_box():
    surrogate = linear()
    moved = MeanGradientDescent(0.1, steps=200).localize(candidates(surrogate, torch.tensor([[0.9, 0.9]]), 50.0), surrogate)
    assert not surrogate.space.contains(moved.designs).any()
    assert moved.error.max() < 1e-3


def test_mean_descent_of_nothing():
    surrogate = linear()
    assert len(MeanGradientDescent(steps=3).localize(candidates(surrogate, torch.empty(0, 2), 0.5), surrogate)) == 0


def test_mean_descent_gives_fresh_predictions(start, close):
    surrogate = quadratic()
    moved = MeanGradientDescent(RATE, steps=2).localize(candidates(surrogate, start, 0.6), surrogate)
    assert moved.stage == "localized"
    close(moved.mean, surrogate.predict_many(moved.designs)[0])


def test_mean_descent_leaves_rows_inside_an_interval_alone(start):
    surrogate = linear()
    table = candidates(surrogate, start, [-0.5, 0.5])
    inside = table.error[:, 0] == 0
    moved = MeanGradientDescent(RATE, steps=3).localize(table, surrogate)
    assert torch.equal(moved.designs[inside], start[inside])
    assert (moved.designs[~inside] != start[~inside]).any(dim=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 13])
def test_packaged_weights_give_a_batch_what_they_give_its_rows(chunk, monkeypatch):
    """The default surrogate; in double precision, where kinks of the gap do not make rounding decide on a step."""
    surrogate = InverseDesign.load("pretrained").surrogate.double()
    x = surrogate.space.sample(30, torch.Generator().manual_seed(1)).double()
    table = candidates(surrogate, x, 0.5)
    together = Newton().localize(table, surrogate)
    monkeypatch.setattr("matdesinne.localization._CHUNK_ROWS", chunk)
    monkeypatch.setattr("matdesinne.surrogates.base._CHUNK_ROWS", chunk)
    apart = Newton().localize(table, surrogate)
    assert ((apart.designs - together.designs) / surrogate.scale.std).abs().max() < 1e-9
    assert (apart.mean - together.mean).abs().max() < 1e-9
