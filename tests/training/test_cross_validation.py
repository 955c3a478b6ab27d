"""Surrogates of small tables are chosen, and their spread is calibrated, by cross-validation."""

import functools
import json

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from matdesinne.cli.config import config_folder
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.surrogates.gp import GPSurrogate
from matdesinne.training import runs
from matdesinne.training.cross_validation import chosen_surrogate, cross_validate, is_small

from ..toys import box, prop

TRAINER = functools.partial(
    pl.Trainer, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0
)


def noisy(count: int = 60, noise: float = 0.3, repeats: int = 1, **settings: object) -> DesignDataModule:
    """y = x1 + x2 and noise, each design measured several times."""
    generator = torch.Generator().manual_seed(0)
    x = box().sample(count, generator).repeat(repeats, 1)
    y = x.sum(dim=1, keepdim=True) + noise * torch.randn(len(x), 1, generator=generator)
    return DesignDataModule((x, y), box(), [prop()], **settings)


def config(*words: str):
    with initialize_config_dir(config_folder(), version_base="1.3"):
        quick = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "callbacks=none"]
        quick += ["surrogate.optimizer.max_iter=20"] if "surrogate=gp" in words else []
        return compose("train", [*words, *quick, "folder=unused"])


def test_every_row_is_predicted_once_by_what_did_not_see_it():
    data = noisy(40)
    found = cross_validate(config("surrogate=gp").surrogate, data, TRAINER)
    rows = data.split.train.joined(data.split.validation)
    assert sorted(found.y[:, 0].tolist()) == sorted(rows.y[:, 0].tolist())
    assert 0.15 < found.mae.item() < 0.4  # the noise has a mean size of 0.24; rows seen in training would err less
    assert found.relative_error == pytest.approx(found.mae.item() / found.y.std().item())


def test_small_is_a_matter_of_rows():
    assert is_small(noisy(40)) and not is_small(noisy(1200)) and not is_small(noisy(10))


def test_the_better_surrogate_is_chosen():
    settings = config("surrogate=chosen/gp_or_mlp").surrogate
    settings.choices.mlp.max_epochs = 1  # a perceptron that has learnt nothing
    settings.choices.gp.optimizer.max_iter = 20
    chosen, found = chosen_surrogate(settings, noisy(40), TRAINER)
    assert chosen == settings.choices.gp and found.relative_error < 0.6


def test_large_tables_take_the_last_choice_untried():
    settings = config("surrogate=chosen/gp_or_mlp").surrogate
    assert chosen_surrogate(settings, noisy(1200), TRAINER) == (settings.choices.mlp, None)


def test_spread_of_a_small_table_covers_new_measurements(tmp_path):
    """Below the 20 validation rows that calibrate without cross-validation."""
    settings, data = config("surrogate=gp"), noisy(50, repeats=3, replicates="mean")
    made = runs.train_surrogate(settings, data, tmp_path, settings.surrogate, 0)
    assert isinstance(made, GPSurrogate) and len(made.inputs) == 45
    x = box().sample(2000, torch.Generator().manual_seed(1))
    error = 0.3 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(2))
    mean, std = made.predict_many(x)
    covered = ((x.sum(dim=1, keepdim=True) + error - mean).abs() <= made.half_width(std, 0.68)).float().mean().item()
    assert covered == pytest.approx(0.68, abs=0.1)  # of the averaged rows alone it would be 0.45
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val/mae"] == metrics["cross_validation/mae"] == pytest.approx(0.24, abs=0.06)
