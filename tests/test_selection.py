import math

import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.selection import All, InsideSpace, Selection, Spread, Tolerance
from matdesinne.targets import Target

from .conftest import box, prop


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


def test_spread():
    assert Spread(0.1).mask(table(std=[[0.05], [0.2], [math.nan]])).tolist() == [True, False, False]


def test_spread_needs_every_property():
    assert Spread(0.1).mask(table(std=[[0.05, 0.05], [0.05, 0.2]])).tolist() == [True, False]


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


@pytest.mark.parametrize("rule", [InsideSpace(), Tolerance(0.1), Spread(0.1), All([Tolerance(0.1)])])
def test_rows_are_independent(rule):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, 4, generator=generator).mul(0.3)
    made = table(values[:, :2].tolist(), values[:, 2:3].tolist(), values[:, 3:].abs().tolist())
    alone = [rule.mask(made.take(torch.tensor([row]))).item() for row in range(20)]
    assert rule.mask(made).tolist() == alone
