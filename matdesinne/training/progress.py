"""What a training says of itself: an estimate of its time before it starts, and a line after each epoch."""

from __future__ import annotations

__all__ = ["Progress"]

import logging
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from matdesinne.network import Batch
from matdesinne.training.module import DesignModule

_LOGGER = logging.getLogger(__name__)
_TIMED_STEPS = 10


class Progress(Callback):
    """Logs the time that the training will take at most, from a few steps that change nothing, and the epochs."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time a few evaluations of the loss and its gradient."""
        assert isinstance(pl_module, DesignModule)
        rows = trainer.datamodule.training_batch()  # type: ignore[attr-defined]
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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the number of the epoch and the distance of samples to their targets."""
        if trainer.state.fn != "fit":
            return
        known = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        text = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
        _LOGGER.info(f"Epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {text}")
