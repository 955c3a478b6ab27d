import json
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError, TargetError
from matdesinne.targets import Property, Target

from .toys import cases, prop

INF = math.inf
GAP = [prop("band_gap", floor=0.0)]
FREE = [prop("energy")]
TWO = [prop("a"), prop("b", floor=0.0)]


@pytest.mark.parametrize(
    ("value", "properties", "lower", "upper"),
    [
        (1, FREE, (1.0,), (1.0,)),
        (-1.5, FREE, (-1.5,), (-1.5,)),
        (0.0, FREE, (0.0,), (0.0,)),
        ([0.5, 0.7], FREE, (0.5,), (0.7,)),
        ((0.5, 0.7), FREE, (0.5,), (0.7,)),
        ([0.5, 0.5], FREE, (0.5,), (0.5,)),
        ([None, 0.7], FREE, (-INF,), (0.7,)),
        ([0.5, None], FREE, (0.5,), (INF,)),
        ([-INF, 0.7], FREE, (-INF,), (0.7,)),
        (np.float64(0.5), FREE, (0.5,), (0.5,)),
        (0, GAP, (-INF,), (0.0,)),
        ([0, 0.2], GAP, (-INF,), (0.2,)),
        ([-1, 0.2], GAP, (-INF,), (0.2,)),
        ([0.1, 0.2], GAP, (0.1,), (0.2,)),
        ([1, 2], TWO, (1.0, 2.0), (1.0, 2.0)),
        ([[1, 2], 0], TWO, (1.0, -INF), (2.0, 0.0)),
        ({"energy": 1.5}, FREE, (1.5,), (1.5,)),
        ({"b": 0.5}, TWO, (-INF, 0.5), (INF, 0.5)),
        ({"b": 0}, TWO, (-INF, -INF), (INF, 0.0)),
        ({"b": [None, 0.5], "a": 1}, TWO, (1.0, -INF), (1.0, 0.5)),
        (OmegaConf.create({"a": [0.5, None]}), TWO, (0.5, -INF), (INF, INF)),
    ],
)
def test_parse(value, properties, lower, upper):
    assert Target.parse(value, properties) == Target(lower, upper)


@pytest.mark.parametrize(
    ("value", "properties", "words"),
    [
        ("abc", FREE, "number"),
        ("1.0", FREE, "number"),
        (None, FREE, "number"),
        (True, FREE, "number"),
        (math.nan, FREE, "number"),
        ({"a": 1}, FREE, r"\['energy'\], got 'a'"),
        ({"a": 1, "c": 2}, TWO, r"\['a', 'b'\], got 'c'"),
        ({}, TWO, r"\['a', 'b'\], got 'none'"),
        ({1: 2}, TWO, "got 1"),
        ({"a": None}, TWO, "number for a"),
        ({"a": [None, None]}, TWO, "one finite edge for a"),
        ({"b": -1}, TWO, "floor"),
        (1 + 1j, FREE, "number"),
        (INF, FREE, "finite"),
        (-INF, FREE, "finite"),
        ([], FREE, "lower, upper"),
        ([1], FREE, "lower, upper"),
        ([1, 2, 3], FREE, "lower, upper"),
        ([2, 1], FREE, "swap"),
        (["a", 1], FREE, "number"),
        ([math.nan, 1], FREE, "number"),
        ([INF, None], FREE, "lower <= upper"),
        ([None, -INF], FREE, "lower <= upper"),
        (-0.1, GAP, "floor"),
        ([-2, -1], GAP, "floor"),
        (1, TWO, r"'a', 'b'.*name what you ask for, e.g. target=\{a: 1.0\}"),
        ([1], TWO, "'a', 'b'"),
        ([1, 2, 3], TWO, "'a', 'b'"),
        ("ab", TWO, "'a', 'b'"),
    ],
)
def test_parse_rejects(value, properties, words):
    with pytest.raises(TargetError, match=words):
        Target.parse(value, properties)


@pytest.mark.parametrize(
    "value", [10**400, [0, 10**400], Decimal("1"), object()], ids=["huge", "huge edge", "decimal", "object"]
)
def test_parse_rejects_odd_numbers(value):
    with pytest.raises(TargetError):
        Target.parse(value, FREE)


def test_error_names_property_and_unit():
    with pytest.raises(TargetError, match=r"band_gap in eV.*'abc'"):
        Target.parse("abc", GAP)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.complex_numbers()
names = st.sampled_from(["a", "b", "energy", "band_gap", "c"])
numbers = st.floats(-1e6, 1e6)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@cases(400)
@given(value=anything, properties=st.sampled_from([FREE, GAP, TWO]))
@example(value=10**400, properties=FREE)
def test_parse_gives_an_ordered_target_or_our_error(value, properties):
    try:
        target = Target.parse(value, properties)
    except TargetError:
        return
    assert len(target.lower) == len(target.upper) == len(properties)
    assert all(low <= high for low, high in zip(target.lower, target.upper, strict=True))
    assert any(target.asked) and not any(map(math.isinf, target.values))
    assert Target.from_list(json.loads(json.dumps(target.to_list(), allow_nan=False))) == target


@cases(200)
@given(
    wanted=st.dictionaries(
        st.sampled_from("abc"), st.floats(-1e6, 1e6) | st.tuples(st.none(), st.floats(-1e6, 1e6)), min_size=1
    ),
    y=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
def test_a_property_that_is_not_asked_for_has_no_residual(wanted, y):
    properties = [prop(name) for name in "abc"]
    target = Target.parse(wanted, properties)
    [residual] = target.residual(torch.tensor([y], dtype=torch.float64)).tolist()
    for j, declared in enumerate(properties):
        asked = declared.name in wanted
        assert target.asked[j] == asked == (f"{declared.name} " in target.format(properties)) != math.isnan(target.values[j])
        assert asked or residual[j] == 0
    own = properties[:2]
    assert target.aligned(properties, own).aligned(own, properties).upper == (*target.upper[:2], INF)


@cases(200)
@given(
    low=st.floats(-1e6, 1e6),
    width=st.floats(0, 1e6),
    y=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
)
def test_residual_is_the_distance_to_the_interval(low, width, y):
    target = Target((low,), (low + width,))
    expected = [max(low - v, 0, v - (low + width)) for v in y]
    found = target.residual(torch.tensor(y, dtype=torch.float64).unsqueeze(1)).abs().squeeze(1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("target", "y", "expected"),
    [
        (Target((1.0,), (1.0,)), 1.5, 0.5),
        (Target((1.0,), (1.0,)), 0.5, -0.5),
        (Target((-INF,), (0.0,)), -3.0, 0.0),
        (Target((-INF,), (0.0,)), 0.2, 0.2),
        (Target((0.5,), (INF,)), 0.2, -0.3),
        (Target((0.5,), (0.7,)), 0.6, 0.0),
        (Target((-INF,), (INF,)), 9.0, 0.0),
    ],
)
def test_residual_sign(target, y, expected, close):
    close(target.residual(torch.tensor([[y]], dtype=torch.float64)), [[expected]])


def test_residual_keeps_dtype():
    assert Target((1.0,), (2.0,)).residual(torch.zeros(2, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("target", "values", "interval"),
    [
        (Target((1.0,), (1.0,)), (1.0,), (False,)),
        (Target((1.0,), (2.0,)), (1.5,), (True,)),
        (Target((-INF,), (2.0,)), (2.0,), (True,)),
        (Target((1.0,), (INF,)), (1.0,), (True,)),
    ],
)
def test_values(target, values, interval):
    assert target.values == values
    assert target.is_interval == interval


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.0, "band_gap = 1 eV"),
        (0.0, "band_gap <= 0 eV"),
        ([0.5, None], "band_gap >= 0.5 eV"),
        ([0.5, 0.7], "0.5 <= band_gap <= 0.7 eV"),
    ],
)
def test_describe(value, words):
    assert Target.parse(value, GAP).format(GAP) == words


@pytest.mark.parametrize("value", [[0, None], [None, 0.5], [0.5, INF]])
def test_open_target_says_no_infinity(value):
    assert "inf" not in Target.parse(value, GAP).format(GAP)


@pytest.mark.parametrize("value", [[None, None], [-INF, INF], [-INF, None]])
def test_target_needs_a_finite_edge(value):
    with pytest.raises(TargetError, match="one finite edge"):
        Target.parse(value, FREE)


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        (Target((-INF, 1.0), (INF, 1.0)), [[None, None], [1.0, 1.0]]),
        (Target((1.0,), (1.0,)), [[1.0, 1.0]]),
        (Target((-INF,), (0.0,)), [[None, 0.0]]),
        (Target((0.5, -1.0), (INF, 2.0)), [[0.5, None], [-1.0, 2.0]]),
    ],
)
def test_plain_form(target, plain):
    assert target.to_list() == plain
    assert Target.from_list(json.loads(json.dumps(plain, allow_nan=False))) == target


def test_describe_joins_properties():
    assert Target.parse([1, 2], TWO).format(TWO) == "a = 1 eV, b = 2 eV"


@pytest.mark.parametrize(
    ("value", "words"), [({"b": [None, 0.1]}, "b <= 0.1 eV"), ({"b": 1, "a": [1, 2]}, "1 <= a <= 2 eV, b = 1 eV")]
)
def test_describe_names_what_is_asked(value, words):
    assert Target.parse(value, TWO).format(TWO) == words


def test_targets_are_sorted_without_those_that_are_not_asked():
    found = [Target.parse(value, TWO) for value in ({"b": 2}, {"a": 1}, {"a": 0, "b": 3})]
    assert sorted(found, key=lambda target: target.rank) == [found[0], found[2], found[1]]


def test_property_name():
    with pytest.raises(ConfigError, match="name"):
        Property("band gap", "eV")


def test_censored_needs_floor():
    with pytest.raises(ConfigError, match="floor"):
        Property("band_gap", "eV", censored=True)


@pytest.mark.parametrize("name", ["margin", "resolution"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_margin_and_resolution_are_not_negative(name, value):
    with pytest.raises(ConfigError, match=name):
        Property("band_gap", "eV", floor=0.0, **{name: value})


def test_margin_and_resolution_are_kept():
    declared = Property("band_gap", "eV", floor=0.0, margin=0.2, resolution=0.01)
    assert (declared.margin, declared.resolution) == (0.2, 0.01)


def test_property_has_what_is_declared_only():
    assert Property("energy", "eV") == Property("energy", "eV", floor=None, margin=0.0, censored=False, resolution=0.0)


@pytest.mark.parametrize("made", [lambda: Target.parse(1.0, GAP), lambda: Property("energy", "eV")], ids=["target", "property"])
def test_equal_declarations_are_one_key(made):
    assert len({made(), made()}) == 1
