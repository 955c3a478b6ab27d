import pytest
import pytorch_lightning as pl
import torch

from matdesinne.bands import BandLabels
from matdesinne.data.batches import TensorBatches
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace, Parameter, Symmetry

from ..toys import CONF, box, prop, rows, tiny_module, toy_data, trainer

CPU = torch.device("cpu")
SPACE = DesignSpace(
    [Parameter("x1", "m", -1, 1), Parameter("x2", "m", -1, 1)],
    [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]}, [[0, 1], [1, 0]])],
)
KPOINTS = torch.tensor([[0.0, 0.0], [1 / 3, 0.0], [0.0, 1 / 3]])


def table(count: int = 25) -> DesignTable:
    x = rows(SPACE, count).x
    # E(k) = x . k, so that the image of a design has at the image of k what the design has at k
    valence = x @ KPOINTS.T
    energies = torch.stack([valence, 1 + valence.square()], dim=1)
    return DesignTable(x, x.sum(1, keepdim=True), torch.arange(count), (BandLabels(energies, KPOINTS),))


def epoch(batches: TensorBatches, number: int = 0) -> torch.Tensor:
    batches.set_epoch(number)
    return torch.cat([batch.x for batch in batches])


def test_validation_keeps_the_order():
    made = table()
    assert torch.equal(epoch(TensorBatches(made, 10, CPU)), made.x)


@pytest.mark.parametrize(
    ("seed", "size", "sizes"), [(None, 10, [10, 10, 5]), (0, 10, [10, 10]), (0, 100, [25]), (None, 100, [25]), (0, 25, [25])]
)
def test_sizes(seed, size, sizes):
    batches = TensorBatches(table(), size, CPU, seed)
    assert [len(batch.x) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_training_visits_every_row_once():
    made = table()
    seen = epoch(TensorBatches(made, 5, CPU, 0))
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, made.x.tolist()))


@pytest.mark.parametrize(("left", "right", "equal"), [((0, 0), (0, 0), True), ((0, 0), (0, 1), False), ((0, 0), (1, 0), False)])
def test_order_depends_on_seed_and_epoch(left, right, equal):
    orders = [epoch(TensorBatches(table(), 5, CPU, seed), number) for seed, number in (left, right)]
    assert torch.equal(*orders) is equal


def test_order_is_free_of_history():
    batches = TensorBatches(table(), 5, CPU, 0, SPACE.group())
    fresh = epoch(TensorBatches(table(), 5, CPU, 0, SPACE.group()), 3)
    for number in range(3):
        epoch(batches, number)
    assert torch.equal(epoch(batches, 3), fresh)


def test_order_leaves_the_global_seed(untouched_seed):
    epoch(TensorBatches(table(), 5, CPU, 0, SPACE.group()))


def test_rows_stay_together():
    made = table()
    for batch in TensorBatches(made, 5, CPU, 0):
        for x, y in zip(batch.x, batch.y, strict=True):
            row = (made.x == x).all(1).nonzero()[0, 0]
            assert torch.equal(made.y[row], y)


def test_no_augmentation_without_a_seed():
    made = table()
    assert torch.equal(epoch(TensorBatches(made, 10, CPU, None, SPACE.group())), made.x)


def test_training_rows_are_augmented():
    made = table()
    seen = epoch(TensorBatches(made, 5, CPU, 0, SPACE.group()))
    known = set(map(tuple, made.x.tolist()))
    kept = [tuple(x) in known for x in seen.tolist()]
    assert any(kept) and not all(kept)


def test_augmented_rows_are_images():
    made = table()
    known = {tuple(x) for element in SPACE.group() for x in element(made.x).tolist()}
    assert set(map(tuple, epoch(TensorBatches(made, 5, CPU, 0, SPACE.group())).tolist())) <= known


def test_augmentation_permutes_the_bands(close):
    for batch in TensorBatches(table(), 5, CPU, 0, SPACE.group()):
        close(batch.bands[0].energies[:, 0], batch.x @ KPOINTS.T)


def test_augmentation_keeps_properties(close):
    for batch in TensorBatches(table(), 5, CPU, 0, SPACE.group()):
        close(batch.y, batch.x.sum(1, keepdim=True))


def test_no_bands():
    made = table()
    made = DesignTable(made.x, made.y, made.ids)
    assert all(not batch.bands for batch in TensorBatches(made, 5, CPU, 0, SPACE.group()))


@pytest.mark.parametrize("seed", [None, 0])
def test_processes_share_the_rows(seed):
    made = table(24)
    parts = [epoch(TensorBatches(made, 4, CPU, seed, part=(rank, 2))) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 12
    assert sorted(map(tuple, torch.cat(parts).tolist())) == sorted(map(tuple, made.x.tolist()))


@pytest.mark.parametrize("count", [2, 7, 9, 17])
def test_processes_validate_on_every_row_in_as_many_batches(count):
    made = table(count)
    parts = [list(TensorBatches(made, 4, CPU, part=(rank, 2))) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    seen = [tuple(row) for part in parts for batch in part for row in batch.x.tolist()]
    assert sorted(seen) == sorted(map(tuple, made.x.tolist()))


def test_rejects_fewer_rows_than_processes():
    with pytest.raises(ConfigError, match=r"each of 2 processes, got 1: .*trainer\.devices"):
        TensorBatches(table(1), 4, CPU, part=(0, 2))


def test_a_step_of_several_processes_is_that_of_one():
    """The same rows, moved by the same operations."""
    made = table(24)
    parts = [TensorBatches(made, 4, CPU, 0, SPACE.group(), (rank, 2)) for rank in range(2)]
    for whole, *shared in zip(TensorBatches(made, 8, CPU, 0, SPACE.group()), *parts, strict=True):
        assert torch.equal(torch.stack([part.x for part in shared], dim=1).flatten(0, 1), whole.x)
        energies = torch.stack([part.bands[0].energies for part in shared], dim=1).flatten(0, 1)
        assert torch.equal(energies, whole.bands[0].energies)


def orders_in_a_fit(folder, epochs: int, **settings: object) -> list[torch.Tensor]:
    """The rows of each epoch as the module sees them in a real fit."""
    module = tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()], batch_size=32)
    seen = [[] for _ in range(epochs)]

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen[trainer.current_epoch].append(batch.x.clone())

    trainer(folder, max_epochs=epochs, callbacks=[Watch()]).fit(module, datamodule=toy_data(**settings))
    return [torch.cat(batches) for batches in seen]


@pytest.mark.slow
def test_trainer_gives_each_epoch_its_own_order(tmp_path):
    first, second, third = orders_in_a_fit(tmp_path, 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.slow
def test_trainer_follows_the_order_of_seed_and_epoch(tmp_path):
    seen = orders_in_a_fit(tmp_path, 2, order_seed=7)
    made = TensorBatches(toy_data().split.train, 32, CPU, 7)
    assert all(torch.equal(rows, epoch(made, number)) for number, rows in enumerate(seen))


@pytest.mark.slow
def test_trainer_gives_each_epoch_other_symmetry_operations(tmp_path):
    first, second = orders_in_a_fit(
        tmp_path, 2, space=DesignSpace(box().parameters, SPACE.symmetries), count=40, validation=0.2
    )
    assert len(first) == len(second) == 28
    assert set(map(tuple, first.tolist())) != set(map(tuple, second.tolist()))
