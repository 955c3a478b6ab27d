"""Sweeps by each launcher and sweeper that the extra `sweep` brings; what they leave is one table."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from matdesinne.cli.config import config_folder

from .toys import OWN, QUICK, ROOT, write_table
from .warm import Warm, environment

PLUGINS = {
    "hydra/launcher=basic": None,
    "hydra/launcher=cores": "hydra_plugins.hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "submitit",
}

SCORE = "hydra.callbacks.sweep_table.metric=val/target_mae"


def sweep(warm: Warm, folder: Path, *words: str, script: str = "tests/sweep_job.py") -> list[dict[str, str]]:
    """Run one and read its table; in a new interpreter where joblib's processes may hang in a fork."""
    words = "-m", "hydra.sweep.dir=found", *words
    if "hydra/launcher=cores" in words:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment()}
        said = subprocess.run([sys.executable, ROOT / script, *words], cwd=folder, timeout=300, check=False, **streams).stdout
    else:
        _, said = warm.run(ROOT / script, list(words), folder, environment())
    assert "Traceback" not in said, said
    with (folder / "found" / "sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("launcher", PLUGINS)
def test_launcher(tmp_path, warm, launcher):
    if PLUGINS[launcher]:
        pytest.importorskip(PLUGINS[launcher])
    table = sweep(warm, tmp_path, launcher, "seed=1,3,5")
    assert [(row["job"], row["seed"], row["val/loss"]) for row in table] == [
        ("1", "3", "0.0"),
        ("0", "1", "4.0"),
        ("2", "5", ""),  # has failed, and the others went on
    ]
    assert {path.read_text() for path in (tmp_path / "found").glob("*/group.txt")} == {"found"}


def test_optuna_of_trainings(tmp_path, warm):
    """By train.py itself; two give metrics."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hparams_search=optuna", "model=mdn", "hydra.sweeper.n_trials=2", SCORE, *OWN, *QUICK]
    settings = [*words, f"data.source.path={tmp_path}/table.csv", "model.network.hidden=8"]
    table = sweep(warm, write_table(tmp_path), *settings, f"surrogates_folder={tmp_path}/kept", script="train.py")
    assert len({row["model.optimizer.lr"] for row in table}) == 2
    scores = [float(row["val/target_mae"]) for row in table]
    assert scores == sorted(scores)


def test_optuna(tmp_path, warm):
    """As many trials as wanted, the best first, one that failed last."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    table = sweep(
        warm, tmp_path, "hparams_search=optuna", "hydra.sweeper.n_trials=5", "+hydra.sweeper.params.seed='range(4,5)'"
    )
    losses = [row["val/loss"] for row in table]
    assert len(table) == 5 and {row["seed"] for row in table} == {"4", "5"}
    assert losses == sorted(losses, key=lambda loss: loss == "") and set(losses) == {"1.0", ""}


@pytest.mark.slow
def test_launcher_of_a_cluster_composes():
    pytest.importorskip("submitit")
    with initialize_config_dir(config_folder(), version_base="1.3"):
        config = compose("train", ["hydra/launcher=cluster"], return_hydra_config=True)
    assert config.hydra.launcher._target_.startswith("hydra_plugins.")


@pytest.mark.slow
def test_optuna_varies_settings_that_exist():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    with initialize_config_dir(config_folder(), version_base="1.3"):
        config = compose("train", ["hparams_search=optuna"], return_hydra_config=True)
    assert all(OmegaConf.select(config, key) is not None for key in config.hydra.sweeper.params)
