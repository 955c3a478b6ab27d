import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace, Parameter, Symmetry
from matdesinne.surrogates.mlp import MLPSurrogate

from .toys import box, line, load_part, prop


@pytest.fixture(scope="module")
def mos2() -> DesignSpace:
    return load_part("space")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("a b", "m"), "name"),
        (("a", "m", 2.0, 1.0), "lower <= upper"),
        (("a", "m", math.nan, 1.0), "lower <= upper"),
    ],
)
def test_parameter_rejects(values, words):
    with pytest.raises(ConfigError, match=words):
        Parameter(*values)


@pytest.mark.parametrize(("lower", "upper", "bounded"), [(0, 1, True), (0, math.inf, False), (-math.inf, math.inf, False)])
def test_parameter_bounded(lower, upper, bounded):
    assert Parameter("a", "m", lower, upper).bounded is bounded


def test_space_needs_parameters():
    with pytest.raises(ConfigError, match="at least one"):
        DesignSpace([])


def test_space_needs_distinct_names():
    with pytest.raises(ConfigError, match="distinct"):
        DesignSpace([Parameter("a", "m"), Parameter("a", "m")])


@pytest.mark.parametrize("rule", [{"z": [1, "x1", 0]}, {"x1": [1, "z", 0]}])
def test_symmetry_names_parameters(rule):
    with pytest.raises(ConfigError, match="'z'"):
        DesignSpace(box().parameters, [Symmetry(rule)])


@pytest.mark.parametrize("rule", [[1, "x2"], [1, "x2", 0, 0], ["one", "x2", 0]])
def test_symmetry_rule_has_three_entries(rule):
    with pytest.raises(ConfigError, match="factor"):
        DesignSpace(box().parameters, [Symmetry({"x1": rule})])


@pytest.mark.slow
def test_infinite_group_is_an_error():
    with pytest.raises(ConfigError, match="group"):
        DesignSpace(box().parameters, [Symmetry({"x1": [1, "x1", 1]})]).group()


@pytest.mark.slow
def test_index_finds_column(mos2):
    assert [mos2.index(name) for name in mos2.names] == list(range(7))


def test_index_rejects_unknown():
    with pytest.raises(ConfigError, match="x1"):
        box().index("z")


@pytest.mark.parametrize(
    ("point", "inside"),
    [((0.0, 0.0), True), ((1.0, -1.0), True), ((1.0 + 1e-6, 0.0), True), ((1.01, 0.0), False), ((math.nan, 0.0), False)],
)
def test_contains(point, inside):
    assert box().contains(torch.tensor([point])).tolist() == [inside]


def test_contains_everything_without_bounds():
    assert line().contains(torch.tensor([[1e30, -1e30]])).all()


def test_contains_half_bounded():
    space = DesignSpace([Parameter("a", "m", lower=0.0)])
    assert space.contains(torch.tensor([[-0.1], [1e9]])).tolist() == [False, True]


def test_sample_inside(mos2, generator):
    assert mos2.contains(mos2.sample(1000, generator), tolerance=0).all()


def test_sample_uniform(generator):
    x = box(scale=2.0).sample(20_000, generator)
    assert x.mean(0).abs().max() < 0.05
    assert (x.var(0) - 4 / 3).abs().max() < 0.05


def test_sample_reproducible():
    draws = [box().sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_sample_leaves_global_seed(generator, untouched_seed):
    box().sample(5, generator)


def test_sample_needs_bounds():
    with pytest.raises(ConfigError, match="x1"):
        line().sample(3)


def test_group_of_mos2_has_four_elements(mos2):
    assert len(mos2.group()) == 4


def test_group_starts_with_identity(mos2, generator):
    x = mos2.sample(10, generator)
    assert torch.equal(mos2.group()[0](x), x)


def test_group_is_closed(mos2, close, generator):
    x = mos2.sample(5, generator)
    images = [element(x) for element in mos2.group()]
    for first in mos2.group():
        for image in images:
            assert any(torch.allclose(first(image), known, atol=1e-3) for known in images)


def test_group_keeps_the_box(mos2, generator):
    x = mos2.sample(100, generator)
    assert all(mos2.contains(element(x)).all() for element in mos2.group())


def test_group_without_symmetries_is_the_identity():
    assert len(box().group()) == 1


LOPSIDED = DesignSpace(
    [Parameter("x1", "m", -1.0, 1.0), Parameter("x2", "m", -0.5, 1.0)],
    [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})],
)
"""The swap takes designs with x1 below -0.5 out of the box."""


def test_folding_is_the_same_for_all_images(mos2, generator, close):
    x = mos2.sample(200, generator)
    canonicalize = mos2.canonicalize(mos2.images(x).flatten(0, 1)).view(200, 4, -1)
    close(canonicalize, canonicalize[:, :1].expand_as(canonicalize), factor=100)


def test_folding_gives_an_image(mos2, generator):
    x = mos2.sample(200, generator)
    assert ((mos2.images(x) == mos2.canonicalize(x).unsqueeze(1)).all(dim=2)).any(dim=1).all()


def test_folding_takes_the_larger_first_parameter(mos2, generator):
    canonicalize = mos2.canonicalize(mos2.sample(200, generator))
    assert (canonicalize[:, mos2.index("a")] >= canonicalize[:, mos2.index("b")]).all()
    assert (canonicalize[:, mos2.index("alpha")] >= 90).all()


def test_folding_keeps_what_lies_on_a_mirror(mos2):
    x = torch.tensor([[3.0, 3.0, 12.0, 90.0, 90.0, 110.0, 0.0]])
    assert torch.equal(mos2.canonicalize(x), x)


def test_folding_stays_inside(generator):
    x = LOPSIDED.sample(500, generator)
    canonicalize = LOPSIDED.canonicalize(x)
    assert LOPSIDED.contains(canonicalize, tolerance=0).all()
    assert torch.equal(canonicalize[x[:, 0] < -0.5], x[x[:, 0] < -0.5])
    both = x[:, 0] >= -0.5
    assert (canonicalize[both, 0] >= canonicalize[both, 1]).all()


def test_random_images_are_equally_likely(mos2, generator):
    x = mos2.sample(1, generator).expand(40_000, -1)
    drawn = mos2.random_images(x, torch.rand(40_000, generator=generator))
    counts = [(drawn == image).all(dim=1).sum() for image in mos2.images(x[:1])[0]]
    assert sum(counts) == 40_000
    assert min(counts) > 9_600


def test_random_images_stay_inside(generator):
    x = LOPSIDED.sample(2000, generator)
    drawn = LOPSIDED.random_images(x, torch.rand(2000, generator=generator))
    assert LOPSIDED.contains(drawn, tolerance=0).all()
    alone = x[:, 0] < -0.5
    assert torch.equal(drawn[alone], x[alone])
    assert (drawn[~alone] != x[~alone]).any(dim=1).float().mean() == pytest.approx(0.5, abs=0.05)


def test_mos2_symmetries_are_the_published_ones(mos2, close):
    x = torch.tensor([[3.0, 3.1, 12.0, 80.0, 95.0, 110.0, 0.3]])
    images = {tuple(round(v, 3) for v in element(x)[0].tolist()) for element in mos2.group()}
    assert (3.0, 3.1, 12.0, 100.0, 85.0, 110.0, -0.3) in images
    assert (3.1, 3.0, 12.0, 85.0, 100.0, 110.0, 0.3) in images


@pytest.mark.parametrize("space", ["mos2", "line", "half"])
def test_plain_round_trip(space, mos2):
    made = {"mos2": mos2, "line": line(), "half": DesignSpace([Parameter("a", "m", lower=0.0, reference=1.0)])}[space]
    assert DesignSpace.from_dict(made.to_dict()) == made


def test_plain_form_is_json(mos2):
    import json

    assert DesignSpace.from_dict(json.loads(json.dumps(mos2.to_dict(), allow_nan=False))) == mos2


def test_order_names_every_parameter_once():
    space = DesignSpace([Parameter("a", "1"), Parameter("b", "1")], order=["b", "a"])
    assert DesignSpace.from_dict(space.to_dict()) == space
    with pytest.raises(ConfigError, match="order"):
        DesignSpace([Parameter("a", "1"), Parameter("b", "1")], order=["b", "b"])


def test_narrowed_bounds_hold_as_they_were_given():
    """Also where no float32 number equals them."""
    narrow = box(2, scale=5.0).narrowed({"x1": [3.1, 3.3]})
    assert narrow.lower[0].item() >= 3.1 and narrow.upper[0].item() <= 3.3
    assert (narrow.lower[1], narrow.upper[1]) == (-5.0, 5.0)
    torch.testing.assert_close(narrow.lower[0].item(), 3.1, rtol=1e-6, atol=0)


def test_narrowed_keeps_an_open_edge():
    narrow = box().narrowed({"x1": [None, 0.5], "x2": [0.25, None]})
    assert (narrow.lower.tolist(), narrow.upper.tolist()) == ([-1.0, 0.25], [0.5, 1.0])


def test_fixed_is_one_value():
    narrow = box().narrowed(fixed={"x2": 0.1})
    assert narrow.lower[1] == narrow.upper[1] == torch.tensor(0.1)
    assert DesignSpace.from_dict(narrow.to_dict()) == narrow


def test_nothing_narrowed_is_the_space():
    assert box().narrowed() == box().narrowed({}, {}) == box()


@pytest.mark.parametrize(
    ("bounds", "fixed", "words"),
    [
        ({"x9": [0.0, 1.0]}, {}, "x9"),
        ({}, {"x9": 0.0}, "x9"),
        ({"x1": [0.5, 0.2]}, {}, "lower <= upper"),
        ({"x1": [-2.0, 0.2]}, {}, "stay in"),
        ({"x1": [0.0, 2.0]}, {}, "stay in"),
        ({}, {"x1": 1.5}, "stay in"),
        ({}, {"x1": math.nan}, "stay in"),
        ({}, {"x1": "abc"}, "stay in"),
        ({}, {"x1": None}, "a number"),
        ({"x1": 0.5}, {}, "two numbers"),
        ({"x1": [0.0]}, {}, "two numbers"),
        ({"x1": [0.0, 1.0]}, {"x1": 0.5}, "both"),
    ],
)
def test_narrowed_rejects(bounds, fixed, words):
    with pytest.raises(ConfigError, match=words):
        box().narrowed(bounds, fixed)


def test_nothing_is_trained_on_a_fixed_parameter():
    with pytest.raises(ConfigError, match="x2"):
        MLPSurrogate(box().narrowed(fixed={"x2": 0.5}), [prop()], hidden=4)


MIXED = DesignSpace(
    [Parameter("a", "m", 2.0, 6.0), Parameter("b", "m", 3.0, 3.0), Parameter("c", "m", lower=1.0), Parameter("d", "m")]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_unit_maps_the_box_to_one(close, dtype):
    x = torch.tensor([[2.0, 3.0, 5.0, -7.0], [5.0, 3.0, 1.0, 7.0]], dtype=dtype)
    close(MIXED.to_unit(x), torch.tensor([[-1.0, 0.0, 5.0, -7.0], [0.5, 0.0, 1.0, 7.0]], dtype=dtype))


def test_to_unit_takes_rows_in_groups(mos2, close):
    corners = torch.stack([mos2.lower, mos2.upper]).unsqueeze(1)
    close(mos2.to_unit(corners), torch.tensor([-1.0, 1.0]).reshape(2, 1, 1).expand(2, 1, 7), factor=10)


def test_strains_are_relative_to_the_reference(mos2, close):
    x = mos2.reference * torch.tensor([1.1, 1.0, 1.0, 1.0, 1.0, 0.9, 1.0])
    close(mos2.strains(x.unsqueeze(0), ["gamma", "a", "b"])[0], [-0.1, 0.1, 0.0])


def test_strains_of_an_unknown_parameter(mos2):
    with pytest.raises(ConfigError, match="'z'"):
        mos2.strains(mos2.reference.unsqueeze(0), ["z"])


@pytest.fixture
def layer() -> DesignSpace:
    """A free-standing layer: lengths in the plane vary, the height of the cell is constant."""
    lengths = [Parameter(name, "angstrom", 3.0, 3.4, reference=3.2) for name in "ab"]
    return DesignSpace(lengths, constants={"c": 16.0, "gamma": 120.0})


def test_values_of_parameters_and_constants(layer):
    x = torch.tensor([[3.1, 3.2], [3.3, 3.0]])
    expected = torch.tensor([[120.0, 3.2, 16.0], [120.0, 3.0, 16.0]])
    assert torch.equal(layer.values(x, ["gamma", "b", "c"]), expected)
    assert layer.design([3.1, 3.2]) == {"a": 3.1, "b": 3.2, "c": 16.0, "gamma": 120.0}
    assert layer.has(["a", "c"])
    assert not layer.has(["a", "alpha"])
    with pytest.raises(ConfigError, match="'alpha'"):
        layer.values(x, ["alpha"])


def test_constants_survive(layer):
    assert DesignSpace.from_dict(layer.to_dict()) == layer
    assert layer.narrowed(bounds={"a": [3.1, None]}).constants == layer.constants
    assert "constants" not in box(2).to_dict()


def test_a_constant_is_no_parameter():
    with pytest.raises(ConfigError, match="distinct"):
        DesignSpace([Parameter("a", "angstrom", 3.0, 3.4)], constants={"a": 3.2})
