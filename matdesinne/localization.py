"""Move each candidate onto the target with the gradients of a surrogate."""

from __future__ import annotations

__all__ = ["GradientDescent", "Localizer", "MeanGradientDescent", "Newton"]

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_CHUNK_ROWS = 1 << 11


class Localizer(ABC):
    """A per-sample search for f(x) = y* that starts at each candidate; rows do not influence each other.

    A subclass fills `_refine` on designs in physical units.
    """

    def refine(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move every candidate towards its target, inside the bounds of the space.

        Args:
            candidates: where to start.
            surrogate: the model whose gradients are followed.

        Returns:
            The moved candidates with fresh predictions, stage ``"localized"``; a row that did not converge is still
            there, its error tells.
        """
        moved = [
            self._refine(rows.to(surrogate.device), candidates.target, surrogate).cpu()
            for rows in candidates.designs.split(_CHUNK_ROWS)
        ]
        designs = torch.cat(moved) if moved else candidates.designs
        mean, std = surrogate.predict_many(designs)
        return replace(candidates, designs=designs, mean=mean, std=std, stage="localized")

    @abstractmethod
    def _refine(self, x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate) -> Float[Tensor, "n dx"]:
        """Moved designs in physical units."""


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

    def _refine(self, x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate) -> Float[Tensor, "n dx"]:
        unit = surrogate.scale.std
        lower, upper = surrogate.space.lower.to(x), surrogate.space.upper.to(x)
        best = x.clamp(lower, upper)
        best_size = torch.full((x.shape[0],), torch.inf, dtype=x.dtype, device=x.device)
        step = torch.zeros_like(x)
        rows = torch.arange(x.shape[0], device=x.device)
        for _ in range(self.steps):
            trial = (best[rows] + unit * step[rows]).clamp(lower, upper)
            value, jacobian = surrogate.value_and_jacobian(trial)
            residual = target.residual(value)
            size = residual.abs().amax(dim=1)
            better = size < best_size[rows]
            won = rows[better]
            best[won], best_size[won] = trial[better], size[better]
            step[won] = self._newton_step(trial[better], residual[better], jacobian[better] * unit, lower, upper)
            step[rows[~better]] *= 0.5
            rows = rows[best_size[rows] > self.tolerance]
            if rows.numel() == 0:
                break
        return best

    def _newton_step(
        self, x: Tensor, residual: Tensor, jacobian: Tensor, lower: Tensor, upper: Tensor
    ) -> Float[Tensor, "n dx"]:
        step = _shortest_solution(jacobian, residual)
        for _ in range(2):
            held = ((x <= lower) & (step < 0)) | ((x >= upper) & (step > 0))
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
        if not (rate > 0 and steps >= 1):
            raise ConfigError(f"Expected rate > 0 and steps >= 1, got {rate} and {steps}: correct them.")
        self.rate, self.steps = rate, steps

    def _refine(self, x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate) -> Float[Tensor, "n dx"]:
        unit = surrogate.scale.std
        lower, upper = surrogate.space.lower.to(x), surrogate.space.upper.to(x)
        for _ in range(self.steps):
            value, jacobian = surrogate.value_and_jacobian(x)
            slope = 2 * torch.einsum("nj,nji->ni", target.residual(value), jacobian * unit)
            x = (x - self.rate * unit * slope).clamp(lower, upper)
        return x


class MeanGradientDescent(Localizer):
    r"""The published code's localization, :math:`x \leftarrow x - \eta \nabla_x \frac{1}{n} \sum_i (f(x_i) - y^*)^2`.

    In physical units, without bounds, on the mean over all n candidates: a candidate moves by a step of :math:`\eta / n`, so
    many candidates hardly move. It is here to reproduce the paper; use `Newton`.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository, commit 2c7ab5e.

    Args:
        rate: step size, in squared physical units of the parameters per squared unit of the property.
        steps: number of steps.
    """

    def __init__(self, rate: float = 0.01, steps: int = 2000) -> None:
        if not (rate > 0 and steps >= 1):
            raise ConfigError(f"Expected rate > 0 and steps >= 1, got {rate} and {steps}: correct them.")
        self.rate, self.steps = rate, steps
        self._count = 1

    def refine(self, candidates: Candidates, surrogate: Surrogate) -> Candidates:
        """Move all candidates together; see the class."""
        self._count = max(len(candidates), 1)
        return super().refine(candidates, surrogate)

    def _refine(self, x: Float[Tensor, "n dx"], target: Target, surrogate: Surrogate) -> Float[Tensor, "n dx"]:
        for _ in range(self.steps):
            value, jacobian = surrogate.value_and_jacobian(x)
            slope = 2 * torch.einsum("nj,nji->ni", target.residual(value), jacobian)
            x = x - self.rate / self._count * slope
        return x


def _shortest_solution(jacobian: Float[Tensor, "n dy dx"], residual: Float[Tensor, "n dy"]) -> Float[Tensor, "n dx"]:
    """Minimal-norm s with J s = -r; zero where J vanishes."""
    gram = jacobian @ jacobian.mT
    jitter = 1e-10 * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return -(jacobian.mT @ torch.linalg.solve(gram + jitter, residual.unsqueeze(-1))).squeeze(-1)
