"""What a generative model saves: surrogate evaluations and seconds until there are enough distinct candidates."""

from __future__ import annotations

__all__ = ["SearchRow", "search_rows"]

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import EmptyResultError
from matdesinne.pipeline import InverseDesign, Refinement
from matdesinne.selection import All
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

Step = Callable[[torch.Generator], tuple[Float[Tensor, "n dx"], int]]
"""Draws designs; returns the candidates among them, or made of them, and how many it drew."""


@dataclass(frozen=True)
class SearchRow:
    """One method at one problem.

    Args:
        problem: target and bounds, as text.
        method: how designs are drawn, and whether they are localized.
        candidates: distinct candidates found; fewer than asked for where the limit of designs came first.
        drawn: designs drawn until then.
        evaluations: designs that the surrogate evaluated, with or without their gradient.
        per_candidate: `evaluations` for each candidate; ``None`` without a candidate.
        seconds: wall time.
    """

    problem: str
    method: str
    candidates: int
    drawn: int
    evaluations: int
    per_candidate: float | None
    seconds: float

    def cells(self) -> dict[str, object]:
        """The row of a table."""
        return {
            "problem": self.problem,
            "method": self.method,
            "candidates": f"{self.candidates:,}",
            "designs drawn": f"{self.drawn:,}",
            "surrogate evaluations": f"{self.evaluations:,}",
            "evaluations for a candidate": "" if self.per_candidate is None else f"{self.per_candidate:.1f}",
            "time [s]": f"{self.seconds:.1f}",
        }


def search_rows(
    design: InverseDesign, problems: Mapping[str, Mapping], count: int, batch: int, limit: int, seed: int
) -> Iterator[SearchRow]:
    """Search for `count` distinct candidates of each problem with the model, and with uniform designs instead.

    Uniform designs are localized like samples, all of them, or taken as they are where the surrogate finds them on target
    (rejection sampling).

    Args:
        design: model, surrogate, selection and localization.
        problems: ``target`` and, if any, ``bounds`` of each, as `InverseDesign.run` takes them, by a name.
        count: candidates to find.
        batch: designs that are drawn at once.
        limit: largest number of designs to draw.
        seed: of every draw.
    """
    for name, problem in problems.items():
        target = Target.parse(problem["target"], design.surrogate.properties)
        space = design.surrogate.space.narrowed(problem.get("bounds"), None)
        for method, step in _methods(design, target, space, batch).items():
            generator = torch.Generator().manual_seed(seed)
            with _counted(design.surrogate) as evaluations:
                start = time.perf_counter()
                found, drawn = _search(step, count, limit, generator)
                seconds = time.perf_counter() - start
            each = sum(evaluations) / found if found else None
            yield SearchRow(name, method, found, drawn, sum(evaluations), each, seconds)


def _methods(design: InverseDesign, target: Target, space: DesignSpace, batch: int) -> dict[str, Step]:
    surrogate, refinement = design.surrogate, design.refinement
    unselected = Refinement(surrogate, All(), refinement.localization, refinement.accepted_error)

    def sampled(generator: torch.Generator) -> tuple[Tensor, int]:
        designs, drawn = design.model.sample_target(target, batch, generator, space)
        return refinement.refine(designs, target, space=space).candidates.designs, drawn

    def uniform(generator: torch.Generator) -> tuple[Tensor, int]:
        return unselected.refine(space.sample(batch, generator), target, space=space).candidates.designs, batch

    def rejected(generator: torch.Generator) -> tuple[Tensor, int]:
        designs = space.sample(batch, generator)
        error = target.residual(surrogate.predict_mean(designs)).abs()
        limit = torch.as_tensor(refinement.accepted_error or 0.0)
        return designs[(error <= limit).all(dim=1)], batch

    return {
        f"{design.model.label} + localization": sampled,
        "uniform + localization": uniform,
        "uniform, rejection": rejected,
    }


def _search(step: Step, count: int, limit: int, generator: torch.Generator) -> tuple[int, int]:
    """Numbers of distinct candidates and of designs drawn."""
    found: list[Tensor] = []
    total = distinct = 0
    while total < limit and distinct < count:
        try:
            designs, drawn = step(generator)
        except EmptyResultError:
            break
        total += drawn
        found = [torch.cat([*found, designs]).unique(dim=0)]
        distinct = len(found[0])
    return min(distinct, count), total


@contextmanager
def _counted(surrogate: Surrogate) -> Iterator[list[int]]:
    """A list that gets the number of designs of each evaluation of a surrogate."""
    sizes: list[int] = []
    handle = surrogate.features.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()
