"""The paper's evaluation of generative models: raw samples, and localization as in its code, without a filter after it."""

from __future__ import annotations

__all__ = ["PaperRow", "PaperTable"]

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.localization import MeanGradientDescent
from matdesinne.models.base import InverseModel
from matdesinne.selection import All, Expression, Selection, Tolerance
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target


@dataclass(frozen=True)
class PaperRow:
    """Errors of one method at one target: distances of the forward INN's prediction to the target, in the property's unit.

    Args:
        method: label of the model.
        target: value of the property.
        seed: of training and samples.
        tolerance: largest distance to the target of the samples that are localized; ``None`` for the raw samples.
        steps: of the localization; ``None`` for the raw samples.
        samples: drawn designs.
        kept: of these, designs that were scored.
        mae: mean distance; ``None`` where no design is left.
        median: median distance.
        inside_bounds: share of the scored designs with all seven parameters within their bounds.
        mae_inside: mean distance of those alone.
        seconds: of sampling, or of the localization.
    """

    method: str
    target: float
    seed: int
    tolerance: float | None
    steps: int | None
    samples: int
    kept: int
    mae: float | None
    median: float | None
    inside_bounds: float | None
    mae_inside: float | None
    seconds: float


@dataclass(frozen=True)
class PaperTable:
    """Samples every model at every target, and localizes the first of the samples by the code's gradient descent.

    Args:
        models: by their label.
        surrogate: the forward INN, which scores and localizes.
        num_samples: raw samples of each model and target.
        localized: how many of them go into the selection and localization; the step of each depends on how many are selected.
        tolerances: largest distances to the target of the selected samples.
        steps: numbers of steps after which the localized samples are scored.
        seed: of the samples.
    """

    models: Mapping[str, InverseModel]
    surrogate: Surrogate
    num_samples: int
    localized: int
    tolerances: Sequence[float]
    steps: Sequence[int]
    seed: int

    def rows(self, targets: Sequence[float]) -> Iterator[PaperRow]:
        """Run every model at every target and yield one row after the other."""
        for label, model in self.models.items():
            for value in targets:
                target = Target.parse(value, self.surrogate.properties)
                start = time.perf_counter()
                designs, _ = model.sample_target(target, self.num_samples, torch.Generator().manual_seed(self.seed))
                raw = self._scored(designs, target, "sampled")
                yield self._row(label, value, raw, len(designs), None, None, time.perf_counter() - start)
                first = raw.take(torch.arange(min(self.localized, len(raw))), "sampled")
                for tolerance in self.tolerances:
                    yield from self._localized_rows(label, value, first, tolerance)

    def _localized_rows(self, label: str, value: float, first: Candidates, tolerance: float) -> Iterator[PaperRow]:
        candidates = first.take(_published_selection(first, tolerance).mask(first), "selected")
        done, seconds = 0, 0.0
        for steps in sorted(self.steps):
            if len(candidates):
                start = time.perf_counter()
                candidates = MeanGradientDescent(steps=steps - done).localize(candidates, self.surrogate)
                done, seconds = steps, seconds + time.perf_counter() - start
            yield self._row(label, value, candidates, len(first), tolerance, steps, seconds)

    def _scored(self, designs: Float[Tensor, "n dx"], target: Target, stage: str) -> Candidates:
        mean, std = self.surrogate.predict_many(designs)
        return Candidates(self.surrogate.space, self.surrogate.properties, designs, target, mean, std, stage)

    def _row(
        self,
        label: str,
        value: float,
        candidates: Candidates,
        samples: int,
        tolerance: float | None,
        steps: int | None,
        seconds: float,
    ) -> PaperRow:
        error = (candidates.mean[:, 0] - value).abs().double()
        inside = candidates.space.contains(candidates.designs)
        return PaperRow(
            method=label,
            target=value,
            seed=self.seed,
            tolerance=tolerance,
            steps=steps,
            samples=samples,
            kept=len(candidates),
            mae=error.mean().item() if len(error) else None,
            median=error.median().item() if len(error) else None,
            inside_bounds=inside.double().mean().item() if len(error) else None,
            mae_inside=error[inside].mean().item() if inside.any() else None,
            seconds=seconds,
        )


def _published_selection(candidates: Candidates, tolerance: float) -> Selection:
    """Near the target, and the last parameter, the electric field, within its bounds; the code looks at no other one."""
    last = candidates.space.parameters[-1]
    return All([Tolerance(tolerance), Expression(f"{last.lower} < {last.name} and {last.name} < {last.upper}")])
