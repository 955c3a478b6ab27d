"""Conditional invertible neural network: a normalising flow of x given y, trained by maximum likelihood."""

from __future__ import annotations

__all__ = ["CINN"]

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.models.base import DensityModel
from matdesinne.models.coupling import affine_network, spline_network
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class CINN(DensityModel):
    r"""Flow z = g(u; y) with :math:`-\log p(u|y) = \|z\|^2 / 2 - \log |\det \partial z / \partial u|` + const.

    References:
        Ardizzone et al., Guided image generation with conditional invertible neural networks, 2019, arXiv 1907.02392;
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        space: the designs.
        properties: what they have.
        coupling: ``"spline"`` (rational-quadratic, ours) or ``"affine"`` (FrEIA's AllInOneBlock).
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        active: coordinates that one spline block moves.
        bins: bins of a spline.
        bound: the splines act on [-bound, bound] of each standardised coordinate.
        frequencies: octaves of the Fourier features of y.
        target_noise: noise on y in training, in the unit of the properties.
        optimization: fields of `matdesinne.learning.Optimization`.
    """

    label = "cINN"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        coupling: Literal["spline", "affine"] = "spline",
        blocks: int = 14,
        hidden: int = 128,
        depth: int = 2,
        active: int = 2,
        bins: int = 16,
        bound: float = 5.0,
        frequencies: int = 4,
        target_noise: float = 0.0,
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise, optimization)
        self.save_hyperparameters(ignore=["space", "properties"], logger=False)
        dimension = space.dimension
        self.features = TargetFeatures(len(properties), frequencies)
        if coupling == "spline":
            self.network = spline_network(
                dimension, self.features.size, blocks, hidden, depth, min(active, dimension - 1) or 1, bins, bound
            )
        elif coupling == "affine":
            self.network = affine_network(dimension, self.features.size, blocks, hidden, depth)
        else:
            raise ConfigError(f"Expected coupling spline or affine, got {coupling!r}: choose one.")

    @property
    def latent_dimension(self) -> int:
        """As many as parameters: a flow is a bijection."""
        return self.space.dimension

    def _log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        z, log_det = self.network(u, c=[self.features(v)])
        return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)

    def _decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        return self.network(z, c=[self.features(v)], rev=True, jac=False)[0]
