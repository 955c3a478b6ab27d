"""Trainings in processes of their own that are killed at random moments."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from matdesinne.training import checkpoints
from matdesinne.training.module import DesignModule

from .toys import OWN, QUICK, ROOT, run_train, script_config, write_table
from .training.test_resume import MDN, last_weights, same, train, weights
from .warm import environment

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("MATDESINNE_KILL_ROUNDS", "12"))
"""1,000 by hand: `MATDESINNE_KILL_ROUNDS=1000 pytest tests/test_kill.py -k rounds`."""


def child(folder) -> None:
    """A training that is nearly always writing a checkpoint."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    checkpoints._SECONDS = 0.0
    torch.set_num_threads(1)
    train(MDN, folder, resume=(folder / "checkpoints" / "last.ckpt").is_file())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_rounds_of_kill_and_resume(tmp_path):
    """No damaged checkpoint after any of them, and the best epoch of the uninterrupted run whenever one ends."""
    best = train(MDN, tmp_path / "whole")
    fork, chance = multiprocessing.get_context("fork"), random.Random(0)
    folder, ended, killed = tmp_path / "0", 0, 0
    for _ in range(ROUNDS):
        process = fork.Process(target=child, args=(folder,))
        process.start()
        process.join(chance.uniform(0.0, 0.3))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
        for path in (folder / "checkpoints").glob("[!.]*"):
            checkpoints.read_checkpoint(path)
        if process.exitcode == 0:
            assert same(weights(folder / "checkpoints" / "best.ckpt"), best.state_dict())
            assert same(last_weights(folder), last_weights(tmp_path / "whole"))
            ended, folder = ended + 1, tmp_path / str(ended + 1)
    assert killed
    print(f"{killed} of {ROUNDS} killed, {ended} trainings ended")


def settings(folder):
    words = ["model=mdn", *OWN, *QUICK, "model.max_epochs=2", "model.batch_size=32", "model.network.hidden=16"]
    words += ["trainer.log_every_n_steps=1", "surrogate.max_epochs=4"]
    return [*words, f"data.source.path={folder}/table.csv", f"surrogates_folder={folder}/kept"]


def final_weights(folder) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / f"{part}.safetensors") for part in ("model", "surrogate")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights that a design ends with."""
    folder = write_table(tmp_path_factory.mktemp("uninterrupted"))
    run_train(script_config("train", folder / "whole", *settings(folder)))
    return final_weights(folder / "whole")


@pytest.mark.parametrize("part", ["MLPSurrogate", "MDN"])
def test_a_design_killed_in_one_of_its_trainings(tmp_path, monkeypatch, uninterrupted, part):
    """Resuming trains what was not reached and goes on with what was."""

    class Killed(BaseException):
        pass

    def stop(task, *_):
        if type(task.network).__name__ == part and task.global_step == 5:
            raise Killed

    config = script_config("train", tmp_path / "parts", *settings(write_table(tmp_path)))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(DesignModule, "on_train_batch_start", stop)
        run_train(config)
    run_train(script_config("train", tmp_path / "parts", f"resume={tmp_path / 'parts'}"))
    assert all(map(same, final_weights(tmp_path / "parts"), uninterrupted))


def test_the_script_under_sigterm(tmp_path, warm):
    """A batch system ends the script in its training; it says how to go on, and does."""
    write_table(tmp_path)
    words = [*settings(tmp_path), "model.max_epochs=10000", "hydra.run.dir=run"]
    process = warm.start(ROOT / "train.py", words, tmp_path, environment(), tmp_path / "said")
    limit = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(process, signal.SIGTERM)
    assert warm.wait() == 1
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said, said
    assert "SIGTERM" in said.splitlines()[-1] and f"resume={tmp_path}/run" in said.splitlines()[-1], said
    epoch = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    words = ["resume=run", f"trainer.max_epochs={epoch + 1}"]
    config = script_config("train", tmp_path / "run", *words)
    run_train(config)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == epoch + 1
