"""Conditional variational autoencoder."""

from __future__ import annotations

__all__ = ["CVAE"]

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.errors import ConfigError
from matdesinne.models.base import Coordinates, InverseModel
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class CVAE(InverseModel):
    """Conditional variational autoencoder: encoder q(z | u, y) and decoder u(z, y); see `LightningCVAE` for its loss.

    References:
        Sohn, Lee, Yan, Learning structured output representation using deep conditional generative models, NeurIPS 2015;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        latent: dimension of z.
        activation: after each hidden layer; the paper's code has ReLU.
    """

    label = "cVAE"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        latent: int = 7,
        hidden: int = 160,
        depth: int = 4,
        activation: Literal["silu", "relu"] = "silu",
        frequencies: int = 2,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, latent=latent, hidden=hidden)
        check_at_least(0, depth=depth, frequencies=frequencies)
        kinds: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}
        if activation not in kinds:
            raise ConfigError(f"Expected activation out of {list(kinds)}, got {activation!r}: choose one.")
        self.latent, self.hidden, self.depth, self.frequencies = latent, hidden, depth, frequencies
        self.activation = activation
        self.features = TargetFeatures(len(properties), frequencies)
        self.encoder = perceptron(space.dimension + self.features.size, 2 * latent, hidden, depth, activation=kinds[activation])
        self.decoder = perceptron(latent + self.features.size, space.dimension, hidden, depth, activation=kinds[activation])

    @property
    def latent_dimension(self) -> int:
        """Dimension of z."""
        return self.latent

    def encode(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> tuple[Float[Tensor, "n dz"], Float[Tensor, "n dz"]]:
        """Mean and log-variance of q(z | u, y), from standardised coordinates."""
        mean, log_variance = self.encoder(torch.cat([u, self.features(v)], dim=1)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Reconstruct designs from latent variables."""
        return self.decoder(torch.cat([z, self.features(v)], dim=1))
