"""A module as Lightning trains it; what only predicts or samples does without Lightning, whose import takes seconds."""

from __future__ import annotations

__all__ = ["LightningTask"]

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from matdesinne.errors import TrainingError
from matdesinne.network import CHECKPOINT_KEY, Batch, DesignNetwork, Optimization
from matdesinne.training.checkpoints import random_state, set_random_state

_RANDOM_KEY, _PLACE_KEY = "random_state", "place"
"""Under which a checkpoint holds the state of torch's generators, and the place in the epoch."""


class LightningTask(pl.LightningModule):
    """The training of one module: its checkpoints hold the module's own state and description.

    Args:
        module: what is trained, in place.
    """

    def __init__(self, module: DesignNetwork) -> None:
        super().__init__()
        self.module = module
        self._resumed: Mapping[str, Any] = {}
        self._bad_step: Tensor | None = None

    def state_dict(self, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        """That of the module."""
        return self.module.state_dict(**kwargs)  # type: ignore[call-overload]

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> object:
        """Into the module."""
        return self.module.load_state_dict(state_dict, strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the description, so that the file alone rebuilds the module, and the moment of the training."""
        checkpoint[CHECKPOINT_KEY] = self.module.describe()
        checkpoint[_RANDOM_KEY] = random_state()
        batches = self.trainer.train_dataloader
        if batches is not None:
            checkpoint[_PLACE_KEY] = batches.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, object]) -> None:
        """Keep the moment until the training goes on."""
        self._resumed = checkpoint

    def on_train_start(self) -> None:
        """Let the batches and the noise of a resumed training go on as they would have."""
        batches = self.trainer.train_dataloader
        if batches is not None and _PLACE_KEY in self._resumed:
            # Lightning would do so itself if nothing had asked for the number of batches before
            batches.load_state_dict(self._resumed[_PLACE_KEY])
        if _RANDOM_KEY in self._resumed:
            set_random_state(self._resumed[_RANDOM_KEY])
        self._resumed = {}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser, its rate scheduled for each step."""
        settings = self.module.optimization
        optimizer = _optimizer(self.module.parameters(), settings)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        rise = max(int(settings.warmup * total), 1)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            done = min((step - rise) / max(total - rise, 1), 1.0)
            return settings.final**done if settings.final else 0.5 * (1 + math.cos(math.pi * done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; the terms of the loss are logged once an epoch."""
        try:
            loss = self._log_terms("train", batch) * self._share(batch)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # of a decomposition of weights that are not finite
            raise self._not_finite("training", str(error), self.global_step) from error
        bad = ~loss.detach().isfinite()
        step = torch.where(bad, self.global_step, -1)
        self._bad_step = step if self._bad_step is None else torch.where(self._bad_step < 0, step, self._bad_step)
        if loss.device.type == "cpu":  # elsewhere a look at every step would hold up the device
            self._check_training_loss()
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop before a checkpoint of weights that are not finite."""
        self._check_training_loss()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same terms on validation rows."""
        return self._log_terms("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Stop where the loss cannot be compared any more."""
        value = self.trainer.callback_metrics.get("val_loss")
        if value is not None and not value.isfinite():
            raise self._not_finite("validation", f"{value:g}", self.global_step)

    def _check_training_loss(self) -> None:
        if self._bad_step is not None and self._bad_step >= 0:
            raise self._not_finite("training", "a loss that is not", int(self._bad_step))

    def _not_finite(self, stage: str, got: str, step: int) -> TrainingError:
        kept = getattr(self.trainer.checkpoint_callback, "last_model_path", "")
        return TrainingError(
            f"Expected a finite {stage} loss of {type(self.module).__name__}, got {got} in step {step} (epoch "
            f"{self.current_epoch}): lower optimization.learning_rate or check the data; last good checkpoint: "
            f"{kept or 'none yet'}."
        )

    def _log_terms(self, stage: str, batch: Batch) -> Tensor:
        terms = self.module.terms(batch)
        named = {f"{stage}_{name}": value.detach() for name, value in terms.items()}
        weight = self.module.weight(batch)
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=weight, prog_bar=stage == "val", sync_dist=True)
        return terms["loss"]

    def _share(self, batch: Batch) -> float | Tensor:
        """What the rows of this process count in the mean over all processes, which average their gradients."""
        if self.trainer.world_size == 1:
            return 1.0
        weight = torch.tensor(float(self.module.weight(batch)), device=self.device)
        mean = self.trainer.strategy.reduce(weight.clone(), reduce_op="mean")
        return weight / mean.clamp_min(1 / self.trainer.world_size)


def _optimizer(parameters: Iterable[torch.nn.Parameter], settings: Optimization) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    from pytorch_optimizer import SOAP, Muon

    if settings.optimizer == "soap":
        return SOAP(parameters, lr=rate, betas=(0.95, 0.98), weight_decay=decay)
    others: list[torch.nn.Parameter] = []
    hidden: dict[int, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        square = parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]
        (hidden.setdefault(parameter.shape[0], []) if square else others).append(parameter)
    # an orthogonal matrix of n rows has entries of n^-1/2: with this rate they change by as much as AdamW's at most
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr": rate * math.sqrt(size), "weight_decay": decay, "use_muon": True}
        for size, matrices in hidden.items()
    ]
    groups.append({"params": others, "lr": rate, "weight_decay": decay, "betas": (0.9, 0.98), "use_muon": False})
    return Muon(groups)
