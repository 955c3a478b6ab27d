"""Conditional flow matching."""

from __future__ import annotations

__all__ = ["FlowMatching"]

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.models.base import Coordinates, InverseModel
from matdesinne.models.networks import perceptron
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class FlowMatching(InverseModel):
    r"""A velocity field that carries noise z to designs u, :math:`\dot u_t = w(u_t, t, y)`.

    On straight paths :math:`u_t = (1 - t) z + t u` the velocity is u - z, which the network learns by least squares; a
    sample is the end of the path that the midpoint rule finds.

    References:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv 2210.02747.

    Args:
        space: the designs.
        properties: what they have.
        hidden: width of the network.
        depth: number of hidden layers.
        frequencies: octaves of the Fourier features of y.
        steps: of the midpoint rule.
        target_noise: see `InverseModel`.
        coordinates: see `InverseModel`.
        optimization: fields of `matdesinne.network.Optimization`.
    """

    label = "flow matching"

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        *,
        hidden: int = 256,
        depth: int = 4,
        frequencies: int = 2,
        steps: int = 16,
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
        optimization: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, properties, target_noise, coordinates, optimization)
        self.save_hyperparameters(ignore=["space", "properties"])
        if steps < 1:
            raise ConfigError(f"Expected steps of at least 1, got {steps}: raise model.steps.")
        self.steps = steps
        self.features = TargetFeatures(len(properties), frequencies)
        self.network = perceptron(space.dimension + 1 + self.features.size, space.dimension, hidden, depth)

    @property
    def latent_dimension(self) -> int:
        """As many normal variables as there are parameters."""
        return self.space.dimension

    def _terms_standard(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> dict[str, Tensor]:
        z, t = torch.randn_like(u), torch.rand_like(u[:, :1])
        error = self._velocity((1 - t) * z + t * u, t, v) - (u - z)
        return {"loss": error.square().sum(dim=1).mean()}

    def _decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        u, step = z, 1 / self.steps
        for k in range(self.steps):
            t = torch.full_like(u[:, :1], k * step)
            half = u + step / 2 * self._velocity(u, t, v)
            u = u + step * self._velocity(half, t + step / 2, v)
        return u

    def _velocity(self, u: Float[Tensor, "n dx"], t: Float[Tensor, "n 1"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        return self.network(torch.cat([u, t, self.features(v)], dim=1))
