"""Mixture density network with full precision matrices."""

from __future__ import annotations

__all__ = ["MDN", "choose_components"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from matdesinne.models.base import Coordinates, DensityModel
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class MDN(DensityModel):
    r"""Gaussian mixture :math:`p(u|y) = \sum_k w_k(y) N(u; m_k(y), (L_k(y) L_k(y)^T)^{-1})`.

    L is a lower triangular factor of the precision matrix with a positive diagonal, so that
    :math:`-\log p = -\mathrm{logsumexp}_k [\log w_k + \log\det L_k - \|L_k^T (u - m_k)\|^2 / 2]` + const.
    One component is the model of the paper.

    References:
        Bishop, Mixture density networks, 1994; Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        components: number of Gaussians.
    """

    label = "MDN"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        components: int = 40,
        hidden: int = 128,
        depth: int = 4,
        frequencies: int = 2,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, components=components, hidden=hidden)
        check_at_least(0, depth=depth, frequencies=frequencies)
        self.components, self.hidden, self.depth, self.frequencies = components, hidden, depth, frequencies
        d = space.dimension
        self.features = TargetFeatures(len(properties), frequencies)
        self.sizes = (components, components * d, components * d, components * (d * (d - 1) // 2))
        self.network = perceptron(self.features.size, sum(self.sizes), hidden, depth)

    @property
    def latent_dimension(self) -> int:
        """One normal variable for each parameter and one that chooses the component."""
        return self.space.dimension + 1

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density of the mixture."""
        log_weight, mean, factor = self._mixture(v)
        white = torch.einsum("nkji,nkj->nki", factor, u.unsqueeze(1) - mean)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        log_normal = log_det - 0.5 * white.square().sum(dim=-1) - 0.5 * u.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(log_weight + log_normal, dim=1)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Choose a component by the first of the normal variables, and a point of it by the others."""
        log_weight, mean, factor = self._mixture(v)
        chosen = choose_components(log_weight, z[:, 0])
        rows = torch.arange(z.shape[0], device=z.device)
        # L^T (u - m) = z
        shift = torch.linalg.solve_triangular(factor[rows, chosen].mT, z[:, 1:].unsqueeze(-1), upper=True)
        return mean[rows, chosen] + shift.squeeze(-1)

    def _mixture(self, v: Float[Tensor, "n dy"]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights [n, k], means [n, k, d] and triangular precision factors [n, k, d, d]."""
        d, k = self.space.dimension, self.components
        logits, mean, diagonal, below = self.network(self.features(v)).split(self.sizes, dim=1)
        factor = torch.diag_embed(functional.softplus(diagonal.unflatten(1, (k, d))) + 1e-3)
        row, column = torch.tril_indices(d, d, offset=-1, device=v.device)
        factor[:, :, row, column] = below.unflatten(1, (k, -1))
        return logits.log_softmax(dim=1), mean.unflatten(1, (k, d)), factor


def choose_components(log_weight: Float[Tensor, "n k"], z: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Choose a component for each row by its weights and a standard normal variable."""
    level = torch.special.ndtr(z).clamp(1e-7, 1 - 1e-6).unsqueeze(1)
    return torch.searchsorted(log_weight.exp().cumsum(dim=1), level).clamp_max(log_weight.shape[1] - 1).squeeze(1)
