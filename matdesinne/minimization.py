"""Among designs on target, those that cost least: descent along the level set of the target."""

from __future__ import annotations

__all__ = ["Descent", "merge_minima"]

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.objective import Objective, RuleEdges
from matdesinne.projection import Region, check_search, step_onto
from matdesinne.selection import All, Selection
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_APART = 0.02
"""Distance in half-widths of the box below which two designs are one minimum."""
_FIRST_LENGTH = 0.1
_SHORTEST = 2e-4
"""Length of a step in half-widths of the box at which a row has arrived."""
_CORRECTIONS = 3
"""Steps back onto the target before a trial is given up."""
_MOST_GROWTH = 10.0
_INSIDE = 1e-4
"""Distance in half-widths of the box that a step keeps from the edge of a rule, more than rounding."""


class Descent:
    r"""Minimises an objective g of every candidate while it keeps its target.

    A step is the projection of :math:`-t \nabla g` onto the designs that keep the target to first order, see `step_onto`:
    onto the tangent space of the values, of the intervals and rules that a step would leave, and of the faces of the box, so
    that a row that meets a rule slides along its edge. Newton's steps bring the trial back onto the level set. A trial is
    accepted only if the objective falls, the target holds as well as before, and the rules do; otherwise t is divided by four.
    After a step, t is that of Barzilai and Borwein for each row. Discrete parameters keep their values. The result is a local
    minimum. A row ends where it meets a rule without a slope in the design, such as one of a spread or one with ``==``.

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
        rules: Selection | None = None,
        enough: Callable[[Candidates], bool] | None = None,
    ) -> Candidates:
        """Return the candidates at the lowest objective that each reached, in the same order.

        Args:
            candidates: on their target.
            surrogate: predicts their properties.
            objective: what to minimise.
            rules: that every step keeps; all designs are kept when omitted.
            enough: the search ends as soon as this holds, asked after each evaluation.

        Raises:
            ConfigError: if the objective uses a name that is no column.
        """
        if len(candidates) == 0:
            return candidates
        rows = _Rows(candidates, surrogate, objective, rules or All(), self)
        while len(rows.active) and rows.evaluations < self.evaluations:
            rows.advance()
            if enough is not None and enough(rows.best):
                break
        return rows.best


class _Rows:
    """The state of a descent: for each candidate the best design, what is known there, and the trial of its next step."""

    def __init__(
        self, candidates: Candidates, surrogate: Surrogate, objective: Objective, rules: Selection, settings: Descent
    ) -> None:
        self.best, self.surrogate, self.objective, self.rules, self.settings = candidates, surrogate, objective, rules, settings
        free = candidates.space.constraints.free()
        self.region = Region.of(candidates.space, surrogate.scale.std.to(candidates.designs) * free, candidates.designs)
        x = candidates.designs
        self.allowed = candidates.error.amax(dim=1).clamp_min(settings.tolerance)
        self.value = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.jacobian = x.new_zeros(len(x), len(candidates.properties), x.shape[1])
        self.gradient, self.step = torch.zeros_like(x), torch.zeros_like(x)
        self.edges = RuleEdges.of(rules, candidates, self.jacobian, self.region.unit)
        self.rate = x.new_zeros(len(x))
        self.corrections = torch.zeros(len(x), dtype=torch.long)
        self.active = torch.arange(len(x))
        self.trial = x.clone()
        self.evaluations = 0

    def advance(self) -> None:
        """Evaluate the trials, accept or correct them, and make new ones."""
        rows = self.active
        found = self.surrogate.linearize(self.trial[rows].to(self.surrogate.device))
        mean, std, jacobian = (values.to(self.trial) for values in found)
        self.evaluations += 1
        tried = replace(self.best.take(rows), designs=self.trial[rows], mean=mean, std=std)
        value, gradient = self.objective.slopes(tried, jacobian)
        edges = RuleEdges.of(self.rules, tried, jacobian, self.region.unit)
        jacobian, gradient = jacobian * self.region.unit, gradient * self.region.unit
        started = self.value[rows].isfinite()
        near = tried.error.amax(dim=1) <= self.allowed[rows]
        better = near & (value < self.value[rows])
        if better.any():
            better[better.clone()] &= self.rules.mask(tried.take(better))
        better |= ~started
        off = ~near | (edges.distance < 0).any(dim=1)
        correct = off & ~better & (self.corrections[rows] < _CORRECTIONS)
        for column, own in zip(edges, self.edges, strict=True):
            own[rows[better]] = column[better]
        self._accept(rows[better], tried.take(better), value[better], gradient[better], jacobian[better])
        self._reject(rows[~better & ~correct])
        self._correct(rows[correct], tried.take(correct), jacobian[correct], edges.take(correct))
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

    def _correct(
        self, rows: Int[Tensor, " m"], tried: Candidates, jacobian: Float[Tensor, "m dy dx"], edges: RuleEdges
    ) -> None:
        self.corrections[rows] += 1
        self.trial[rows] = self._moved(tried.designs, self._onto(tried, jacobian, edges, None))

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
        wish = -self.rate[rows].unsqueeze(1) * self.gradient[rows]
        return self._onto(self.best.take(rows), self.jacobian[rows], self.edges.take(rows), wish)

    def _onto(
        self, at: Candidates, jacobian: Float[Tensor, "m dy dx"], edges: RuleEdges, wish: Float[Tensor, "m dx"] | None
    ) -> Float[Tensor, "m dx"]:
        # rules are intervals of further quantities
        count, target = edges.distance.shape[1], at.target
        target = Target((*target.lower, *(_INSIDE,) * count), (*target.upper, *(torch.inf,) * count))
        mean, jacobian = torch.cat([at.mean, edges.distance], dim=1), torch.cat([jacobian, edges.slopes], dim=1)
        return step_onto(target, at.designs, mean, jacobian, self.region, wish)

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
