"""Intervals that designs reach, where they are known exactly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesinne.errors import EmptyResultError, TargetError
from matdesinne.localization import Newton
from matdesinne.pipeline import InverseDesign, Refinement
from matdesinne.reachability import describe_reach, find_reach
from matdesinne.selection import All, Expression
from matdesinne.space import DesignSpace, Parameter
from matdesinne.targets import Target

from .test_minimization import problem
from .toys import CONF, Linear, box, cases, line, linear, prop, rows, tiny_network


def reach(surrogate, target, space=None, **settings):
    space = space or surrogate.space
    found = find_reach(surrogate, space, Target.parse(target, surrogate.properties), **settings)
    return {entry.prop.name: (entry.lower, entry.upper) for entry in found}


@cases(20)
@given(
    slopes=st.lists(st.floats(-2, 2), min_size=3, max_size=3).filter(lambda s: max(map(abs, s)) > 0.1),
    low=st.floats(-1, 0.5),
    width=st.floats(0.1, 0.5),
)
def test_a_plane_over_a_box_reaches_its_corners(slopes, low, width):
    surrogate = Linear(box(3), [prop()], [slopes]).eval()
    space = surrogate.space.narrowed(bounds={"x1": [low, low + width]})
    found = reach(surrogate, 99.0, space)["y"]
    others = sum(map(abs, slopes[1:]))
    ends = [slopes[0] * low, slopes[0] * (low + width)]
    assert found == pytest.approx((min(ends) - others, max(ends) + others), abs=2e-3)


def test_the_rest_of_the_target_is_held():
    """With x1 + x2 = c the sum of the squares is from c^2 / 2 to 1 + (c - 1)^2."""
    found = reach(problem([1.0, 1.0], [1.0, 1.0]), {"gap": 1.2, "energy": 0.1})
    assert found["energy"] == pytest.approx((0.72, 1.04), abs=2e-3)
    width = 0.2**0.5  # the sum on a circle of radius sqrt(0.1)
    assert found["gap"] == pytest.approx((-width, width), abs=2e-3)


def test_an_interval_is_held_as_an_inequality():
    found = reach(problem([1.0, 1.0], [1.0, 1.0]), {"gap": 1.2, "energy": [None, 0.1]})
    assert found["gap"] == pytest.approx((-(0.2**0.5), 0.2**0.5), abs=2e-3)


def test_rules_are_kept():
    rule = Expression("x1 < 0.5 and x2 < 0.25")
    found = reach(linear(), 99.0, rules=rule)
    assert found["y"] == pytest.approx((-2.0, 0.75), abs=0.05)
    assert found["y"][1] <= 0.75


def test_what_the_rest_rules_out_is_told_without_it():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    found = find_reach(surrogate, surrogate.space, Target.parse({"gap": 5.0, "energy": 0.1}, surrogate.properties))
    text = describe_reach(found, rules=True)
    assert found[1].empty and not found[0].empty
    assert text.startswith("Designs within the bounds and rules that keep the rest of the target reach gap from -0.44")
    assert "no energy (energy from " in text and " without the rest of the target)" in text


def test_what_rules_rule_out_is_told_without_them():
    found = find_reach(linear(), box(), Target((0.5,), (0.5,)), Expression("x1 > 2"))
    assert describe_reach(found, rules=True).startswith(
        "Designs within the bounds and rules reach no y (y from -2 to 2 eV without rules)"
    )


def test_the_floor_is_an_end():
    surrogate = Linear(box(), [prop(floor=0.0)], [[1.0, 1.0]]).eval()
    assert reach(surrogate, 99.0)["y"] == pytest.approx((0.0, 2.0), abs=1e-3)


def test_levels_are_kept():
    space = DesignSpace([Parameter("n", "1", values=[0, 1, 5]), Parameter("x", "m", -1.0, 1.0)])
    surrogate = Linear(space, [prop()], [[1.0, 1.0]]).eval()
    assert reach(surrogate, 99.0)["y"] == pytest.approx((-1.0, 6.0), abs=1e-3)


def test_an_interval_in_reach_costs_no_descent(monkeypatch):
    monkeypatch.setattr("matdesinne.reachability.Descent", None)
    low, high = reach(linear(), 0.5, within=(0.4, 0.6))["y"]
    assert -2 <= low < 0.4 and 0.6 < high <= 2


def design(**settings) -> InverseDesign:
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    model.fit_scales(rows(box()))
    return InverseDesign(model, linear(), All(), Newton(), **settings)


def test_a_target_out_of_reach_is_refused_before_sampling(monkeypatch):
    made = design()
    monkeypatch.setattr(made.model, "sample_target", None)
    with pytest.raises(TargetError, match=r"got y = 5 eV\. Designs within the bounds reach y from -2 to 2 eV"):
        made.run(5.0, 100)
    with pytest.raises(TargetError, match=r"reach y from -2 to 1\.5 eV"):
        made.run(1.8, 100, bounds={"x1": [None, 0.5]})


def test_a_target_within_the_accepted_error_of_the_reach_is_not_refused():
    assert len(design(accepted_error=0.05).run(2.02, 50, torch.Generator().manual_seed(0)).candidates) > 0


def test_nothing_found_says_what_can_be_reached():
    surrogate = problem([1.0, 1.0], [1.0, 1.0])
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), surrogate.properties[:1])
    model.fit_scales(rows(box()))
    made = InverseDesign(model, surrogate, All([Expression("x1 > -0.9")]), Newton())
    words = r"got none of .* the bounds and rules that keep the rest .* energy from 0\.72 to 1\.04"
    with pytest.raises(EmptyResultError, match=words):
        made.run({"gap": 1.2, "energy": 0.1}, 64, torch.Generator().manual_seed(0))


def test_samples_outside_narrow_bounds_say_what_can_be_reached():
    with pytest.raises(
        EmptyResultError, match=r"within the bounds, got none of 500.*Designs within the bounds reach y from -0\.87"
    ):
        design().run(0.1, 5, torch.Generator().manual_seed(0), bounds={"x1": [0.123456, 0.123457]})


def test_a_space_without_bounds_has_no_reach():
    surrogate = Linear(line(), [prop()], [[1.0, 1.0]]).eval()
    assert Refinement(surrogate, localization=Newton()).reach(Target((5.0,), (5.0,)), surrogate.space) == ""
    Refinement(surrogate, localization=Newton()).check_reach(Target((5.0,), (5.0,)), surrogate.space)
    assert math.isinf(surrogate.space.upper[0])
