import dataclasses
import math

import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.selection import All, Expression, InsideSpace, Selection, Spread, Tolerance
from matdesinne.space import DesignSpace, Parameter
from matdesinne.targets import Target

from .toys import box, prop


def table(designs=None, mean=None, std=None) -> Candidates:
    count = len(next(values for values in (designs, mean, std) if values is not None))
    outputs = len((mean or std or [[0.0]])[0])

    def fill(values, width):
        return torch.tensor(values) if values is not None else torch.zeros(count, width)

    target = Target((0.0,) * outputs, (0.0,) * outputs)
    properties = [prop("y"), prop("w")][:outputs]
    return Candidates(box(), properties, fill(designs, 2), target, fill(mean, outputs), fill(std, outputs), "sampled")


def test_inside_space():
    assert InsideSpace().mask(table(designs=[[0.0, 0.9], [1.5, 0.0], [0.0, -2.0]])).tolist() == [True, False, False]


def test_tolerance():
    assert Tolerance(0.5).mask(table(mean=[[0.4], [0.5], [-0.6], [math.nan]])).tolist() == [True, True, False, False]


def test_tolerance_needs_every_property():
    assert Tolerance(0.5).mask(table(mean=[[0.4, 0.4], [0.4, 0.6]])).tolist() == [True, False]


def asked(mean, lower, upper) -> Candidates:
    return dataclasses.replace(table(mean=mean), target=Target(lower, upper))


@pytest.mark.parametrize("tolerance", [0.5, [0.5, 0.0], {"y": 0.5}])
def test_tolerance_is_of_what_was_asked(tolerance):
    rows = asked([[0.4, 9.0], [0.6, 0.0]], (0.0, -math.inf), (0.0, math.inf))
    assert Tolerance(tolerance).mask(rows).tolist() == [True, False]
    assert Tolerance(tolerance).describe(rows) == "the tolerance of 0.5 eV around the target (nearest prediction: y 0.4 eV)"


@pytest.mark.parametrize(("tolerance", "words"), [({"y": 0.5}, "for w"), ([0.5], "each of"), ([0.5] * 3, "each of")])
def test_tolerance_for_every_property(tolerance, words):
    with pytest.raises(ConfigError, match=words):
        Tolerance(tolerance).mask(asked([[0.4, 0.4]], (0.0, 0.0), (0.0, 0.0)))


@pytest.mark.parametrize("tolerance", [{"y": 0.1, "w": 1.0}, [0.1, 1.0]])
def test_tolerance_of_each_property(tolerance):
    assert Tolerance(tolerance).mask(table(mean=[[0.05, 0.9], [0.2, 0.0]])).tolist() == [True, False]


def test_spread():
    assert Spread(0.1).mask(table(std=[[0.05], [0.2], [math.nan]])).tolist() == [True, False, False]


def test_spread_needs_every_property():
    assert Spread(0.1).mask(table(std=[[0.05, 0.05], [0.05, 0.2]])).tolist() == [True, False]


def test_no_tolerance_keeps_exact_hits():
    assert Tolerance(0.0).mask(table(mean=[[0.0], [1e-3]])).tolist() == [True, False]


def test_largest_spread_is_kept():
    assert Spread(0.5).mask(table(std=[[0.5], [0.501]])).tolist() == [True, False]


@pytest.mark.parametrize("kind", [Tolerance, Spread])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_rejects(kind, value):
    with pytest.raises(ConfigError, match="got"):
        kind(value)


def test_spread_rejects_zero():
    with pytest.raises(ConfigError, match="above 0"):
        Spread(0.0)


class Every(Selection):
    def __init__(self, step: int) -> None:
        self.step = step

    def mask(self, candidates):
        return torch.arange(len(candidates)) % self.step == 0


def test_all_is_the_conjunction():
    assert All([Every(2), Every(3)]).mask(table(mean=[[0.0]] * 7)).tolist() == [True, False, False, False, False, False, True]


def test_all_of_nothing_keeps_everything():
    assert All().mask(table(mean=[[9.0]] * 3)).all()


LATTICE = DesignSpace(
    [Parameter("a", "angstrom", 2.5, 3.75, 3.2), Parameter("gamma", "degree", 96, 144, 120), Parameter("field", "V", -1, 1)]
)


def lattices(*designs: tuple[float, float, float]) -> Candidates:
    gap = torch.linspace(0.8, 1.2, len(designs)).unsqueeze(1)
    return Candidates(LATTICE, [prop("gap")], torch.tensor(designs), Target((1.0,), (1.0,)), gap, 0.1 * gap, "sampled")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a > 3.1", [True, True, False]),
        ("abs(strain_a) < 0.05", [True, False, True]),
        ("strain_gamma == 0.1 or strain_gamma == -0.1", [False, True, True]),
        ("a == 3.2", [True, False, False]),
        ("field == 0", [True, True, False]),
        ("gap >= 1 and gap_std < 0.11", [False, True, False]),
        ("3.0 < a and gamma <= 120", [True, False, True]),
    ],
)
def test_expression(text, kept):
    designs = lattices((3.2, 120.0, 0.0), (3.7, 132.0, 1e-7), (3.05, 108.0, 1e-5))
    assert Expression(text).mask(designs).tolist() == kept


def test_a_parameter_without_reference_has_no_strain():
    with pytest.raises(ConfigError, match="strain_field"):
        Expression("strain_field < 1").mask(lattices((3.2, 120.0, 0.0)))


def test_expression_of_numbers_is_for_every_row():
    assert Expression("1 < 2").mask(lattices((3.2, 120.0, 0.0), (3.3, 120.0, 0.0))).tolist() == [True, True]


ODD = DesignSpace([Parameter("a", "m", -3.0, 2.0, reference=-1.5), Parameter("b", "m")])


EXACT = {"a": 0.75, "b": 100.0, "y": 0.01, "y_std": 1000.0}


def odd(a: float, b: float, y: float, y_std: float) -> Candidates:
    designs, mean, std = (torch.tensor([row], dtype=torch.float64) for row in ([a, b], [y], [y_std]))
    return Candidates(ODD, [prop()], designs, Target((0.0,), (0.0,)), mean, std, "sampled")


@pytest.mark.parametrize("units", [-4.5, -3.5, 3.5, 4.5])
@pytest.mark.parametrize(
    ("name", "text", "scale"),
    [
        ("a", "a == 0.75", 3.0),
        ("a", "strain_a == -1.5", 3.0),
        ("b", "b == 100", 100.0),
        ("y", "y == 0.01", 0.01),
        ("y_std", "y_std == 1000", 1000.0),
    ],
)
def test_values_are_equal_within_four_units_of_rounding(name, text, scale, units):
    """At the largest bound of a parameter, at the value itself where there is none."""
    shifted = odd(**{**EXACT, name: EXACT[name] + units * scale * torch.finfo(torch.float32).eps})
    assert Expression(text).mask(shifted).item() == (abs(units) < 4)


def test_expressions_last():
    rules = [Expression("y < 1"), Expression("y > 0")]
    assert All([InsideSpace(), rules[0], All([rules[1], Tolerance(0.1)])]).rules_after_localization() == rules


@pytest.mark.parametrize("rule", [InsideSpace(), Tolerance(0.1), Spread(0.1), All([Tolerance(0.1)]), Expression("x1 < y")])
def test_rows_are_independent(rule):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, 4, generator=generator).mul(0.3)
    made = table(values[:, :2].tolist(), values[:, 2:3].tolist(), values[:, 3:].abs().tolist())
    alone = [rule.mask(made.take(torch.tensor([row]))).item() for row in range(20)]
    assert rule.mask(made).tolist() == alone
