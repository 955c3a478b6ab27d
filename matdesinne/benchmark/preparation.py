"""Training of the surrogates and of the models that a suite of the benchmark compares."""

from __future__ import annotations

__all__ = ["Prepared", "evaluator_settings", "gather", "prepare", "train_models"]

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.benchmark.metrics import surrogate_errors
from matdesinne.benchmark.parallel import Trainings
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError
from matdesinne.files import read_json, write_json
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, save_network
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target
from matdesinne.training.build import build_module, check_device, check_property
from matdesinne.training.fit import fit
from matdesinne.training.runs import add_synthetic_rows, hash_of_rows, trained_surrogate

_LOGGER = logging.getLogger(__name__)

_EVALUATOR_SEED = 1000
"""Seed of the evaluator in every repeat; no localizing surrogate has it."""


def gather(config: DictConfig, folder: Path) -> dict[str, DictConfig]:
    """Returns the configuration of every model to compare, by the name of its file.

    Args:
        config: with the keys ``models`` (names, or null for all at the top of the folder) and ``runs``.
        folder: the YAML files of the models.

    Raises:
        ConfigError: if a name has no file.
    """
    default = sorted(path.stem for path in folder.glob("*.yaml"))
    known = [*default, *sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))]
    names = [config.models] if isinstance(config.models, str) else default if config.models is None else list(config.models)
    unknown = [name for name in [*names, *config.runs] if name not in known]
    if unknown:
        raise ConfigError(f"Expected models out of {known}, got {unknown}: correct models= or runs.")
    return {name: cast(DictConfig, OmegaConf.load(folder / f"{name}.yaml")) for name in names}


@dataclass(frozen=True)
class Prepared:
    """What a suite starts from, all made with one seed.

    Args:
        models: trained generative models by their label.
        training_seconds: wall time of the training of each, where it is known.
        surrogate: localizes, and labels the synthetic designs.
        evaluator: scores, where the suite needs one.
        accurate_surrogate: moves the candidates in the end, where there is one.
        data: the rows of the data set.
    """

    models: Mapping[str, InverseModel]
    training_seconds: Mapping[str, float]
    surrogate: Surrogate
    evaluator: Surrogate | None
    accurate_surrogate: Surrogate | None
    data: DesignDataModule

    def to(self, device: torch.device) -> Self:
        """Moves all networks to a device, in place."""
        for network in (*self.models.values(), self.surrogate, self.evaluator, self.accurate_surrogate):
            if network is not None:
                network.to(device)
        return self

    def facts(self) -> dict[str, object]:
        """Returns times of training, errors of the surrogate on test rows and numbers of parameters, as plain containers."""
        return {
            "seconds_training": dict(self.training_seconds),
            "surrogate_test_errors": surrogate_errors(self.surrogate, self.data.split.test),
            "parameters": {
                name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, model in self.models.items()
            },
        }


def prepare(config: DictConfig, models: Mapping[str, DictConfig], folder: Path, evaluate: bool = False) -> Prepared:
    """Train or load the localizing surrogate and every model.

    Args:
        config: with the keys ``data``, ``surrogate``, ``evaluator``, ``evaluator_network``, ``accurate_surrogate``,
            ``trainer``, ``callbacks``, ``runs``, ``seed``, ``workers``, ``surrogates_folder``.
        models: configurations by the name of their file.
        folder: where to keep the weights of the models.
        evaluate: also train or load the evaluator, and the accurate surrogate if the configuration has one.
    """
    check_device(config.trainer)
    data: DesignDataModule = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    if len(data.properties) != 1:
        raise ConfigError(f"Expected one property for this suite, got {len(data.properties)}: use a data set with one.")
    _check(config, data)
    localizing = (config, data, config.surrogate, config.seed)
    others = [_evaluator_arguments(config, data)] if evaluate else []
    if evaluate and config.get("accurate_surrogate") is not None:
        others.append((config, data, config.accurate_surrogate, config.seed))
    workers = min(config.workers, 1 + len(others))
    tasks = [(trained_surrogate, (_picklable(part, workers), *rest)) for part, *rest in (localizing, *others)]
    with Trainings(config.workers) as trainings:
        first, *later = trainings.start(tasks)
        trainings.finish([first], "Training the surrogate")
        surrogate = trained_surrogate(*localizing)  # this and the calls below load what a process has trained
        trained, seconds = train_models(config, models, data, folder, trainings, surrogate)
        trainings.finish(later, "Training the evaluator")
    evaluator, accurate_surrogate = [*(trained_surrogate(*arguments) for arguments in others), None, None][:2]
    return Prepared(trained, seconds, surrogate, evaluator, accurate_surrogate, data)


def train_models(
    config: DictConfig,
    models: Mapping[str, DictConfig],
    data: DesignDataModule,
    folder: Path,
    trainings: Trainings,
    surrogate: Surrogate | None = None,
) -> tuple[dict[str, InverseModel], dict[str, float]]:
    """Train every model, or load it from a run or from an earlier benchmark with equal settings in this folder.

    Args:
        config: with the keys ``data``, ``surrogate``, ``runs``, ``trainer``, ``callbacks``, ``seed``, ``workers``.
        models: configurations by the name of their file.
        data: the rows of the data set.
        folder: where to keep the weights.
        trainings: processes that train.
        surrogate: labels synthetic designs if a model has to be trained and the data set asks for such designs.

    Returns:
        The models by their label, and the seconds that the training of each took.
    """
    folders = {name: Path(config.runs.get(name) or folder / name) for name in models}
    settings = {name: _settings(config, model, data) for name, model in models.items() if name not in config.runs}
    missing = [name for name, current in settings.items() if read_json(folders[name] / "settings.json") != current]
    if missing:
        if surrogate is not None:
            with trainings.beside():
                data = add_synthetic_rows(data, surrogate, check_device(config.trainer))
        _LOGGER.info("Training %s on %s designs", ", ".join(missing), f"{len(data.training_rows):,}")
        resolved = _picklable(config, min(config.workers, len(missing)))
        tasks = [(_train_model, (resolved, models[name], data, folders[name], settings[name])) for name in missing]
        trainings.finish(trainings.start(tasks), "Training models")
    return _load_models(folders)


def _load_models(folders: Mapping[str, Path]) -> tuple[dict[str, InverseModel], dict[str, float]]:
    models: dict[str, InverseModel] = {}
    seconds: dict[str, float] = {}
    for name, folder in folders.items():
        model = load_network(InverseModel, folder, "model")
        label = f"{model.label} ({name})" if model.label in models else model.label
        models[label] = model
        metrics = read_json(folder / "metrics.json")
        if isinstance(metrics, dict):
            seconds[label] = metrics["seconds"]
    return models, seconds


def evaluator_settings(config: DictConfig) -> DictConfig:
    """Returns the configuration of the surrogate that scores.

    This is the key ``evaluator`` if there is one, and otherwise the localizing surrogate with those sizes of
    ``evaluator_network`` that its network has.
    """
    if config.get("evaluator") is not None:
        return config.evaluator
    settings = copy.deepcopy(config.surrogate)
    settings.network.update({key: value for key, value in config.evaluator_network.items() if key in settings.network})
    return settings


def _evaluator_arguments(config: DictConfig, data: DesignDataModule) -> tuple[DictConfig, DesignDataModule, DictConfig, int]:
    """The arguments of `trained_surrogate`; the evaluator learns from all rows and is the same in every repeat."""
    other = copy.deepcopy(config)
    other.data.split_seed = other.data.order_seed = 0
    return other, data.with_all_rows(), evaluator_settings(config), _EVALUATOR_SEED


def _train_model(
    config: DictConfig, model: DictConfig, data: DesignDataModule, folder: Path, settings: Mapping[str, object]
) -> None:
    pl.seed_everything(config.seed, verbose=False)
    callbacks = [instantiate(callback) for callback in (config.get("callbacks") or {}).values()]
    network = fit(build_module(model, data), data, instantiate(config.trainer), folder, callbacks=callbacks)
    save_network(network, folder, "model")
    write_json(folder / "settings.json", settings)  # the last file: with it the training is complete


def _settings(config: DictConfig, model: DictConfig, data: DesignDataModule) -> dict[str, object]:
    """Everything that determines the weights of a model."""
    configs = {"model": model, "data": config.data, "surrogate": config.surrogate}
    return {
        **{name: OmegaConf.to_container(part, resolve=True) for name, part in configs.items()},
        **{"epochs": config.trainer.max_epochs, "rows": hash_of_rows(data.split.train), "seed": config.seed},
    }


def _picklable(config: DictConfig, workers: int) -> DictConfig:
    """Returns the configuration without interpolations, for another process; one of several shows no progress bar."""
    resolved = copy.deepcopy(config)
    OmegaConf.resolve(resolved)
    if workers > 1:
        resolved.trainer.enable_progress_bar = False
    return resolved


def _check(config: DictConfig, data: DesignDataModule) -> None:
    """Report a user's mistakes before the first training, which takes minutes.

    Raises:
        MatDesINNeError: if a target or a run is wrong.
    """
    targets = config.get("targets", [0.0])
    if isinstance(targets, str) or not isinstance(targets, Sequence) or len(targets) == 0:
        raise ConfigError(f"Expected targets as a list of values, got {targets!r}: e.g. targets=[0.0,1.0].")
    for value in targets:
        Target.parse(value, data.properties)
    for run in config.runs.values():
        load_network(InverseModel, run, "model")
