import sys

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.exploration import embedding
from matdesinne.exploration.embedding import embed

from ..toys import box, candidates, linear, rows
from .conftest import table


def tables(count: int, targets: int = 2):
    surrogate = linear()
    return surrogate, [candidates(surrogate, rows(box(), count, seed=i).x, 0.5) for i in range(targets)]


def test_shares_of_a_full_map(flat, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS", 40)
    surrogate, generated = tables(50)
    found = embed(surrogate.scale, table(surrogate, rows(box(), 60).x), generated, 0)
    assert found is not None and found.labelled is not None
    assert [len(found.labelled[0]), *(len(entry) for entry, _ in found.generated)] == [20, 10, 10]


def test_places_belong_to_their_designs(flat):
    surrogate, generated = tables(30)
    found = embed(surrogate.scale, table(surrogate, rows(box(), 20, seed=9).x), generated, 0)
    assert found is not None and found.labelled is not None
    for designs, places in [(found.labelled[0].x, found.labelled[1]), *((t.designs, p) for t, p in found.generated)]:
        torch.testing.assert_close(surrogate.scale(designs), torch.from_numpy(places))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    surrogate, generated = tables(30)
    with pytest.raises(ConfigError, match=r"pip install umap-learn.*matdesinne\[explore\]"):
        embed(surrogate.scale, None, generated, 0)


@pytest.mark.slow
def test_umap_keeps_clusters_and_its_seed():
    """Two far groups of designs stay apart; the same seed gives the same map, without touching the global seed."""
    pytest.importorskip("umap")
    surrogate, [generated] = tables(60, 1)
    side = torch.arange(60) % 2 == 0
    generated.designs[:] = 0.02 * generated.designs + torch.where(side, 0.8, -0.8).unsqueeze(1)
    before = torch.random.get_rng_state()
    first, again = (embed(surrogate.scale, None, [generated], 0) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first is not None and again is not None
    places = torch.from_numpy(first.generated[0][1])
    assert torch.equal(places, torch.from_numpy(again.generated[0][1]))
    within = max(torch.cdist(places[part], places[part]).amax() for part in (side, ~side))
    assert torch.cdist(places[side], places[~side]).amin() > within / 2
