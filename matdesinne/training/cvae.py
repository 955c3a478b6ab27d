"""The LightningModule of the conditional variational autoencoder."""

from __future__ import annotations

__all__ = ["LightningCVAE"]

from collections.abc import Mapping
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.cvae import CVAE
from matdesinne.training.module import InverseModule, TrainingOptions, adamw, training_options


class LightningCVAE(InverseModule[CVAE]):
    r"""Trains a `CVAE` by the evidence lower bound: loss :math:`\alpha \|u - \hat u\|^2 + \beta\, KL(q(z | u, y) \| N(0, 1))`.

    References:
        Sohn, Lee, Yan, Learning structured output representation using deep conditional generative models, NeurIPS 2015.

    Args:
        alpha: weight of the reconstruction.
        beta: weight of the divergence.
    """

    defaults = training_options(
        adamw(lr=1e-2, weight_decay=1e-4), warmup=0.05, batch_size=256, max_epochs=1, gradient_clip_val=10.0
    )

    def __init__(
        self, network: CVAE | Mapping[str, object], *, alpha: float = 1.0, beta: float = 0.1, **options: Unpack[TrainingOptions]
    ) -> None:
        super().__init__(network, **options)
        self.alpha, self.beta = alpha, beta

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Reconstruction and divergence, with one sample of the latent variables."""
        mean, log_variance = self.network.encode(u, v)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        reconstruction = (u - self.network.decode(z, v)).square().sum(dim=1).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        loss = self.alpha * reconstruction + self.beta * divergence
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}
