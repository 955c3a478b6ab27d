"""Conditional flow matching."""

from __future__ import annotations

__all__ = ["FlowMatching"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import InverseModel
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class FlowMatching(InverseModel):
    r"""A velocity field that carries noise z to designs u, :math:`\dot u_t = w(u_t, t, y)`.

    References:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv 2210.02747.

    Args:
        space: the designs.
        properties: what they have.
        hidden: width of the network.
        depth: number of hidden layers.
        frequencies: octaves of the Fourier features of y.
        steps: steps of the midpoint rule that follows the field from z to a sample.
        target_noise: see `InverseModel`.
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
    ) -> None:
        super().__init__(space, properties, target_noise)
        check_at_least(1, hidden=hidden, steps=steps)
        self.hidden, self.depth, self.frequencies, self.steps = hidden, depth, frequencies, steps
        self.features = TargetFeatures(len(properties), frequencies)
        self.network = perceptron(space.dimension + 1 + self.features.size, space.dimension, hidden, depth)

    @property
    def latent_dimension(self) -> int:
        """As many normal variables as there are parameters."""
        return self.space.dimension

    def velocity(self, u: Float[Tensor, "n dx"], t: Float[Tensor, "n 1"], v: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
        """The field w at u and time t for targets v, all standardised."""
        return self.network(torch.cat([u, t, self.features(v)], dim=1))

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Follow the field by the midpoint rule."""
        u, step = z, 1 / self.steps
        for k in range(self.steps):
            t = torch.full_like(u[:, :1], k * step)
            half = u + step / 2 * self.velocity(u, t, v)
            u = u + step * self.velocity(half, t + step / 2, v)
        return u
