"""The LightningModule of the mixture density network."""

from __future__ import annotations

__all__ = ["LightningMDN"]

from collections.abc import Mapping
from functools import partial

from jaxtyping import Float
from torch import Tensor

from matdesinne.models.mdn import MDN
from matdesinne.training.module import InverseModule, MakeOptimizer, MakeScheduler, adamw
from matdesinne.training.schedules import warmup_cosine


class LightningMDN(InverseModule[MDN]):
    r"""Trains an `MDN` by maximum likelihood: loss :math:`-\log p(u | y)`.

    References:
        Bishop, Mixture density networks, 1994.

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
        network: MDN | Mapping[str, object],
        *,
        optimizer: MakeOptimizer = adamw(lr=1e-2, weight_decay=1e-4),
        scheduler: MakeScheduler | None = partial(warmup_cosine, warmup=0.05),
        batch_size: int = 256,
        max_epochs: int = 1,
        gradient_clip_val: float = 10.0,
    ) -> None:
        super().__init__(network, optimizer, scheduler, batch_size, max_epochs, gradient_clip_val)

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Negative log-likelihood."""
        return {"loss": -self.network.standard_log_prob(u, v).mean()}
