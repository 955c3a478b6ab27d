"""The conditional invertible network of the paper: FrEIA's affine coupling blocks."""

from __future__ import annotations

__all__ = ["AffineCINN"]

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import Coordinates, DensityModel
from matdesinne.models.coupling import affine_network
from matdesinne.models.published_coupling import published_network
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class AffineCINN(DensityModel):
    r"""Normalising flow z = g(u; y) with :math:`-\log p(u|y) = \|z\|^2 / 2 - \log |\det \partial z / \partial u|` + const.

    References:
        Ardizzone et al., Guided image generation with conditional invertible neural networks, 2019, arXiv 1907.02392;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs.
        properties: what they have.
        blocks: number of FrEIA's GLOW coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        paper_network: use the network of the paper's code, see `published_network`.
        frequencies: octaves of the Fourier features of y.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
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

    @property
    def latent_dimension(self) -> int:
        """As many as parameters: a flow is a bijection."""
        return self.space.dimension

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density by the change of variables."""
        z, log_det = self.network(u, c=[self.features(v)])
        return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Invert the flow."""
        return self.network(z, c=[self.features(v)], rev=True, jac=False)[0]
