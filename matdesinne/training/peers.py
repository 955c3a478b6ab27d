"""The LightningModule of the models of sbi."""

from __future__ import annotations

__all__ = ["LightningPeer"]

from jaxtyping import Float
from torch import Tensor

from matdesinne.models.peers import Peer
from matdesinne.training.module import InverseModule, adamw, training_options


class LightningPeer(InverseModule[Peer]):
    """Trains a model of sbi by its own loss: the negative log-likelihood of an `NPE`, the squared error of an `FMPE`."""

    defaults = training_options(adamw(lr=1e-3), warmup=0.03, batch_size=200, max_epochs=100, gradient_clip_val=5.0)

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """The loss of sbi."""
        return {"loss": self.network.losses(u, v).mean()}
