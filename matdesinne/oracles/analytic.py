"""Inverse problems with an exact forward function.

References:
    Kruse, Ardizzone, Rother, Koethe, Benchmarking invertible architectures on inverse problems, 2021, arXiv 2101.10763.
"""

from __future__ import annotations

__all__ = ["AnalyticOracle", "AnalyticProblem", "Ballistics", "Kinematics"]

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import DatasetError
from matdesinne.oracles.base import Column, Labels, Oracle
from matdesinne.space import DesignSpace


class AnalyticProblem(ABC):
    """A prior over x and an exact forward function y = f(x)."""

    tolerance: float
    """Distance from the target within which the field's rejection posteriors accept a sample, in the unit of y."""

    @abstractmethod
    def sample_prior(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dx"]:
        """Draw designs from the prior."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "n dx"], strict: bool = True) -> Float[Tensor, "n dy"]:
        """Compute the exact properties of designs.

        Raises:
            DatasetError: if a design has no properties.
        """


class Kinematics(AnalyticProblem):
    r"""A planar arm with three segments on a rail.

    .. math::
        y_1 = l_1 \cos x_2 + l_2 \cos(x_2 + x_3) + l_3 \cos(x_2 + x_3 + x_4), \quad
        y_2 = x_1 + l_1 \sin x_2 + l_2 \sin(x_2 + x_3) + l_3 \sin(x_2 + x_3 + x_4)

    with :math:`l = (0.5, 0.5, 1)` and :math:`x \sim N(0, diag(0.25, 0.5, 0.5, 0.5)^2)`. The start height x1 and y are lengths;
    x2, x3 and x4 are angles in radian.

    Example:
        >>> Kinematics().forward(torch.zeros(1, 4)).tolist()
        [[2.0, 0.0]]
    """

    tolerance = 0.01
    lengths = (0.5, 0.5, 1.0)
    spread = (0.25, 0.5, 0.5, 0.5)

    def sample_prior(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 4"]:
        """Draw (start height, three angles)."""
        return torch.randn(count, 4, generator=generator) * torch.tensor(self.spread)

    def forward(self, x: Float[Tensor, "n 4"], strict: bool = True) -> Float[Tensor, "n 2"]:
        """Compute the end point of the arm."""
        angles = x[:, 1:].cumsum(dim=1)
        lengths = torch.tensor(self.lengths, dtype=x.dtype, device=x.device)
        along = (lengths * angles.cos()).sum(dim=1)
        height = x[:, 0] + (lengths * angles.sin()).sum(dim=1)
        return torch.stack([along, height], dim=1)


class Ballistics(AnalyticProblem):
    r"""Impact position of a thrown ball with linear drag.

    .. math::
        x(t) = x_0 - \frac{v_x m}{k} (e^{-kt/m} - 1), \quad
        y(t) = y_0 - \frac{m}{k^2} \left((g m + v_y k)(e^{-kt/m} - 1) + g t k\right)

    with g = 9.81 m/s^2, k = 0.25 kg/s, m = 0.2 kg; designs are (x0 [m], y0 [m], angle [rad], v0 [m/s]).
    """

    tolerance = 0.02
    gravity, drag, mass = 9.81, 0.25, 0.2
    angle_degrees = (9.0, 81.0)

    def sample_prior(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 4"]:
        """Draw (x0, y0, angle, v0)."""
        x0 = 0.5 * torch.randn(count, generator=generator)
        y0 = (1.5 + 0.5 * torch.randn(count, generator=generator)).clamp_min(0.0)
        low, high = (math.radians(angle) for angle in self.angle_degrees)
        angle = low + (high - low) * torch.rand(count, generator=generator)
        v0 = torch.poisson(torch.full((count,), 15.0), generator=generator)
        return torch.stack([x0, y0, angle, v0], dim=1)

    def forward(self, x: Float[Tensor, "n 4"], strict: bool = True) -> Float[Tensor, "n 1"]:
        """Compute where the ball hits the ground; a ball that starts below it and does not reach it has no such place."""
        start, height, angle, speed = x.double().unbind(dim=1)
        vx, vy = speed * angle.cos(), speed * angle.sin()
        g, k, m = self.gravity, self.drag, self.mass
        apex = m / k * torch.log1p((vy * k / (g * m)).clamp_min(0.0))
        never = self._height(apex, height, vy) < 0
        if strict and never.any():
            row = int(never.nonzero()[0, 0])
            raise DatasetError(
                f"Expected shots that reach the ground from above, got y0 = {height[row]:.4g} m in row {row}, "
                "which stays below it: start at or above the ground."
            )
        time = self._impact_time(apex, torch.where(never, 0.0, height), vy)
        reach = start - vx * self.mass / self.drag * torch.expm1(-self.drag * time / self.mass)
        return torch.where(never, torch.nan, reach).to(x).unsqueeze(1)

    def _height(self, t: Tensor, height: Tensor, vy: Tensor) -> Tensor:
        g, k, m = self.gravity, self.drag, self.mass
        return height - m / k**2 * ((g * m + vy * k) * torch.expm1(-k * t / m) + g * t * k)

    def _impact_time(self, apex: Tensor, height: Tensor, vy: Tensor) -> Tensor:
        # behind the apex the height decreases monotonically: bracket the zero, then bisect
        low, high = apex.clone(), apex + 1.0
        while (above := self._height(high, height, vy) > 0).any():
            high = torch.where(above, 2 * high, high)
        for _ in range(60):
            middle = (low + high) / 2
            above = self._height(middle, height, vy) > 0
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return (low + high) / 2


class AnalyticOracle(Oracle):
    """The exact properties of the designs of an analytic problem.

    Args:
        space: the designs.
        problem: the forward function.
        properties: the unit of each property by its name.
        chunk: number of designs in one task.
        delay: waiting time for each design in s, to rehearse long calculations.
    """

    def __init__(
        self, space: DesignSpace, problem: AnalyticProblem, properties: Mapping[str, str], chunk: int, delay: float = 0.0
    ) -> None:
        super().__init__(space)
        self.problem, self.properties, self.chunk, self.delay = problem, dict(properties), chunk, delay

    def columns(self) -> dict[str, Column]:
        """The properties with their units."""
        return {name: Column(unit) for name, unit in self.properties.items()}

    def settings(self) -> dict[str, object]:
        """The problem's name."""
        return {"oracle": "analytic", "problem": type(self.problem).__name__}

    def _label(self, x: Float[Tensor, "n dx"]) -> Labels:
        time.sleep(self.delay * len(x))
        return dict(zip(self.properties, self.problem.forward(x).T.tolist(), strict=True))
