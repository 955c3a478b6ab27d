"""What Table 1 needs before it starts: two surrogates and one trained model for each method."""

from __future__ import annotations

__all__ = ["Prepared", "gather", "prepare", "train_models"]

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
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
from matdesinne.training.fit import build, check_property, device_of, digest, fit, plain
from matdesinne.training.runs import cached_accurate_surrogate, cached_surrogate

_LOGGER = logging.getLogger(__name__)

_EVALUATOR_SEED = 1000
"""Seed of the surrogate that scores: no repeat localizes with it."""


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
    wanted = [config.models] if isinstance(config.models, str) else config.models
    names = list(wanted) if wanted is not None else default
    unknown = [name for name in [*names, *config.runs] if name not in known]
    if unknown:
        raise ConfigError(f"Expected models out of {known}, got {unknown}: correct models= or runs.")
    loaded = {name: OmegaConf.load(folder / f"{name}.yaml") for name in names}
    return {name: model for name, model in loaded.items() if isinstance(model, DictConfig)}


def train_models(
    config: DictConfig, models: dict[str, DictConfig], data: DesignDataModule, folder: Path, trainings: Trainings
) -> tuple[dict[str, InverseModel], dict[str, float]]:
    """Train every model, or load the one that a run or an earlier benchmark in this folder with equal settings gave.

    Args:
        config: with the keys ``runs``, ``trainer``, ``seed`` and ``workers``.
        models: configurations by the name of their file.
        data: the rows to train on.
        folder: where to keep the checkpoints.
        trainings: where to train them.

    Returns:
        The models by the name of their method, and the seconds that the training of each took.
    """
    places = {name: Path(config.runs.get(name) or folder / name) for name in models}
    wanted = {name: _settings(config, settings, data) for name, settings in models.items() if name not in config.runs}
    missing = {name: kept for name, kept in wanted.items() if read_json(places[name] / "settings.json") != kept}
    if missing:
        _LOGGER.info("Training %s on %s designs", ", ".join(missing), f"{len(data.training_rows):,}")
    quiet = _quiet(config, min(config.workers, len(missing)))
    tasks = [(_train_model, (quiet, models[name], data, places[name], kept)) for name, kept in missing.items()]
    trainings.finish(trainings.start(tasks), "Training models")
    trained: dict[str, InverseModel] = {}
    seconds: dict[str, float] = {}
    for name, place in places.items():
        model = load_network(InverseModel, place, "model")
        label = f"{model.label} ({name})" if model.label in trained else model.label
        trained[label] = model
        metrics = read_json(place / "metrics.json")
        if isinstance(metrics, dict):
            seconds[label] = metrics["seconds"]
    return trained, seconds


def _train_model(
    config: DictConfig, settings: DictConfig, data: DesignDataModule, place: Path, kept: dict[str, object]
) -> None:
    pl.seed_everything(config.seed, verbose=False)
    model = fit(build(InverseModel, settings, data), data, config.trainer, place, None)
    save_network(model, place, "model")
    write_json(place / "settings.json", kept)


def _settings(config: DictConfig, settings: DictConfig, data: DesignDataModule) -> dict[str, object]:
    """What decides the weights of a model."""
    whole = {"model": plain(settings), **{name: plain(config[name]) for name in ("data", "surrogate")}}
    return {**whole, "epochs": config.trainer.max_epochs, "rows": digest(data.split.train), "seed": config.seed}


def _quiet(config: DictConfig, workers: int) -> DictConfig:
    """A configuration that another process can read; several progress bars at once say nothing."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    if workers > 1:
        resolved.trainer.enable_progress_bar = False
    return resolved


@dataclass(frozen=True)
class Prepared:
    """What a benchmark starts from, all made with one seed.

    Args:
        models: trained generative models by the name of their method.
        seconds: wall time of the training of each, where it is known.
        surrogate: localizes and labels.
        evaluator: scores, where it was asked for.
        accurate_surrogate: moves candidates in the end, where it was asked for.
        data: the rows, and the designs that the models were trained on.
    """

    models: dict[str, InverseModel]
    seconds: dict[str, float]
    surrogate: Surrogate
    evaluator: Surrogate | None
    accurate_surrogate: Surrogate | None
    data: DesignDataModule

    def facts(self) -> dict[str, object]:
        """What a reader of the numbers needs beside them, as plain containers."""
        return {
            "seconds_training": self.seconds,
            "surrogate_test_errors": surrogate_errors(self.surrogate, self.data.split.test),
            "parameters": {
                name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, model in self.models.items()
            },
        }


def prepare(config: DictConfig, models: dict[str, DictConfig], folder: Path, evaluate: bool = False) -> Prepared:
    """Train or load the localizing surrogate and every model.

    Args:
        config: with the keys ``data``, ``surrogate``, ``evaluator``, ``accurate_surrogate``, ``trainer``, ``runs``, ``seed``,
            ``workers``, ``surrogates_folder``.
        models: configurations by the name of their file.
        folder: where to keep the checkpoints.
        evaluate: make the evaluator too, and the accurate_surrogate if there is to be one.
    """
    device = device_of(config.trainer)
    data: DesignDataModule = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    if len(data.properties) != 1:
        raise ConfigError(f"Expected one property for this suite, got {len(data.properties)}: use a data set with one.")
    _check(config, models, data)
    quiet = _quiet(config, config.workers if evaluate else 1)
    refining = evaluate and config.get("accurate_surrogate") is not None
    others = [*([_evaluator] if evaluate else []), *([cached_accurate_surrogate] if refining else [])]
    with Trainings(config.workers) as trainings:
        first = trainings.start([(_localizing_surrogate, (quiet, data))]) if evaluate else []
        # they go on while the models are labelled and trained
        later = trainings.start([(make, (quiet, data)) for make in others])
        trainings.finish(first, "Training the surrogate")
        surrogate = _localizing_surrogate(config, data)
        labelled = data.labelled_by(surrogate.to(device))
        with trainings.beside():  # they are labelled here, when they are first asked for
            trained, seconds = train_models(config, models, labelled, folder, trainings)
        trainings.finish(later, "Training the evaluator")
    evaluator = _evaluator(config, data) if evaluate else None
    accurate_surrogate = cached_accurate_surrogate(config, data) if refining else None
    return Prepared(trained, seconds, surrogate.cpu(), evaluator, accurate_surrogate, labelled)


def _check(config: DictConfig, models: dict[str, DictConfig], data: DesignDataModule) -> None:
    """Find the user's mistakes before anything is trained."""
    targets = config.get("targets", [0.0])
    if isinstance(targets, str) or not isinstance(targets, Sequence) or len(targets) == 0:
        raise ConfigError(f"Expected targets as a list of values, got {targets!r}: e.g. targets=[0.0,1.0].")
    for value in targets:
        Target.parse(value, data.properties)
    for run in config.runs.values():
        load_network(InverseModel, run, "model")
    for name in models.keys() - config.runs.keys():
        build(InverseModel, models[name], data)


def _localizing_surrogate(config: DictConfig, data: DesignDataModule) -> Surrogate:
    return cached_surrogate(config, data, config.seed, Path(config.surrogates_folder))


def _evaluator(config: DictConfig, data: DesignDataModule) -> Surrogate:
    """The surrogate that scores: trained on all rows with a seed of its own, the same in every repeat."""
    changes = config.get("evaluator") or config.evaluator_network
    if "_target_" not in changes:
        known = {key: value for key, value in changes.items() if key in config.surrogate}
        changes = OmegaConf.merge(config.surrogate, known)
    other = config.copy()
    other.surrogate = changes
    other.data = OmegaConf.merge(config.data, {"split_seed": 0, "order_seed": 0})
    return cached_surrogate(other, data.with_all_rows(), _EVALUATOR_SEED, Path(config.surrogates_folder))
