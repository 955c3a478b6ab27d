import contextlib
import os
import pickle
import time

import pytest
import torch

from matdesinne.benchmark.parallel import Trainings
from matdesinne.errors import TrainingError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forkserver")]


def write(folder, name, values):
    (folder / name).write_text(f"{values.sum():g} {torch.get_num_threads()}", encoding="utf-8")


def fail(folder):
    raise TrainingError("Expected a trained model, got none.")


def run(tasks, workers):
    with Trainings(workers) as trainings:
        trainings.finish(trainings.start(tasks), "Running")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_run(tmp_path, workers):
    run([(write, (tmp_path, str(i), torch.full((3,), float(i)))) for i in range(3)], workers)
    assert [(tmp_path / str(i)).read_text(encoding="utf-8").split()[0] for i in range(3)] == ["0", "3", "6"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_kind(tmp_path, workers):
    with pytest.raises(TrainingError, match="trained model"):
        run([(fail, (tmp_path,)), (write, (tmp_path, "a", torch.zeros(1)))], workers)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_tasks_go_on_beside_later_ones(tmp_path):
    """The first ends only after the second was run."""
    with Trainings(2) as trainings:
        first = trainings.start([(wait_for, (tmp_path / "a",))])
        trainings.finish(trainings.start([(write, (tmp_path, "a", torch.zeros(1)))]), "Second")
        trainings.finish(first, "First")


def test_a_task_that_cannot_be_sent(tmp_path):
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        run([(write, (tmp_path, "a", lambda: 0))] * 2, 2)


@pytest.mark.parametrize("error", [None, TrainingError("Expected a trained model, got none.")], ids=["ends", "fails"])
def test_threads_here_leave_a_core_to_each_process(error):
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        with contextlib.suppress(TrainingError), Trainings(2).beside():
            assert torch.get_num_threads() == max(os.cpu_count() // 2, 1)
            if error:
                raise error
        assert torch.get_num_threads() == 7
        with Trainings(1).beside():
            assert torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)


def test_many_tensors_can_be_sent(tmp_path):
    run([(write_sum, (tmp_path, name, [torch.ones(1) for _ in range(300)])) for name in "ab"], 2)
    assert [(tmp_path / name).read_text(encoding="utf-8").split()[0] for name in "ab"] == ["300", "300"]


def write_sum(folder, name, tensors):
    write(folder, name, torch.cat(tensors))
