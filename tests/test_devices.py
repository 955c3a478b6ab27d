"""Two processes train what one does."""

import json
import os
import subprocess
import sys

import pytest
import torch

from . import several_devices
from .toys import ROOT

pytestmark = pytest.mark.slow

NAMES = ["model/cinn", "model/inn", "model/mdn", "model/cvae", "model/cfm", "surrogate/bands", "surrogate/tight_binding"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """All trainings one after the other by two processes: their start takes the longest."""
    place = tmp_path_factory.mktemp("devices")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.several_devices", str(place / "two"), "2", *NAMES]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "2 processes" in result.stderr, result.stderr
    (place / "said").write_text(result.stdout)
    return place


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_weights_of_two_processes(two_processes, monkeypatch, name):
    """After as many steps of as many rows."""
    for function, still in several_devices.STILL.items():
        monkeypatch.setattr(torch, function, still)
    several_devices.train(two_processes / "one", 1, name)
    one, two = (json.loads((two_processes / way / name / "metrics.json").read_text()) for way in ("one", "two"))
    assert two["val/loss"] == pytest.approx(one["val/loss"], rel=1e-4, abs=1e-4)
    last = [torch.load(two_processes / way / name / "checkpoints" / "last.ckpt", weights_only=True) for way in ("one", "two")]
    assert last[0]["global_step"] == last[1]["global_step"] > 0
    for key, value in last[0]["state_dict"].items():
        torch.testing.assert_close(last[1]["state_dict"][key], value, rtol=1e-3, atol=1e-4)


def test_sigterm_ends_both_processes_after_the_same_step(two_processes):
    """The one that was asked tells it, once."""
    assert (two_processes / "said").read_text().count("got SIGTERM in epoch 1") == 1
    last = torch.load(two_processes / "two" / "stopped" / NAMES[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == several_devices.STOPPED_AFTER
