"""The LightningModule of conditional flow matching."""

from __future__ import annotations

__all__ = ["LightningCFM"]

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.cfm import CFM
from matdesinne.training.module import InverseModule, adamw, training_options


class LightningCFM(InverseModule[CFM]):
    r"""Trains a `CFM` by least squares on lines :math:`u_t = (1 - t) z + t u`: loss :math:`\|w(u_t, t, y) - (u - z)\|^2`.

    Noise z and time t, uniform from 0 to 1, are drawn anew for each design.

    References:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv 2210.02747.
    """

    defaults = training_options(
        adamw(lr=2e-3, weight_decay=1e-4),
        warmup=0.05,
        batch_size=256,
        max_epochs=60,
        max_steps=15_800,
        gradient_clip_val=10.0,
    )

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Squared error of the velocity, summed over the coordinates."""
        z, t = torch.randn_like(u), torch.rand_like(u[:, :1])
        error = self.network.velocity((1 - t) * z + t * u, t, self.network.features(v)) - (u - z)
        return {"loss": error.square().sum(dim=1).mean()}
