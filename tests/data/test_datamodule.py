import copy
from types import SimpleNamespace

import pandas
import pytest
import torch

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.sources import TableSource as MemorySource
from matdesinne.data.synthetic import SyntheticDesigns, SyntheticRows
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace, Symmetry

from ..toys import CONF, TableSource, box, linear, load_part, prop, rows, tiny_module, toy_data, trainer

MIRROR = DesignSpace(box().parameters, [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})])


def attach(data: DesignDataModule) -> DesignDataModule:
    """What Lightning does before it asks for batches."""
    data.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def synthetic_rows(**settings: object) -> SyntheticRows:
    made = SyntheticDesigns(**{"uniform": 20_000, "chains": 400, "steps": 3, **settings})
    return made.make(box(), linear())


def synthetic_data(space: DesignSpace | None = None, **settings: object) -> DesignDataModule:
    """Data whose training rows a surrogate has labelled."""
    return toy_data(space=space).with_rows(*synthetic_rows(**settings))


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


def test_synthetic_rows_come_from_the_surrogate(close):
    batch = synthetic_data().training_batch()
    close(batch.y, batch.x.sum(1, keepdim=True))


def test_other_rows_leave_the_original_alone():
    data = toy_data()
    before, prior = data.training_batch().x, data.prior
    data.with_rows(*synthetic_rows())
    assert torch.equal(data.training_batch().x, before) and torch.equal(data.prior, prior) and data.augments


def test_other_rows_leave_the_test_rows():
    data = toy_data()
    other = data.with_rows(*synthetic_rows())
    assert torch.equal(other.split.test.x, data.split.test.x)
    assert (other.space, other.properties) == (data.space, data.properties)


def test_other_rows_are_those_that_are_given():
    train, validation, prior = synthetic_rows()
    data = attach(toy_data().with_rows(train, validation, prior))
    assert data.training_rows is train and data.split.validation is validation and data.prior is prior
    assert torch.equal(torch.cat([batch.x for batch in data.val_dataloader()]), validation.x)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [True, False])
def test_rows_with_a_prior_of_their_own_are_not_augmented(prior):
    """Synthetic designs fill the box already; rows without a prior are those of a table."""
    train, validation, values = synthetic_rows()
    data = attach(toy_data(space=MIRROR).with_rows(train, validation, values if prior else None))
    known = set(map(tuple, train.x.tolist()))
    seen = {tuple(x) for batch in data.train_dataloader() for x in batch.x.tolist()}
    assert (seen <= known) is prior


def test_prior_of_other_rows_is_that_of_the_training_rows_unless_given():
    train, validation, _ = synthetic_rows()
    assert toy_data().with_rows(train, validation).prior is train.y


def test_an_evaluator_trains_on_the_table():
    """Not on what a surrogate labelled, which `with_rows` gives to a copy."""
    data = toy_data()
    data.with_rows(*synthetic_rows())
    assert len(data.with_all_rows().training_rows) == 256


def test_synthetic_rows_are_disjoint():
    data = attach(synthetic_data())
    train = set(map(tuple, data.training_rows.x.tolist()))
    validation = {tuple(x) for batch in data.val_dataloader() for x in batch.x.tolist()}
    assert validation and not train & validation


def test_synthetic_prior_is_not_thinned():
    data = synthetic_data()
    assert len(data.prior) == 20_000
    assert data.prior.std() == pytest.approx((2 / 3) ** 0.5, rel=0.05)


def test_every_row_can_train_an_evaluator():
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


def test_tested_labels_join_the_test_rows_and_no_others(tmp_path):
    more = rows(box(), 20, seed=1)
    path = write_labels(tmp_path, more.x, more.y)
    before, after = toy_data().split, toy_data(tested=[path], added=[path]).split
    assert torch.equal(after.train.x, before.train.x) and torch.equal(after.validation.x, before.validation.x)
    assert torch.equal(after.test.x, torch.cat([before.test.x, more.x]))
    ids = torch.cat([after.train.ids, after.validation.ids, after.test.ids])
    assert len(ids.unique()) == len(ids)


def test_calibration_rows_are_no_others(tmp_path):
    more, plain = rows(box(), 20, seed=1), toy_data().split
    path = write_labels(tmp_path, torch.cat([more.x, plain.train.x[:5]]), torch.cat([more.y, plain.train.y[:5]]))
    data = toy_data(calibration=[path])
    assert torch.equal(data.calibration_rows.x, more.x)
    assert data.duplicates == toy_data().duplicates  # nothing was removed from the table
    assert torch.equal(data.split.train.x, plain.train.x) and torch.equal(data.split.test.x, plain.test.x)
    assert torch.equal(toy_data().calibration_rows.x, plain.validation.x)


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


def table(count: int = 50):
    """The same rows as tensors and as a DataFrame, whose columns are in another order."""
    x, y, *_ = rows(box(), count)
    frame = pandas.DataFrame({"y": y[:, 0].double(), "x2": x[:, 1].double(), "note": "none", "x1": x[:, 0].double()})
    return (x, y), frame


@pytest.mark.parametrize("kind", [0, 1], ids=["tensors", "frame"])
def test_a_table_in_memory_is_a_source(kind, close):
    data = DesignDataModule(table()[kind], box(), [prop()])
    assert isinstance(data.source, MemorySource)
    split = data.split
    every = split.train.joined(split.validation).joined(split.test)
    every = every.take(every.ids.argsort())
    assert every.ids.tolist() == list(range(50))
    close(every.x, table()[0][0])
    close(every.y, table()[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["tensors", "frame"])
def test_a_table_in_memory_trains(kind, tmp_path):
    made = tiny_module(CONF / "model" / "mdn.yaml", box(), [prop()], batch_size=10)
    runner = trainer(tmp_path)
    runner.fit(made, datamodule=DesignDataModule(table()[kind], box(), [prop()], validation=0.2))
    assert runner.global_step == 3


def test_a_table_in_memory_is_checked():
    x, y, *_ = rows(box(), 50)
    with pytest.raises(DatasetError, match=r"x1 within \[-1, 1\].*the table in memory"):
        _ = DesignDataModule((3 * x, y), box(), [prop()]).split


@pytest.mark.parametrize("seeds", [{"split_seed": -1}, {"order_seed": 0.5}, {"split_seed": 1 << 32}])
def test_seeds_out_of_range(seeds):
    with pytest.raises(ConfigError, match="split_seed and order_seed"):
        toy_data(**seeds)


def test_trainers_are_not_pickled():
    """Another process cannot have them."""
    assert attach(toy_data()).__getstate__()["trainer"] is None


@pytest.mark.slow
def test_atoms_respond_as_the_training_rows_say(monkeypatch):
    """Neither test rows nor synthetic designs, whose numbers may be those of rows, tell where atoms relax to."""
    space, atoms = (load_part(group, "tmd_strain/mos2") for group in ("space", "prototype"))
    data = DesignDataModule(PackagedSource("tmd_strain_mos2"), space, [prop("thickness")], atoms, validation=0.0, test=0.3)
    assert data.prototype is not None and data.prototype.response is not None
    known = data.source.relaxed_positions()
    test = data.split.test.ids.tolist()
    monkeypatch.setattr(data.source, "relaxed_positions", lambda: {k: [0.0] * 9 if k in test else v for k, v in known.items()})
    other = copy.copy(data)
    del other.__dict__["prototype"]
    assert other.prototype == data.prototype
    synthetic = data.with_rows(data.split.test, data.split.test, torch.zeros(3, 1))
    assert synthetic.prototype == data.prototype
