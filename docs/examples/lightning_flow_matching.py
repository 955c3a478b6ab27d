"""The LightningModule of conditional flow matching."""

from __future__ import annotations

__all__ = ["LightningFlowMatching"]

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from matdesinne.models.flow_matching import FlowMatching
from torch import Tensor

from matdesinne.training.module import InverseModule, MakeOptimizer, MakeScheduler, adamw
from matdesinne.training.schedules import warmup_cosine


class LightningFlowMatching(InverseModule[FlowMatching]):
    r"""Trains a `FlowMatching` by least squares: on :math:`u_t = (1 - t) z + t u` the velocity is u - z.

    Args:
        network: what is trained.
        optimizer: see `DesignModule`.
        scheduler: see `DesignModule`.
        batch_size: rows of a training step.
        max_epochs: passes over the training rows, where the trainer states none.
        gradient_clip_val: largest norm of the gradient, where the trainer states none.
    """

    def __init__(
        self,
        network: FlowMatching | Mapping[str, object],
        *,
        optimizer: MakeOptimizer = adamw(lr=2e-3, weight_decay=1e-4),
        scheduler: MakeScheduler | None = partial(warmup_cosine, warmup=0.05),
        batch_size: int = 256,
        max_epochs: int = 3,
        gradient_clip_val: float = 10.0,
    ) -> None:
        super().__init__(network, optimizer, scheduler, batch_size, max_epochs, gradient_clip_val)

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Squared error of the velocity at a random time of each path."""
        z, t = torch.randn_like(u), torch.rand_like(u[:, :1])
        error = self.network.velocity((1 - t) * z + t * u, t, v) - (u - z)
        return {"loss": error.square().sum(dim=1).mean()}
