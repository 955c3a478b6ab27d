"""Autoregressive quantile networks."""

from __future__ import annotations

__all__ = ["QuantileNetwork"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.models.base import InverseModel
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class QuantileNetwork(InverseModel):
    r"""One parameter after the other: :math:`u_j = q_j(\tau_j, u_{<j}, y)`, its quantile of a random level :math:`\tau_j`.

    References:
        Ostrovski et al., Autoregressive quantile networks for generative modeling, ICML 2018, arXiv 1806.05575.

    Args:
        space: the designs.
        properties: what they have.
        hidden: width of the network of each parameter.
        depth: number of hidden layers.
        frequencies: octaves of the Fourier features of y.
        target_noise: see `InverseModel`.
    """

    label = "quantile network"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        hidden: int = 128,
        depth: int = 4,
        frequencies: int = 2,
        target_noise: float | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise)
        check_at_least(1, hidden=hidden)
        self.hidden, self.depth, self.frequencies = hidden, depth, frequencies
        self.features = TargetFeatures(len(properties), frequencies)
        inputs = [1 + j + self.features.size for j in range(space.dimension)]
        self.networks = nn.ModuleList(perceptron(size, 1, hidden, depth) for size in inputs)

    @property
    def latent_dimension(self) -> int:
        """One normal variable for each parameter: its level is the normal distribution function of it."""
        return self.space.dimension

    def quantiles(self, z: Float[Tensor, "n dz"], u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        """The quantile of each parameter given those before it in u, for targets v, all standardised."""
        c = self.features(v)
        parts = [torch.cat([z[:, j : j + 1], u[:, :j], c], dim=1) for j in range(u.shape[1])]
        return z + torch.cat([network(part) for network, part in zip(self.networks, parts, strict=True)], dim=1)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Draw one parameter after the other."""
        c, u = self.features(v), z[:, :0]
        for j, network in enumerate(self.networks):
            level = z[:, j : j + 1]
            u = torch.cat([u, level + network(torch.cat([level, u, c], dim=1))], dim=1)
        return u
