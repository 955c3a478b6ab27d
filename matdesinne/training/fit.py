"""Training of any model or surrogate with a Lightning trainer: best epoch, early stopping, resume, logs."""

from __future__ import annotations

__all__ = [
    "build",
    "check_property",
    "device_of",
    "digest",
    "fit",
    "plain",
]

import atexit
import functools
import hashlib
import json
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
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, InterruptionError, MatDesINNeError, TrainingError
from matdesinne.files import write_json
from matdesinne.models.base import InverseModel
from matdesinne.network import DesignNetwork
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.training.base import LightningTask
from matdesinne.training.checkpoints import AtomicCheckpointIO, PatientStopping, RunCheckpoints, SteadyTermination

M = TypeVar("M", bound=DesignNetwork)


def fit(
    module: M, data: DesignDataModule, trainer: DictConfig, folder: Path, loggers: DictConfig | None, resume: bool = False
) -> M:
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
        InterruptionError: on SIGTERM or SIGINT.
        TrainingError: if a loss is not finite.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise CheckpointError(f"Expected {last} to resume from, got no such file: give the folder of a run that was started.")
    if resume:
        type(module).load_from_checkpoint(last)  # a damaged or foreign file is an error before anything else
    _scale(module, data)
    best = RunCheckpoints(folder / "checkpoints")
    runner = _trainer(module, trainer, folder, loggers, best)
    start = time.perf_counter()
    _run(runner, module, data, last if resume else None)
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


def _trainer(
    module: DesignNetwork, trainer: DictConfig, folder: Path, loggers: DictConfig | None, best: RunCheckpoints
) -> pl.Trainer:
    callbacks: list[Callback] = [SteadyTermination(), best]
    options = OmegaConf.to_container(trainer, resolve=True)
    assert isinstance(options, dict)
    patience = options.pop("patience")
    if patience is not None:
        callbacks.append(PatientStopping(patience))
    if options.get("max_epochs") is None:
        options["max_epochs"] = module.optimization.epochs
    if options.get("gradient_clip_val") is None:
        options["gradient_clip_val"] = module.optimization.clip
    given = [instantiate(logger, _convert_="all") for logger in (loggers or {}).values()] or False
    make = functools.partial(
        instantiate, callbacks=callbacks, plugins=[AtomicCheckpointIO()], logger=given, default_root_dir=str(folder)
    )
    runner = make(options)
    if module.trains_in_parts and type(runner.strategy) is DDPStrategy:
        runner = make({**options, "strategy": "ddp_find_unused_parameters_true"})
    return runner


def _run(runner: pl.Trainer, module: DesignNetwork, data: DesignDataModule, checkpoint: Path | None) -> None:
    """Fit; a signal ends it by an error that says how to go on."""
    if runner.world_size > 1:
        atexit.register(_leave_group)
    try:
        runner.fit(LightningTask(module), datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # Lightning's answer to a signal
        if runner.global_rank > 0:  # the first process tells; it would be killed if another one failed
            raise
        name = "SIGTERM" if isinstance(error, SIGTERMException) else "SIGINT"
        raise InterruptionError(
            f"Expected the training of {type(module).__name__} to finish, got {name} in epoch {runner.current_epoch}: what it "
            "has learnt is kept, resume the run."
        ) from error


def _leave_group() -> None:
    """End the threads of a process group while Python still runs: gloo's would abort it (Lightning ends nccl's only)."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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


def build(kind: type[M], config: DictConfig, data: DesignDataModule) -> M:
    """Make the untrained module of a configuration for the designs and properties of a data set."""
    # how a surrogate is distilled is no part of it
    own = {key: value for key, value in config.items() if key != "distillation"}
    # a partial: Hydra would turn the frozen dataclasses into plain dictionaries
    make = instantiate(own, _partial_=True, _convert_="all")
    if issubclass(kind, Surrogate):
        if "kpoints" in config and config.kpoints is None:
            if not data.training_rows.bands:
                raise ConfigError("Expected band energies in the data for surrogate=bands, got none: use surrogate=mlp.")
            make = functools.partial(make, kpoints=len(data.training_rows.bands[0].kpoints))
        make = functools.partial(make, prototype=data.prototype)
    try:
        module = make(space=data.space, properties=data.properties)
    except MatDesINNeError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:  # what torch thinks of a size or a name
        raise ConfigError(
            f"Expected settings of {config.get('_target_')} that fit, got {type(error).__name__} ({error}): correct them."
        ) from error
    if not isinstance(module, kind):
        raise ConfigError(
            f"Expected the configuration of a {kind.__name__}, got {config.get('_target_')}: correct its _target_."
        )
    _check_readable(module)
    return module


def _check_readable(module: DesignNetwork) -> None:
    """Tell before the training what its weights could not be read again by."""
    name = type(module).__name__
    with torch.random.fork_rng(devices=[]):  # the weights of the module decide, not how often one was made
        try:
            again = type(module).build(json.loads(json.dumps(module.describe())))
            again.load_state_dict(module.state_dict())
        except Exception as error:  # a module of one's own may be wrong in any way
            raise ConfigError(
                f"Expected a {name} that can be made again from its description, got {type(error).__name__} "
                f"({' '.join(str(error).split())}): put its file into the package matdesinne, and let its constructor call "
                "save_hyperparameters with plain numbers, words and lists."
            ) from error


def digest(table: DesignTable) -> str:
    """A hash of the rows: an edited table trains a new surrogate."""
    return hashlib.sha256(table.x.numpy().tobytes() + table.y.numpy().tobytes()).hexdigest()


def _scale(module: DesignNetwork, data: DesignDataModule) -> None:
    if isinstance(module, InverseModel):
        module.fit_scales(data.training_batch(), data.prior)
    else:
        module.fit_scales(data.training_batch())


def plain(config: DictConfig) -> dict[str, object]:
    """A configuration as plain containers, its interpolations resolved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
