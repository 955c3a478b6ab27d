import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.search import (
    TransitionSearch,
    distance_to_level,
    move_to_levels,
    shortest_transitions,
    small_transitions,
)
from matdesinne.exploration.transitions.transition import Levels, Transitions, best_first, distinct, joined
from matdesinne.space import DesignSpace, Parameter, Symmetry

from ...toys import Linear, box, linear, prop, quadratic, rows

LEVELS = Levels(-0.1, 0.1)
SINGLES = [["x1"], ["x2"]]


def predicted(before: list, after: list, surrogate=None, knobs: str = "x1") -> Transitions:
    surrogate = surrogate or quadratic()
    return Transitions.between(surrogate, LEVELS, torch.tensor(before), torch.tensor(after), [knobs] * len(before))


def test_transitions_know_both_ends():
    found = predicted([[-0.2, 0.0], [0.3, 0.0]], [[0.2, 0.0], [-0.3, 0.0]], linear())
    assert found.value.flatten().tolist() == pytest.approx([-0.2, 0.2, 0.3, -0.3], abs=1e-6)
    assert found.rises.tolist() == [True, False]
    assert found.size.tolist() == pytest.approx([0.4, 0.6])


def test_probability_is_that_of_equal_errors():
    """Against drawn errors, the same at both ends."""
    surrogate = quadratic()
    found = predicted([[-0.02, 0.0]], [[0.05, 0.0]], surrogate)
    value, std = found.value[0].double(), found.std[0].double()
    assert std[0] == pytest.approx(std[1])
    error = std[0] * torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = ((value[0] + error < 0) & (value[1] + error > 0)).double().mean()
    assert found.probability.item() == pytest.approx(real.item(), abs=0.02)


def test_probability_falls_to_nothing():
    """An end on the wrong side, and no transition at all."""
    found = predicted([[0.2, 0.0], [0.2, 0.0]], [[0.3, 0.0], [0.2, 0.0]])
    assert found.probability.tolist() == [0.0, 0.0]


def test_probability_of_a_large_step_is_near_one():
    assert predicted([[-0.2, 0.0]], [[0.9, 0.0]]).probability.item() > 0.9


def test_best_first():
    sizes, probabilities = [0.02, 0.3, 0.01, 0.2, 0.015], [0.9, 1.0, 0.5, 0.1, 0.9]
    start = [[0.0, 0.0]] * 5
    found = predicted(start, [[size, 0.0] for size in sizes])
    object.__setattr__(found, "probability", torch.tensor(probabilities))
    assert best_first(found, 0.05).size.tolist() == pytest.approx([0.015, 0.02, 0.01, 0.2, 0.3])


def mirrored() -> Linear:
    """Unchanged when x1 and x2 are exchanged."""
    space = DesignSpace(
        [Parameter("x1", "m", -1.0, 1.0), Parameter("x2", "m", -1.0, 1.0)],
        [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})],
    )
    return Linear(space, [prop()], [[1.0, 1.0]]).eval()


def test_images_of_a_start_are_one_transition():
    before = [[0.5, -0.6], [-0.6, 0.5], [0.51, -0.61], [0.0, -0.1]]
    found = distinct(predicted(before, before, mirrored()), 0.1)
    assert torch.equal(found.before, torch.tensor([before[0], before[3]]))


def test_distinct_keeps_the_first():
    found = predicted([[0.05, 0.0], [0.0, 0.0], [0.5, 0.0]], [[0.1, 0.0]] * 3, linear())
    assert distinct(found, 0.1).before[:, 0].tolist() == pytest.approx([0.05, 0.5])
    assert len(distinct(found, 0.01)) == 3


def test_columns_have_units_and_relative_changes():
    space = DesignSpace([Parameter("a", "angstrom", 2.0, 4.0, 3.0), Parameter("field", "V/angstrom", -1.0, 1.0)])
    surrogate = Linear(space, [prop("gap", floor=0.0)], [[1.0, 0.5]]).eval()
    found = Transitions.between(surrogate, LEVELS, torch.tensor([[2.5, 0.0]]), torch.tensor([[3.0, 0.5]]), ["a+field"])
    table = found.columns()
    assert table["a_change"] == ("angstrom", [0.5]) and table["field_change"] == ("V/angstrom", [0.5])
    assert table["a_change_percent"][0] == "%" and table["a_change_percent"][1] == pytest.approx([20.0])
    assert "field_change_percent" not in table  # it has no reference to be relative to
    assert table["gap_before"] == ("eV", pytest.approx([2.5])) and table["direction"] == ("", ["up"])
    assert table["size"][1] == pytest.approx([math.hypot(0.5, 0.5)])


def test_move_to_levels():
    """Every design to the level of its own side."""
    x = rows(box(), 60).x
    at_level = move_to_levels(linear(), x, LEVELS)
    y = linear().predict_many(at_level)[0][:, 0]
    assert torch.minimum((y - 0.1).abs(), (y + 0.1).abs()).max() < 2e-4
    assert (y > 0).sum() == (x.sum(dim=1) > 0).sum()


def test_move_to_levels_of_nothing():
    """As where the fast surrogate has found no transition for the accurate one."""
    assert move_to_levels(linear(), box().sample(0), LEVELS).shape == (0, 2)


def test_small_transitions_take_every_steep_knob():
    surrogate = Linear(box(3), [prop()], [[1.0, -4.0, 0.1]]).eval()
    at_level = move_to_levels(surrogate, 0.5 * rows(box(3), 30).x, LEVELS)
    found = small_transitions(surrogate, at_level, LEVELS, 0.21)
    assert {knob: found.knobs.count(knob) for knob in found.knobs} == {"x1": len(at_level), "x2": len(at_level)}
    expected = [0.2 if knob == "x1" else 0.05 for knob in found.knobs]
    assert found.size.tolist() == pytest.approx(expected, abs=2e-3)
    assert (found.value.abs() > 0.0999).all() and (found.value.prod(dim=1) < 0).all()


def test_small_transitions_of_designs_that_are_on_neither_side():
    found = small_transitions(linear(), torch.tensor([[0.01, 0.01]]), LEVELS, 0.5)
    assert len(found) == 0


def test_shortest_transitions_of_a_linear_property():
    x = torch.tensor([[-0.4, 0.1], [0.6, 0.2], [0.05, 0.0]])
    found = shortest_transitions(linear(), x, [*SINGLES, ["x1", "x2"]], LEVELS)
    assert len(found) == 6 and found.knobs == ["x1", "x2", "x1+x2"] * 2
    up, down = 0.4, 0.9
    expected = [up, up, up / math.sqrt(2), down, down, down / math.sqrt(2)]
    assert found.size.tolist() == pytest.approx(expected, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_more_freedom_is_never_longer(seed):
    surrogate = quadratic(3)
    x = rows(box(3), 40, seed=seed).x
    found = shortest_transitions(surrogate, x, [["x1"], ["x2"], ["x1", "x2"], ["x1", "x2", "x3"]], Levels(0.3, 0.6))
    sizes: dict[tuple, dict[str, float]] = {}
    for start, knob, size in zip(found.before.tolist(), found.knobs, found.size.tolist(), strict=True):
        sizes.setdefault(tuple(start), {})[knob] = size
    assert len(sizes) > 10
    for one in sizes.values():
        pair = min(one.get("x1", math.inf), one.get("x2", math.inf))
        assert one.get("x1+x2", math.inf) <= pair + 1e-4
        assert one.get("x1+x2+x3", math.inf) <= one.get("x1+x2", math.inf) + 1e-4


def test_shortest_transitions_without_any():
    assert len(shortest_transitions(linear(), torch.tensor([[0.0, 0.0]]), SINGLES, LEVELS)) == 0
    assert len(shortest_transitions(linear(), torch.tensor([[0.5, 0.5]]), SINGLES, Levels(-2.5, 0.1))) == 0


@pytest.mark.parametrize(("knobs", "named"), [([[]], "list"), (["x1"], "list"), ([["x9"]], "'x9'")])
def test_rejects_knobs(knobs, named):
    with pytest.raises(ConfigError, match=named):
        shortest_transitions(linear(), torch.tensor([[0.5, 0.5]]), knobs, LEVELS)


def test_levels_in_order():
    with pytest.raises(ConfigError, match=r"got 0.1 and -0.1"):
        Levels(0.1, -0.1)


def test_distance_to_level_of_a_linear_property():
    x = 0.4 * rows(box(), 20).x
    found = distance_to_level(linear(), x, 0.0)
    assert found.tolist() == pytest.approx((x.sum(dim=1).abs() / math.sqrt(2)).tolist(), abs=2e-3)


def test_distance_to_level_where_there_is_no_other_side():
    assert distance_to_level(linear(), torch.tensor([[0.5, 0.5]]), -2.5).isinf().all()


def search(**changes) -> TransitionSearch:
    settings = {"levels": [0.05, 0.1], "edges": 50, "small": 0.25, "refined": 20, "apart": 0.1, "starts": 5}
    return TransitionSearch(**{**settings, "knobs": None, "remote": 10, "best": 3, **changes})


@pytest.mark.slow
def test_small_changes_are_distinct_and_in_order():
    surrogate = quadratic()
    tables = [rows(box(), 50, seed=seed).x for seed in range(2)]
    found = search().small_changes(tables, surrogate)
    assert len(found) > 5 and (found.size < 0.25).all()
    assert (found.probability.diff() < 0.011).all()
    gaps = torch.cdist(found.before, found.before) + 9 * torch.eye(len(found))
    assert gaps.min() > 0.1


@pytest.mark.slow
def test_the_accurate_surrogate_has_the_last_word():
    """It is steeper, and its level lies elsewhere."""
    accurate = Linear(box(), [prop()], [[2.0, 0.5]]).eval()
    found = search().small_changes([rows(box(), 50).x], linear(), accurate)
    assert len(found) > 5 and set(found.knobs) == {"x1"}
    y = accurate.predict_many(found.before)[0]
    assert torch.minimum((y.abs() - 0.05).abs(), (y.abs() - 0.1).abs()).max() < 2e-4


@pytest.mark.slow
def test_kinds_are_all_knobs_all_pairs_and_all():
    found = search().shortest([rows(box(3), 30).x], linear(3))
    assert set(found.knobs) == {"x1", "x2", "x3", "x1+x2", "x1+x3", "x2+x3", "x1+x2+x3"}
    assert len(set(map(tuple, found.before.tolist()))) <= 5


@pytest.mark.slow
def test_remotest_first():
    designs, far = search().remotest([rows(box(), 30).x], linear())
    assert len(designs) == 10 and (far.diff() <= 0).all()


@pytest.mark.parametrize("changes", [{"levels": []}, {"levels": [0.0]}, {"small": 0.0}, {"best": 0}, {"apart": -1.0}])
def test_search_rejects(changes):
    with pytest.raises(ConfigError, match="transitions"):
        search(**changes)


def test_joined():
    parts = [predicted([[0.0, 0.0]], [[0.1, 0.0]]), predicted([[0.2, 0.0]], [[0.1, 0.0]], knobs="x2")]
    both = joined(parts)
    assert both.knobs == ["x1", "x2"] and both.before[:, 0].tolist() == pytest.approx([0.0, 0.2])
