"""How far samples for held-out targets are from them, whatever the loss of the model is."""

from __future__ import annotations

__all__ = ["TargetMetrics", "target_metrics"]

from typing import cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torchmetrics.functional import mean_absolute_error

from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel
from matdesinne.models.mmd import mmd
from matdesinne.surrogates.base import Surrogate
from matdesinne.transforms import Standardizer

_ROWS = 2048
_SCALES = (0.45, 1.0, 2.0)
_TIMES = 20
"""How often in a training the metrics are computed at most."""


class TargetMetrics(Callback):
    """Logs `target_metrics` as ``val/target_mae`` and ``val/joint_mmd``, in at most twenty epochs of a training.

    Args:
        surrogate: predicts the properties of the samples.
        held_out: designs and properties that the model is not trained on.
    """

    def __init__(self, surrogate: Surrogate, held_out: DesignTable) -> None:
        self.surrogate, self.held_out = surrogate, held_out

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sample and log."""
        every = max((trainer.max_epochs or 1) // _TIMES, 1)
        if trainer.sanity_checking or (trainer.state.fn == TrainerFn.FITTING and trainer.current_epoch % every):
            return
        metrics = target_metrics(cast(InverseModel, pl_module.network), self.surrogate, self.held_out)
        pl_module.log_dict({f"val/{name}": value for name, value in metrics.items()}, rank_zero_only=True)


def target_metrics(model: InverseModel, surrogate: Surrogate, held_out: DesignTable, seed: int = 0) -> dict[str, float]:
    r"""Sample one design for each held-out y and compare with the target.

    Args:
        model: samples :math:`\hat x \sim p(x | y)`.
        surrogate: predicts :math:`f(\hat x)`.
        held_out: designs and properties that the model was not trained on; the first 2,048 are used.
        seed: of the samples.

    Returns:
        ``target_mae``, the mean of :math:`|f(\hat x) - y|` with both cut at the floor, in the property's unit, or
        ``target_mae_NAME`` for each of several properties; and ``joint_mmd``, the squared maximum mean discrepancy between
        :math:`(\hat x, y)` and :math:`(x, y)` in standardised units, which also sees designs that the samples miss.
    """
    x, y = held_out.x[:_ROWS], held_out.y[:_ROWS]
    designs = model.sample(y, torch.Generator().manual_seed(seed))
    predicted = surrogate.predict_many(designs)[0]
    metrics = {}
    for j, prop in enumerate(surrogate.properties):
        floor = -torch.inf if prop.floor is None else prop.floor
        name = "target_mae" if len(surrogate.properties) == 1 else f"target_mae_{prop.name}"
        metrics[name] = mean_absolute_error(predicted[:, j].clamp_min(floor), y[:, j].clamp_min(floor)).item()
    scale = Standardizer(x.shape[1] + y.shape[1])
    scale.fit(torch.cat([x, y], dim=1))
    joint = mmd(scale(torch.cat([designs, y], dim=1)), scale(torch.cat([x, y], dim=1)), _SCALES, unbiased=True)
    return {**metrics, "joint_mmd": joint.item()}
