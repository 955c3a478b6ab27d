"""Move each candidate onto the target with the gradients of a surrogate."""

from __future__ import annotations

__all__ = ["Adam", "GradientDescent", "LocalizedDesigns", "Localizer", "MeanGradientDescent", "Newton"]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.projection import Region, check_search, step_onto
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.combined import CombinedSurrogate
from matdesinne.targets import Target

_CHUNK_ROWS = 1 << 16
"""Rows that are localized together: many, so that the few that converge late still fill an evaluation."""


class LocalizedDesigns(NamedTuple):
    """Designs in physical units, shape [n, dx], with the surrogate's predictions and their spread, shape [n, dy] each."""

    designs: Float[Tensor, "n dx"]
    mean: Float[Tensor, "n dy"]
    std: Float[Tensor, "n dy"]


class Localizer(ABC):
    """A search for f(x) = y* that starts at each candidate; rows do not influence each other. A subclass fills `_localize`.

    The designs stay inside the bounds of the candidates' space, which may be narrower than the surrogate's. Where parameters
    have allowed values, a design moves between these first; then it takes the nearest allowed ones, and goes on in its other
    parameters. Where that does not reach the target, the second nearest values of some parameters are tried, too. Categories
    stay what they are, since a surrogate has not seen what lies between two.
    """

    tolerance: float = 0.0

    def localize(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move every candidate towards its target with the gradients of a surrogate, inside the bounds of its space.

        The result has new predictions and stage ``"localized"``. Rows that did not converge are included; their error is larger
        than the tolerance. Of a `CombinedSurrogate` only the parts are followed that predict what is asked for.
        """
        if isinstance(surrogate, CombinedSurrogate) and not all(candidates.target.asked):
            return self._localized_by_parts(candidates, surrogate)
        return self._localized(candidates, surrogate)

    def _localized_by_parts(self, candidates: Candidates, surrogate: CombinedSurrogate) -> Candidates:
        asked = candidates.target.asked
        part, columns = surrogate.needed(asked)
        if part is surrogate:
            return self._localized(candidates, surrogate)
        moved = self._localized(candidates.only([candidates.properties[j] for j in columns]), part)
        rest, others = surrogate.needed([j not in columns for j in range(len(asked))])
        order = torch.tensor([*columns, *others]).argsort()
        mean, std = rest.predict_many(moved.designs)
        mean, std = torch.cat([moved.mean, mean], dim=1)[:, order], torch.cat([moved.std, std], dim=1)[:, order]
        return replace(candidates, designs=moved.designs, mean=mean, std=std, stage=moved.stage)

    def _localized(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        constraints = candidates.space.constraints
        if not constraints or len(candidates) == 0:
            return self._moved(candidates, surrogate)
        if not constraints.free().any():  # every sample is an allowed design, and nothing is left to move
            return replace(candidates, stage="localized")
        relaxed = self._moved(candidates, surrogate, constraints.free(between_levels=True))
        first, *others = constraints.neighbours(relaxed.designs)
        found = self._moved(replace(candidates, designs=first), surrogate, constraints.free())
        for designs in others:
            [rows] = (found.error > self.tolerance).any(dim=1).nonzero(as_tuple=True)
            trial = self._moved(replace(candidates, designs=designs).take(rows), surrogate, constraints.free())
            better = trial.error.amax(dim=1) < found.error[rows].amax(dim=1)
            found = found.with_rows(rows[better], trial.take(better))
        return found

    def _moved(self, candidates: Candidates, surrogate: Surrogate, free: Bool[Tensor, " dx"] | None = None) -> Candidates:
        """Move candidates by the parameters that are free, all if omitted; this alone keeps no allowed values."""
        if len(candidates) == 0:
            return replace(candidates, stage="localized")
        unit = surrogate.scale.std if free is None else surrogate.scale.std * free.to(surrogate.device)
        region = Region.of(candidates.space, unit, candidates.designs)
        parts = (rows.to(surrogate.device) for rows in candidates.designs.split(_CHUNK_ROWS))
        chunks = [self._localize(rows, region, candidates.target, surrogate) for rows in parts]
        designs, mean, std = (torch.cat(columns).to(candidates.designs) for columns in zip(*chunks, strict=True))
        return replace(candidates, designs=designs, mean=mean, std=std, stage="localized")

    @abstractmethod
    def _localize(self, x: Float[Tensor, "n dx"], region: Region, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        """Localize designs in physical units, all on the surrogate's device."""


class Newton(Localizer):
    r"""Projection onto the level set, :math:`u \leftarrow u - J^T (J J^T)^{-1} (f(u) - y^*)`, in coordinates scaled by the box.

    The step is the shortest one that solves the linearised problem, so that samples move little and stay diverse. A step is
    limited in length, halved where it did not reduce the error, and kept inside the box: a coordinate at a bound is held
    where the step would leave the box. Of several properties only those take part that are outside their interval, or would
    be after the step; see `step_onto`.

    Args:
        tolerance: distance to the target at which a row stops, in the unit of each property.
        steps: largest number of evaluations of the surrogate.
        longest_step: largest length of a step, in half-widths of the box.
    """

    def __init__(self, tolerance: float = 1e-5, steps: int = 40, longest_step: float = 0.3) -> None:
        check_search(tolerance, longest_step, steps=steps)
        self.tolerance, self.steps, self.longest_step = tolerance, steps, longest_step

    def _localize(self, x: Float[Tensor, "n dx"], region: Region, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        trial = region.clamp(x)
        unknown = x.new_full((len(x), len(surrogate.properties)), torch.nan)
        best = LocalizedDesigns(trial.clone(), unknown, unknown.clone())
        best_size, step = x.new_full((len(x),), torch.inf), torch.zeros_like(x)
        rows = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            prediction = surrogate.linearize(trial)
            residual = target.residual(prediction.mean)
            size = residual.abs().amax(dim=1)
            better = size < best_size[rows]
            improved = rows[better]
            for column, values in zip(best, (trial, prediction.mean, prediction.std), strict=True):
                column[improved] = values[better]
            best_size[improved] = size[better]
            jacobian = prediction.jacobian[better] * region.unit
            whole = step_onto(target, trial[better], prediction.mean[better], jacobian, region)
            length = whole.norm(dim=1, keepdim=True)
            step[improved] = whole * (self.longest_step / length.clamp_min(self.longest_step))
            step[rows[~better]] *= 0.5
            rows = rows[best_size[rows] > self.tolerance]
            trial = region.clamp(best.designs[rows] + region.unit * step[rows])
            # a step that is lost in rounding changes nothing, nor would a shorter one
            moving = (trial != best.designs[rows]).any(dim=1)
            rows, trial = rows[moving], trial[moving]
            if rows.numel() == 0:
                break
        return best


class GradientDescent(Localizer):
    r"""The paper's localization, :math:`u \leftarrow u - \eta \nabla \|f(u) - y^*\|^2`, for each sample on its own.

    In the paper the loss is the mean over the batch, so that its step depends on the number of samples; here it does not.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        rate: step size in coordinates scaled by the box, per squared unit of the property.
    """

    def __init__(self, rate: float = 0.01, steps: int = 2000) -> None:
        _check(rate, steps)
        self.rate, self.steps = rate, steps

    def _localize(self, x: Float[Tensor, "n dx"], region: Region, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        for _ in range(self.steps):
            x = region.clamp(x - self.rate * region.unit * _gradient(x, target, surrogate, region.unit))
        return LocalizedDesigns(x, *surrogate.predict_many(x))


class Adam(Localizer):
    r"""Adam on :math:`\|f(u) - y^*\|^2` for each sample on its own, in coordinates scaled by the box.

    The step size falls to zero along half a cosine. A row that is within the tolerance stops, so that it stays on target.

    References:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015, arXiv 1412.6980.

    Args:
        rate: first step size, in half-widths of the box.
        decay: decay rates of the running means of the gradient and of its square.
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

    def _localize(self, x: Float[Tensor, "n dx"], region: Region, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        first, second = self.decay
        x = region.clamp(x)
        rows = torch.arange(len(x), device=x.device)
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            prediction = surrogate.linearize(x[rows])
            residual = target.residual(prediction.mean)
            far = residual.abs().amax(dim=1) > self.tolerance
            rows = rows[far]
            if rows.numel() == 0:
                break
            gradient = 2 * torch.einsum("nj,nji->ni", residual[far], prediction.jacobian[far] * region.unit)
            mean[rows] = mean[rows].lerp(gradient, 1 - first)
            square[rows] = square[rows].lerp(gradient.square(), 1 - second)
            size = (square[rows] / (1 - second ** (step + 1))).sqrt() + 1e-8
            rate = 0.5 * self.rate * (1 + math.cos(math.pi * step / self.steps))
            x[rows] = region.clamp(x[rows] - rate * region.unit * mean[rows] / (1 - first ** (step + 1)) / size)
        return LocalizedDesigns(x, *surrogate.predict_many(x))


class MeanGradientDescent(Localizer):
    r"""The published code's localization, :math:`x \leftarrow x - \eta \nabla_x \frac{1}{n} \sum_i (f(x_i) - y^*)^2`.

    It works in physical units on the mean over all n candidates: the step of each candidate is proportional to
    :math:`\eta / n`, so that many candidates hardly move. There are no bounds, but fixed parameters keep their value. It
    serves to reproduce the paper; use `Newton` otherwise.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository, commit 2c7ab5e.

    Args:
        rate: step size, in squared physical units of the parameters per squared unit of the property.
    """

    def __init__(self, rate: float = 0.01, steps: int = 2000) -> None:
        _check(rate, steps)
        self.rate, self.steps = rate, steps

    def localize(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move all candidates together; see `Localizer`."""
        self._count = len(candidates)
        return super().localize(candidates, surrogate)

    def _localize(self, x: Float[Tensor, "n dx"], region: Region, target: Target, surrogate: Surrogate) -> LocalizedDesigns:
        fixed = (region.lower == region.upper) | (region.unit == 0)
        x = torch.where(region.lower == region.upper, region.lower, x)
        for _ in range(self.steps):
            x = x - self.rate / self._count * _gradient(x, target, surrogate).masked_fill(fixed, 0.0)
        return LocalizedDesigns(x, *surrogate.predict_many(x))


def _check(rate: float, steps: int) -> None:
    if not (rate > 0 and steps >= 1):
        raise ConfigError(f"Expected rate > 0 and steps >= 1, got {rate} and {steps}: correct them.")


def _gradient(
    x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate, unit: Float[Tensor, " dx"] | float = 1.0
) -> Float[Tensor, "n dx"]:
    """Gradient of each row's squared distance to the target with respect to x / unit."""
    prediction = surrogate.linearize(x)
    return 2 * torch.einsum("nj,nji->ni", target.residual(prediction.mean), prediction.jacobian * unit)
