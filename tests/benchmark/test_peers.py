"""The comparison with sbi; trainings of a few seconds, where sbi is installed."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from sklearn import neural_network

from matdesinne.benchmark.peers_report import PeerRow, write_peers
from matdesinne.cli.config import config_folder
from matdesinne.errors import ConfigError
from matdesinne.models.peers import FMPE, NPE
from matdesinne.network import load_network, save_network

from ..toys import box, prop, rows, script_config

SMALL = [
    "suite=peers",
    "data=two_moons",
    "data.source.count=1500",
    "peers.seconds=1.5",
    "peers.samples=100",
    "peers.observations=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
]


def test_missing_sbi_is_one_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "sbi", None)
    for kind in (NPE, FMPE):
        with pytest.raises(ConfigError, match=r"Expected sbi, .*matdesinne\[peers\]"):
            kind(box(), [prop()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NPE, FMPE])
def test_models_of_sbi_are_kept_and_sample_within_the_box(kind, tmp_path):
    pytest.importorskip("sbi", reason="the extra `peers` is not installed")
    model = kind(box(3), [prop("y"), prop("w")], hidden=8).eval()
    model.fit_scales(rows(box(3), outputs=2))
    y, seeded = rows(box(3), 50, outputs=2, seed=1).y, torch.Generator().manual_seed
    save_network(model, tmp_path, "model")
    x = model.sample(y, seeded(0))
    assert model.space.contains(x).all() and len(x.unique(dim=0)) == 50
    assert torch.equal(load_network(kind, tmp_path, "model").sample(y, seeded(0)), x)


@pytest.mark.slow
def test_samples_of_npe_have_its_density(close):
    """The map from noise is the inverse of the one whose likelihood was trained."""
    pytest.importorskip("sbi", reason="the extra `peers` is not installed")
    model = NPE(box(3), [prop()], hidden=8).eval()
    z, v = torch.randn(20, 3), torch.randn(20, 1)
    close(model.estimator.inverse_transform(model.decode(z, v), v), z, factor=100)


def peers(folder: Path, *words: str) -> list[dict]:
    config = script_config("benchmark", folder / "out", "workers=1", *SMALL, *words)
    with initialize_config_dir(config_folder(), version_base="1.3"):  # the suite composes each task, as under Hydra
        importlib.import_module("benchmark").main(config)
    return json.loads((folder / "out" / "peers.json").read_text())["rows"]


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on(tmp_path, monkeypatch):
    """All that is missing is trained; with a classifier that ends early."""
    pytest.importorskip("sbi", reason="the extra `peers` is not installed")
    plain = neural_network.MLPClassifier
    monkeypatch.setattr(
        neural_network, "MLPClassifier", lambda *sizes, **settings: plain(*sizes, **{**settings, "max_iter": 20})
    )
    first = peers(tmp_path, "peers.models=[cinn,sbi/npe]")
    assert [row["method"] for row in first] == ["cINN (mixture)", "cINN (mixture), truncated", "NPE (sbi)"]
    assert all(0.4 < row["value"] <= 1 and 0 < row["seconds_training"] < 10 for row in first)
    both = peers(tmp_path, "peers.models=[cinn,sbi/npe,sbi/fmpe]")
    assert both[:3] == first  # the same times, so not trained again
    assert [row["method"] for row in both[3:]] == ["FMPE (sbi)"]
    text = (tmp_path / "out" / "peers.md").read_text()
    assert "## two_moons" in text and "training [CPU s]" in text
    assert (tmp_path / "out" / "peers.png").is_file()


def test_report_has_means_over_seeds(tmp_path):
    made = [PeerRow("a", "cINN", seed, "C2ST", 0.5 + 0.2 * seed, 1.0, 2.0, 3, 4) for seed in (0, 1)]
    text = write_peers(tmp_path, made, 60)
    assert "| cINN | 2 | 0.6 | 0.141 | 1 | 2 | 3 | 4 |" in text
