"""Training of a LightningModule: best epoch, resume, metrics."""

from __future__ import annotations

__all__ = ["add_metrics", "fit"]

import atexit
import functools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import CheckpointError, ConfigError, InterruptionError, TrainingError
from matdesinne.files import write_json
from matdesinne.training.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, read_checkpoint, read_network
from matdesinne.training.module import DesignModule, N


def fit(
    module: DesignModule[N],
    data: DesignDataModule,
    trainer: Callable[..., pl.Trainer] | None = None,
    folder: str | Path | None = None,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> N:
    """Train a module and return its network with the weights of the best epoch; its metrics go to ``metrics.json``.

    Without validation rows these are the weights of the last epoch.

    Args:
        module: what is trained; its network learns the scales of the data.
        data: rows to train and validate on.
        trainer: makes the trainer, such as ``functools.partial(pytorch_lightning.Trainer, accelerator="gpu")``; ``max_epochs``
            and ``gradient_clip_val`` are the module's where it states none. Quiet, on the fastest device, when omitted.
        folder: of ``metrics.json`` and the folder ``checkpoints``; a temporary one when omitted.
        loggers: of Lightning.
        callbacks: of Lightning, beside those that keep checkpoints.
        resume: go on from ``checkpoints/last.ckpt``.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        CheckpointError: if there is nothing to resume, or it was damaged.
        InterruptionError: on SIGTERM or SIGINT.
        TrainingError: if a loss is not finite.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return fit(module, data, trainer, temporary, loggers=loggers, callbacks=callbacks)
    folder = Path(folder)
    last = folder / "checkpoints" / "last.ckpt"
    if resume:
        _check_resumable(module, last)
    validates = len(data.split.validation) > 0
    best = BestCheckpoint(last.parent)
    kept = [best] if validates else []
    epochs = module.epochs(len(data.training_rows))
    runner = _trainer(module, epochs, trainer, folder, loggers, [*callbacks, *kept, LastCheckpoint(last.parent)])
    if not validates:
        _without_validation(runner, callbacks)
    start, cpu_start = time.perf_counter(), time.process_time()
    _run(runner, module, data, last if resume else None)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    metrics = {
        **(_best_epoch(runner, module, data, best) if validates else _training_metrics(runner)),
        "epochs": runner.current_epoch,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "parameters": sum(p.numel() for p in module.network.parameters() if p.requires_grad),
    }
    write_json(folder / "metrics.json", metrics)
    return module.network.cpu().eval()


def _best_epoch(runner: pl.Trainer, module: DesignModule, data: DesignDataModule, best: BestCheckpoint) -> dict[str, float]:
    """Load the weights of the best epoch and return their validation metrics."""
    if best.best_model_score is None or not best.best_model_score.isfinite():
        raise TrainingError(
            f"Expected a finite validation loss of {type(module.network).__name__}, got none by epoch {runner.current_epoch}: "
            "lower optimizer.lr or check the data."
        )
    module.load_state_dict(read_checkpoint(Path(best.best_model_path))["state_dict"])
    runner.loggers = []  # they are for the epochs, which are over
    return dict(runner.validate(module, datamodule=data, verbose=False)[0])


def _training_metrics(runner: pl.Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in runner.callback_metrics.items() if name.startswith("train/")}


def _without_validation(runner: pl.Trainer, callbacks: Sequence[Callback]) -> None:
    """Let a trainer run without validation rows.

    Raises:
        ConfigError: if a callback waits for a validation metric.
    """
    runner.limit_val_batches = 0
    waiting = [type(each).__name__ for each in callbacks if str(getattr(each, "monitor", "")).startswith("val/")]
    if waiting:
        raise ConfigError(
            f"Expected validation rows for the callbacks {waiting}, got none: use callbacks=none, or data.validation=0.1."
        )


def add_metrics(folder: Path, more: Mapping[str, float]) -> None:
    """Add numbers to the ``metrics.json`` of a training; of two with one name the new one stays."""
    path = folder / "metrics.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **more})


def _check_resumable(module: DesignModule, last: Path) -> None:
    if not last.is_file():
        raise CheckpointError(f"Expected {last} to resume from, got no such file: give the folder of a run that was started.")
    kept = type(read_network(last))  # a damaged or foreign file is an error before anything else
    if kept is not type(module.network):
        raise CheckpointError(
            f"Expected a checkpoint of a {type(module.network).__name__} in {last}, got one of a {kept.__name__}: resume with "
            "the settings that the run was started with."
        )


def _trainer(
    module: DesignModule,
    epochs: int,
    trainer: Callable[..., pl.Trainer] | None,
    folder: Path,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> pl.Trainer:
    make = trainer or functools.partial(pl.Trainer, enable_model_summary=False, num_sanity_val_steps=0)
    stated = make.keywords if isinstance(make, functools.partial) else {}
    own = {"max_epochs": epochs, "gradient_clip_val": module.gradient_clip_val}
    options = {
        **{name: value for name, value in own.items() if stated.get(name) is None},
        "callbacks": list(callbacks),
        "plugins": [AtomicCheckpointIO()],
        "logger": list(loggers) or False,
        "default_root_dir": str(folder),
    }
    try:
        runner = make(**options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"Expected settings of the trainer that fit, got: {reason}: correct trainer.") from error
    if module.trains_in_parts and type(runner.strategy) is DDPStrategy:
        runner = make(**{**options, "strategy": "ddp_find_unused_parameters_true"})
    return runner


def _run(runner: pl.Trainer, module: DesignModule, data: DesignDataModule, checkpoint: Path | None) -> None:
    """Fit; an interruption ends it by an error that says how to go on."""
    if runner.world_size > 1:
        atexit.register(_leave_group)
    try:
        runner.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except InterruptionError as error:
        if runner.global_rank > 0:  # the first process tells; it would be killed if another one failed
            raise SystemExit(0) from error
        raise
    except SystemExit as error:  # Lightning's answer to SIGINT
        if runner.global_rank > 0:
            raise
        raise InterruptionError(
            f"Expected the training of {type(module.network).__name__} to finish, got SIGINT in epoch {runner.current_epoch}: "
            "its state is kept, resume the run."
        ) from error


def _leave_group() -> None:
    """End the threads of a process group while Python still runs: gloo's would abort it (Lightning ends nccl's only)."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
