"""Conditional invertible networks: normalising flows of x given y, by mixtures of logistics or by affine couplings."""

from __future__ import annotations

__all__ = ["CINN", "AffineCINN"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.models.base import Coordinates, DensityModel
from matdesinne.models.mixture import MixtureNetwork
from matdesinne.models.networks import affine_network
from matdesinne.models.published_coupling import published_network
from matdesinne.network import Batch, check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures

_ORDER_ROWS = 50_000
_MOST_VALUES, _ROWS_PER_VALUE = 50, 10
"""A parameter of at most so many distinct values, each in at least so many rows on average, is discrete."""


class CINN(DensityModel):
    r"""Autoregressive logistic-mixture flow, :math:`\log p(u|y) = \sum_j \log p_j(u_j | u_{<j}, y)`.

    It has the condition and the maximum-likelihood loss of the paper's cINN (`AffineCINN`), but each conditional is a mixture
    of logistic distributions where the paper has affine couplings. The coordinates come in the order that the space states,
    or are ordered by how much of the property's variance each explains on its own; the one that moves the property most comes
    last, where it can place a thin shell exactly.

    References:
        Ardizzone et al., Guided image generation with conditional invertible neural networks, 2019, arXiv 1907.02392;
        Ho et al., Flow++, ICML 2019, arXiv 1902.00275 (mixtures of logistics).

    Args:
        hidden: width of the subnetworks of the first and of the last block, interpolated between.
        depth: hidden layers of the subnetworks.
        components: logistic components of each conditional.
    """

    label, truncates = "cINN (mixture)", True
    order: Tensor

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        hidden: Sequence[int] = (48, 128),
        depth: int = 5,
        components: int = 24,
        frequencies: int = 2,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, hidden=hidden, components=components, depth=depth)
        check_at_least(0, frequencies=frequencies)
        self.hidden, self.depth, self.components, self.frequencies = tuple(hidden), depth, components, frequencies
        self.register_buffer("order", torch.arange(space.dimension))
        self.features = TargetFeatures(len(properties), frequencies)
        self.network = MixtureNetwork(space.dimension, self.features.size, hidden, depth, components)

    def fit_scales(self, batch: Batch, prior: Float[Tensor, "m dy"] | None = None) -> None:
        """Learn the scales, the order of the coordinates, and which of them are discrete."""
        super().fit_scales(batch, prior)
        rows = batch.x[:_ORDER_ROWS]
        if self.space.order:
            self.order.copy_(torch.tensor([self.space.index(name) for name in self.space.order]))
        else:
            v = self.target_scale(self._clamp_at_floor(batch.y[:_ORDER_ROWS]))
            self.order.copy_(_by_explained_variance(self._canonicalize(rows), v))
        order = self.order.cpu()
        bounded = torch.tensor([parameter.bounded for parameter in self.space.parameters])[order]
        values = [len(column.unique()) for column in rows[:, order].unbind(dim=1)]
        for block in self.network:
            discrete = values[block.position] <= min(_MOST_VALUES, len(rows) / _ROWS_PER_VALUE)
            block.begin(bounded, discrete)

    def block_log_density(self, block: int, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density of one coordinate given those before it; block 0 is that of the last coordinate."""
        return self.network[block].log_density(u[:, self.order], self.features(v))

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density as trained, without truncation: the sum over the conditionals."""
        return self.network.log_density(u[:, self.order], self.features(v))

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Invert the flow, coordinate by coordinate."""
        u = self.network(z, c=[self.features(v)], rev=True, jac=False, truncate=truncate)[0]
        return u[:, self.order.argsort()]


def _by_explained_variance(x: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"], bins: int = 20) -> Int[Tensor, " dx"]:
    """Columns of x by rising variance of the mean of v over their quantile bins (first-order Sobol indices)."""
    rank = x.argsort(dim=0).argsort(dim=0)
    bin_of = (rank * bins) // len(x)
    members = torch.nn.functional.one_hot(bin_of, bins).to(v)
    means = torch.einsum("nxb,ny->xby", members, v) / members.sum(dim=0).unsqueeze(-1).clamp_min(1)
    return means.var(dim=1).sum(dim=1).argsort()


class AffineCINN(DensityModel):
    r"""Normalising flow z = g(u; y) with :math:`-\log p(u|y) = \|z\|^2 / 2 - \log |\det \partial z / \partial u|` + const.

    References:
        Ardizzone et al., Guided image generation with conditional invertible neural networks, 2019, arXiv 1907.02392;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        blocks: number of FrEIA's GLOW coupling blocks.
        paper_network: use the network of the paper's code, see `published_network`.
    """

    label = "cINN (affine)"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        blocks: int = 8,
        hidden: int = 128,
        depth: int = 2,
        paper_network: bool = False,
        frequencies: int = 2,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates)
        check_at_least(1, blocks=blocks, hidden=hidden)
        check_at_least(0, depth=depth, frequencies=frequencies)
        self.blocks, self.hidden, self.depth = blocks, hidden, depth
        self.paper_network, self.frequencies = paper_network, frequencies
        self.features = TargetFeatures(len(properties), frequencies)
        make = published_network if paper_network else affine_network
        self.network = make(space.dimension, self.features.size, blocks, hidden, depth)

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density by the change of variables."""
        z, log_det = self.network(u, c=[self.features(v)])
        return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Invert the flow."""
        return self.network(z, c=[self.features(v)], rev=True, jac=False)[0]
