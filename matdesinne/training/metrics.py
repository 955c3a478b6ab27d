"""How far samples for held-out targets are from them, whatever the loss of the model is."""

from __future__ import annotations

__all__ = ["TargetMetrics", "TargetSamples"]

from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics.functional import mean_absolute_error

from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel
from matdesinne.models.mmd import mmd
from matdesinne.reporting.candidates import draw_samples
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property
from matdesinne.transforms import Standardizer

_ROWS = 2048
_SCALES = (0.45, 1.0, 2.0)
_TIMES = 20  # how often in a training the metrics are computed at most


class TargetMetrics(Callback):
    """Logs the metrics of `TargetSamples` as ``val/target_mae`` and ``val/joint_mmd``, in at most twenty epochs of a training.

    Args:
        surrogate: predicts the properties of the samples.
        held_out: designs and properties that the model is not trained on.
        picture: the samples of the best epoch are drawn here.
    """

    def __init__(self, surrogate: Surrogate, held_out: DesignTable, picture: Path | None = None) -> None:
        self.surrogate, self.held_out, self.picture = surrogate, held_out, picture

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sample and log; the validation that follows the training is that of the best epoch."""
        every, trains = max((trainer.max_epochs or 1) // _TIMES, 1), trainer.state.fn == TrainerFn.FITTING
        if trainer.sanity_checking or (trains and trainer.current_epoch % every):
            return
        samples = TargetSamples.draw(cast(InverseModel, pl_module.network), self.surrogate, self.held_out)
        pl_module.log_dict({f"val/{name}": value for name, value in samples.metrics().items()}, rank_zero_only=True)
        if self.picture is not None and not trains and trainer.is_global_zero:
            draw_samples(samples.y, samples.predicted, samples.properties, self.picture)


@dataclass(frozen=True)
class TargetSamples:
    """One sampled design for each held-out y, to compare with the design that has it; of the first 2,048 rows."""

    x: Float[Tensor, "n dx"]
    y: Float[Tensor, "n dy"]
    designs: Float[Tensor, "n dx"]  #: sampled for y
    predicted: Float[Tensor, "n dy"]  #: their properties
    properties: tuple[Property, ...]

    @classmethod
    def draw(cls, model: InverseModel, surrogate: Surrogate, held_out: DesignTable, seed: int = 0) -> Self:
        """Sample, and predict the properties of the samples."""
        x, y = held_out.x[:_ROWS], held_out.y[:_ROWS]
        designs = model.sample(y, torch.Generator().manual_seed(seed))
        return cls(x, y, designs, surrogate.predict_many(designs)[0], surrogate.properties)

    def metrics(self) -> dict[str, float]:
        r"""Compare samples :math:`\hat x` with their targets.

        Returns:
            ``target_mae``, the mean of :math:`|f(\hat x) - y|` with both cut at the floor, in the property's unit, or
            ``target_mae_NAME`` for each of several properties; and ``joint_mmd``, the squared maximum mean discrepancy between
            :math:`(\hat x, y)` and :math:`(x, y)` in standardised units, which also sees designs that the samples miss.
        """
        metrics = {}
        for j, prop in enumerate(self.properties):
            floor = -torch.inf if prop.floor is None else prop.floor
            name = "target_mae" if len(self.properties) == 1 else f"target_mae_{prop.name}"
            error = mean_absolute_error(self.predicted[:, j].clamp_min(floor), self.y[:, j].clamp_min(floor))
            metrics[name] = error.item()
        sampled, held_out = torch.cat([self.designs, self.y], dim=1), torch.cat([self.x, self.y], dim=1)
        scale = Standardizer(held_out.shape[1])
        scale.fit(held_out)
        return {**metrics, "joint_mmd": mmd(scale(sampled), scale(held_out), _SCALES, unbiased=True).item()}
