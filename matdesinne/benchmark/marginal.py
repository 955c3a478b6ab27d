"""A baseline that ignores the target: the Gaussian of the training designs."""

from __future__ import annotations

__all__ = ["MarginalGaussian"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import InverseModel
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class MarginalGaussian(InverseModel):
    """Samples designs from a Gaussian with mean and covariance of the training rows, whatever the target is.

    A generative model that has learnt anything about the property has a smaller error.

    Args:
        space: the designs.
        properties: what they have.
    """

    label = "Gaussian of the rows"

    mean: Tensor
    factor: Tensor

    def __init__(self, space: DesignSpace, properties: Sequence[Property]) -> None:
        super().__init__(space, properties, 0.0, "physical")
        self.register_buffer("mean", torch.zeros(space.dimension))
        self.register_buffer("factor", torch.eye(space.dimension))

    def fit_scales(self, batch: Batch, prior: Float[Tensor, "m dy"] | None = None) -> None:
        """Compute mean and covariance."""
        super().fit_scales(batch, prior)
        self.mean.copy_(batch.x.mean(dim=0))
        self.factor.copy_(torch.linalg.cholesky(batch.x.T.cov()))

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Map normal variables to designs."""
        return self.mean + z @ self.factor.T
