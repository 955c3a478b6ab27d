import math

import pytest
import torch

from matdesinne.exploration.transitions.crossing import Side, first_crossing, nearest_crossing
from matdesinne.exploration.transitions.search import shortest_transitions
from matdesinne.exploration.transitions.transition import Levels
from matdesinne.localization import Newton
from matdesinne.space import DesignSpace, Parameter

from ...toys import Linear, box, candidates, linear, prop, quadratic, rows

UP = Side(0.8, True)


class Wave(Linear):
    """y = sin(6 x1) + x2 / 2: downhill at many places from which the nearest crossing lies the other way."""

    def member_predictions(self, features):
        x = self.features.scale.inverse(features)
        return (torch.sin(6 * x[:, :1]) + 0.5 * x[:, 1:]).unsqueeze(0)


def wave() -> Wave:
    return Wave(box(), [prop()], [[0.0, 0.0]]).eval()


def starts(surrogate, side: Side, count: int = 40) -> torch.Tensor:
    x = rows(surrogate.space, count, seed=3).x
    return x[side.missing(surrogate.predict_many(x)[0][:, 0]) > 0]


def brute_force(surrogate, x: torch.Tensor, side: Side, free: list[bool], points: int = 301) -> torch.Tensor:
    """Distance to the nearest point of a fine grid on the other side, over the parameters that are free."""
    axis = torch.linspace(-1, 1, points)

    def beyond(*axes: torch.Tensor) -> torch.Tensor:
        grid = torch.cartesian_prod(*axes)
        return grid[side.missing(surrogate.predict_many(grid)[0][:, 0]) <= 0]

    whole = beyond(axis, axis) if all(free) else None
    found = []
    for start in x:
        there = beyond(*(axis if one else start[i : i + 1] for i, one in enumerate(free))) if whole is None else whole
        distance = (there - start).norm(dim=1)
        found.append(distance.min() if len(distance) else torch.tensor(math.inf))
    return torch.stack(found)


DOWN = Side(-0.05, False)


@pytest.mark.slow
@pytest.mark.parametrize("free", [[True, True], [True, False], [False, True]], ids=["both", "first", "second"])
@pytest.mark.parametrize(("surrogate", "side"), [(linear(), UP), (linear(), DOWN), (quadratic(), DOWN)])
def test_nearest_crossing_is_that_of_brute_force(surrogate, free, side):
    x = starts(surrogate, side)
    found = nearest_crossing(surrogate, x, torch.tensor(free).expand_as(x), side, x)
    expected = brute_force(surrogate, x, side, free)
    both = found.distance.isfinite() & expected.isfinite()
    assert torch.equal(found.distance.isfinite(), expected.isfinite()) and both.any()
    assert (found.distance - expected)[both].abs().max() < 0.015
    assert torch.equal(found.designs[both][:, ~torch.tensor(free)], x[both][:, ~torch.tensor(free)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("surrogate", "knobs", "free"),
    [
        (quadratic(), ["x1"], [True, False]),
        (quadratic(), ["x1", "x2"], [True, True]),
        (wave(), ["x1"], [True, False]),
        (wave(), ["x2"], [False, True]),
    ],
    ids=["quadratic x1", "quadratic both", "wave x1", "wave x2"],
)
def test_shortest_transitions_are_those_of_brute_force(surrogate, knobs, free):
    """Also where a search along gradients alone ends in another basin, or nowhere."""
    levels = Levels(0.5, 0.8)
    x = rows(box(), 40, seed=3).x
    found = shortest_transitions(surrogate, x, [knobs], levels)
    up = found.rises
    start = x[surrogate.predict_many(x)[0][:, 0] <= levels.low]
    expected = brute_force(surrogate, start, UP, free)
    assert abs(int(up.sum()) - int(expected.isfinite().sum())) <= 1  # a grid may miss the last corner
    sizes = {tuple(row): size for row, size in zip(found.before[up].tolist(), found.size[up].tolist(), strict=True)}
    pairs = [(sizes[key], e) for key, e in zip(map(tuple, start.tolist()), expected.tolist(), strict=True) if key in sizes]
    assert max(abs(size - e) for size, e in pairs if math.isfinite(e)) < 0.015


@pytest.mark.slow
def test_nearest_crossing_is_on_the_level():
    surrogate = quadratic()
    x = starts(surrogate, UP)
    found = nearest_crossing(surrogate, x, torch.ones_like(x, dtype=torch.bool), UP, x)
    y = surrogate.predict_many(found.designs[found.distance.isfinite()])[0]
    assert (y - UP.level).abs().max() < 2e-4


def test_the_change_is_parallel_to_the_gradient():
    """Where no bound is met: the condition of a shortest change."""
    surrogate = quadratic(3)
    x = 0.3 * rows(box(3), 40).x
    found = nearest_crossing(surrogate, x, torch.ones_like(x, dtype=torch.bool), UP, x)
    slope = surrogate.linearize(found.designs).jacobian[:, 0]
    assert (torch.cosine_similarity(found.designs - x, slope) > 0.9999).all()


@pytest.mark.slow
def test_newton_alone_stops_farther_away():
    surrogate = quadratic()
    x = starts(surrogate, UP)
    moved = Newton().localize(candidates(surrogate, x, UP.level), surrogate)
    found = nearest_crossing(surrogate, x, torch.ones_like(x, dtype=torch.bool), UP, x)
    known = found.distance.isfinite() & (moved.error[:, 0] < 1e-4)
    saved = (moved.designs - x).norm(dim=1)[known] - found.distance[known]
    assert saved.min() > -1e-3 and saved.max() > 1e-3


def test_nearest_crossing_with_a_parameter_at_its_bound():
    x = torch.tensor([[0.9, -0.5]])
    found = nearest_crossing(linear(), x, torch.ones(1, 2, dtype=torch.bool), Side(1.0, True), x)
    assert found.designs[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    assert found.distance.item() == pytest.approx(math.hypot(0.1, 0.5), abs=1e-4)


def test_scaled_coordinates_measure_the_change():
    space = DesignSpace([Parameter("x1", "m", -10.0, 10.0), Parameter("x2", "m", -0.1, 0.1)])
    surrogate = Linear(space, [prop()], [[0.1, 10.0]]).eval()
    x = torch.tensor([[0.0, 0.0]])
    found = nearest_crossing(surrogate, x, torch.ones(1, 2, dtype=torch.bool), Side(1.0, True), x)
    assert found.distance.item() == pytest.approx(math.sqrt(0.5), abs=1e-4)
    assert found.designs[0].tolist() == pytest.approx([5.0, 0.05], rel=1e-3)


def test_nearest_crossing_finds_nothing_where_there_is_nothing():
    x = rows(box(), 5).x
    found = nearest_crossing(linear(), x, torch.ones(5, 2, dtype=torch.bool), Side(2.5, True), x)
    assert found.distance.isinf().all() and found.designs.isnan().all()


def ray(x: torch.Tensor, *direction: float) -> torch.Tensor:
    return torch.tensor(direction).expand_as(x)


def test_first_crossing_finds_the_first_of_several_crossings():
    x = torch.zeros(1, 2)
    found = first_crossing(wave(), x, ray(x, 1.0, 0.0), Side(0.5, True), torch.tensor([2.0]))
    assert found.distance.item() == pytest.approx(math.asin(0.5) / 6, abs=2e-3)


def test_first_crossing_finds_what_lies_against_the_gradient():
    """At x1 = 0.7 the slope points to larger x1, where no crossing is left in the box."""
    x = torch.tensor([[0.7, -1.0]])
    side, whole = Side(0.45, True), torch.tensor([2.0])
    surrogate = wave()
    assert surrogate.linearize(x).jacobian[0, 0, 0] < 0
    left = first_crossing(surrogate, x, ray(x, -1.0, 0.0), side, whole)
    exact = 0.7 - (math.pi - math.asin(0.95)) / 6
    assert left.distance.item() == pytest.approx(exact, abs=2e-3)


def test_first_crossing_stays_in_the_box_and_within_reach():
    x = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]])
    reach = torch.tensor([2.0, 2.0, 0.1])
    side = Side(1.2, True)
    found = first_crossing(linear(), x, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), side, reach)
    assert found.distance.isinf().tolist() == [True, False, True]
    assert found.designs[1].tolist() == pytest.approx([0.5, 0.7], abs=1e-3)


def test_first_crossing_ends_on_the_other_side():
    surrogate = quadratic()
    x = starts(surrogate, UP)
    found = first_crossing(surrogate, x, ray(x, 0.6, 0.8), UP, torch.full((len(x),), 2.0))
    there = found.distance.isfinite()
    assert there.any()
    assert (UP.missing(surrogate.predict_many(found.designs[there])[0][:, 0]) <= 1e-6).all()
