"""Descents along a level set end in the known minima of analytic problems."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesinne.errors import ConfigError
from matdesinne.localization import Newton
from matdesinne.minimization import Descent, merge_minima
from matdesinne.objective import Objective
from matdesinne.selection import Expression, InsideSpace, Tolerance
from matdesinne.space import DesignSpace, Mixture, Parameter, Symmetry
from matdesinne.surrogates.combined import CombinedSurrogate

from .toys import Linear, box, candidates, cases, load_part, prop, rows


class Bowl(Linear):
    """y = sum of w x^2."""

    def member_predictions(self, features):
        return (self.features.scale.inverse(features).square() @ self.matrix.T).unsqueeze(0)


def problem(slopes, weights, space=None) -> CombinedSurrogate:
    """A linear gap and a quadratic energy."""
    space = space or box(len(slopes))
    parts = [Linear(space, [prop("gap")], [slopes]), Bowl(space, [prop("energy")], [weights])]
    return CombinedSurrogate(parts).eval()


def on_target(surrogate, target, count=40, seed=0):
    x = surrogate.space.sample(count, torch.Generator().manual_seed(seed))
    found = Newton().localize(candidates(surrogate, x, target), surrogate)
    return found.take((found.error < 1e-4).all(dim=1))


def minimum(surrogate, target, text="energy", **settings):
    start = on_target(surrogate, target)
    found = Descent(**settings).descend(start, surrogate, Objective(text))
    assert (found.error <= start.error.clamp_min(1e-5)).all()
    assert surrogate.space.allows(found.designs).all()
    return found


@cases(30)
@given(
    slopes=st.lists(st.floats(0.5, 2), min_size=3, max_size=3),
    weights=st.lists(st.floats(0.5, 20), min_size=3, max_size=3),
    value=st.floats(-0.3, 0.3),
)
def test_quadratic_with_a_linear_constraint(slopes, weights, value):
    """With a x = c the sum of w x^2 is least at x = c a / w / (sum of a^2 / w)."""
    found = minimum(problem(slopes, weights), {"gap": value})
    a, w = torch.tensor(slopes), torch.tensor(weights)
    exact = value * (a / w) / (a.square() / w).sum()
    torch.testing.assert_close(found.designs, exact.expand_as(found.designs), rtol=0, atol=3e-3)


def test_the_faces_of_the_box_hold():
    """The free minimum of x1 is 1.2: it stays at its bound, and x2 makes up for it."""
    found = minimum(problem([1.0, 1.0], [1.0, 6.0]), {"gap": 1.4})
    torch.testing.assert_close(found.designs, torch.tensor([[1.0, 0.4]]).expand_as(found.designs), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("edges", "gap"), [([0.4, 0.8], 0.4), ([-0.8, -0.4], -0.4), ([-0.5, 0.5], 0.0), ([0.4, None], 0.4)])
def test_an_interval_is_left_to_the_objective(edges, gap):
    found = minimum(problem([1.0, 0.5], [1.0, 1.0]), {"gap": edges})
    torch.testing.assert_close(found.mean[:, 0], torch.full((len(found),), gap), rtol=0, atol=2e-3)


def test_a_formula_of_parameters():
    found = minimum(problem([1.0, 1.0], [1.0, 1.0]), {"gap": 0.5}, "(x1 - 0.1) ** 2 + 2 * x2 ** 2")
    torch.testing.assert_close(found.designs, torch.tensor([[11 / 30, 4 / 30]]).expand_as(found.designs), rtol=0, atol=1e-3)


def test_a_strain_is_minimised():
    space = DesignSpace([Parameter("a", "m", 1.0, 3.0, reference=2.0), Parameter("b", "m", -1.0, 1.0)])
    found = minimum(problem([1.0, 1.0], [1.0, 1.0], space), {"gap": 2.5}, "strain_a ** 2")
    torch.testing.assert_close(found.designs, torch.tensor([[2.0, 0.5]]).expand_as(found.designs), rtol=0, atol=5e-3)


def test_a_property_can_be_as_high_as_possible():
    found = minimum(problem([1.0, 1.0], [1.0, 1.0]), {"energy": [None, 0.5]}, "-gap")
    torch.testing.assert_close(found.designs, torch.full_like(found.designs, 0.5), rtol=0, atol=2e-3)


def test_the_sum_of_a_mixture_is_kept():
    space = DesignSpace([Parameter(name, "1", 0.0, 1.0) for name in "abc"], mixtures=[Mixture("abc")])
    found = minimum(problem([1.0, 2.0, 0.0], [1.0, 1.0, 1.0], space), {"gap": 1.2})
    torch.testing.assert_close(found.designs.sum(dim=1), torch.ones(len(found)))
    torch.testing.assert_close(
        found.designs, torch.tensor([[1 / 3, 13 / 30, 7 / 30]]).expand_as(found.designs), rtol=0, atol=2e-3
    )


def test_levels_and_fixed_parameters_stay():
    space = DesignSpace(
        [Parameter("a", "m", -1.0, 1.0), Parameter("n", "1", values=[-1, 0, 1]), Parameter("b", "m", -1.0, 1.0)]
    )
    surrogate = problem([1.0, 0.2, 1.0], [1.0, 1.0, 1.0], space)
    start = on_target(surrogate, {"gap": 0.4})
    found = Descent().descend(start, surrogate, Objective("energy"))
    assert torch.equal(found.designs[:, 1], start.designs[:, 1])
    half = (0.4 - 0.2 * start.designs[:, 1]) / 2
    torch.testing.assert_close(found.designs[:, [0, 2]], half.unsqueeze(1).expand(-1, 2), rtol=0, atol=1e-3)


def test_rules_hold_on_the_way():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    start = on_target(surrogate, {"gap": 0.4})
    rule = Expression("x1 > 0.25")
    start = start.take(rule.mask(start))
    found = Descent().descend(start, surrogate, Objective("energy"), rule)
    assert rule.mask(found).all()
    assert (found.mean[:, 1] <= start.mean[:, 1]).all()
    assert found.designs[:, 0].max() < 0.27


@pytest.mark.parametrize(
    ("rule", "text", "exact"),
    [
        ("x1 > 0.4", "energy", (0.4, 0.1, 0.1)),
        ("x1 > 0.4 and not x2 <= 0.15", "energy", (0.4, 0.15, 0.05)),
        ("max(x1, -9) > 0.4 or gap > 5", "energy", (0.4, 0.1, 0.1)),
        # x1 = x2 = t with 2 t + x3 = 0.6 on the sphere
        ("energy < 0.5", "x3", (0.451656, 0.451656, -0.303311)),
    ],
)
def test_a_row_slides_along_a_rule(rule, text, exact):
    surrogate = problem([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    start = on_target(surrogate, {"gap": 0.6}, 400)
    kept = Expression(rule)
    start = start.take(kept.mask(start)).take(torch.arange(12))
    found = Descent().descend(start, surrogate, Objective(text), kept)
    assert kept.mask(found).all() and (found.error <= 1e-5).all()
    torch.testing.assert_close(found.designs, torch.tensor([exact]).expand_as(found.designs), rtol=0, atol=5e-3)


def test_a_row_slides_along_the_bounds_of_strains():
    """The angle is largest where its bisector is a principal direction, with both strains at their bounds."""
    space = load_part("space", "tmd_strain/mos2").narrowed({"strain_1": [None, 0.02], "strain_2": [-0.02, None]})
    surrogate = Linear(space, [prop()], [[1.0, 1.0, 0.0]]).eval()
    start = candidates(surrogate, space.sample(8, torch.Generator().manual_seed(0)), [-99.0, 99.0])
    found = Descent().descend(start, surrogate, Objective("-gamma"), InsideSpace())
    largest = 2 * math.degrees(math.atan(1.02 / 0.98 * math.tan(math.radians(60))))
    assert space.contains(found.designs).all()
    assert found.designs[:, 2].tolist() == pytest.approx([largest] * 8, abs=0.02)


def test_no_candidate_costs_more_than_before():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    start = on_target(surrogate, {"gap": 0.4})
    costs = [
        Objective("energy").values(Descent(evaluations=n).descend(start, surrogate, Objective("energy"))) for n in (1, 2, 5, 50)
    ]
    assert torch.equal(costs[0], Objective("energy").values(start))
    assert all((after <= before).all() for before, after in itertools.pairwise(costs))
    assert costs[-1].mean() < 0.5 * costs[0].mean()


def test_rows_are_independent(close):
    surrogate = problem([1.0, 2.0, 0.5], [1.0, 9.0, 3.0])
    start = on_target(surrogate, {"gap": 0.4}, 6)
    together = Descent().descend(start, surrogate, Objective("energy"))
    alone = [
        Descent().descend(start.take(torch.tensor([i])), surrogate, Objective("energy")).designs for i in range(len(start))
    ]
    close(torch.cat(alone), together.designs, factor=1e2)


def test_no_rows():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    start = on_target(surrogate, {"gap": 0.4}).take(torch.zeros(0, dtype=torch.long))
    assert len(Descent().descend(start, surrogate, Objective("energy"))) == 0


def test_an_undefined_objective_stays_where_it_is():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    start = on_target(surrogate, {"gap": 0.4})
    found = Descent().descend(start, surrogate, Objective("sqrt(gap - 9)"))
    assert torch.equal(found.designs, start.designs)
    assert (Objective("sqrt(gap - 9)").values(start) == math.inf).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrong", "got 'wrong'"),
        ("gap_std", "got 'gap_std'"),
        ("gap < 1", "a number"),
        ("1 + 1", "name at least one"),
        (3, "as text"),
    ],
)
def test_objectives_that_are_none(text, words):
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ConfigError, match=words):
        Descent().descend(on_target(surrogate, {"gap": 0.4}), surrogate, Objective(text))


@pytest.mark.parametrize("settings", [{"tolerance": 0.0}, {"evaluations": 0}, {"longest_step": -1.0}, {"tolerance": math.nan}])
def test_descent_rejects(settings):
    with pytest.raises(ConfigError, match="correct them"):
        Descent(**settings)


def test_minima_are_merged_and_counted():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    x = torch.tensor([[0.5, 0.0], [0.2, 0.2], [0.2, 0.201], [0.505, 0.0], [0.2, 0.2]])
    table = candidates(surrogate, x, {"gap": 0.4})
    merged = merge_minima(table, Objective("energy").values(table))
    assert merged.designs.tolist() == [pytest.approx([0.2, 0.2]), pytest.approx([0.5, 0.0])]
    assert merged.columns()["starts"] == ("1", [3.0, 2.0])


def test_images_of_a_minimum_are_one():
    swap = Symmetry({"x1": (1.0, "x2", 0.0), "x2": (1.0, "x1", 0.0)})
    space = DesignSpace(box().parameters, [swap])
    table = candidates(problem([1.0, 1.0], [1.0, 1.0], space), torch.tensor([[0.5, 0.0], [0.0, 0.5]]), {"gap": 0.5})
    assert len(merge_minima(table, Objective("energy").values(table))) == 1


def test_many_starts_of_two_valleys_end_in_two_minima():
    """Of (|x1| - 1/2)^2 + x2^2 with x2 = 0."""
    surrogate = problem([0.0, 1.0], [1.0, 1.0])
    found = minimum(surrogate, {"gap": 0.0}, "(abs(x1) - 0.5) ** 2")
    merged = merge_minima(found, Objective("(abs(x1) - 0.5) ** 2").values(found))
    assert sorted(merged.designs[:, 0].tolist()) == pytest.approx([-0.5, 0.5], abs=1e-3)
    assert merged.extra["starts"][1].sum() == len(found)
    assert Tolerance(1e-4).mask(merged).all() and rows(box(), 1).x.shape == (1, 2)
