"""Trainings that end after a given CPU time."""

from __future__ import annotations

__all__ = ["TimeLimit"]

import math
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from matdesinne.errors import ConfigError


class TimeLimit(Callback):
    """Ends a training after so many seconds of CPU time of its process.

    The learning rate is that of `warmup_cosine` over this time, or over all steps if ``max_epochs`` end sooner. The module must
    have no scheduler of its own.

    Args:
        seconds: CPU time, over all threads; the last validation comes on top.
        warmup: fraction of the training in which the rate rises to the optimizer's.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(self, seconds: float, warmup: float = 0.03) -> None:
        if not seconds > 0 or not 0 < warmup < 1:
            raise ConfigError(f"Expected seconds > 0 and 0 < warmup < 1, got {seconds} and {warmup}: correct them.")
        self.seconds, self.warmup = seconds, warmup
        self._start, self._steps, self._rates = 0.0, 1.0, [0.0]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start, self._steps = time.process_time(), max(trainer.estimated_stepping_batches, 1)
        self._rates = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        """Set the learning rate."""
        done = min(max(self._share(), trainer.global_step / self._steps), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))
        factor = max(done / self.warmup, 1e-3) if done < self.warmup else fall
        for group, rate in zip(trainer.optimizers[0].param_groups, self._rates, strict=True):
            group["lr"] = factor * rate

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End when the time is over."""
        if self._share() >= 1:
            trainer.should_stop = True

    def _share(self) -> float:
        return (time.process_time() - self._start) / self.seconds
