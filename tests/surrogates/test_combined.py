"""Surrogates side by side predict what each predicts alone."""

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.localization import Adam, Newton
from matdesinne.network import Batch
from matdesinne.surrogates.combined import CombinedSurrogate
from matdesinne.surrogates.gp import GPSurrogate

from ..toys import CONF, Linear, Quadratic, box, candidates, linear, prop, rows, tiny_network


def parts(dimension: int = 3):
    space = box(dimension)
    bowl = Quadratic(space, [prop("energy")], [[0.1] * dimension])
    plane = Linear(space, [prop("gap"), prop("width")], [[1.0, 1.0, 0.0], [1.0, 0.0, -1.0]])
    return [plane.eval(), bowl.eval()]


@pytest.fixture
def combined() -> CombinedSurrogate:
    found = parts()
    for number, part in enumerate(found):
        part.spread_offset.fill_(0.1 * (number + 1))
        part.spread_quantiles.mul_(number + 2)
    return CombinedSurrogate(found).eval()


def test_predicts_what_the_parts_predict(combined):
    x = rows(box(3), 40).x
    for function in ("predict", "predict_many", "linearize"):
        expected = [torch.cat(columns, 1) for columns in zip(*(getattr(p, function)(x) for p in combined.parts), strict=True)]
        for found, wanted in zip(getattr(combined, function)(x), expected, strict=True):
            torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(combined.predict_mean(x), combined.predict(x)[0])
    assert [declared.name for declared in combined.properties] == ["gap", "width", "energy"]


def test_spread_of_each_property_is_that_of_its_part(combined):
    std = combined.predict(rows(box(3), 10).x)[1]
    for function in (lambda s, y: s.half_width(y, 0.9), lambda s, y: s.expected_error(y), lambda s, y: s.coverage(y, 2 * y)):
        expected = torch.cat([function(part, y) for part, y in zip(combined.parts, std.split([2, 1], 1), strict=True)], 1)
        torch.testing.assert_close(function(combined, std), expected)


def test_calibration_reaches_the_parts():
    combined = CombinedSurrogate(parts()).eval()
    x = rows(box(3), 200).x
    y = combined.predict_many(x)[0] + torch.tensor([0.1, 0.2, 0.3])
    combined.calibrate(Batch(x, y))
    assert torch.equal(combined.spread_quantiles, torch.cat([part.spread_quantiles for part in combined.parts]))
    assert combined.spread_offset[2] == combined.parts[1].spread_offset > 0


def test_scales_are_those_of_the_columns():
    space = box()
    combined = CombinedSurrogate([tiny_network(CONF / "surrogate" / "mlp.yaml", space, [prop(name)]) for name in ("y", "w")])
    batch = rows(space, outputs=2)
    combined.fit_scales(batch)
    for part, y in zip(combined.parts, batch.y.T, strict=True):
        assert part.target_scale.mean.item() == pytest.approx(y.mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "names", "columns"),
    [
        ([True, False, False], ["gap", "width"], [0, 1]),
        ([False, False, True], ["energy"], [2]),
        ([False, True, True], ["gap", "width", "energy"], [0, 1, 2]),
        ([False, False, False], ["gap", "width"], [0, 1]),
    ],
)
def test_needed_parts(combined, asked, names, columns):
    part, found = combined.needed(asked)
    assert ([declared.name for declared in part.properties], found) == (names, columns)


@pytest.mark.parametrize("method", [Newton(), Adam(rate=0.05)], ids=["newton", "adam"])
@pytest.mark.parametrize("target", [{"gap": 0.5}, {"energy": 0.6}], ids=["first", "last"])
def test_localization_follows_the_asked_parts_alone(combined, method, target, monkeypatch):
    plane, bowl = combined.parts
    idle = bowl if "gap" in target else plane
    monkeypatch.setattr(idle, "linearize", None)
    moved = method.localize(candidates(combined, rows(box(3), 20).x, target), combined)
    assert moved.error.max() < 1e-4
    torch.testing.assert_close(moved.mean, combined.predict_many(moved.designs)[0])
    torch.testing.assert_close(moved.std, combined.predict_many(moved.designs)[1])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (list, "at least one"),
        (lambda: [linear(), linear()], "different properties"),
        (lambda: [linear(2), Linear(box(3), [prop("w")], [[1.0, 0.0, 0.0]])], "one design space"),
    ],
    ids=["none", "twice", "spaces"],
)
def test_needs_different_surrogates_of_one_space(made, words):
    with pytest.raises(ConfigError, match=words):
        CombinedSurrogate(made())


def test_members_and_description_are_those_of_the_parts(combined):
    with pytest.raises(ConfigError, match="one of the parts"):
        combined.member_predictions(torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="save the parts"):
        combined.to_config()


def test_a_gaussian_process_beside_a_perceptron():
    space = box()
    process = GPSurrogate(space, [prop("energy")])
    perceptron = tiny_network(CONF / "surrogate" / "mlp.yaml", space, [prop("gap")])
    batch = rows(space, 30)
    for part in (process, perceptron):
        part.fit_scales(batch)
    combined = CombinedSurrogate([perceptron, process]).eval()
    found = combined.linearize(batch.x)
    assert found.jacobian.shape == (30, 2, 2) and found.std.isfinite().all()
