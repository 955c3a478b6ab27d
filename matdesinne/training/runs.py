"""The steps of train.py: surrogates that are trained once and kept, synthetic designs, the configuration of a run."""

from __future__ import annotations

__all__ = [
    "add_synthetic_rows",
    "closing_line",
    "describe_training",
    "hash_of_rows",
    "make_callbacks",
    "prepare_folder",
    "report_accuracy",
    "resumable",
    "save_accurate_surrogates",
    "save_design",
    "train_model",
    "train_surrogate",
    "trained_surrogate",
    "was_started",
]

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock
from hydra.utils import instantiate
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

import matdesinne
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.synthetic import distilled_rows, held_out
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError, InterruptionError
from matdesinne.files import atomic_path, write_json
from matdesinne.models.base import InverseModel
from matdesinne.network import Batch, load_network, save_network
from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.accuracy import Accuracy, measure_accuracy, write_accuracy
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate
from matdesinne.training.build import build_module, check_device
from matdesinne.training.cross_validation import chosen_surrogate
from matdesinne.training.fit import add_metrics, fit
from matdesinne.training.metrics import TargetMetrics
from matdesinne.training.module import DesignModule
from matdesinne.training.progress import EpochLines
from matdesinne.training.surrogates import SurrogateModule

_LOGGER = logging.getLogger(__name__)
_ROWS = ("added", "tested", "calibration", "relatives", "synthetic")
"""Settings of the data that say what rows there are; the rows themselves are hashed."""
_FEW_STEPS = 100
"""Training steps below which samples are hardly better than draws from the prior."""


def add_synthetic_rows(data: DesignDataModule, surrogate: Surrogate | None, device: torch.device) -> DesignDataModule:
    """The rows that a generative model trains on: synthetic designs where the data set asks for them, else the table's.

    The surrogate labels the synthetic designs on the device.

    Raises:
        ConfigError: if the data set asks for synthetic designs and there is no surrogate to label them.
    """
    if data.synthetic is None:
        return data
    if surrogate is None:
        raise ConfigError(
            "Expected a surrogate to label synthetic designs, got none: give one, as in surrogate=mlp, or train on the rows of "
            "the table by data.synthetic=null."
        )
    rows = data.synthetic.make(data.space, surrogate.to(device))
    surrogate.cpu()
    return data.with_rows(*rows)


def trained_surrogate(
    config: DictConfig, data: DesignDataModule, settings: DictConfig | None = None, seed: int | None = None
) -> Surrogate:
    """Train a surrogate, or load the one that equal settings gave before.

    Args:
        config: as of ``train.py``; surrogates are kept in its ``surrogates_folder``, each under the hash of its settings.
        data: the table.
        settings: of the surrogate; those under ``surrogate`` when omitted.
        seed: of the initial weights and of the noise; that of the configuration when omitted.
    """
    surrogate = config.surrogate if settings is None else settings
    seed = config.seed if seed is None else seed
    described = describe_training(config, data, surrogate, seed)
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(config.surrogates_folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    # other jobs that need the same surrogate wait for it; other processes of the same job train it together
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    with FileLock(folder / ".lock") if first else nullcontext():
        if (folder / "settings.json").is_file():
            _LOGGER.info("Using the surrogate trained before in %s", folder)
            return load_network(Surrogate, folder, "surrogate")
        trained = train_surrogate(config, data, folder, surrogate, seed, resume=True)
        write_json(folder / "settings.json", described)  # the last file: with it the surrogate is whole
        return trained


def describe_training(config: DictConfig, data: DesignDataModule, settings: DictConfig, seed: int) -> dict[str, object]:
    """Everything that the weights of a surrogate or a model depend on, as plain containers."""
    calibration = {"calibration": hash_of_rows(data.calibration_rows)} if data.calibration else {}
    relatives = {"relatives": [hash_of_rows(rows) for rows in data.relative_rows()]} if data.relatives else {}
    return {
        **calibration,
        **relatives,
        "version": matdesinne.__version__,
        "data": {key: value for key, value in _plain(config.data).items() if key not in _ROWS},
        "surrogate": _plain(settings),
        "rows": hash_of_rows(data.training_rows),
        "epochs": config.trainer.max_epochs,
        "seed": seed,
    }


def train_surrogate(
    config: DictConfig,
    data: DesignDataModule,
    folder: Path,
    settings: DictConfig,
    seed: int,
    loggers: Sequence[Logger] = (),
    resume: bool = False,
) -> Surrogate:
    """Train a surrogate, see `trained_surrogate`, calibrate its spread, write it and its checkpoints into a folder.

    To resume is to go on from the last checkpoint in the folder if there is one.
    """
    rows = data if settings.get("distillation") is None else _distilled(config, data, settings.distillation, seed)
    resume = resume and was_started(folder)
    with torch.random.fork_rng():  # draws as from a seed of its own: other work may precede or follow
        torch.manual_seed(seed)
        trainer = instantiate(config.trainer)
        settings, checked = chosen_surrogate(settings, rows, trainer)
        module = build_module(settings, rows)
        at_once = isinstance(module, SurrogateModule) and not module.chooses_epochs
        callbacks = [] if at_once else make_callbacks(config)
        all_rows = checked is not None and at_once
        if all_rows:
            rows = rows.with_rows(rows.split.train.joined(rows.split.validation), rows.split.validation)
        _LOGGER.info("Training the surrogate %s, kept in %s", type(module.network).__name__, folder)
        trained = fit(module, rows, trainer, folder, loggers=loggers, callbacks=callbacks, resume=resume)
    if not isinstance(trained, Surrogate):
        raise ConfigError(f"Expected the configuration of a surrogate, got one of a {type(trained).__name__}: correct it.")
    if checked is None:
        unseen = data.calibration_rows
        trained.calibrate(Batch(unseen.x, unseen.y))
    else:
        trained.calibrate_by(checked.mean, checked.spread, checked.y)
        add_metrics(folder, checked.metrics("cross_validation"))
        if all_rows:  # the trainer has validated on rows that it trained on
            add_metrics(folder, checked.metrics("val"))
    save_network(trained, folder, "surrogate")
    return trained


def train_model(
    config: DictConfig,
    model: DesignModule,
    data: DesignDataModule,
    surrogate: Surrogate | None,
    folder: Path,
    loggers: Sequence[Logger] = (),
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> InverseModel:
    """Train a generative model and return it with the weights of its best epoch.

    To resume is to go on from the last checkpoint in the folder if there is one; `callbacks` follow those of the configuration.
    """
    _warn_of_few_steps(model, data)
    every = make_callbacks(config)
    if surrogate is not None:
        every.append(TargetMetrics(surrogate, data.held_out, folder / "samples.png"))
    resume = resume and was_started(folder)
    trainer = instantiate(config.trainer)
    network = fit(model, data, trainer, folder, loggers=loggers, callbacks=[*every, *callbacks], resume=resume)
    return cast(InverseModel, network)


def _warn_of_few_steps(model: DesignModule, data: DesignDataModule) -> None:
    steps = -(-len(data.training_rows) // model.batch_size) * model.epochs(len(data.training_rows))
    if steps < _FEW_STEPS:
        _LOGGER.warning(
            f"The training of {type(model.network).__name__} takes {steps} steps, too few to learn from "
            f"{len(data.training_rows)} rows: raise model.max_epochs, lower model.batch_size, or keep data.synthetic."
        )


def make_callbacks(config: DictConfig) -> list[Callback]:
    """The callbacks of a configuration group, by their names, none of ``null``; without a terminal epochs are logged, too."""
    stated = [instantiate(callback) for callback in (config.get("callbacks") or {}).values()]
    return stated if sys.stdout.isatty() else [*stated, EpochLines()]


def was_started(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from; a run that was killed before it wrote one starts again."""
    return (folder / "checkpoints" / "last.ckpt").is_file()


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Let an interruption say by which command the run goes on."""
    try:
        yield
    except InterruptionError as error:
        raise InterruptionError(f"{error} Go on with: python train.py resume={folder}") from error


def save_design(folder: Path, model: InverseModel, surrogate: Surrogate | None) -> None:
    """Write a generative model, and the surrogate where there is one, so that `InverseDesign.load` reads both."""
    if surrogate is None:
        save_network(model, folder, "model")
    else:
        InverseDesign(model, surrogate).save(folder)


def save_accurate_surrogates(config: DictConfig, data: DesignDataModule, folder: Path) -> None:
    """Train the surrogate under ``accurate_surrogate``, if any, and write it for every grid of k-points that the data carry."""
    if not config.get("accurate_surrogate"):
        return
    surrogate = trained_surrogate(config, data, config.accurate_surrogate)
    versions = [surrogate]
    if isinstance(surrogate, TightBindingSurrogate):
        versions = [surrogate.on_grid(labels) for labels in data.split.train.bands]
    for version in versions:
        save_network(version, folder, f"accurate_{version.properties[0].name}")


def prepare_folder(config: DictConfig, folder: Path, overrides: list[str]) -> DictConfig:
    """Keep the configuration in the run's folder, or take up the one that is kept there when a run is resumed.

    Raises:
        CheckpointError: if there is no run to resume.
    """
    kept = folder / "config.yaml"
    if config.resume is None:
        with atomic_path(kept) as temporary:
            OmegaConf.save(config, temporary, resolve=True)
        return config
    if not kept.is_file():
        raise CheckpointError(f"Expected {kept} to resume from, got no such file: give the folder of a run that was started.")
    changes = OmegaConf.from_dotlist([item.lstrip("+") for item in overrides if "resume=" not in item and "." in item])
    return cast(DictConfig, OmegaConf.merge(OmegaConf.load(kept), changes))


def report_accuracy(folder: Path, surrogate: Surrogate | None, data: DesignDataModule) -> list[Accuracy]:
    """Measure the errors of a surrogate on the test rows, each measurement of its own, and keep them in a run's folder."""
    split = data.split
    if surrogate is None or not len(split.test):
        return []
    found = measure_accuracy(surrogate, split.train.joined(split.validation), data.measurements(split.test))
    write_accuracy(found, folder)
    return found


def closing_line(folder: Path) -> str:
    """Returns what a run says last: its folder and, if that has a model and a surrogate, how to generate with it."""
    whole = all((folder / f"{part}.json").is_file() for part in ("model", "surrogate"))
    return f"Wrote {folder}." + (f" Generate with: python generate.py run={folder} target=VALUE" if whole else "")


def _distilled(config: DictConfig, data: DesignDataModule, settings: DictConfig, seed: int) -> DesignDataModule:
    """Rows that the teacher has labelled; the teacher is trained once and kept."""
    teacher = trained_surrogate(config, data, settings.teacher, seed)
    if not isinstance(teacher, TightBindingSurrogate):
        raise ConfigError(
            f"Expected tight_binding as a teacher, got {type(teacher).__name__}: correct surrogate.distillation.teacher."
        )
    rows = distilled_rows(teacher.to(check_device(config.trainer)), instantiate(settings.designs))
    return data.with_rows(*held_out(rows))


def hash_of_rows(table: DesignTable) -> str:
    """Returns a hash of designs and properties, by which edited rows are told from the rows before."""
    return hashlib.sha256(table.x.numpy().tobytes() + table.y.numpy().tobytes()).hexdigest()


def _plain(config: DictConfig) -> dict[str, object]:
    return cast(dict[str, object], OmegaConf.to_container(config, resolve=True))
