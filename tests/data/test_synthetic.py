import pytest
import torch
from scipy.stats import kstest

from matdesinne.data.synthetic import SyntheticDesigns, SyntheticRows, held_out
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError, TrainingError

from ..toys import Linear, box, linear, prop


def labels(**settings: object) -> SyntheticDesigns:
    return SyntheticDesigns(**{"uniform": 40_000, "chains": 4000, "steps": 4, **settings})


def surrogate(floor: float | None = None, margin: float = 0.0, matrix=(1.0, 1.0)) -> Linear:
    return Linear(box(), [prop("y", floor, margin=margin)], [list(matrix)]).eval()


def whole(made: SyntheticDesigns, surrogate: Linear) -> tuple[DesignTable, torch.Tensor]:
    """All designs in the order in which they were drawn, which `make` splits, and the prior."""
    uniform, flat = made.draw(box(), surrogate)
    return flat, uniform.y


def last_states(made: SyntheticDesigns, table: DesignTable) -> torch.Tensor:
    """One design a chain, the last: chains are independent but for those that start together."""
    return table.x[-made.chains :]


@pytest.mark.slow
def test_counts():
    table, prior = whole(labels(), linear())
    assert len(table) == 4000 * 5
    assert prior.shape == (40_000, 1)
    assert whole(labels(steps=0), linear())[0].x.shape == (4000, 2)


def test_labels_are_those_of_the_surrogate(close):
    table, prior = whole(labels(), linear())
    close(table.y, table.x.sum(1, keepdim=True))
    assert prior.std() == pytest.approx((2 / 3) ** 0.5, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("floor", [None, 0.0])
def test_designs_are_in_the_box(floor):
    table, _ = whole(labels(steps=8), surrogate(floor))
    assert box().contains(table.x, tolerance=0).all()


@pytest.mark.slow
def test_reproducible():
    made = [whole(labels(seed=seed), linear()) for seed in (0, 0, 1)]
    assert torch.equal(made[0][0].x, made[1][0].x)
    assert torch.equal(made[0][0].ids, made[1][0].ids)
    assert not torch.equal(made[0][0].x, made[2][0].x)


def test_leave_the_global_seed(untouched_seed):
    labels().make(box(), linear())


def test_chains_move():
    table, _ = whole(labels(steps=4), linear())
    states = table.x.unflatten(0, (5, 4000))
    moved = (states[0] - states[-1]).norm(dim=1)
    assert (moved > 0).float().mean() > 0.9
    assert moved.median() > 0.05


def test_states_carry_the_number_of_their_start():
    table, _ = whole(labels(), linear())
    ids = table.ids.unflatten(0, (5, 4000))
    assert (ids == ids[0]).all()
    # designs that were chosen twice have one number
    start = table.x[:4000]
    assert len(ids[0].unique()) == len(start.unique(dim=0))


@pytest.mark.parametrize("steps", [0, 8])
def test_flat_without_a_floor(steps):
    made = labels(steps=steps)
    table, _ = whole(made, linear())
    y = table.y[-made.chains :, 0]
    share = torch.histc(y, 8, -1.8, 1.8) / ((y > -1.8) & (y < 1.8)).sum()
    # the sum of two uniforms has three times as much in the middle as at the ends
    assert ((share - 1 / 8).abs() < 0.02).all()


def test_no_value_is_singled_out():
    """Without a floor the smallest label is one of many."""
    table, prior = whole(labels(steps=0), linear())
    assert (table.y == prior.min()).float().mean() < 0.01


@pytest.mark.parametrize("floor", [-3.0, -2.5])
def test_floor_that_nothing_reaches(floor):
    table, prior = whole(labels(steps=0), surrogate(floor))
    assert (table.y == prior.min()).float().mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 8])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.5])
@pytest.mark.parametrize(("floor", "margin"), [(0.0, 0.0), (0.5, 0.25)])
def test_floor_share(share, steps, floor, margin):
    made = labels(floor_share=share, steps=steps)
    table, _ = whole(made, surrogate(floor, margin))
    y = table.y[-made.chains :, 0]
    edge = floor - margin
    assert (y <= edge).float().mean() == pytest.approx(share, abs=0.025)
    above = y[y > edge]
    counts = torch.histc(above, 6, edge, 1.8)
    assert ((counts / counts.sum() - 1 / 6).abs() < 0.03).all()


@pytest.mark.slow
def test_below_the_floor_designs_are_as_the_prior():
    made = labels(floor_share=0.9, steps=8)
    table, prior = whole(made, surrogate(0.0))
    y = table.y[-made.chains :, 0]
    uniform = prior[prior <= 0]
    assert kstest(y[y <= 0].numpy(), uniform.numpy()).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 8])
@pytest.mark.parametrize("floor", [None, 0.0])
def test_designs_are_uniform_at_fixed_y(floor, steps):
    """y = x1: x2 is uniform at every y."""
    made = labels(steps=steps)
    table, _ = whole(made, surrogate(floor, matrix=(1.0, 0.0)))
    x = last_states(made, table)
    for low, high in ((-1.0, 0.0), (0.0, 0.5), (0.5, 1.0)):
        chosen = x[(x[:, 0] > low) & (x[:, 0] <= high), 1]
        assert len(chosen) > 100
        assert kstest(chosen.numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 8])
def test_designs_are_uniform_on_level_sets(steps):
    """y = x1 + x2: x1 - x2 is uniform on [-(2 - |y|), 2 - |y|]."""
    made = labels(steps=steps)
    table, _ = whole(made, linear())
    x = last_states(made, table).double()
    y, across = x.sum(1), x[:, 0] - x[:, 1]
    for low, high in ((-1.9, -0.5), (-0.5, 0.5), (0.5, 1.9)):
        chosen = (y > low) & (y < high)
        assert kstest((across / (2 - y.abs()))[chosen].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("made", [surrogate(floor=5.0), surrogate(matrix=(0.0, 0.0))], ids=["floor", "constant"])
def test_surrogate_that_finds_nothing(made):
    with pytest.raises(TrainingError, match=r"y above .* eV.*floor"):
        labels().make(box(), made)


def test_several_properties_take_the_uniform_designs():
    table, prior = whole(labels(), linear(outputs=2))
    assert len(table) == 40_000
    assert torch.equal(table.y, prior)
    assert table.ids.tolist() == list(range(40_000))


@pytest.mark.parametrize(
    "settings",
    [
        {"uniform": 999},
        {"chains": 99},
        {"steps": -1},
        {"floor_share": -0.1},
        {"floor_share": 1.0},
        {"floor_share": float("nan")},
    ],
)
def test_rejects(settings):
    with pytest.raises(ConfigError, match=r"data\.synthetic"):
        SyntheticDesigns(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
def test_rows_are_split_for_validation(outputs):
    train, validation, prior = made = labels(uniform=2000, chains=3000).make(box(), linear(outputs=outputs))
    table, expected = whole(labels(uniform=2000, chains=3000), linear(outputs=outputs))
    assert isinstance(made, SyntheticRows) and torch.equal(prior, expected)
    assert len(train) + len(validation) == len(table)
    assert 0.01 < len(validation) / len(table) < 0.03
    rows = torch.cat([train.x, validation.x])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, table.x.tolist()))


def test_no_chain_is_on_both_sides():
    """Also designs that were chosen twice, and the states that follow from them, stay together."""
    train, validation, _ = labels(uniform=1000, chains=3000, steps=3).make(box(), linear())
    assert len(validation) and not set(train.ids.tolist()) & set(validation.ids.tolist())
    assert len(train) + len(validation) == 3000 * 4


@pytest.mark.parametrize("starts", [[7, 8], [3, 4, 9]])
def test_few_starts_leave_something_to_validate_on(starts):
    """None of their numbers is a multiple of fifty."""
    ids = torch.tensor(starts).repeat(5)
    train, validation = held_out(DesignTable(torch.rand(len(ids), 2), torch.rand(len(ids), 1), ids))
    assert set(validation.ids.tolist()) == {starts[1]}
    assert set(train.ids.tolist()) == {*starts} - {starts[1]}


def test_held_out_rows_are_one_number_in_fifty():
    ids = torch.arange(200).repeat_interleave(2)
    train, validation = held_out(DesignTable(torch.rand(400, 2), torch.rand(400, 1), ids))
    assert validation.ids.tolist() == [0, 0, 50, 50, 100, 100, 150, 150]
    assert len(train) == 392 and not set(train.ids.tolist()) & set(validation.ids.tolist())
