"""Training of the surrogates and of the models that a suite of the benchmark compares."""

from __future__ import annotations

__all__ = ["Prepared", "evaluator_settings", "gather", "picklable", "prepare", "repetitions", "train_models"]

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
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
from matdesinne.training.runs import add_synthetic_rows, hash_of_rows, make_callbacks, trained_surrogate
from matdesinne.training.sweeps import read_metrics

_LOGGER = logging.getLogger(__name__)

_EVALUATOR_SEED = 1000  # seed of the evaluator in every repeat; no localizing surrogate has it


def gather(config: DictConfig, folder: Path, others: Sequence[Path] = ()) -> dict[str, DictConfig]:
    """Returns the configuration of every model to compare, by the name of its YAML file.

    For null these are the models that the suite names under its own key, or all at the top of the folder.

    Args:
        config: of ``benchmark.py``.
        folder: of YAML files.
        others: folders of which ``models`` may name files, too.

    Raises:
        ConfigError: if a name has no file.
    """
    default = sorted(path.stem for path in folder.glob("*.yaml"))
    known = [*default, *sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))]
    places = {name: folder / f"{name}.yaml" for name in known} | {
        path.stem: path for other in others for path in sorted(other.glob("*.yaml"))
    }
    own = config.get(config.get("suite", ""))  # settings of the suite
    suggested = default if own is None else own.get("models", default)
    asked = suggested if config.models is None else config.models
    names = [asked] if isinstance(asked, str) else list(asked)
    unknown = [name for name in [*names, *config.runs] if name not in places]
    if unknown:
        raise ConfigError(f"Expected models out of {list(places)}, got {unknown}: correct models= or runs.")
    return {name: cast(DictConfig, OmegaConf.load(places[name])) for name in names}


def repetitions(config: DictConfig, folder: Path) -> Iterator[tuple[DictConfig, Path]]:
    """The configuration and the folder of each repetition."""
    for seed in range(config.seed, config.seed + config.repeats):
        part = copy.deepcopy(config)
        part.seed = seed
        yield part, folder / f"seed{seed}"


@dataclass(frozen=True)
class Prepared:
    """What a suite starts from, all made with one seed."""

    models: Mapping[str, InverseModel]  # trained, by their label
    training_seconds: Mapping[str, float]  # wall time of the training of each, where it is known
    surrogate: Surrogate  # localizes, and labels the synthetic designs
    evaluator: Surrogate | None  # scores, where the suite needs one
    accurate_surrogate: Surrogate | None  # moves the candidates in the end, where there is one
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
    """Train or load the localizing surrogate and every model, and to `evaluate` the evaluator and any accurate surrogate.

    The configuration is that of ``benchmark.py``; those of the models have the names of their files; their weights go into the
    folder.
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
    tasks = [(trained_surrogate, (picklable(part, workers), *rest)) for part, *rest in (localizing, *others)]
    with Trainings(config.workers) as trainings:
        started = trainings.start(tasks)
        trainings.finish(started[:1], "Training the surrogate")
        surrogate = trained_surrogate(*localizing)  # this and the calls below load what a process has trained
        trained, seconds = train_models(config, models, data, folder, trainings, surrogate)
        trainings.finish(started[1:], "Training the evaluator")
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

    The surrogate labels synthetic designs if a model has to be trained and the data set asks for such designs.

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
        resolved = picklable(config, min(config.workers, len(missing)))
        tasks = [(_train_model, (resolved, models[name], data, folders[name], settings[name])) for name in missing]
        trainings.finish(trainings.start(tasks), "Training models")
    trained: dict[str, InverseModel] = {}
    seconds: dict[str, float] = {}
    for name, place in folders.items():
        network = load_network(InverseModel, place, "model")
        label = f"{network.label} ({name})" if network.label in trained else network.label
        trained[label] = network
        if metrics := read_metrics(place):
            seconds[label] = metrics["seconds"]
    return trained, seconds


def evaluator_settings(config: DictConfig) -> DictConfig:
    """Returns the key ``evaluator``, or the localizing surrogate with those sizes of ``evaluator_network`` that it has."""
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
    network = fit(build_module(model, data), data, instantiate(config.trainer), folder, callbacks=make_callbacks(config))
    save_network(network, folder, "model")
    write_json(folder / "settings.json", settings)  # the last file: with it the training is complete


def _settings(config: DictConfig, model: DictConfig, data: DesignDataModule) -> dict[str, object]:
    """Everything that determines the weights of a model."""
    configs = {"model": model, "data": config.data, "surrogate": config.surrogate}
    contents = {name: OmegaConf.to_container(part, resolve=True) for name, part in configs.items()}
    limit = (config.get("callbacks") or {}).get("time_limit")
    if limit is not None:
        contents["time_limit"] = OmegaConf.to_container(limit, resolve=True)
    return {**contents, "epochs": config.trainer.max_epochs, "rows": hash_of_rows(data.split.train), "seed": config.seed}


def picklable(config: DictConfig, workers: int) -> DictConfig:
    """Returns the configuration without interpolations, for another process; one of several shows no progress bar."""
    resolved = copy.deepcopy(config)
    OmegaConf.resolve(resolved)
    if workers > 1:
        resolved.trainer.enable_progress_bar = False
    return resolved


def _check(config: DictConfig, data: DesignDataModule) -> None:
    """Report wrong targets and runs before the first training, which takes minutes."""
    targets = config.get("targets", [0.0])
    if isinstance(targets, str) or not isinstance(targets, Sequence) or len(targets) == 0:
        raise ConfigError(f"Expected targets as a list of values, got {targets!r}: e.g. targets=[0.0,1.0].")
    for value in targets:
        Target.parse(value, data.properties)
    for run in config.runs.values():
        load_network(InverseModel, run, "model")
