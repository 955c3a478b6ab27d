"""What `generate.py` logs to Weights & Biases: a real offline run is read back."""

import os

import pytest
import wandb

import generate

from .toys import script_config, wandb_log_names


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["logger=default"]], ids=["silent", "logged"])
def test_results_of_a_generation(tmp_path, monkeypatch, words):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = script_config("generate", tmp_path, "target=1.0", "num_samples=50", "structures=false", *words)
    generate.main(config)
    assert wandb.run is None
    assert (tmp_path / "wandb").is_dir() is bool(words)
    if words:
        [run] = tmp_path.glob("wandb/offline-run-*")
        [picture], [report] = (run.rglob(name) for name in ("candidates*.png", "report*.html"))
        assert picture.read_bytes() == (tmp_path / "candidates.png").read_bytes()
        assert "Candidates for band_gap = 1 eV" in report.read_text()
        assert wandb_log_names(tmp_path, "localized/mae_band_gap", "share_kept")
        assert "localized/mae_band_gap" in (tmp_path / "logs" / "version_0" / "metrics.csv").read_text()
