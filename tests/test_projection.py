"""Steps onto a target are the solutions of their quadratic programs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesinne.localization import Newton
from matdesinne.projection import Region, step_onto
from matdesinne.targets import Target

from .toys import Linear, box, candidates, cases, linear, prop, rows

INF = math.inf


def step(target: Target, mean, jacobian, wish=None, at=None):
    dimension = jacobian.shape[2]
    x = torch.zeros(len(mean), dimension, dtype=torch.float64) if at is None else at
    return step_onto(target, x, mean, jacobian, Region.of(box(dimension), torch.ones(dimension).double(), x), wish)


def targets(count: int):
    """A value, an interval, an open interval, or nothing for each property, at least one of them asked for."""
    edges = st.sampled_from([(0.3, 0.3), (-0.5, 0.5), (-0.1, 0.0), (-INF, 0.2), (0.1, INF), (-INF, INF)])
    made = st.lists(edges, min_size=count, max_size=count).map(lambda pairs: Target(*map(tuple, zip(*pairs, strict=True))))
    return made.filter(lambda target: any(target.asked))


@cases(300)
@given(target=st.integers(1, 4).flatmap(targets), seed=st.integers(0, 10_000), wished=st.booleans())
def test_step_solves_the_quadratic_program(target, seed, wished):
    """The conditions of Karush, Kuhn and Tucker, which are sufficient for a convex program."""
    generator = torch.Generator().manual_seed(seed)
    count = len(target.lower)
    jacobian = torch.randn(1, count, count + 2, generator=generator, dtype=torch.float64)
    mean = torch.randn(1, count, generator=generator, dtype=torch.float64)
    wish = (
        0.1 * torch.randn(1, count + 2, generator=generator, dtype=torch.float64)
        if wished
        else torch.zeros(1, count + 2).double()
    )
    found = step(target, mean, jacobian, wish if wished else None)
    reached = mean + (jacobian @ found.unsqueeze(2)).squeeze(2)
    assert target.residual(reached).abs().max() < 1e-5
    change = (found - wish)[0]
    push = torch.linalg.lstsq(jacobian[0].T, change.unsqueeze(1)).solution[:, 0]
    torch.testing.assert_close(jacobian[0].T @ push, change, rtol=0, atol=1e-8)
    for j, (low, high) in enumerate(zip(target.lower, target.upper, strict=True)):
        if low < high:
            assert push[j] < 1e-5 or reached[0, j] == pytest.approx(low, abs=1e-5)
            assert push[j] > -1e-5 or reached[0, j] == pytest.approx(high, abs=1e-5)


def test_a_property_inside_its_interval_is_left_alone(close):
    """The step is the one onto the first property alone, which changes the second one."""
    jacobian = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]).double()
    found = step(Target((0.5, -1.0), (0.5, 1.0)), torch.zeros(1, 2).double(), jacobian)
    close(found, [[0.5, 0.0]], factor=10)


def test_a_property_that_would_leave_its_interval_is_put_on_its_edge(close):
    jacobian = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]).double()
    found = step(Target((0.5, -1.0), (0.5, 0.2)), torch.zeros(1, 2).double(), jacobian)
    close(found, [[0.5, -0.3]], factor=10)


def test_a_property_that_the_others_bring_inside_needs_no_push(close):
    jacobian = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]).double()
    found = step(Target((0.5, 0.1), (0.5, 0.9)), torch.zeros(1, 2).double(), jacobian)
    close(found, [[0.5, 0.0]], factor=10)


def test_a_wish_is_kept_along_the_level_set_and_out_of_the_faces(close):
    jacobian = torch.tensor([[[1.0, 1.0, 0.0]]]).double()
    at = torch.tensor([[0.0, 0.0, 1.0]]).double()
    found = step(Target((0.0,), (0.0,)), torch.zeros(1, 1).double(), jacobian, torch.tensor([[0.2, 0.0, 0.3]]).double(), at)
    close(found, [[0.1, -0.1, 0.0]], factor=100)


def test_nothing_asked_for_leaves_the_wish():
    wish = torch.tensor([[0.1, -0.2]]).double()
    found = step(Target((-INF,), (INF,)), torch.zeros(1, 1).double(), torch.ones(1, 1, 2).double(), wish)
    assert torch.equal(found, wish)


def test_newton_meets_a_value_and_an_interval_in_one_dimension():
    """Two equations for one unknown have no solution; one equation and an inequality have."""
    surrogate = Linear(box(1), [prop("y"), prop("w")], [[1.0], [0.5]]).eval()
    moved = Newton().localize(candidates(surrogate, rows(box(1), 20).x, {"y": 0.5, "w": [0.0, 0.4]}), surrogate)
    assert moved.error.max() < 1e-5


@cases(60)
@given(low=st.floats(-1, 0.5), width=st.floats(0, 1), value=st.floats(-1, 1), seed=st.integers(0, 100))
def test_newton_moves_no_farther_than_values_would(low, width, value, seed):
    """An interval is a weaker demand than any value inside it."""
    surrogate = linear(3, outputs=2).double()
    x = 0.5 * rows(box(3), 8, seed=seed).x.double()
    wide = candidates(surrogate, x, {"y": value, "w": [low, low + width]})
    free = Newton(1e-9, longest_step=9.0).localize(wide, surrogate)
    fixed = Newton(1e-9, longest_step=9.0).localize(candidates(surrogate, x, [value, low + width / 2]), surrogate)
    inside = surrogate.space.contains(fixed.designs, -1e-3) & surrogate.space.contains(free.designs, -1e-3)
    assert (free.error[inside] < 1e-8).all()
    assert ((free.designs - x).norm(dim=1) <= (fixed.designs - x).norm(dim=1) + 1e-6)[inside].all()


def test_newton_leaves_a_property_that_is_not_asked_for():
    surrogate = linear(3, outputs=2)
    x = 0.3 * rows(box(3), 16).x
    moved = Newton().localize(candidates(surrogate, x, {"w": 0.5}), surrogate)
    assert moved.error.max() < 1e-5
    change = moved.designs - x
    torch.testing.assert_close(change[:, 0], -change[:, 2])
    assert change[:, 1].abs().max() < 1e-6
