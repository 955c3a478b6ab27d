"""Conditional invertible neural network: a normalising flow of x given y, trained by maximum likelihood."""

from __future__ import annotations

__all__ = ["CINN"]

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.models.base import Coordinates, DensityModel
from matdesinne.models.coupling import affine_network
from matdesinne.models.mixture import MixtureNetwork
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures

if TYPE_CHECKING:
    from FrEIA.framework import SequenceINN

_ORDER_ROWS = 50_000
_MOST_VALUES, _SHOWN = 50, 10
"""A parameter of at most so many distinct values, each in so many rows on average, is discrete."""
_LATE = 1.5
"""A block's share of the training steps grows with this power of its place."""


class CINN(DensityModel):
    r"""Flow z = g(u; y) with :math:`-\log p(u|y) = \|z\|^2 / 2 - \log |\det \partial z / \partial u|` + const.

    With mixture blocks the coordinates come in the order that the space states, or are ordered by how much of the property's
    variance each explains on its own; the one that moves the property most comes last, where it can place a thin shell exactly.

    References:
        Ardizzone et al., Guided image generation with conditional invertible neural networks, 2019, arXiv 1907.02392;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs.
        properties: what they have.
        coupling: ``"mixture"`` (ours: one coordinate a block, mixtures of logistics) or ``"affine"`` (FrEIA's GLOW blocks).
        blocks: number of affine blocks; with mixtures there is one for each parameter.
        hidden: width of the subnetworks; for mixtures of the first and of the last block, interpolated between.
        depth: hidden layers of the subnetworks.
        components: logistic components of a mixture block.
        paper_network: use affine blocks as in the paper's code, see `affine_network`.
        frequencies: octaves of the Fourier features of y.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    label = "cINN"
    order: Tensor

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        coupling: Literal["mixture", "affine"] = "mixture",
        blocks: int = 8,
        hidden: Sequence[int] = (32, 128),
        depth: int = 4,
        components: int = 8,
        paper_network: bool = False,
        frequencies: int = 2,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        self.register_buffer("order", torch.arange(space.dimension))
        self.features = TargetFeatures(len(properties), frequencies)
        self.network: MixtureNetwork | SequenceINN
        if coupling == "mixture":
            self.network = MixtureNetwork(space.dimension, self.features.size, hidden, depth, components)
        elif coupling == "affine":
            self.network = affine_network(space.dimension, self.features.size, blocks, hidden[-1], depth, paper_network)
        else:
            raise ConfigError(f"Expected coupling mixture or affine, got {coupling!r}: choose one.")

    @property
    def latent_dimension(self) -> int:
        """As many as parameters: a flow is a bijection."""
        return self.space.dimension

    @property
    def trains_in_parts(self) -> bool:
        """One block of mixtures a step."""
        return isinstance(self.network, MixtureNetwork)

    def fit_scales(self, batch: Batch, prior: Float[Tensor, "m dy"] | None = None) -> None:
        """Learn the scales, and the order of the coordinates."""
        super().fit_scales(batch, prior)
        if self.space.order:
            self.order.copy_(torch.tensor([self.space.index(name) for name in self.space.order]))
        else:
            v = self.target_scale(self._clamp_at_floor(batch.y[:_ORDER_ROWS]))
            self.order.copy_(_by_explained_variance(self._canonicalize(batch.x[:_ORDER_ROWS]), v))
        bounded = torch.tensor([parameter.bounded for parameter in self.space.parameters])[self.order.cpu()]
        if isinstance(self.network, MixtureNetwork):
            columns = batch.x[:_ORDER_ROWS, self.order.cpu()].unbind(dim=1)
            discrete = [len(column.unique()) <= min(_MOST_VALUES, len(column) / _SHOWN) for column in columns]
            for block in self.network:
                block.begin(bounded, discrete[block.position])

    def _terms_standard(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        if not (self.training and isinstance(self.network, MixtureNetwork)):
            return super()._terms_standard(u, v)
        # The likelihood is a sum over blocks that share no parameters: a step trains one of them, the late ones more often,
        # because they have more to learn.
        share = torch.arange(len(self.network), 0, -1).float() ** _LATE
        block = self.network[int(torch.multinomial(share, 1))]
        return {"loss": -block.log_density(u[:, self.order], self.features(v)).mean()}

    def _log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        u, condition = u[:, self.order], self.features(v)
        if isinstance(self.network, MixtureNetwork):
            # the sum of the conditionals is z^2 / 2 - log det with the normal quantiles cancelled
            return self.network.log_density(u, condition)
        z, log_det = self.network(u, c=[condition])
        return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)

    def _decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        u = self.network(z, c=[self.features(v)], rev=True, jac=False)[0]
        return u[:, self.order.argsort()]


def _by_explained_variance(x: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"], bins: int = 20) -> Int[Tensor, " dx"]:
    """Columns of x by rising variance of the mean of v over their quantile bins (first-order Sobol indices)."""
    rank = x.argsort(dim=0).argsort(dim=0)
    bin_of = (rank * bins) // len(x)
    members = torch.nn.functional.one_hot(bin_of, bins).to(v)
    means = torch.einsum("nxb,ny->xby", members, v) / members.sum(dim=0).unsqueeze(-1).clamp_min(1)
    return means.var(dim=1).sum(dim=1).argsort()
