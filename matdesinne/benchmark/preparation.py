"""What Table 1 needs before it starts: two surrogates and one trained model for each method."""

from __future__ import annotations

__all__ = ["Prepared", "gather", "independent_surrogate", "prepare", "train_models"]

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.benchmark.metrics import surrogate_errors
from matdesinne.data.datamodule import DesignData
from matdesinne.errors import ConfigError
from matdesinne.files import read_json, write_json
from matdesinne.learning import load_module, save_module
from matdesinne.models.base import InverseModel
from matdesinne.surrogates.base import Surrogate
from matdesinne.training import build, cached_surrogate, check_property, device_of, digest, fit, plain

_LOGGER = logging.getLogger(__name__)

_JUDGE = 1000
"""Added to the seed of a surrogate that scores, so that it is never a seed of one that localizes."""


def gather(config: DictConfig, folder: Path) -> dict[str, DictConfig]:
    """Read the configuration of every wanted model.

    Args:
        config: with the key ``models``: names, or null for all at the top of the folder.
        folder: the YAML files of the models.

    Raises:
        ConfigError: if a name has no file.
    """
    default = sorted(path.stem for path in folder.glob("*.yaml"))
    known = [*default, *sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))]
    names = list(config.models) if config.models is not None else default
    unknown = [name for name in [*names, *config.runs] if name not in known]
    if unknown:
        raise ConfigError(f"Expected models out of {known}, got {unknown}: correct models= or runs.")
    loaded = {name: OmegaConf.load(folder / f"{name}.yaml") for name in names}
    return {name: model for name, model in loaded.items() if isinstance(model, DictConfig)}


def train_models(
    config: DictConfig, models: dict[str, DictConfig], data: DesignData, folder: Path
) -> tuple[dict[str, InverseModel], dict[str, float]]:
    """Train every model, or load the one that a run or an earlier benchmark in this folder with equal settings gave.

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
    kept = {name: plain(config[name]) for name in ("data", "surrogate")} | {
        "rows": digest(data.split.train),
        "seed": config.seed,
    }
    for name, settings in models.items():
        place = Path(config.runs.get(name) or folder / name)
        description = {**kept, "model": plain(settings)}
        if name in config.runs or read_json(place / "settings.json") == description:
            _LOGGER.info("Using the %s in %s", name, place)
            model = load_module(InverseModel, place, "model")  # type: ignore[type-abstract]
        else:
            training = data.training_rows  # where they are to be labelled, that is not the model's time
            _LOGGER.info("Training %s on %s designs", name, f"{len(training):,}")
            start = time.perf_counter()
            pl.seed_everything(config.seed, verbose=False)
            untrained = build(InverseModel, settings, data)  # type: ignore[type-abstract]
            model = fit(untrained, data, config.trainer, place, None)
            seconds[model.label] = time.perf_counter() - start
            save_module(model, place, "model")
            write_json(place / "settings.json", description)
        trained[model.label] = model
    return trained, seconds


@dataclass(frozen=True)
class Prepared:
    """What a benchmark starts from, all made with one seed.

    Args:
        models: trained generative models by the name of their method.
        seconds: wall time of the training of each that was trained here.
        surrogate: localizes and labels.
        data: the rows, and the designs that the models were trained on.
    """

    models: dict[str, InverseModel]
    seconds: dict[str, float]
    surrogate: Surrogate
    data: DesignData

    def facts(self) -> dict[str, object]:
        """What a reader of the numbers needs beside them, as plain containers."""
        return {
            "seconds_training": self.seconds,
            "surrogate_test_errors": surrogate_errors(self.surrogate, self.data.split.test),
            "parameters": {
                name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, model in self.models.items()
            },
        }


def prepare(config: DictConfig, models: dict[str, DictConfig], folder: Path) -> Prepared:
    """Train or load the localizing surrogate and every model.

    Args:
        config: with the keys ``data``, ``surrogate``, ``trainer``, ``runs``, ``seed``, ``surrogates_folder``.
        models: configurations by the name of their file.
        folder: where to keep the checkpoints.
    """
    device = device_of(config.trainer)
    data: DesignData = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    if len(data.properties) != 1:
        raise ConfigError(f"Expected one property for this suite, got {len(data.properties)}: use a data set with one.")
    surrogate = cached_surrogate(config, data, config.seed, Path(config.surrogates_folder))
    data = data.labelled_by(surrogate.to(device))
    trained, seconds = train_models(config, models, data, folder)
    return Prepared(trained, seconds, surrogate.cpu(), data)


def independent_surrogate(config: DictConfig, data: DesignData) -> Surrogate:
    """Train or load the surrogate that scores: other settings, another seed, all rows.

    Args:
        config: as of `prepare`, and ``independent``: a whole configuration, or what to change in ``surrogate``.
        data: the rows.
    """
    changes = config.independent
    if "_target_" not in changes:
        known = {key: value for key, value in changes.items() if key in config.surrogate}
        changes = OmegaConf.merge(config.surrogate, known)
    other = config.copy()
    other.surrogate = changes
    return cached_surrogate(other, data.with_all_rows(), config.seed + _JUDGE, Path(config.surrogates_folder))
