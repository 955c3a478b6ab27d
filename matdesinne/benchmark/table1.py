"""Every method at every target: errors by two surrogates, share kept, diversity, seconds."""

from __future__ import annotations

__all__ = ["PAPER", "Row", "Table1"]

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.benchmark.metrics import coverage, mean_target_error, spread_ratio
from matdesinne.benchmark.rejection import reject
from matdesinne.data.table import DesignTable
from matdesinne.errors import EmptyResultError
from matdesinne.models.base import InverseModel
from matdesinne.pipeline import Refinement
from matdesinne.selection import All
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

PAPER: Mapping[str, Mapping[float, float]] = {
    "MDN": {0.0: 0.184, 0.5: 0.421, 1.0: 0.840},
    "cVAE": {0.0: 0.064, 0.5: 0.461, 1.0: 0.973},
    "INN": {0.0: 0.038, 0.5: 0.527, 1.0: 0.835},
    "cINN": {0.0: 0.063, 0.5: 0.219, 1.0: 0.193},
    "MatDesINNe-INN": {0.0: 0.038, 0.5: 0.512, 1.0: 0.321},
    "MatDesINNe-cINN": {0.0: 0.020, 0.5: 0.013, 1.0: 0.015},
}
"""Mean absolute errors in eV of Table 1 in Fung et al. 2021, doi 10.1038/s41524-021-00670-x."""

_NEAR = 0.1
"""A design within this distance of a target (unit of the property) is near it."""


@dataclass(frozen=True)
class Row:
    """One method at one target; errors in the property's unit, ``None`` where nothing is predicted or left.

    Args:
        method: as the paper names it.
        target: the wanted value.
        seed: of this run.
        mae_surrogate: mean absolute error by the surrogate that localizes, or finishes.
        mae_evaluator: the same by a surrogate that never localizes.
        inside_bounds: share of the returned designs inside the design space.
        generated: designs drawn.
        kept: designs returned.
        diversity: mean distance of two candidates over that of two training designs near the target.
        coverage: share of the training designs near the target that have a candidate in their neighbourhood.
        seconds: wall time in all.
        seconds_sampling: of it, sampling.
        seconds_selection: of it, predicting and selecting.
        seconds_localization: of it, localization.
        seconds_training: wall time of the generative model's training, where it was trained in this run.
    """

    method: str
    target: float
    seed: int
    mae_surrogate: float | None
    mae_evaluator: float | None
    inside_bounds: float | None
    generated: int
    kept: int
    diversity: float | None
    coverage: float | None
    seconds: float
    seconds_sampling: float
    seconds_selection: float
    seconds_localization: float
    seconds_training: float | None


@dataclass(frozen=True)
class Table1:
    """The benchmark over trained models.

    Args:
        models: generative models by the name of their method.
        training_seconds: wall time of their training by the same name.
        refinement: selects and localizes by its surrogate; where it has an accurate surrogate, each model has one
            more row, of as many samples as are evaluated, that ends with it.
        evaluator: scores, never localizes.
        reference: training designs, for diversity.
        prior: properties of designs drawn uniformly from the space, for the cost of a search by DFT.
        seconds_per_label: of one DFT calculation on one core.
        num_samples: designs drawn for each method and target.
        evaluated: of these, how many the evaluator scores.
        seed: of every draw.
        baselines: make rows without a model, too.
    """

    models: Mapping[str, InverseModel]
    training_seconds: Mapping[str, float]
    refinement: Refinement
    evaluator: Surrogate
    reference: DesignTable
    prior: Float[Tensor, "m 1"]
    seconds_per_label: float
    num_samples: int
    evaluated: int
    seed: int
    baselines: bool = True

    @property
    def surrogate(self) -> Surrogate:
        """The one that localizes."""
        return self.refinement.surrogate

    @functools.cached_property
    def _fast(self) -> Refinement:
        """The refinement without a accurate_surrogate."""
        return Refinement(self.surrogate, self.refinement.selection, self.refinement.localization)

    def rows(self, targets: Sequence[float]) -> Iterator[Row]:
        """Run every method at every target, one row after the other."""
        for name, model in self.models.items():
            self._warm_up(model)
            for target in targets:
                yield from self._model_rows(name, model, target)
        if self.baselines:
            yield from self._baseline_rows(targets)

    def _baseline_rows(self, targets: Sequence[float]) -> Iterator[Row]:
        for target in targets:
            yield self._uniform_row(target)
        yield from self._rejection_rows(targets)
        for target in targets:
            yield self._search_row(target)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _warm_up(self, model: InverseModel) -> None:
        typical, floor = float(self.prior.median()), self.surrogate.properties[0].floor
        target = Target.parse(typical if floor is None else max(typical, floor), model.properties)
        with contextlib.suppress(EmptyResultError):  # it only fills caches
            self._fast.refine(model.sample_target(target, 256, self._generator())[0], target)

    def _model_rows(self, name: str, model: InverseModel, value: float) -> Iterator[Row]:
        target = Target.parse(value, model.properties)
        start = time.perf_counter()
        designs, _ = model.sample_target(target, self.num_samples, self._generator())
        sampling = time.perf_counter() - start
        training = self.training_seconds.get(name)
        yield self._row(name, value, designs, self.num_samples, (sampling, 0.0, 0.0), training)
        yield self._refined_row(f"MatDesINNe-{name}", value, designs, sampling, self._fast, training)
        if self.refinement.accurate_surrogate is not None:
            some, share = designs[: self.evaluated], min(self.evaluated / len(designs), 1.0)
            yield self._refined_row(f"MatDesINNe-{name}, refined", value, some, share * sampling, self.refinement, training)

    def _uniform_row(self, value: float) -> Row:
        start = time.perf_counter()
        designs = self.surrogate.space.sample(self.num_samples, self._generator())
        sampling = time.perf_counter() - start
        everything = Refinement(self.surrogate, All(), self.refinement.localization)
        return self._refined_row("uniform + localization", value, designs, sampling, everything, None)

    def _refined_row(
        self,
        method: str,
        value: float,
        designs: Float[Tensor, "n dx"],
        sampling: float,
        refinement: Refinement,
        training: float | None,
    ) -> Row:
        try:
            run = refinement.refine(designs, Target.parse(value, self.surrogate.properties), sampling)
        except EmptyResultError:
            return self._row(method, value, designs[:0], len(designs), (sampling, 0.0, 0.0), training)
        localization = run.seconds.get("localized", 0.0) + run.seconds.get("refined", 0.0)
        seconds = (run.seconds["sampled"], run.seconds["selected"], localization)
        return self._row(method, value, run.candidates.designs, len(designs), seconds, training, refinement.accurate_surrogate)

    def _rejection_rows(self, values: Sequence[float], tolerance: float = 0.02, limit: int = 500_000) -> Iterator[Row]:
        targets = [Target.parse(value, self.surrogate.properties) for value in values]
        found = reject(self.surrogate, targets, tolerance, self.num_samples, limit, self._generator())
        for value, near in zip(values, found, strict=True):
            yield self._row("rejection sampling", value, near.designs, near.drawn, (near.seconds, 0.0, 0.0), None)

    def _search_row(self, value: float) -> Row:
        """Label uniform designs by DFT until as many as the others return are near the target: the cost, not a run."""
        target = Target.parse(value, self.surrogate.properties)
        share = (target.residual(self.prior).abs() <= _NEAR).float().mean().item()
        drawn = round(self.num_samples / share) if share else 0
        kept, seconds = self.num_samples if share else 0, self.seconds_per_label * drawn
        return Row("DFT search", value, self.seed, None, None, 1.0, drawn, kept, None, None, seconds, 0, 0, 0, None)

    def _row(
        self,
        method: str,
        value: float,
        designs: Float[Tensor, "n dx"],
        generated: int,
        seconds: tuple[float, float, float],
        training: float | None,
        accurate_surrogate: Surrogate | None = None,
    ) -> Row:
        target = Target.parse(value, self.surrogate.properties)
        inside = self.surrogate.space.contains(designs)
        near = (target.residual(self.reference.y).abs() <= _NEAR).all(dim=1)
        known, half_width = self.reference.x[near], self.surrogate.scale.std
        some = len(designs) > 1
        return Row(
            method,
            value,
            self.seed,
            mean_target_error(designs, target, accurate_surrogate or self.surrogate) if some else None,
            mean_target_error(designs[: self.evaluated], target, self.evaluator) if some else None,
            inside.float().mean().item() if some else None,
            generated,
            len(designs),
            spread_ratio(designs, known, half_width) if some and len(known) > 1 else None,
            coverage(designs, known, half_width) if some and len(known) > 1 else None,
            sum(seconds),
            *seconds,
            training,
        )
