"""The LightningModule of conditional flow matching."""

from __future__ import annotations

__all__ = ["LightningFlowMatching"]

from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from my_package.flow_matching import FlowMatching
from torch import Tensor

from matdesinne.training.module import InverseModule, TrainingOptions, adamw
from matdesinne.training.schedules import warmup_cosine


class LightningFlowMatching(InverseModule[FlowMatching]):
    r"""Trains a `FlowMatching` by least squares: on :math:`u_t = (1 - t) z + t u` the velocity is u - z.

    Args:
        network: what is trained.
        options: see `DesignModule`.
    """

    defaults: ClassVar[TrainingOptions] = {
        "optimizer": adamw(lr=2e-3, weight_decay=1e-4),
        "scheduler": partial(warmup_cosine, warmup=0.05),
        "batch_size": 256,
        "max_epochs": 3,
        "gradient_clip_val": 10.0,
    }

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Squared error of the velocity at a random time of each path."""
        z, t = torch.randn_like(u), torch.rand_like(u[:, :1])
        error = self.network.velocity((1 - t) * z + t * u, t, v) - (u - z)
        return {"loss": error.square().sum(dim=1).mean()}
