import pytest
import torch

from matdesinne.benchmark import rejection
from matdesinne.benchmark.rejection import reject
from matdesinne.targets import Target

from ..toys import linear, prop

TARGETS = [Target((0.0,), (0.0,)), Target((1.5,), (1.5,))]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(rejection, "_CHUNK_ROWS", 1000)


def test_designs_are_near_their_target(generator):
    for target, found in zip(TARGETS, reject(linear(), TARGETS, 0.05, 50, 20_000, generator), strict=True):
        assert len(found.designs) == 50
        assert (found.designs.sum(1) - target.lower[0]).abs().max() <= 0.05


def test_designs_are_all_of_the_pool_that_are_near(generator):
    (found,) = reject(linear(), TARGETS[:1], 0.05, 10**6, 2500, generator)
    again = torch.Generator().manual_seed(0)
    pool = torch.cat([linear().space.sample(count, again) for count in (1000, 1000, 500)])
    assert torch.equal(found.designs, pool[pool.sum(1).abs() <= 0.05])


def test_limit(generator):
    found = reject(linear(), [Target((50.0,), (50.0,))], 0.05, 10, 2500, generator)
    assert (len(found[0].designs), found[0].drawn) == (0, 2500)


def test_a_frequent_target_stops_early(generator):
    frequent, rare = reject(linear(), TARGETS, 0.05, 20, 20_000, generator)
    assert frequent.drawn < rare.drawn <= 20_000
    assert frequent.seconds <= rare.seconds


def test_target_at_the_floor_keeps_what_lies_below(generator):
    (found,) = reject(linear(), [Target.parse(0.0, [prop(floor=0.0)])], 0.01, 200, 20_000, generator)
    y = found.designs.sum(1)
    assert y.max() <= 0.01 and y.min() < -1


@pytest.mark.slow
def test_uniform_on_the_level_set(generator):
    (found,) = reject(linear(), TARGETS[:1], 0.05, 2000, 200_000, generator)
    along = found.designs[:, 0].sort().values
    assert (along - torch.linspace(-1, 1, len(along))).abs().max() < 0.06
