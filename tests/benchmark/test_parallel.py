import pickle

import pytest
import torch

from matdesinne.benchmark.parallel import side_by_side
from matdesinne.errors import TrainingError


def write(folder, name, values):
    (folder / name).write_text(f"{values.sum():g} {torch.get_num_threads()}", encoding="utf-8")


def fail(folder):
    raise TrainingError("Expected a trained model, got none.")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_run(tmp_path, workers):
    side_by_side([(write, (tmp_path, str(i), torch.full((3,), float(i)))) for i in range(3)], workers, "Writing")
    assert [(tmp_path / str(i)).read_text(encoding="utf-8").split()[0] for i in range(3)] == ["0", "3", "6"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_kind(tmp_path, workers):
    with pytest.raises(TrainingError, match="trained model"):
        side_by_side([(fail, (tmp_path,)), (write, (tmp_path, "a", torch.zeros(1)))], workers, "Failing")


def test_a_task_that_cannot_be_sent(tmp_path):
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        side_by_side([(write, (tmp_path, "a", lambda: 0))] * 2, 2, "Failing")
