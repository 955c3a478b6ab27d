"""Conditional flow matching: a velocity field that carries noise to designs."""

from __future__ import annotations

__all__ = ["CFM"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.models.base import DensityModel
from matdesinne.models.networks import perceptron
from matdesinne.network import check_at_least
from matdesinne.space import DesignSpace
from matdesinne.targets import Property
from matdesinne.transforms import TargetFeatures


class CFM(DensityModel):
    r"""Continuous normalising flow :math:`\dot u_t = w(u_t, t, y)` from noise :math:`u_0 = z` to designs :math:`u_1 = u`.

    The density follows along the same path, :math:`\log p(u | y) = \log N(z; 0, 1) - \int_0^1 \nabla \cdot w(u_t, t, y)\, dt`,
    with the exact divergence. Both are integrated by the midpoint rule; `log_prob` differs from the density of the samples
    by its error, which falls with the square of `steps`.

    References:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv 2210.02747; with a condition: Wildberger et al.,
        Flow matching for scalable simulation-based inference, NeurIPS 2023, arXiv 2305.17161.

    Args:
        hidden: width of the network.
        depth: hidden layers of the network.
        frequencies: octaves of the Fourier features of y.
        steps: steps of the midpoint rule from noise to a sample; each evaluates the network twice.
    """

    label = "CFM"

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
        check_at_least(0, depth=depth, frequencies=frequencies)
        self.hidden, self.depth, self.frequencies, self.steps = hidden, depth, frequencies, steps
        self.features = TargetFeatures(len(properties), frequencies)
        self.network = perceptron(space.dimension + 1 + self.features.size, space.dimension, hidden, depth)

    def velocity(self, u: Float[Tensor, "n dx"], t: Float[Tensor, "n 1"], c: Float[Tensor, "n f"]) -> Float[Tensor, "n dx"]:
        """The field w at standardised designs u and times t from 0 to 1, given the `features` c of standardised targets."""
        return self.network(torch.cat([u, t, c], dim=1))

    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Follow the field from noise to designs."""
        u, c, step = z, self.features(v), 1 / self.steps
        for k in range(self.steps):
            t = torch.full_like(u[:, :1], k * step)
            half = u + step / 2 * self.velocity(u, t, c)
            u = u + step * self.velocity(half, t + step / 2, c)
        return u

    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density by the change of variables, integrated from the designs back to the noise."""
        c, step = self.features(v), 1 / self.steps
        log_det = torch.zeros_like(u[:, 0])
        for k in reversed(range(1, self.steps + 1)):
            t = torch.full_like(u[:, :1], k * step)
            half = u - step / 2 * self.velocity(u, t, c)
            velocity, divergence = self._velocity_and_divergence(half, t - step / 2, c)
            u, log_det = u - step * velocity, log_det - step * divergence
        return log_det - 0.5 * u.square().sum(dim=1) - 0.5 * u.shape[1] * math.log(2 * math.pi)

    def _velocity_and_divergence(self, u: Tensor, t: Tensor, c: Tensor) -> tuple[Float[Tensor, "n dx"], Float[Tensor, " n"]]:
        """The field and the trace of its Jacobian, by one forward derivative for each coordinate."""

        def push(direction: Tensor) -> tuple[Tensor, Tensor]:
            pushed = torch.func.jvp(lambda moved: self.velocity(moved, t, c), (u,), (direction.expand_as(u),))
            return pushed[0], pushed[1]

        basis = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        velocity, columns = torch.func.vmap(push)(basis)
        return velocity[0], columns.diagonal(dim1=0, dim2=2).sum(dim=1)
