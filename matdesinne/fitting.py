"""A module as Lightning trains it; what only predicts or samples does without Lightning, whose import takes seconds."""

from __future__ import annotations

__all__ = ["LightningTask"]

import math
from collections.abc import Iterable, Mapping

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from matdesinne.learning import CHECKPOINT_KEY, Batch, DesignModule, Optimization


class LightningTask(pl.LightningModule):
    """The training of one module: its checkpoints hold the module's own state and description.

    Args:
        module: what is trained, in place.
    """

    def __init__(self, module: DesignModule) -> None:
        super().__init__()
        self.module = module

    def state_dict(self, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        """That of the module."""
        return self.module.state_dict(**kwargs)  # type: ignore[call-overload]

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> object:
        """Into the module."""
        return self.module.load_state_dict(state_dict, strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the description, so that the file alone rebuilds the module."""
        checkpoint[CHECKPOINT_KEY] = self.module.describe()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser, its rate scheduled for each step."""
        settings = self.module.optimization
        optimizer = _optimizer(self.module.parameters(), settings)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        rise = max(int(settings.warmup * total), 1)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(total - rise, 1), 1.0)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; the terms of the loss are logged once an epoch."""
        return self._log_terms("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same terms on validation rows."""
        return self._log_terms("val", batch)

    def _log_terms(self, stage: str, batch: Batch) -> Tensor:
        terms = self.module.terms(batch)
        named = {f"{stage}_{name}": value.detach() for name, value in terms.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=batch.x.shape[0], prog_bar=stage == "val", sync_dist=True)
        return terms["loss"]


def _optimizer(parameters: Iterable[torch.nn.Parameter], settings: Optimization) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    from pytorch_optimizer import SOAP

    return SOAP(parameters, lr=rate, betas=(0.95, 0.98), weight_decay=decay)
