"""The LightningModule of the quantile networks."""

from __future__ import annotations

__all__ = ["LightningQuantileNetwork"]

from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from my_package.quantile_network import QuantileNetwork
from torch import Tensor

from matdesinne.training.module import InverseModule, TrainingOptions, adamw
from matdesinne.training.schedules import warmup_cosine


class LightningQuantileNetwork(InverseModule[QuantileNetwork]):
    r"""Trains a `QuantileNetwork` by quantile regression: loss :math:`\sum_j \max(\tau_j e_j, (\tau_j - 1) e_j)`, e = u - q.

    Args:
        network: what is trained.
        options: see `DesignModule`.
    """

    defaults: ClassVar[TrainingOptions] = {
        "optimizer": adamw(lr=2e-3, weight_decay=1e-4),
        "scheduler": partial(warmup_cosine, warmup=0.05),
        "batch_size": 256,
        "max_epochs": 1,
        "gradient_clip_val": 10.0,
    }

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Quantile loss at a random level of each parameter."""
        z = torch.randn_like(u)
        level, error = torch.special.ndtr(z), u - self.network.quantiles(z, u, v)
        return {"loss": torch.maximum(level * error, (level - 1) * error).sum(dim=1).mean()}
