"""The LightningModule of the mixture density network."""

from __future__ import annotations

__all__ = ["LightningMDN"]

from matdesinne.models.mdn import MDN
from matdesinne.models.published_mdn import PublishedMDN
from matdesinne.training.module import LikelihoodModule, adamw, training_options


class LightningMDN(LikelihoodModule[MDN | PublishedMDN]):
    r"""Trains an `MDN`, or that of the paper's code, by maximum likelihood: loss :math:`-\log p(u | y)`.

    References:
        Bishop, Mixture density networks, 1994.
    """

    defaults = training_options(
        adamw(lr=1e-2, weight_decay=1e-4), warmup=0.05, batch_size=256, max_epochs=1, gradient_clip_val=10.0
    )
