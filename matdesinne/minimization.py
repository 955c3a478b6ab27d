"""Among designs on target, those that cost least: descent along the level set of the target."""

from __future__ import annotations

__all__ = ["Descent", "Objective", "merge_minima"]

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.expressions import Formula
from matdesinne.projection import Region, check_search, step_onto
from matdesinne.selection import named_columns
from matdesinne.surrogates.base import Surrogate

_APART = 0.02
"""Distance in half-widths of the box below which two designs are one minimum."""
_FIRST_LENGTH = 0.1
_SHORTEST = 2e-4
"""Length of a step in half-widths of the box at which a row has arrived."""
_CORRECTIONS = 3
"""Steps back onto the target before a trial is given up."""
_MOST_GROWTH = 10.0

Accepts = Callable[[Candidates], Bool[Tensor, " n"]]


class Objective:
    """What a design costs: a property, or a formula of parameters, strains and properties, see `Formula`.

    Raises:
        ConfigError: if the text is no formula.
    """

    def __init__(self, text: str) -> None:
        self.formula = Formula(text)

    @property
    def text(self) -> str:
        """The formula."""
        return self.formula.text

    def values(self, candidates: Candidates) -> Float[Tensor, " n"]:
        """The objective of each candidate in float64; infinite where it is undefined.

        Raises:
            ConfigError: if the formula uses a name that is no column.
        """
        return self._value(candidates).detach().nan_to_num(nan=torch.inf)

    def slopes(
        self, candidates: Candidates, jacobian: Float[Tensor, "n dy dx"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n dx"]]:
        """The values, and their derivatives with respect to the designs, through the properties, too.

        Args:
            candidates: with predictions at the designs.
            jacobian: of the predictions, in physical units.
        """
        with torch.enable_grad():
            x, mean = (values.detach().requires_grad_() for values in (candidates.designs, candidates.mean))
            value = self._value(replace(candidates, designs=x, mean=mean))
            direct, through = torch.autograd.grad(value.sum(), (x, mean), allow_unused=True, materialize_grads=True)
        gradient = direct + (through.unsqueeze(1) @ jacobian).squeeze(1)
        return value.detach().nan_to_num(nan=torch.inf), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _value(self, candidates: Candidates) -> Float[Tensor, " n"]:
        spreads = [f"{prop.name}_std" for prop in candidates.properties]  # their slopes are not known
        columns = {name: column for name, column in named_columns(candidates).items() if name not in spreads}
        return self.formula.value(columns).expand(len(candidates))


class Descent:
    r"""Minimises an objective g of every candidate while it keeps its target.

    A step is the projection of :math:`-t \nabla g` onto the designs that keep the target to first order, see `step_onto`:
    onto the tangent space of the values, of the intervals that a step would leave, and of the faces of the box. Newton's steps
    bring the trial back onto the level set. A trial is accepted only if the objective falls, the target holds as well as
    before, and the rules do; otherwise t is divided by four. After a step, t is that of Barzilai and Borwein for each row.
    Discrete parameters keep their values. The result is a local minimum; a row that meets a rule ends there.

    References:
        Rosen, The gradient projection method for nonlinear programming II, J. SIAM 9, 514 (1961), doi 10.1137/0109044.
        Barzilai, Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 8, 141 (1988), doi 10.1093/imanum/8.1.141.

    Args:
        tolerance: distance to the target, in the unit of each property, that a step may leave; more only where a candidate
            was farther off.
        evaluations: largest number of evaluations of the surrogate.
        longest_step: largest length of a step, in half-widths of the box.
    """

    def __init__(self, tolerance: float = 1e-5, evaluations: int = 200, longest_step: float = 0.3) -> None:
        check_search(tolerance, longest_step, evaluations=evaluations)
        self.tolerance, self.evaluations, self.longest_step = tolerance, evaluations, longest_step

    def descend(
        self,
        candidates: Candidates,
        surrogate: Surrogate,
        objective: Objective,
        accepts: Accepts | None = None,
        enough: Callable[[Candidates], bool] | None = None,
    ) -> Candidates:
        """Return the candidates at the lowest objective that each reached, in the same order.

        Args:
            candidates: on their target.
            surrogate: predicts their properties.
            objective: what to minimise.
            accepts: rules that every step keeps; all designs are kept when omitted.
            enough: the search ends as soon as this holds, asked after each evaluation.

        Raises:
            ConfigError: if the objective uses a name that is no column.
        """
        if len(candidates) == 0:
            return candidates
        rows = _Rows(candidates, surrogate, objective, self)
        while len(rows.active) and rows.evaluations < self.evaluations:
            rows.advance(accepts)
            if enough is not None and enough(rows.best):
                break
        return rows.best


class _Rows:
    """The state of a descent: for each candidate the best design, what is known there, and the trial of its next step."""

    def __init__(self, candidates: Candidates, surrogate: Surrogate, objective: Objective, settings: Descent) -> None:
        self.best, self.surrogate, self.objective, self.settings = candidates, surrogate, objective, settings
        free = candidates.space.constraints.free()
        self.region = Region.of(candidates.space, surrogate.scale.std.to(candidates.designs) * free, candidates.designs)
        x = candidates.designs
        self.allowed = candidates.error.amax(dim=1).clamp_min(settings.tolerance)
        self.value = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.jacobian = x.new_zeros(len(x), len(candidates.properties), x.shape[1])
        self.gradient, self.step = torch.zeros_like(x), torch.zeros_like(x)
        self.rate = x.new_zeros(len(x))
        self.corrections = torch.zeros(len(x), dtype=torch.long)
        self.active = torch.arange(len(x))
        self.trial = x.clone()
        self.evaluations = 0

    def advance(self, accepts: Accepts | None) -> None:
        """Evaluate the trials, accept or correct them, and make new ones."""
        rows = self.active
        found = self.surrogate.linearize(self.trial[rows].to(self.surrogate.device))
        mean, std, jacobian = (values.to(self.trial) for values in found)
        self.evaluations += 1
        tried = replace(self.best.take(rows), designs=self.trial[rows], mean=mean, std=std)
        value, gradient = self.objective.slopes(tried, jacobian)
        jacobian = jacobian * self.region.unit
        gradient = gradient * self.region.unit
        started = self.value[rows].isfinite()
        near = tried.error.amax(dim=1) <= self.allowed[rows]
        better = near & (value < self.value[rows])
        if accepts is not None and better.any():
            better[better.clone()] &= accepts(tried.take(better))
        better |= ~started
        correct = ~near & ~better & (self.corrections[rows] < _CORRECTIONS)
        self._accept(rows[better], tried.take(better), value[better], gradient[better], jacobian[better])
        self._reject(rows[~better & ~correct])
        self._correct(rows[correct], tried.take(correct), jacobian[correct])
        self._drop()

    def _accept(
        self,
        rows: Int[Tensor, " m"],
        moved: Candidates,
        value: Float[Tensor, " m"],
        gradient: Float[Tensor, "m dx"],
        jacobian: Float[Tensor, "m dy dx"],
    ) -> None:
        change = self._in_half_widths(moved.designs - self.best.designs[rows])
        before = self.step[rows] / self.rate[rows].clamp_min(1e-30).unsqueeze(1)
        self.best = self.best.with_rows(rows, moved)
        self.value[rows], self.gradient[rows], self.jacobian[rows] = value, gradient, jacobian
        first = self.rate[rows] == 0
        rate = _FIRST_LENGTH / gradient.norm(dim=1).clamp_min(1e-30)
        self.rate[rows] = torch.where(first, rate, self.rate[rows])
        after = self._wished_step(rows) / self.rate[rows].unsqueeze(1)
        # the projected gradient is minus the step over its rate
        curvature = (change * (before - after)).sum(dim=1)
        ratio = change.square().sum(dim=1) / curvature.clamp_min(1e-30)
        grown = torch.where(curvature > 0, ratio, torch.inf).clamp(
            self.rate[rows] / _MOST_GROWTH, self.rate[rows] * _MOST_GROWTH
        )
        self.rate[rows] = torch.where(first, rate, grown)
        self._make_trials(rows)

    def _reject(self, rows: Int[Tensor, " m"]) -> None:
        self.rate[rows] *= 0.25
        self._make_trials(rows)

    def _correct(self, rows: Int[Tensor, " m"], tried: Candidates, jacobian: Float[Tensor, "m dy dx"]) -> None:
        self.corrections[rows] += 1
        self.trial[rows] = self._moved(tried.designs, self._onto(tried, jacobian, None))

    def _make_trials(self, rows: Int[Tensor, " m"]) -> None:
        self.corrections[rows] = 0
        step = self._wished_step(rows)
        length = step.norm(dim=1, keepdim=True)
        longest = self.settings.longest_step
        # a shortened step counts as one of a smaller rate
        shorter = longest / length.clamp_min(longest)
        self.step[rows], self.rate[rows] = step * shorter, self.rate[rows] * shorter.squeeze(1)
        self.trial[rows] = self._moved(self.best.designs[rows], self.step[rows])

    def _wished_step(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m dx"]:
        return self._onto(self.best.take(rows), self.jacobian[rows], -self.rate[rows].unsqueeze(1) * self.gradient[rows])

    def _onto(
        self, at: Candidates, jacobian: Float[Tensor, "m dy dx"], wish: Float[Tensor, "m dx"] | None
    ) -> Float[Tensor, "m dx"]:
        return step_onto(at.target, at.designs, at.mean, jacobian, self.region, wish)

    def _moved(self, x: Float[Tensor, "m dx"], step: Float[Tensor, "m dx"]) -> Float[Tensor, "m dx"]:
        return self.region.clamp(x + self.region.unit * step)

    def _in_half_widths(self, change: Float[Tensor, "m dx"]) -> Float[Tensor, "m dx"]:
        return torch.where(self.region.unit > 0, change / self.region.unit, 0.0)

    def _drop(self) -> None:
        """Leave rows that have arrived, whose next step is short."""
        arrived = (self.step[self.active].norm(dim=1) < _SHORTEST) & (self.corrections[self.active] == 0)
        self.active = self.active[~arrived]


def merge_minima(candidates: Candidates, values: Float[Tensor, " n"]) -> Candidates:
    """Sort candidates by their objective, keep the best of those that are nearly equal, and count them as ``starts``.

    Designs are nearly equal that are less than 0.02 half-widths of the box apart, the symmetries of the space applied.
    """
    order = values.argsort(stable=True)
    unit = candidates.space.to_unit(candidates.space.canonicalize(candidates.designs[order]))
    left = torch.ones(len(order), dtype=torch.bool)
    kept, starts = [], []
    while left.any():
        first = int(left.int().argmax())
        same = left & ((unit - unit[first]).norm(dim=1) < _APART)
        left &= ~same
        kept.append(first)
        starts.append(int(same.sum()))
    return candidates.take(order[kept]).with_extra("starts", "1", torch.tensor(starts, dtype=torch.float64))
