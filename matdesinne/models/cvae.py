"""Conditional variational autoencoder."""

from __future__ import annotations

__all__ = ["CVAE"]

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import Coordinates, InverseModel
from matdesinne.models.networks import perceptron
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class CVAE(InverseModel):
    r"""Encoder q(z | u, y), decoder u(z, y), loss :math:`\alpha \|u - \hat u\|^2 + \beta\, KL(q \| N(0, 1))`.

    References:
        Sohn, Lee, Yan, Learning structured output representation using deep conditional generative models, NeurIPS 2015;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs.
        properties: what they have.
        alpha: weight of the reconstruction.
        beta: weight of the divergence.
        latent: dimension of z.
        hidden: width of encoder and decoder.
        depth: number of hidden layers of each.
        frequencies: octaves of the Fourier features of y.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    label = "cVAE"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        alpha: float = 1.0,
        beta: float = 0.05,
        latent: int = 7,
        hidden: int = 256,
        depth: int = 3,
        frequencies: int = 4,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        self.alpha, self.beta, self.latent = alpha, beta, latent
        self.features = TargetFeatures(len(properties), frequencies)
        self.encoder = perceptron(space.dimension + self.features.size, 2 * latent, hidden, depth)
        self.decoder = perceptron(latent + self.features.size, space.dimension, hidden, depth)

    @property
    def latent_dimension(self) -> int:
        """Dimension of z."""
        return self.latent

    def _terms_standard(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        features = self.features(v)
        mean, log_variance = self.encoder(torch.cat([u, features], dim=1)).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        reconstruction = (u - self.decoder(torch.cat([z, features], dim=1))).square().sum(dim=1).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        loss = self.alpha * reconstruction + self.beta * divergence
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}

    def _decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        return self.decoder(torch.cat([z, self.features(v)], dim=1))
