"""What a training says of itself: an estimate of its time before it starts, and lines in the course of its epochs."""

from __future__ import annotations

__all__ = ["EpochLines", "TimeEstimate"]

import logging
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from matdesinne.network import Batch
from matdesinne.training.module import DesignModule

_LOGGER = logging.getLogger(__name__)
_TIMED_STEPS = 10


_MOST_LINES = 20
"""Epochs of a training that are logged."""


class TimeEstimate(Callback):
    """Logs the time that the training of a generative model will take at most, from a few steps that change nothing."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time a few evaluations of the loss and its gradient."""
        assert isinstance(pl_module, DesignModule)
        rows = trainer.datamodule.training_rows  # type: ignore[attr-defined]
        size = min(len(rows.x), pl_module.batch_size)
        batch = Batch(rows.x[:size].to(pl_module.device), rows.y[:size].to(pl_module.device))
        times = []
        with torch.random.fork_rng(), torch.enable_grad():
            for _ in range(_TIMED_STEPS):
                start = time.perf_counter()
                losses = pl_module.losses(batch)
                losses.get("objective", losses["loss"]).backward()
                times.append(time.perf_counter() - start)
        pl_module.zero_grad()
        steps = trainer.estimated_stepping_batches
        _LOGGER.info(
            f"Training on {len(rows.x):,} designs takes {int(steps):,} steps, about {sum(times) / len(times) * steps:.0f} s"
        )


class EpochLines(Callback):
    """Logs up to about twenty epochs, evenly spread: for a log without a progress bar."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the number of the epoch and its validation metrics."""
        epoch, most = trainer.current_epoch + 1, trainer.max_epochs or 1
        if trainer.state.fn != "fit" or not trainer.is_global_zero or epoch % max(1, most // _MOST_LINES):
            return
        known = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        text = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
        _LOGGER.info(f"Epoch {epoch} of {most}: {text}")
