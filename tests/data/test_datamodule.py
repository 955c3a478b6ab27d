from types import SimpleNamespace

import pytest
import torch

from matdesinne.data.datamodule import DesignData, SurrogateLabels
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace, Symmetry

from ..conftest import CONF, TableSource, box, linear, prop, rows, tiny_module, toy_data

MIRROR = DesignSpace(box().parameters, [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})])


def attach(data: DesignData) -> DesignData:
    """What Lightning does before it asks for batches."""
    data.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        lightning_module=tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()]),
    )
    return data


def labels(**settings: object) -> SurrogateLabels:
    return SurrogateLabels(**{"pool": 20_000, "count": 4000, **settings})


def test_reads_once():
    data = toy_data()
    assert data.split is data.split


def test_bad_table_names_the_source():
    batch = rows(box(), 10)
    source = TableSource(DesignTable(2 * batch.x, batch.y, torch.arange(10)))
    with pytest.raises(DatasetError, match="memory"):
        _ = DesignData(source, box(), [prop()]).split


def test_duplicates_are_counted_and_do_not_leak():
    batch = rows(box(), 50)
    source = TableSource(DesignTable(batch.x.repeat(3, 1), batch.y.repeat(3, 1), torch.arange(150)))
    data = DesignData(source, box(), [prop()], validation=0.2, test=0.2)
    ids = data.split.row_ids()
    assert data.duplicates == 100
    assert sorted(ids["train"] + ids["validation"] + ids["test"]) == list(range(50))


def test_training_batch_is_the_training_part():
    data = toy_data()
    assert torch.equal(data.training_batch().x, data.split.train.x)


def test_prior_is_the_training_part():
    data = toy_data()
    assert torch.equal(data.prior, data.split.train.y)


def test_only_training_is_augmented():
    data = attach(toy_data(space=MIRROR))
    known = set(map(tuple, data.split.train.x.tolist()))
    seen = {tuple(x) for batch in data.train_dataloader() for x in batch.x.tolist()}
    assert not seen <= known
    assert torch.equal(torch.cat([batch.x for batch in data.val_dataloader()]), data.split.validation.x)


def test_order_seed_changes_the_order():
    orders = [next(iter(attach(toy_data(order_seed=seed)).train_dataloader())).x for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_no_labels_changes_nothing():
    data = toy_data()
    assert data.labelled_by(linear()) is data


def test_labelled_rows_come_from_the_surrogate(close):
    data = toy_data(labels=labels()).labelled_by(linear())
    batch = data.training_batch()
    close(batch.y, batch.x.sum(1, keepdim=True))


def test_labelling_leaves_the_original_alone():
    data = toy_data(labels=labels())
    before = data.training_batch().x
    data.labelled_by(linear())
    assert torch.equal(data.training_batch().x, before)


def test_labelled_rows_are_disjoint():
    data = attach(toy_data(labels=labels())).labelled_by(linear())
    train = set(map(tuple, data.training_rows.x.tolist()))
    validation = {tuple(x) for batch in data.val_dataloader() for x in batch.x.tolist()}
    assert validation and not train & validation


def test_labelled_prior_is_not_thinned():
    data = toy_data(labels=labels()).labelled_by(linear())
    assert len(data.prior) == 20_000
    assert data.prior.std() == pytest.approx((2 / 3) ** 0.5, rel=0.05)


def test_labels_leave_the_global_seed(untouched_seed):
    labels().make(box(), linear())


def test_labels_are_reproducible():
    made = [labels(seed=seed).make(box(), linear())[0].x for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not (made[0].shape == made[2].shape and torch.equal(made[0], made[2]))


@pytest.mark.parametrize("flatness", [0.0, 0.5, 1.0])
def test_labels_count(flatness):
    table, _ = labels(flatness=flatness).make(box(), linear())
    assert len(table) == pytest.approx(4000, rel=0.05)


@pytest.mark.parametrize("flatness", [0.0, 1.0])
def test_labels_are_inside(flatness):
    table, _ = labels(flatness=flatness).make(box(), linear())
    assert box().contains(table.x).all()


def test_flat_labels_are_flatter():
    shares = []
    for flatness in (0.0, 0.5, 1.0):
        y = labels(flatness=flatness).make(box(), linear())[0].y
        shares.append(float((y.abs() < 0.5).float().mean()))
    # the sum of two uniforms: 7/16 within .5; flat on [-2, 2]: 1/4
    assert shares[0] == pytest.approx(7 / 16, abs=0.03)
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0.25, abs=0.05)


def test_labels_below_lower_share_one_weight():
    y = labels(lower=0.0, flatness=0.5, count=10_000).make(box(), linear())[0].y[:, 0]
    below = y[y < 0]
    assert float((below > -0.5).float().mean()) == pytest.approx(7 / 16, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    [{"count": 999}, {"count": 5000, "pool": 4000}, {"flatness": -0.1}, {"flatness": 1.1}, {"flatness": float("nan")}],
)
def test_labels_reject(settings):
    with pytest.raises(ConfigError, match=r"data\.labels"):
        SurrogateLabels(**settings)
