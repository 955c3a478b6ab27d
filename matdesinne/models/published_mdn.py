"""The mixture density network of the paper's public code: few Gaussians with diagonal covariances."""

from __future__ import annotations

__all__ = ["PublishedMDN"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.models.base import Coordinates, DensityModel
from matdesinne.models.mdn import choose_components
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property


class PublishedMDN(DensityModel):
    r"""Gaussian mixture :math:`p(u|y) = \sum_k w_k(y) \prod_i N(u_i; m_{ki}(y), s_{ki}(y)^2)`.

    One network gives the weights and another one the means and the logarithms of the standard deviations, each with one hidden
    layer of ELU units; in the paper's code that layer has one unit.

    References:
        Bishop, Mixture density networks, 1994; Fung et al. 2021, doi 10.1038/s41524-021-00670-x, commit 2c7ab5e of its public
        repository, which takes the network from github.com/tonyduan/mdn.

    Args:
        space: the designs.
        properties: what they have.
        components: number of Gaussians.
        hidden: ELU units of each network.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
    """

    label = "MDN"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        components: int = 3,
        hidden: int = 1,
        target_noise: float | None = None,
        coordinates: Coordinates = "physical",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, components=components, hidden=hidden)
        self.components, self.hidden = components, hidden
        outputs = 2 * components * space.dimension
        self.weights = perceptron(len(self.properties), components, hidden, 1, activation=nn.ELU)
        self.gaussians = perceptron(len(self.properties), outputs, hidden, 1, activation=nn.ELU)

    @property
    def latent_dimension(self) -> int:
        """One normal variable for each parameter and one that chooses the component."""
        return self.space.dimension + 1

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density of the mixture."""
        log_weight, mean, log_std = self._mixture(v)
        white = (u.unsqueeze(1) - mean) * (-log_std).exp()
        log_normal = -(0.5 * white.square() + log_std).sum(dim=2) - 0.5 * u.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(log_weight + log_normal, dim=1)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Choose a component by the first of the normal variables, and a point of it by the others."""
        log_weight, mean, log_std = self._mixture(v)
        chosen = choose_components(log_weight, z[:, 0])
        rows = torch.arange(z.shape[0], device=z.device)
        return mean[rows, chosen] + log_std[rows, chosen].exp() * z[:, 1:]

    def _mixture(self, v: Float[Tensor, "n dy"]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights [n, k], means [n, k, d] and logarithms of the standard deviations [n, k, d]."""
        mean, log_std = self.gaussians(v).unflatten(1, (2, self.components, -1)).unbind(dim=1)
        return self.weights(v).log_softmax(dim=1), mean, log_std
