"""What a generative model saves against uniform designs."""

import pytest
import torch

from matdesinne.benchmark.search import search_rows
from matdesinne.localization import Newton
from matdesinne.pipeline import InverseDesign
from matdesinne.selection import All

from ..toys import CONF, box, prop, quadratic, rows, tiny_network


@pytest.fixture(scope="module")
def design() -> InverseDesign:
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    model.fit_scales(rows(box()))
    return InverseDesign(model.eval(), quadratic(), All([]), Newton(), 0.05)


def search(design: InverseDesign, target: object = 0.5, limit: int = 2000, **problem: object):
    return list(search_rows(design, {"one": {"target": target, **problem}}, count=150, batch=100, limit=limit, seed=0))


def test_each_method_finds_as_many_candidates(design):
    sampled, uniform, rejected = search(design)
    assert sampled.method == f"{design.model.label} + localization" and sampled.candidates == uniform.candidates == 150
    assert rejected.drawn == 2000 and 0 < rejected.candidates < 150  # at the limit


def test_evaluations_are_counted(design):
    x = box().sample(2000, torch.Generator().manual_seed(0))
    _, uniform, rejected = search(design)
    assert rejected.evaluations == 2000 and rejected.per_candidate == 2000 / rejected.candidates
    near = (quadratic().predict_many(x)[0] - 0.5).abs() <= 0.05
    assert rejected.candidates == pytest.approx(int(near.sum()), abs=40)  # other draws of the same kind
    assert uniform.evaluations >= 2 * uniform.drawn  # before and while they are localized


def test_bounds_hold_for_every_method(design):
    """The least value in these bounds is 3: nothing is on target."""
    found = search(design, bounds={"x1": [0.9, 1.0], "x2": [0.9, 1.0]})
    assert [row.candidates for row in found] == [0, 0, 0]
    assert all(row.per_candidate is None for row in found)


def test_counting_ends_with_the_search(design):
    search(design, limit=100)
    assert not design.surrogate.features._forward_hooks
