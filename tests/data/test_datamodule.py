from types import SimpleNamespace

import pandas
import pytest
import torch

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.synthetic import SyntheticDesigns
from matdesinne.data.table import DesignTable
from matdesinne.errors import DatasetError
from matdesinne.space import DesignSpace, Symmetry
from matdesinne.training.module import DesignModule

from ..conftest import CONF, TableSource, box, linear, prop, rows, tiny_module, toy_data

MIRROR = DesignSpace(box().parameters, [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})])


def attach(data: DesignDataModule) -> DesignDataModule:
    """What Lightning does before it asks for batches."""
    data.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        lightning_module=DesignModule(tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()])),
    )
    return data


def labels(**settings: object) -> SyntheticDesigns:
    return SyntheticDesigns(**{"uniform": 20_000, "chains": 400, "steps": 3, **settings})


def test_reads_once():
    data = toy_data()
    assert data.split is data.split


def test_bad_table_names_the_source():
    batch = rows(box(), 10)
    source = TableSource(DesignTable(2 * batch.x, batch.y, torch.arange(10)))
    with pytest.raises(DatasetError, match="memory"):
        _ = DesignDataModule(source, box(), [prop()]).split


def test_duplicates_are_counted_and_do_not_leak():
    batch = rows(box(), 50)
    source = TableSource(DesignTable(batch.x.repeat(3, 1), batch.y.repeat(3, 1), torch.arange(150)))
    data = DesignDataModule(source, box(), [prop()], validation=0.2, test=0.2)
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


class Counted:
    """Labels that remember who was asked to make them."""

    def __init__(self) -> None:
        self.surrogates = []

    def make(self, space, surrogate):
        self.surrogates.append(surrogate)
        return labels().make(space, surrogate)


USES = {
    "labelled": lambda data: data.labelled,
    "rows": lambda data: data.training_rows,
    "prior": lambda data: data.prior,
    "batch": lambda data: data.training_batch(),
    "training": lambda data: attach(data).train_dataloader(),
    "validation": lambda data: attach(data).val_dataloader(),
}


def test_labels_are_not_made_before_they_are_needed():
    counted = Counted()
    data = toy_data(labels=counted).labelled_by(linear())
    assert len(data.split.train) and counted.surrogates == []


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_labels_are_made_on_first_use_and_once(use):
    counted, made = Counted(), linear()
    data = toy_data(labels=counted).labelled_by(made)
    for _ in range(2):
        use(data)
    assert counted.surrogates == [made]


def test_another_surrogate_labels_anew():
    counted, first, second = Counted(), linear(), linear()
    data = toy_data(labels=counted).labelled_by(first)
    before = data.training_rows
    assert data.labelled_by(second).training_rows is not before
    assert counted.surrogates == [first, second]
    assert data.training_rows is before


def test_no_surrogate_no_labelled_rows():
    assert toy_data(labels=Counted()).labelled is None


def test_a_judge_trains_on_the_table():
    """Not on what another surrogate labelled, nor does it make these labels."""
    counted = Counted()
    data = toy_data(labels=counted).labelled_by(linear())
    assert len(data.with_all_rows().training_rows) == 256
    assert counted.surrogates == []


def test_labelled_rows_are_disjoint():
    data = attach(toy_data(labels=labels()).labelled_by(linear()))
    train = set(map(tuple, data.training_rows.x.tolist()))
    validation = {tuple(x) for batch in data.val_dataloader() for x in batch.x.tolist()}
    assert validation and not train & validation


def test_labelled_prior_is_not_thinned():
    data = toy_data(labels=labels()).labelled_by(linear())
    assert len(data.prior) == 20_000
    assert data.prior.std() == pytest.approx((2 / 3) ** 0.5, rel=0.05)


def test_no_chain_is_on_both_sides():
    """Also designs that were chosen twice, and the states that follow from them, stay together."""
    data = toy_data(labels=labels(uniform=1000, chains=3000)).labelled_by(linear())
    (train, validation, _) = data.labelled
    assert len(validation) and not set(train.ids.tolist()) & set(validation.ids.tolist())
    assert len(train) + len(validation) == 3000 * 4


def test_every_row_can_train_a_judge():
    data = toy_data()
    whole = data.with_all_rows()
    assert sorted(whole.training_rows.ids.tolist()) == list(range(256))
    assert len(data.training_rows) < 256
    assert set(whole.split.validation.ids.tolist()) <= set(range(256)) and len(whole.split.validation) == 26


def test_root_reaches_the_source(tmp_path):
    seen = []
    source = TableSource(DesignTable(*rows(box(), 50)[:2], torch.arange(50)))
    load = source.load
    source.load = lambda space, properties, root: seen.append(root) or load(space, properties)
    _ = DesignDataModule(source, box(), [prop()], root=str(tmp_path)).split
    assert seen == [tmp_path]


def write_labels(folder, x: torch.Tensor, y: torch.Tensor, failed: int = 0):
    """What label.py writes, as far as training reads it; the last rows failed."""
    frame = pandas.DataFrame(x.double().numpy(), columns=["x1", "x2"])
    frame["y"] = y[:, 0].double().numpy()
    frame["status"] = ["done"] * (len(x) - failed) + ["failed"] * failed
    frame.loc[frame["status"] == "failed", "y"] = float("nan")
    frame.to_parquet(folder / "labels.parquet")
    return str(folder / "labels.parquet")


def test_added_labels_join_the_training_rows_only(tmp_path):
    more = rows(box(), 20, seed=1)
    before, after = toy_data().split, toy_data(added=[write_labels(tmp_path, more.x, more.y, failed=3)]).split
    assert torch.equal(after.validation.x, before.validation.x) and torch.equal(after.test.x, before.test.x)
    assert torch.equal(after.train.x, torch.cat([before.train.x, more.x[:17]]))
    assert after.train.ids[-17:].tolist() == [-1 - row for row in range(17)]


def test_added_labels_of_held_out_designs_are_dropped(tmp_path):
    plain = toy_data().split
    path = write_labels(tmp_path, torch.cat([plain.test.x, plain.train.x[:5]]), torch.cat([plain.test.y, plain.train.y[:5]]))
    data = toy_data(added=[path])
    assert torch.equal(data.split.train.x, plain.train.x)
    assert data.duplicates == len(plain.test) + 5


def test_several_added_tables_have_distinct_ids(tmp_path):
    paths = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        more = rows(box(), 10, seed=seed)
        paths.append(write_labels(tmp_path / str(seed), more.x, more.y))
    ids = toy_data(added=paths).split.train.ids
    assert ids[-20:].tolist() == [-1 - row for row in range(20)]


@pytest.mark.parametrize("change", ["nowhere", "text", "column"])
def test_added_table_that_is_none(tmp_path, change):
    path = tmp_path / "labels.parquet"
    if change == "text":
        path.write_text("x1,x2,y")
    if change == "column":
        pandas.DataFrame({"x1": [0.1], "y": [0.2], "status": ["done"]}).to_parquet(path)
    with pytest.raises(DatasetError, match=r"labels\.parquet"):
        _ = toy_data(added=[str(path)]).split


@pytest.mark.parametrize("starts", [[7, 8], [3, 4, 9]])
def test_few_starts_leave_something_to_validate_on(starts):
    """None of their numbers is a multiple of fifty."""
    ids = torch.tensor(starts).repeat(5)
    table = DesignTable(torch.rand(len(ids), 2), torch.rand(len(ids), 1), ids)
    labels = SimpleNamespace(make=lambda space, surrogate: (table, table.y))
    training, validation, _ = toy_data(labels=labels).labelled_by(linear()).labelled
    assert set(validation.ids.tolist()) == {starts[1]}
    assert set(training.ids.tolist()) == {*starts} - {starts[1]}
