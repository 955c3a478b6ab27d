"""Table 1 of the paper: every method at every target, scored by two surrogates, with diversity and time."""

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

from matdesinne.benchmark.metrics import coverage, mean_target_error, spread_ratio, target_errors
from matdesinne.benchmark.rejection import reject
from matdesinne.data.table import DesignTable
from matdesinne.errors import EmptyResultError
from matdesinne.models.base import InverseModel
from matdesinne.pipeline import Refinement
from matdesinne.selection import All
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_CINN, _MATDESINNE_CINN = {0.0: 0.063, 0.5: 0.219, 1.0: 0.193}, {0.0: 0.020, 0.5: 0.013, 1.0: 0.015}
PAPER: Mapping[str, Mapping[float, float]] = {
    "MDN": {0.0: 0.184, 0.5: 0.421, 1.0: 0.840},
    "cVAE": {0.0: 0.064, 0.5: 0.461, 1.0: 0.973},
    "INN": {0.0: 0.038, 0.5: 0.527, 1.0: 0.835},
    "MatDesINNe-INN": {0.0: 0.038, 0.5: 0.512, 1.0: 0.321},
    "cINN (affine)": _CINN,
    "cINN (mixture)": _CINN,
    "MatDesINNe-cINN (affine)": _MATDESINNE_CINN,
    "MatDesINNe-cINN (mixture)": _MATDESINNE_CINN,
}
"""Mean absolute errors in eV by method and target, from Table 1 of Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

The cINN of the paper has affine coupling blocks (FrEIA); its numbers are shown beside both kinds of cINN.
"""

_NEAR = 0.1  # a design within this distance of a target (unit of the property) is near it
_PRIOR_DESIGNS = 500_000  # uniform designs that give the share of designs near a target


@dataclass(frozen=True)
class Row:
    """One method at one target; errors in the unit of the property, ``None`` where there is nothing to score."""

    method: str  # label of the model, with the prefix MatDesINNe for localized candidates, or name of the baseline
    target: float
    seed: int
    mae_surrogate: float | None = None  # by the surrogate that localizes; for refined candidates by the accurate one
    mae_evaluator: float | None = None  # by a surrogate that never localizes
    off_target: float | None = None  # share of the designs that the evaluator puts more than 0.01 off, at the floor above it
    inside_bounds: float | None = None  # share of the returned designs inside the design space
    generated: int = 0  # drawn designs
    kept: int = 0  # returned designs
    diversity: float | None = None  # mean distance of two candidates over that of two training designs near the target
    coverage: float | None = None  # share of the training designs near the target that have a candidate in their neighbourhood
    seconds: float = 0.0  # wall time of sampling, selection and localization
    seconds_sampling: float = 0.0
    seconds_selection: float = 0.0  # of prediction and selection
    seconds_localization: float = 0.0  # of localization and refinement
    seconds_training: float | None = None  # where the model was trained in this run


@dataclass(frozen=True)
class Table1:
    """Runs every trained model, and baselines, at every target.

    If the refinement has an accurate surrogate, each model has one more row, for the first `evaluated` samples, whose
    candidates are moved onto the level set of that surrogate in the end.
    """

    models: Mapping[str, InverseModel]  # by their label
    training_seconds: Mapping[str, float]  # wall time of their training
    refinement: Refinement  # selects and localizes by its surrogate
    evaluator: Surrogate  # scores, never localizes
    reference: DesignTable  # training designs, for diversity and coverage
    seconds_per_label: float  # core time of one DFT calculation
    num_samples: int  # designs to draw for each method and target
    evaluated: int  # candidates of each method and target that the evaluator scores
    seed: int  # of every draw
    baselines: bool = True  # also make the rows that need no model

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate that localizes."""
        return self.refinement.surrogate

    def rows(self, targets: Sequence[float]) -> Iterator[Row]:
        """Run every method at every target and yield one row after the other."""
        for label, model in self.models.items():
            self._warm_up(model)
            for target in targets:
                yield from self._model_rows(label, model, target)
        if self.baselines:
            yield from map(self._uniform_row, targets)
            yield from self._rejection_rows(targets)
            for target in targets:
                yield self._search_row("DFT search", target, self._prior)
                yield self._search_row("DFT search, share of the data rows", target, self.reference.y)

    @functools.cached_property
    def _localizing(self) -> Refinement:
        """The refinement without an accurate surrogate."""
        whole = self.refinement
        return Refinement(self.surrogate, whole.selection, whole.localization, whole.accepted_error)

    @functools.cached_property
    def _prior(self) -> Float[Tensor, "m 1"]:
        """Properties of uniform designs, by the surrogate."""
        return self.surrogate.predict_many(self.surrogate.space.sample(_PRIOR_DESIGNS, self._generator()))[0]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _target(self, value: float) -> Target:
        return Target.parse(value, self.surrogate.properties)

    def _warm_up(self, model: InverseModel) -> None:
        """Fill caches, so that the first row is not slower than the others."""
        typical, floor = float(self.reference.y.median()), self.surrogate.properties[0].floor
        target = self._target(typical if floor is None else max(typical, floor))
        with contextlib.suppress(EmptyResultError):
            self._localizing.refine(model.sample_target(target, 256, self._generator())[0], target)

    def _model_rows(self, label: str, model: InverseModel, value: float) -> Iterator[Row]:
        start = time.perf_counter()
        designs, _ = model.sample_target(self._target(value), self.num_samples, self._generator())
        sampling = time.perf_counter() - start
        training = self.training_seconds.get(label)
        yield self._row(label, value, designs, self.num_samples, sampling, training=training)
        yield self._refined_row(f"MatDesINNe-{label}", value, designs, sampling, self._localizing, training)
        if self.refinement.accurate_surrogate is not None:
            first, share = designs[: self.evaluated], min(self.evaluated / len(designs), 1.0)
            method = f"MatDesINNe-{label}, refined"
            yield self._refined_row(method, value, first, share * sampling, self.refinement, training)

    def _uniform_row(self, value: float) -> Row:
        start = time.perf_counter()
        designs = self.surrogate.space.sample(self.num_samples, self._generator())
        sampling = time.perf_counter() - start
        unselected = Refinement(self.surrogate, All(), self.refinement.localization, self.refinement.accepted_error)
        return self._refined_row("uniform + localization", value, designs, sampling, unselected)

    def _refined_row(
        self,
        method: str,
        value: float,
        designs: Float[Tensor, "n dx"],
        sampling: float,
        refinement: Refinement,
        training: float | None = None,
    ) -> Row:
        try:
            run = refinement.refine(designs, self._target(value), sampling)
        except EmptyResultError:
            return self._row(method, value, designs[:0], len(designs), sampling, training=training)
        final, selection = run.candidates.designs, run.seconds["selected"]
        localization = run.seconds.get("localized", 0.0) + run.seconds.get("refined", 0.0)
        surrogate, times = refinement.accurate_surrogate, (sampling, selection, localization)
        return self._row(method, value, final, len(designs), *times, training=training, surrogate=surrogate)

    def _rejection_rows(self, values: Sequence[float], tolerance: float = 0.02, limit: int = 500_000) -> Iterator[Row]:
        targets = [self._target(value) for value in values]
        rejections = reject(self.surrogate, targets, tolerance, self.num_samples, limit, self._generator())
        for value, near in zip(values, rejections, strict=True):
            yield self._row("rejection sampling", value, near.designs, near.drawn, near.seconds)

    def _search_row(self, method: str, value: float, properties: Float[Tensor, "m 1"]) -> Row:
        """Returns the expected cost of DFT labels until `num_samples` of such designs are near the target.

        The properties are those of uniform designs; in the derivation of the paper they are those of the rows of the data set.
        """
        known = properties[properties.isfinite().all(dim=1)]
        share = (self._target(value).residual(known).abs() <= _NEAR).float().mean().item()
        generated, kept = (round(self.num_samples / share), self.num_samples) if share else (0, 0)
        seconds = self.seconds_per_label * generated
        return Row(method, value, self.seed, inside_bounds=1.0, generated=generated, kept=kept, seconds=seconds)

    def _row(
        self,
        method: str,
        value: float,
        designs: Float[Tensor, "n dx"],
        generated: int,
        sampling: float,
        selection: float = 0.0,
        localization: float = 0.0,
        *,
        training: float | None = None,
        surrogate: Surrogate | None = None,
    ) -> Row:
        """Score designs; alone they have neither errors nor a spread."""
        target = self._target(value)
        near = (target.residual(self.reference.y).abs() <= _NEAR).all(dim=1)
        reference, half_width = self.reference.x[near], self.surrogate.scale.std.cpu()
        scored = len(designs) > 1
        compared = scored and len(reference) > 1
        error, off_target = target_errors(designs[: self.evaluated], target, self.evaluator) if scored else (None, None)
        return Row(
            method=method,
            target=value,
            seed=self.seed,
            mae_surrogate=mean_target_error(designs, target, surrogate or self.surrogate) if scored else None,
            mae_evaluator=error,
            off_target=off_target,
            inside_bounds=self.surrogate.space.contains(designs).float().mean().item() if scored else None,
            generated=generated,
            kept=len(designs),
            diversity=spread_ratio(designs, reference, half_width) if compared else None,
            coverage=coverage(designs, reference, half_width) if compared else None,
            seconds=sampling + selection + localization,
            seconds_sampling=sampling,
            seconds_selection=selection,
            seconds_localization=localization,
            seconds_training=training,
        )
