"""The LightningModules of both conditional invertible networks."""

from __future__ import annotations

__all__ = ["LightningAffineCINN", "LightningCINN"]

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.cinn import CINN, AffineCINN
from matdesinne.training.module import LikelihoodModule, training_options
from matdesinne.training.optimizers import Muon

_LATE = 1.5  # a block's share of the training steps grows with this power of the place of its coordinate


class LightningCINN(LikelihoodModule[CINN]):
    r"""Trains a `CINN` by maximum likelihood: loss :math:`-\log p(u | y) = -\sum_j \log p_j(u_j | u_{<j}, y)`.

    The blocks share no parameters, so a step trains one of them, the later coordinates more often, because they have more to
    learn. ``train/loss`` is the unbiased estimate of the whole sum from that block: its term over its share of the steps.
    """

    trains_in_parts = True
    defaults = training_options(
        partial(Muon, lr=6e-3, weight_decay=1e-4),
        warmup=0.03,
        batch_size=512,
        max_epochs=60,
        max_steps=28_900,
        gradient_clip_val=10.0,
    )

    def standard_losses(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        """Negative log-likelihood; in training that of one block, chosen at random, as the objective of the step."""
        if not self.training:
            return super().standard_losses(u, v)
        share = torch.arange(u.shape[1], 0, -1).float() ** _LATE
        share /= share.sum()
        block = int(torch.multinomial(share, 1))
        objective = -self.network.block_log_density(block, u, v).mean()
        return {"objective": objective, "loss": objective.detach() / share[block].to(objective)}


class LightningAffineCINN(LikelihoodModule[AffineCINN]):
    r"""Trains an `AffineCINN` by maximum likelihood: loss :math:`-\log p(u|y)`.

    It is :math:`\|z\|^2 / 2 - \log |\det \partial z / \partial u|` but for a constant.
    """

    defaults = training_options(
        partial(Muon, lr=5e-3, weight_decay=1e-4), warmup=0.05, batch_size=512, max_epochs=3, gradient_clip_val=10.0
    )
