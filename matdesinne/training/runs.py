"""What train.py does: surrogates that are trained once and kept, a whole design in a run's folder."""

from __future__ import annotations

__all__ = ["cached_accurate_surrogate", "cached_surrogate", "prepare_folder", "train_design"]

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from filelock import FileLock
from hydra.utils import instantiate
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

import matdesinne
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import CheckpointError, ConfigError, InterruptionError
from matdesinne.files import atomic_path, read_json, write_json
from matdesinne.models.base import InverseModel
from matdesinne.network import Batch, load_network, save_network
from matdesinne.pipeline import InverseDesign
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate
from matdesinne.training.fit import build, check_property, device_of, digest, fit, plain
from matdesinne.training.validation import validate

_LOGGER = logging.getLogger(__name__)


def train_design(config: DictConfig, folder: Path, resume: bool = False) -> InverseDesign | Surrogate:
    """Train what a configuration asks for and write it into a folder that `InverseDesign.load` reads.

    A run that was killed at any moment ends as it would have when it is resumed.

    Args:
        config: with the keys ``data``, ``model``, ``surrogate``, ``trainer``, ``logger``, ``seed``, ``surrogates_folder``.
        folder: the run's folder.
        resume: go on from the folder's last checkpoint.

    Returns:
        The whole design, or the surrogate alone without ``model``.

    Raises:
        ConfigError: without a surrogate.
        InterruptionError: on SIGTERM or SIGINT; the run can be resumed.
    """
    try:
        return _train(config, folder, resume)
    except InterruptionError as error:
        raise InterruptionError(f"{error} Go on with: python train.py resume={folder}") from error


def _train(config: DictConfig, folder: Path, resume: bool) -> InverseDesign | Surrogate:
    if config.get("surrogate") is None:
        raise ConfigError(
            "Expected a surrogate, which localizes what the model samples, got none: give one, as in surrogate=mlp."
        )
    device = device_of(config.trainer)
    data: DesignDataModule = instantiate(config.data, _convert_="all")
    check_property(config.property, data.properties)
    write_json(folder / "split.json", {**data.split.row_ids(), "duplicates_removed": data.duplicates})
    if config.get("model") is None:
        return _train_surrogate(config, data, config.seed, folder, config.get("logger"), resume)
    build(InverseModel, config.model, data)  # type: ignore[type-abstract]  # a wrong setting is told before the surrogate trains
    surrogate = cached_surrogate(config, data, config.seed, Path(config.surrogates_folder))
    labelled = data.labelled_by(surrogate.to(device))
    pl.seed_everything(config.seed, verbose=False)
    model = build(InverseModel, config.model, data)  # type: ignore[type-abstract]
    trained = fit(model, labelled, config.trainer, folder, config.get("logger"), resume and _was_kept(folder))
    design = InverseDesign(trained, surrogate.cpu())
    design.save(folder)
    held_out = data.split.validation if labelled.labelled is None else labelled.labelled[1]
    _add_metrics(folder, validate(design.model, design.surrogate, held_out))
    if config.get("accurate_surrogate") is not None:
        _train_accurate_surrogate(config, data, folder)
    return design


def cached_surrogate(config: DictConfig, data: DesignDataModule, seed: int, folder: Path) -> Surrogate:
    """Train a surrogate, or load the one that the same settings gave before.

    Args:
        config: with the keys ``data``, ``surrogate``, ``trainer``.
        data: the table.
        seed: seed of the initial weights and of the order of rows.
        folder: where trained surrogates are kept, each under the hash of its settings.
    """
    settings = {
        "version": matdesinne.__version__,
        "data": {key: value for key, value in plain(config.data).items() if key not in ("added", "synthetic")},  # rows: below
        "surrogate": plain(config.surrogate),
        "rows": digest(data.training_rows),
        "epochs": config.trainer.max_epochs,
        "seed": seed,
    }
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / name
    with _only_one(place):
        if (place / "settings.json").is_file():
            _LOGGER.info("Using the surrogate trained before in %s", place)
            return load_network(Surrogate, place, "surrogate")  # type: ignore[type-abstract]
        trained = _train_surrogate(config, data, seed, place, None, resume=True)
        write_json(place / "settings.json", settings)  # the last file: with it the surrogate is whole
        return trained


@contextmanager
def _only_one(place: Path) -> Iterator[None]:
    """Let other jobs that want the same surrogate wait for it; other processes of the same job train it together."""
    if rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        yield
        return
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):
        yield


def _was_kept(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; a run that was killed before it made one starts again."""
    kept = (folder / "checkpoints" / "last.ckpt").is_file()
    _LOGGER.info("Going on from the last checkpoint in %s" if kept else "Starting: no checkpoint yet in %s", folder)
    return kept


def _train_surrogate(
    config: DictConfig, data: DesignDataModule, seed: int, folder: Path, loggers: DictConfig | None, resume: bool = False
) -> Surrogate:
    """Train a surrogate, calibrate its spread, write it."""
    rows = data if config.surrogate.get("distillation") is None else _taught(config, data, seed)
    pl.seed_everything(seed, verbose=False)
    surrogate = build(Surrogate, config.surrogate, rows)  # type: ignore[type-abstract]
    _LOGGER.info("Training the surrogate %s, kept in %s", type(surrogate).__name__, folder)
    trained = fit(surrogate, rows, config.trainer, folder, loggers, resume and _was_kept(folder))
    held = data.split.validation.without(data.split.train)
    trained.calibrate(Batch(held.x, held.y))
    save_network(trained, folder, "surrogate")
    return trained


def _taught(config: DictConfig, data: DesignDataModule, seed: int) -> DesignDataModule:
    """Rows that the teacher of ``surrogate.distillation`` has labelled; the teacher is trained once and kept."""
    teacher = _cached(config, config.surrogate.distillation.teacher, data, seed)
    if not isinstance(teacher, TightBindingSurrogate):
        raise ConfigError(
            f"Expected tight_binding as a teacher, got {type(teacher).__name__}: correct surrogate.distillation.teacher."
        )
    return data.taught_by(teacher, config.surrogate.distillation.designs, seed)


def cached_accurate_surrogate(config: DictConfig, data: DesignDataModule) -> Surrogate:
    """Train or load the accurate surrogate that the key ``accurate_surrogate`` describes, as `cached_surrogate` does."""
    return _cached(config, config.accurate_surrogate, data, config.seed)


def _cached(config: DictConfig, settings: DictConfig, data: DesignDataModule, seed: int) -> Surrogate:
    """`cached_surrogate` for other settings than those under ``surrogate``."""
    other = config.copy()
    other.surrogate = settings
    return cached_surrogate(other, data, seed, Path(config.surrogates_folder))


def _train_accurate_surrogate(config: DictConfig, data: DesignDataModule, folder: Path) -> None:
    """Write an accurate surrogate for every grid of k-points that the data carry."""
    accurate_surrogate = cached_accurate_surrogate(config, data)
    versions = [accurate_surrogate]
    if isinstance(accurate_surrogate, TightBindingSurrogate):
        versions = [accurate_surrogate.on_grid(labels) for labels in data.split.train.bands]
    for version in versions:
        save_network(version, folder, f"accurate_{version.properties[0].name}")


def _add_metrics(folder: Path, more: dict[str, float]) -> None:
    metrics = read_json(folder / "metrics.json")
    assert isinstance(metrics, dict)  # fit has written it
    write_json(folder / "metrics.json", {**metrics, **more})


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
