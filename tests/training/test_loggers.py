import os
import socket
import sys

import pytest
import wandb

from matdesinne.training import loggers
from matdesinne.training.loggers import closed_runs, wandb_logger


@pytest.fixture(autouse=True)
def no_key_no_network(tmp_path, monkeypatch):
    """Neither a key nor a way out; everything that wandb writes is under the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "places"))
    (tmp_path / "places").mkdir()
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    yield
    wandb.finish()


def offline_runs(folder) -> list[str]:
    return sorted(path.name for path in (folder / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_offline_without_a_key(tmp_path):
    logger = wandb_logger("matdesinne", str(tmp_path / "run"))
    assert logger.experiment.offline
    logger.log_metrics({"loss": 1.0}, step=0)
    wandb.finish()
    (name,) = offline_runs(tmp_path / "run")
    assert list((tmp_path / "run" / "wandb" / name).glob("*.wandb"))


def test_mode_of_the_environment_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger("matdesinne", str(tmp_path / "run")).experiment.disabled
    assert not offline_runs(tmp_path / "run")


@pytest.mark.slow
def test_run_is_named_after_its_folder(tmp_path):
    run = wandb_logger("matdesinne", str(tmp_path / "3_model=mdn"), group="sweep").experiment
    assert (run.name, run.group, run.project) == ("3_model=mdn", "sweep", "matdesinne")


@pytest.mark.slow
def test_closed_after_the_block(tmp_path):
    with closed_runs():
        assert wandb_logger("matdesinne", str(tmp_path / "run")).experiment is wandb.run
    assert wandb.run is None


@pytest.mark.slow
def test_closed_as_failed_after_an_error(tmp_path, monkeypatch):
    codes = []
    finish = wandb.finish
    monkeypatch.setattr(wandb, "finish", lambda exit_code=None, **_: codes.append(exit_code) or finish(exit_code=exit_code))
    with pytest.raises(RuntimeError, match="stop"), closed_runs():
        _ = wandb_logger("matdesinne", str(tmp_path / "run")).experiment
        raise RuntimeError("stop")
    assert wandb.run is None
    assert codes == [1]


@pytest.mark.slow
def test_one_run_a_job(tmp_path):
    """As in a multirun, where one process works through the jobs."""
    names = []
    for job in ("0", "1"):
        with closed_runs():
            names.append(wandb_logger("matdesinne", str(tmp_path / job), group="sweep").experiment.id)
    assert names[0] != names[1]
    assert all(len(offline_runs(tmp_path / job)) == 1 for job in ("0", "1"))


@pytest.mark.slow
def test_offline_where_the_server_does_not_take_the_run(tmp_path, monkeypatch, caplog):
    init = wandb.init

    def refuse(mode=None, **settings):
        if mode == "online":
            raise wandb.errors.CommError("returned error 401")
        return init(mode=mode, **settings)

    monkeypatch.setattr(loggers, "_check_access", lambda: None)
    monkeypatch.setattr(wandb, "init", refuse)
    assert wandb_logger("matdesinne", str(tmp_path / "run")).experiment.offline
    assert "offline (returned error 401)" in caplog.text


@pytest.mark.slow
def test_a_log_that_cannot_be_sent_is_told(tmp_path, monkeypatch, caplog):
    """It is no end of a sweep."""
    finish = wandb.finish

    def cut(exit_code=None):
        finish(exit_code=exit_code)
        raise TimeoutError

    with monkeypatch.context() as patched, closed_runs():
        patched.setattr(wandb, "finish", cut)
        _ = wandb_logger("matdesinne", str(tmp_path / "run")).experiment
    assert "TimeoutError" in caplog.text and "wandb sync" in caplog.text


def test_no_run_no_wandb(monkeypatch):
    monkeypatch.delitem(sys.modules, "wandb")
    with closed_runs():
        pass
    assert "wandb" not in sys.modules
