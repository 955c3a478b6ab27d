"""What Table 1 needs before it starts: two surrogates and one trained model for each method."""

from __future__ import annotations

__all__ = ["gather", "prepare", "train_models"]

import logging
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import matdesinne
from matdesinne.benchmark.metrics import surrogate_errors
from matdesinne.benchmark.table1 import Table1
from matdesinne.data.datamodule import DesignData
from matdesinne.errors import ConfigError
from matdesinne.learning import load_module, save_module
from matdesinne.localization import Localizer
from matdesinne.models.base import InverseModel
from matdesinne.selection import Selection
from matdesinne.training import build, cached_surrogate, device_of, fit

_LOGGER = logging.getLogger(__name__)


def gather(config: DictConfig, folder: Path) -> dict[str, DictConfig]:
    """Read the configuration of every wanted model.

    Args:
        config: with the key ``models``: names, or null for all.
        folder: the YAML files of the models.

    Raises:
        ConfigError: if a name has no file.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    names = list(config.models) if config.models is not None else known
    unknown = [name for name in [*names, *config.runs] if name not in known]
    if unknown:
        raise ConfigError(f"Expected models out of {known}, got {unknown}: correct models= or runs.")
    loaded = {name: OmegaConf.load(folder / f"{name}.yaml") for name in names}
    return {name: model for name, model in loaded.items() if isinstance(model, DictConfig)}


def train_models(
    config: DictConfig, models: dict[str, DictConfig], data: DesignData, folder: Path
) -> tuple[dict[str, InverseModel], dict[str, float]]:
    """Train every model, or load the one that a run gave.

    Args:
        config: with the keys ``runs``, ``trainer`` and ``seed``.
        models: configurations by the name of their file.
        data: the rows to train on.
        folder: where to keep the checkpoints.

    Returns:
        The models by the name of their method, and the seconds that the training of each took.
    """
    trained: dict[str, InverseModel] = {}
    seconds: dict[str, float] = {}
    for name, settings in models.items():
        if name in config.runs:
            model = load_module(InverseModel, config.runs[name], "model")  # type: ignore[type-abstract]
        else:
            _LOGGER.info("Training %s", name)
            start = time.perf_counter()
            pl.seed_everything(config.seed, verbose=False)
            untrained = build(InverseModel, settings, data)  # type: ignore[type-abstract]
            model = fit(untrained, data, config.trainer, folder / name, None)
            save_module(model, folder / name, "model")
            seconds[model.label] = time.perf_counter() - start
        trained[model.label] = model
    return trained, seconds


def prepare(
    config: DictConfig, models: dict[str, DictConfig], selection: Selection, localization: Localizer, folder: Path
) -> tuple[Table1, dict[str, object]]:
    """Train or load both surrogates and every model.

    Returns:
        The benchmark, and facts about it as plain containers.
    """
    device = device_of(config.trainer)
    data: DesignData = instantiate(config.data, _convert_="all")
    if len(data.properties) != 1:
        raise ConfigError(f"Expected one property for Table 1, got {len(data.properties)}: use a data set with one.")
    place = Path(config.surrogates_folder)
    surrogate = cached_surrogate(config, data, config.seed, place)
    other = OmegaConf.merge(config, {"surrogate": config.independent})
    assert isinstance(other, DictConfig)
    independent = cached_surrogate(other, data.with_all_rows(), config.seed + 1, place)
    start = time.perf_counter()
    labelled = data.labelled_by(surrogate.to(device))
    surrogate.cpu()
    labelling = time.perf_counter() - start
    trained, seconds = train_models(config, models, labelled, folder)
    table = Table1(
        trained,
        seconds,
        surrogate,
        independent,
        selection,
        localization,
        data.split.train,
        labelled.prior,
        config.seconds_per_label,
        config.num_samples,
        config.seed,
    )
    facts: dict[str, object] = {
        "version": matdesinne.__version__,
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "seconds_labelling": labelling,
        "surrogate_test_errors": surrogate_errors(surrogate, data.split.test),
        "parameters": {name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, model in trained.items()},
    }
    return table, facts
