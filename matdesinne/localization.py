"""Move each candidate onto the target with the gradients of a surrogate."""

from __future__ import annotations

__all__ = ["Adam", "GradientDescent", "LocalizedDesigns", "Localizer", "MeanGradientDescent", "Newton"]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_CHUNK_ROWS = 1 << 16
"""Rows of one search: many, so that the few late ones of many share an evaluation."""
_JITTER = 1e-10
"""Squared slope below which a surrogate counts as flat, in squared units of the property per half-width of the box."""


class _Bounds(NamedTuple):
    lower: Float[Tensor, " dx"]
    upper: Float[Tensor, " dx"]


class LocalizedDesigns(NamedTuple):
    """Designs in physical units, shape [n, dx], and what the surrogate says of them, shape [n, dy] each."""

    designs: Float[Tensor, "n dx"]
    mean: Float[Tensor, "n dy"]
    std: Float[Tensor, "n dy"]


class Localizer(ABC):
    """A per-sample search for f(x) = y* that starts at each candidate; rows do not influence each other.

    It stays inside the bounds of the candidates' space, which may be narrower than the surrogate's. A subclass
    fills `_localize`.
    """

    def localize(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move every candidate towards its target, inside the bounds of its space.

        Args:
            candidates: where to start.
            surrogate: the model whose gradients are followed.

        Returns:
            The moved candidates with fresh predictions, stage ``"localized"``; a row that did not converge is still
            there, its error tells.
        """
        if len(candidates) == 0:
            return replace(candidates, stage="localized")
        edges = (candidates.space.lower, candidates.space.upper)
        bounds = _Bounds(*(edge.to(surrogate.device, candidates.designs.dtype) for edge in edges))
        found = LocalizedDesigns(
            *(torch.empty_like(column) for column in (candidates.designs, candidates.mean, candidates.std))
        )
        chunks = zip(*(column.split(_CHUNK_ROWS) for column in (candidates.designs, *found)), strict=True)
        for rows, *places in chunks:
            moved = self._localize(rows.to(surrogate.device), bounds, candidates.target, surrogate)
            for place, part in zip(places, moved, strict=True):
                place.copy_(part)
        return replace(candidates, designs=found.designs, mean=found.mean, std=found.std, stage="localized")

    @abstractmethod
    def _localize(self, x: Float[Tensor, "n dx"], bounds: _Bounds, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        """LocalizedDesigns designs, from designs in physical units and their bounds."""


class Newton(Localizer):
    r"""Projection onto the level set, :math:`u \leftarrow u - J^T (J J^T)^{-1} (f(u) - y^*)`, in coordinates scaled by the box.

    The step is the shortest one that solves the linearised problem, so each sample moves little and the diversity stays. A
    step is clipped, halved where it did not help, and kept in the box: a coordinate at a bound that would leave is held.

    Args:
        tolerance: distance to the target at which a row stops, in the unit of each property.
        steps: largest number of evaluations of the surrogate.
        longest_step: largest length of a step, in half-widths of the box.
    """

    def __init__(self, tolerance: float = 1e-5, steps: int = 40, longest_step: float = 0.3) -> None:
        if not (tolerance > 0 and steps >= 1 and longest_step > 0):
            raise ConfigError(
                f"Expected tolerance > 0, steps >= 1 and longest_step > 0, got {tolerance}, {steps} and {longest_step}."
            )
        self.tolerance, self.steps, self.longest_step = tolerance, steps, longest_step

    def _localize(self, x: Float[Tensor, "n dx"], bounds: _Bounds, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        unit = surrogate.scale.std
        trial = x.clamp(*bounds)
        unknown = x.new_full((len(x), len(surrogate.properties)), torch.nan)
        best = LocalizedDesigns(trial.clone(), unknown, unknown.clone())
        best_size, step = x.new_full((len(x),), torch.inf), torch.zeros_like(x)
        rows = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            at = surrogate.linearize(trial)
            residual = target.residual(at.mean)
            size = residual.abs().amax(dim=1)
            better = size < best_size[rows]
            won = rows[better]
            best.designs[won], best.mean[won], best.std[won] = trial[better], at.mean[better], at.std[better]
            best_size[won] = size[better]
            step[won] = self._newton_step(trial[better], residual[better], at.jacobian[better] * unit, bounds)
            step[rows[~better]] *= 0.5
            rows = rows[best_size[rows] > self.tolerance]
            trial = (best.designs[rows] + unit * step[rows]).clamp(*bounds)
            # a step that rounding swallows finds nothing, nor would a shorter one
            moving = (trial != best.designs[rows]).any(dim=1)
            rows, trial = rows[moving], trial[moving]
            if rows.numel() == 0:
                break
        return best

    def _newton_step(
        self, x: Float[Tensor, "n dx"], residual: Float[Tensor, "n dy"], jacobian: Float[Tensor, "n dy dx"], bounds: _Bounds
    ) -> Float[Tensor, "n dx"]:
        step = _shortest_solution(jacobian, residual)
        # a held coordinate stays so: each pass takes at least one more, a parameter that is fixed among the first
        while (held := ((x <= bounds.lower) & (step < 0)) | ((x >= bounds.upper) & (step > 0))).any():
            jacobian = jacobian.masked_fill(held.unsqueeze(1), 0.0)
            step = _shortest_solution(jacobian, residual)
        length = step.norm(dim=1, keepdim=True)
        return step * (self.longest_step / length.clamp_min(self.longest_step))


class GradientDescent(Localizer):
    r"""The paper's localization, :math:`u \leftarrow u - \eta \nabla \|f(u) - y^*\|^2`, for each sample on its own.

    The paper averages the loss over the batch, so that its step depends on the number of samples; here it does not.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        rate: step size in coordinates scaled by the box, per squared unit of the property.
        steps: number of steps.
    """

    def __init__(self, rate: float = 0.01, steps: int = 2000) -> None:
        _check(rate, steps)
        self.rate, self.steps = rate, steps

    def _localize(self, x: Float[Tensor, "n dx"], bounds: _Bounds, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        unit = surrogate.scale.std
        for _ in range(self.steps):
            x = (x - self.rate * unit * _slope(x, target, surrogate, unit)).clamp(*bounds)
        return LocalizedDesigns(x, *surrogate.predict_many(x))


class Adam(Localizer):
    r"""Adam on :math:`\|f(u) - y^*\|^2` for each sample on its own, in coordinates scaled by the box.

    The rate falls to zero along half a cosine. A row stops within the tolerance, so that it does not leave the target again.

    References:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015, arXiv 1412.6980.

    Args:
        rate: first step size, in half-widths of the box.
        steps: number of steps.
        decay: of the running means of the gradient and of its square.
        tolerance: distance to the target at which a row stops, in the unit of each property.
    """

    def __init__(
        self, rate: float = 0.02, steps: int = 100, decay: Sequence[float] = (0.8, 0.9), tolerance: float = 1e-5
    ) -> None:
        _check(rate, steps)
        if not (len(decay) == 2 and all(0 <= value < 1 for value in decay) and tolerance > 0):
            raise ConfigError(
                f"Expected two decays in [0, 1) and tolerance > 0, got {list(decay)} and {tolerance}: correct them."
            )
        self.rate, self.steps, self.decay, self.tolerance = rate, steps, tuple(decay), tolerance

    def _localize(self, x: Float[Tensor, "n dx"], bounds: _Bounds, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        unit = surrogate.scale.std
        first, second = self.decay
        x = x.clamp(*bounds)
        rows = torch.arange(len(x), device=x.device)
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            at = surrogate.linearize(x[rows])
            residual = target.residual(at.mean)
            far = residual.abs().amax(dim=1) > self.tolerance
            rows = rows[far]
            if rows.numel() == 0:
                break
            slope = 2 * torch.einsum("nj,nji->ni", residual[far], at.jacobian[far] * unit)
            mean[rows] = mean[rows].lerp(slope, 1 - first)
            square[rows] = square[rows].lerp(slope.square(), 1 - second)
            size = (square[rows] / (1 - second ** (step + 1))).sqrt() + 1e-8
            rate = 0.5 * self.rate * (1 + math.cos(math.pi * step / self.steps))
            x[rows] = (x[rows] - rate * unit * mean[rows] / (1 - first ** (step + 1)) / size).clamp(*bounds)
        return LocalizedDesigns(x, *surrogate.predict_many(x))


class MeanGradientDescent(Localizer):
    r"""The published code's localization, :math:`x \leftarrow x - \eta \nabla_x \frac{1}{n} \sum_i (f(x_i) - y^*)^2`.

    In physical units, on the mean over all n candidates: a candidate moves by a step of :math:`\eta / n`, so many candidates
    hardly move. There are no bounds, but a parameter that is fixed stays. It is here to reproduce the paper; use `Newton`.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository, commit 2c7ab5e.

    Args:
        rate: step size, in squared physical units of the parameters per squared unit of the property.
        steps: number of steps.
    """

    def __init__(self, rate: float = 0.01, steps: int = 2000) -> None:
        _check(rate, steps)
        self.rate, self.steps = rate, steps

    def localize(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move all candidates together; see the class."""
        self._count = len(candidates)
        return super().localize(candidates, surrogate)

    def _localize(self, x: Float[Tensor, "n dx"], bounds: _Bounds, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        fixed = bounds.lower == bounds.upper
        x = torch.where(fixed, bounds.lower, x)
        for _ in range(self.steps):
            x = x - self.rate / self._count * _slope(x, target, surrogate).masked_fill(fixed, 0.0)
        return LocalizedDesigns(x, *surrogate.predict_many(x))


def _check(rate: float, steps: int) -> None:
    if not (rate > 0 and steps >= 1):
        raise ConfigError(f"Expected rate > 0 and steps >= 1, got {rate} and {steps}: correct them.")


def _slope(
    x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate, unit: Float[Tensor, " dx"] | float = 1.0
) -> Float[Tensor, "n dx"]:
    """Gradient of each row's squared distance to the target, in coordinates whose unit is `unit`."""
    at = surrogate.linearize(x)
    return 2 * torch.einsum("nj,nji->ni", target.residual(at.mean), at.jacobian * unit)


def _shortest_solution(jacobian: Float[Tensor, "n dy dx"], residual: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
    """Minimal-norm s with J s = -r; zero where J vanishes."""
    if residual.shape[1] == 1:  # a division
        row = jacobian.squeeze(1)
        return -row * (residual / (row.square().sum(dim=1, keepdim=True) + _JITTER))
    gram = jacobian @ jacobian.mT
    jitter = _JITTER * torch.eye(residual.shape[1], dtype=gram.dtype, device=gram.device)
    return -(jacobian.mT @ torch.linalg.solve(gram + jitter, residual.unsqueeze(-1))).squeeze(-1)
