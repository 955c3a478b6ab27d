"""Tasks of the benchmark of simulation-based inference: a uniform prior, a random simulator, and the exact posterior.

References:
    Lueckmann, Boelts, Greenberg, Goncalves, Macke, Benchmarking simulation-based inference, AISTATS 2021, arXiv 2101.04653.
"""

from __future__ import annotations

__all__ = ["SLCP", "GaussianMixture", "Simulator", "TwoMoons"]

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import invwishart
from torch import Tensor

from matdesinne.errors import EmptyResultError

_MOST_ROUNDS, _FEWEST_ROWS = 1000, 1000
"""How often designs are proposed at most for a posterior, and how many at once at least."""


class Simulator(ABC):
    """A prior that is uniform in a box and a simulator that draws y ~ p(y | x), whose likelihood is known."""

    dimension: ClassVar[int]
    """Number of parameters."""
    half_width: ClassVar[float]
    """The prior is uniform between minus this and this in each parameter."""

    def sample_prior(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Draw designs from the prior."""
        return self.half_width * (2 * torch.rand(count, self.dimension, generator=generator) - 1)

    def sample_posterior(
        self, y: Float[Tensor, " dy"], count: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dx"]:
        """Draw designs from the exact posterior p(x | y), by rejection.

        Raises:
            EmptyResultError: if y is so far from everything the simulator gives that too few are found.
        """
        kept: list[Tensor] = []
        rows = max(count, _FEWEST_ROWS)
        for _ in range(_MOST_ROUNDS):
            designs = self._propose(y.double(), rows, generator)
            kept.append(designs[(designs.abs() <= self.half_width).all(dim=1)].float())
            if sum(map(len, kept)) >= count:
                return torch.cat(kept)[:count]
        raise EmptyResultError(
            f"Expected {count} designs of the posterior of {type(self).__name__} at y = {y.tolist()}, got "
            f"{sum(map(len, kept))} of {_MOST_ROUNDS * rows:,}: choose a y that the simulator gives."
        )

    @abstractmethod
    def simulate(self, x: Float[Tensor, "n dx"], generator: torch.Generator | None = None) -> Float[Tensor, "n dy"]:
        """Draw the data of each design."""

    @abstractmethod
    def log_likelihood(self, x: Float[Tensor, "n dx"], y: Float[Tensor, " dy"]) -> Float[Tensor, " n"]:
        """The logarithm of p(y | x)."""

    @abstractmethod
    def _propose(self, y: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        """Draw at most `count` designs, in double precision, that follow the likelihood of y on all of space."""


class TwoMoons(Simulator):
    r"""Two crescents in two parameters.

    .. math::
        y = (r \cos a + 0.25 - |x_1 + x_2| / \sqrt 2,\; r \sin a + (x_2 - x_1) / \sqrt 2), \quad
        a \sim U(-\pi/2, \pi/2),\; r \sim N(0.1, 0.01^2)

    The posterior is exact: y minus the noise gives :math:`|x_1 + x_2|` and :math:`x_2 - x_1`, and the sign is free.
    """

    dimension, half_width = 2, 1.0
    radius, spread, shift = 0.1, 0.01, 0.25

    def simulate(self, x: Float[Tensor, "n 2"], generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        """Draw a point of the crescent of each design."""
        return self._noise(len(x), generator).to(x) + self._centre(x)

    def log_likelihood(self, x: Float[Tensor, "n 2"], y: Float[Tensor, " 2"]) -> Float[Tensor, " n"]:
        """Density of the noise in polar coordinates, over its radius."""
        along, across = (y - self._centre(x)).unbind(dim=1)
        radius = torch.hypot(along - self.shift, across)
        normal = -0.5 * ((radius - self.radius) / self.spread).square() - math.log(self.spread * math.sqrt(2 * math.pi))
        return (normal - (math.pi * radius).log()).masked_fill(along < self.shift, -torch.inf)

    def _propose(self, y: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        along, across = (y - self._noise(count, generator).double()).unbind(dim=1)
        sign = 2 * torch.randint(0, 2, (count,), generator=generator) - 1
        designs = torch.stack([sign * along - across, sign * along + across], dim=1) / math.sqrt(2)
        return designs[along <= 0]

    def _centre(self, x: Tensor) -> Tensor:
        return torch.stack([-x.sum(dim=1).abs(), x[:, 1] - x[:, 0]], dim=1) / math.sqrt(2)

    def _noise(self, count: int, generator: torch.Generator | None) -> Tensor:
        angle = math.pi * (torch.rand(count, generator=generator) - 0.5)
        radius = self.radius + self.spread * torch.randn(count, generator=generator)
        return torch.stack([radius * angle.cos() + self.shift, radius * angle.sin()], dim=1)


class GaussianMixture(Simulator):
    r"""A wide and a narrow Gaussian about the same mean, :math:`y \sim N(x, 1) / 2 + N(x, 0.1^2) / 2`.

    The posterior is exact: the same mixture about y, within the box.
    """

    dimension, half_width = 2, 10.0
    spreads = (1.0, 0.1)

    def simulate(self, x: Float[Tensor, "n 2"], generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
        """Draw from the mixture of each design."""
        return x + self._noise(len(x), generator).to(x)

    def log_likelihood(self, x: Float[Tensor, "n 2"], y: Float[Tensor, " 2"]) -> Float[Tensor, " n"]:
        """Density of the mixture."""
        squared = (y - x).square().sum(dim=1)
        parts = [-0.5 * squared / width**2 - math.log(4 * math.pi * width**2) for width in self.spreads]
        return torch.stack(parts).logsumexp(dim=0)

    def _propose(self, y: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        return y + self._noise(count, generator).double()

    def _noise(self, count: int, generator: torch.Generator | None) -> Tensor:
        width = torch.tensor(self.spreads)[torch.randint(0, 2, (count,), generator=generator)]
        return width.unsqueeze(1) * torch.randn(count, 2, generator=generator)


class SLCP(Simulator):
    r"""Simple likelihood, complex posterior: four points of a Gaussian with mean and covariance from five parameters.

    .. math::
        y_i \sim N\left((x_1, x_2), \begin{pmatrix} s_1^2 & \rho s_1 s_2 \\ \rho s_1 s_2 & s_2^2 \end{pmatrix}\right), \quad
        s_1 = x_3^2,\; s_2 = x_4^2,\; \rho = \tanh x_5, \quad i = 1 \ldots 4

    The posterior is exact. With the scatter matrix A of the points about their mean m, a uniform prior gives the covariance
    S the density :math:`|S|^{-5/2} (S_{11} S_{22})^{-1/4} e^{-tr(S^{-1} A) / 2}`, where x1 and x2 are integrated out. It is
    :math:`(1 - \rho^2)^{1/4} \le 1` times that of an inverse Wishart distribution of 2.5 degrees of freedom, from which S is
    drawn by rejection; then :math:`(x_1, x_2) \sim N(m, S / 4)`, and the signs of x3 and x4 are free.
    """

    dimension, half_width = 5, 3.0
    points = 4

    def simulate(self, x: Float[Tensor, "n 5"], generator: torch.Generator | None = None) -> Float[Tensor, "n 8"]:
        """Draw the four points of each design, one after the other."""
        first, second, correlation = x[:, 2].square(), x[:, 3].square(), x[:, 4].tanh()
        noise = torch.randn(len(x), self.points, 2, generator=generator).to(x)
        a, b = noise.unbind(dim=2)
        mixed = correlation.unsqueeze(1) * a + (1 - correlation.square()).clamp_min(0).sqrt().unsqueeze(1) * b
        moved = torch.stack([first.unsqueeze(1) * a, second.unsqueeze(1) * mixed], dim=2)
        return (x[:, None, :2] + moved).flatten(start_dim=1)

    def log_likelihood(self, x: Float[Tensor, "n 5"], y: Float[Tensor, " 8"]) -> Float[Tensor, " n"]:
        """Sum of the log-densities of the points."""
        first, second, correlation = x[:, 2].square(), x[:, 3].square(), x[:, 4].tanh()
        rest = 1 - correlation.square()
        a, b = (y.reshape(self.points, 2) - x[:, None, :2]).unbind(dim=2)
        a, b = a / first.unsqueeze(1), b / second.unsqueeze(1)
        distance = (a.square() + b.square() - 2 * correlation.unsqueeze(1) * a * b).sum(dim=1) / rest
        log_det = 2 * first.log() + 2 * second.log() + rest.log()
        return -0.5 * distance - 0.5 * self.points * (log_det + 2 * math.log(2 * math.pi))

    def _propose(self, y: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        points = y.reshape(self.points, 2)
        centre = points.mean(dim=0)
        scatter = ((points - centre).T @ (points - centre)).numpy()
        seed = int(torch.randint(0, 2**62, (), generator=generator))
        drawn = invwishart.rvs(df=2.5, scale=scatter, size=count, random_state=np.random.default_rng(seed))
        covariance = torch.from_numpy(drawn.reshape(count, 2, 2))
        s1, s2 = covariance.diagonal(dim1=1, dim2=2).sqrt().unbind(dim=1)
        correlation = covariance[:, 0, 1] / (s1 * s2)
        level = torch.rand(count, generator=generator, dtype=torch.float64)
        kept = level < (1 - correlation.square()).clamp_min(0) ** 0.25
        a, b = torch.randn(count, 2, generator=generator, dtype=torch.float64).div(math.sqrt(self.points)).unbind(dim=1)
        mean_1 = centre[0] + s1 * a
        mean_2 = centre[1] + s2 * (correlation * a + (1 - correlation.square()).clamp_min(0).sqrt() * b)
        sign = 2 * torch.randint(0, 2, (2, count), generator=generator) - 1
        parts = [mean_1, mean_2, sign[0] * s1.sqrt(), sign[1] * s2.sqrt(), correlation.atanh()]
        return torch.stack(parts, dim=1)[kept]
