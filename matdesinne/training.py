"""Training of any model or surrogate with a Lightning trainer: best epoch, early stopping, resume, logs."""

from __future__ import annotations

__all__ = [
    "build",
    "cached_finisher",
    "cached_surrogate",
    "check_property",
    "device_of",
    "digest",
    "fit",
    "plain",
    "prepare_folder",
    "train_design",
]

import functools
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

import matdesinne
from matdesinne.data.datamodule import DesignData
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, TrainingError
from matdesinne.files import atomic_path, write_json
from matdesinne.fitting import LightningTask
from matdesinne.learning import Batch, DesignModule, load_module, save_module
from matdesinne.models.base import InverseModel
from matdesinne.pipeline import InverseDesign
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding import TightBindingSurrogate
from matdesinne.targets import Property

_LOGGER = logging.getLogger(__name__)

M = TypeVar("M", bound=DesignModule)


def fit(module: M, data: DesignData, trainer: DictConfig, folder: Path, loggers: DictConfig | None, resume: bool = False) -> M:
    """Train a module and return it with the weights of its best epoch; its score goes to ``metrics.json``.

    Args:
        module: a model or a surrogate; its scales are learnt here.
        data: rows to train and validate on.
        trainer: configuration of ``pytorch_lightning.Trainer``; ``null`` for ``max_epochs`` or
            ``gradient_clip_val`` takes the module's own.
        folder: checkpoints go to ``checkpoints/`` in it.
        loggers: configurations of Lightning loggers by name.
        resume: go on from ``checkpoints/last.ckpt``.

    Raises:
        CheckpointError: if there is nothing to resume.
        TrainingError: if no epoch gave a finite validation loss.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise CheckpointError(f"Expected {last} to resume from, got no such file: give the folder of a run that was started.")
    _scale(module, data)
    best = ModelCheckpoint(folder / "checkpoints", "best", monitor="val_loss", save_last=True, enable_version_counter=False)
    callbacks: list[Callback] = [best]
    options = OmegaConf.to_container(trainer, resolve=True)
    assert isinstance(options, dict)
    patience = options.pop("patience")
    if patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=patience))
    if options.get("max_epochs") is None:
        options["max_epochs"] = module.optimization.epochs
    if options.get("gradient_clip_val") is None:
        options["gradient_clip_val"] = module.optimization.clip
    runner: pl.Trainer = instantiate(
        options,
        callbacks=callbacks,
        logger=[instantiate(logger, _convert_="all") for logger in (loggers or {}).values()] or False,
        default_root_dir=str(folder),
    )
    start = time.perf_counter()
    runner.fit(LightningTask(module), datamodule=data, ckpt_path=str(last) if resume else None, weights_only=True)
    if runner.interrupted:
        raise TrainingError(f"Expected training to finish, got an interruption: go on with resume={folder}.")
    if best.best_model_score is None or not best.best_model_score.isfinite():
        raise TrainingError(
            f"Expected a finite validation loss of {type(module).__name__}, got none by epoch {runner.current_epoch}: lower "
            "optimization.learning_rate or check the data."
        )
    seconds = time.perf_counter() - start
    trained = type(module).load_from_checkpoint(best.best_model_path)
    runner.loggers = []  # of the epochs, which are over
    metrics = {
        **runner.validate(LightningTask(trained), datamodule=data, verbose=False)[0],
        "epochs": runner.current_epoch,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in trained.parameters() if p.requires_grad),
    }
    write_json(folder / "metrics.json", metrics)
    return trained.cpu().eval()


def check_property(name: str | None, properties: Sequence[Property]) -> None:
    """Check that what a user asked for by ``property=`` is what is there.

    Raises:
        ConfigError: if it is not.
    """
    known = [prop.name for prop in properties]
    if name is not None and name not in known:
        raise ConfigError(f"Expected property out of {known}, got {name!r}: use another data set or run, or drop property=.")


def device_of(trainer: DictConfig) -> torch.device:
    """The device that a trainer's configuration stands for.

    Raises:
        DeviceError: if the accelerator is not there.
    """
    asked = {key: trainer[key] for key in ("_target_", "accelerator", "devices")}
    try:
        return instantiate(asked, logger=False, barebones=True).strategy.root_device
    except InstantiationException as error:
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        reason = " ".join(str(error.__cause__).split())
        raise DeviceError(
            f"Expected the device trainer.accelerator={trainer.accelerator}, trainer.devices={trainer.devices}, got none "
            f"({reason}): use trainer.accelerator=cpu, or install a build of torch for your device."
        ) from error


def cached_surrogate(config: DictConfig, data: DesignData, seed: int, folder: Path) -> Surrogate:
    """Train a surrogate, or load the one that the same settings gave before.

    Args:
        config: with the keys ``data``, ``surrogate``, ``trainer``.
        data: the table.
        seed: seed of the initial weights and of the order of rows.
        folder: where trained surrogates are kept, each under the hash of its settings.
    """
    settings = {
        "version": matdesinne.__version__,
        "data": {key: value for key, value in plain(config.data).items() if key != "labels"},
        "surrogate": plain(config.surrogate),
        "rows": digest(data.training_rows),
        "epochs": config.trainer.max_epochs,
        "seed": seed,
    }
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / name
    if (place / "surrogate.safetensors").is_file():
        _LOGGER.info("Using the surrogate trained before in %s", place)
        return load_module(Surrogate, place, "surrogate")  # type: ignore[type-abstract]
    trained = _train_surrogate(config, data, seed, place, None)
    write_json(place / "settings.json", settings)
    return trained


def _train_surrogate(
    config: DictConfig, data: DesignData, seed: int, folder: Path, loggers: DictConfig | None, resume: bool = False
) -> Surrogate:
    """Train a surrogate, calibrate its spread, write it."""
    pl.seed_everything(seed, verbose=False)
    surrogate = build(Surrogate, config.surrogate, data)  # type: ignore[type-abstract]
    _LOGGER.info("Training the surrogate %s, kept in %s", type(surrogate).__name__, folder)
    trained = fit(surrogate, data, config.trainer, folder, loggers, resume)
    held = data.split.validation.without(data.split.train)
    trained.calibrate(Batch(held.x, held.y))
    save_module(trained, folder, "surrogate")
    return trained


def cached_finisher(config: DictConfig, data: DesignData) -> Surrogate:
    """Train or load the accurate surrogate that the key ``finisher`` describes, as `cached_surrogate` does."""
    other = config.copy()
    other.surrogate = config.finisher
    return cached_surrogate(other, data, config.seed, Path(config.surrogates_folder))


def train_design(config: DictConfig, folder: Path, resume: bool = False) -> InverseDesign | Surrogate:
    """Train what a configuration asks for and write it into a folder that `InverseDesign.load` reads.

    Args:
        config: with the keys ``data``, ``model``, ``surrogate``, ``trainer``, ``logger``, ``seed``, ``surrogates_folder``.
        folder: the run's folder.
        resume: go on from the folder's last checkpoint.

    Returns:
        The whole design, or the surrogate alone without ``model``.
    """
    device = device_of(config.trainer)
    data: DesignData = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    write_json(folder / "split.json", {**data.split.row_ids(), "duplicates_removed": data.duplicates})
    if config.get("model") is None:
        return _train_surrogate(config, data, config.seed, folder, config.get("logger"), resume)
    surrogate = cached_surrogate(config, data, config.seed, Path(config.surrogates_folder))
    labelled = data.labelled_by(surrogate.to(device))
    pl.seed_everything(config.seed, verbose=False)
    model = build(InverseModel, config.model, data)  # type: ignore[type-abstract]
    design = InverseDesign(fit(model, labelled, config.trainer, folder, config.get("logger"), resume), surrogate)
    design.save(folder)
    if config.get("finisher") is not None:
        _train_finisher(config, data, folder)
    return design


def _train_finisher(config: DictConfig, data: DesignData, folder: Path) -> None:
    """Write an accurate surrogate for every grid of k-points that the data carry."""
    finisher = cached_finisher(config, data)
    versions = [finisher]
    if isinstance(finisher, TightBindingSurrogate):
        versions = [finisher.on_grid(labels) for labels in data.split.train.bands]
    for version in versions:
        save_module(version, folder, f"finisher_{version.properties[0].name}")


def prepare_folder(config: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """Keep the configuration in the run's folder, or take up the one that is kept there when a run is resumed.

    Raises:
        CheckpointError: if there is no run to resume.
    """
    kept = folder / "config.yaml"
    if config.resume is not None:
        if not kept.is_file():
            raise CheckpointError(
                f"Expected {kept} to resume from, got no such file: give the folder of a run that was started."
            )
        changes = OmegaConf.from_dotlist([item.lstrip("+") for item in overrides if "resume=" not in item and "." in item])
        merged = OmegaConf.merge(OmegaConf.load(kept), changes)
        assert isinstance(merged, DictConfig)
        return merged
    with atomic_path(kept) as temporary:
        OmegaConf.save(config, temporary, resolve=True)
    return config


def build(kind: type[M], config: DictConfig, data: DesignData) -> M:
    """Make the untrained module of a configuration for the designs and properties of a data set."""
    # a partial: Hydra would turn the frozen dataclasses into plain dictionaries
    make = instantiate(config, _partial_=True, _convert_="all")
    if issubclass(kind, Surrogate):
        if "kpoints" in config and config.kpoints is None:
            if not data.training_rows.bands:
                raise ConfigError("Expected band energies in the data for surrogate=bands, got none: use surrogate=mlp.")
            make = functools.partial(make, kpoints=len(data.training_rows.bands[0].kpoints))
        module = make(space=data.space, properties=data.properties, prototype=data.prototype)
    else:
        module = make(space=data.space, properties=data.properties)
    if not isinstance(module, kind):
        raise ConfigError(
            f"Expected the configuration of a {kind.__name__}, got {config.get('_target_')}: correct its _target_."
        )
    return module


def digest(table: DesignTable) -> str:
    """A hash of the rows: an edited table trains a new surrogate."""
    return hashlib.sha256(table.x.numpy().tobytes() + table.y.numpy().tobytes()).hexdigest()


def _scale(module: DesignModule, data: DesignData) -> None:
    if isinstance(module, InverseModel):
        module.fit_scales(data.training_batch(), data.prior)
    else:
        module.fit_scales(data.training_batch())


def plain(config: DictConfig) -> dict[str, object]:
    """A configuration as plain containers, its interpolations resolved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
