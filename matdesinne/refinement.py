"""From designs of any origin to candidates on target: down-selection and localization with surrogates."""

from __future__ import annotations

__all__ = ["DesignRun", "Refinement"]

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import EmptyResultError
from matdesinne.localization import Localizer, Newton
from matdesinne.selection import All, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property, Target

_ON_TARGET = 1e-4
"""Distance to the target in the unit of the property; the accurate surrogate's rounding hides smaller ones."""


@dataclass(frozen=True)
class DesignRun:
    """Result of one run: the candidates after each stage and the time that each stage took.

    Args:
        stages: ``"sampled"``, ``"selected"``, ``"localized"``, ``"refined"``, in this order; those that were run.
        seconds: wall time of each stage in seconds.
        outside: number of samples outside the design space, or outside the narrower bounds.
    """

    stages: Mapping[str, Candidates]
    seconds: Mapping[str, float]
    outside: int

    @property
    def candidates(self) -> Candidates:
        """The candidates after the last stage."""
        return list(self.stages.values())[-1]

    def summary(self) -> dict[str, object]:
        """Return counts, mean absolute errors and seconds for each stage, and the share kept, as plain containers.

        The errors are distances of the predictions to the target; the last surrogate used predicts.
        """
        last, first = self.candidates, self.stages["sampled"]
        return {
            "target": last.target.format(last.properties),
            "counts": {name: len(candidates) for name, candidates in self.stages.items()},
            "outside_design_space": self.outside,
            "share_kept": len(last) / len(first),
            "mae": {
                name: {f"{prop.name} [{prop.unit}]": error for prop, error in _mean_errors(candidates)}
                for name, candidates in self.stages.items()
            },
            "seconds": dict(self.seconds),
        }

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the summary by names for a logger, such as ``localized/mae_band_gap``."""
        numbers: dict[str, float] = {"share_kept": len(self.candidates) / len(self.stages["sampled"])}
        numbers["outside_design_space"] = self.outside
        for name, candidates in self.stages.items():
            numbers |= {f"{name}/designs": len(candidates), f"{name}/seconds": self.seconds[name]}
            numbers |= {f"{name}/mae_{prop.name}": error for prop, error in _mean_errors(candidates)}
        return numbers

    def report(self) -> str:
        """Return the summary as lines of text with units."""
        last = self.candidates
        lines = [f"Candidates for {last.target.format(last.properties)}"]
        for name, candidates in self.stages.items():
            errors = ", ".join(f"mean |{p.name} - target| {error:.2g} {p.unit}" for p, error in _mean_errors(candidates))
            lines.append(f"  {name:<10} {len(candidates):>9,} designs  {self.seconds[name]:8.3f} s  {errors}")
        share = len(last) / len(self.stages["sampled"])
        return "\n".join([*lines, f"  outside the design space: {self.outside:,}; kept: {100 * share:.1f} %"])


def _mean_errors(candidates: Candidates) -> list[tuple[Property, float]]:
    return list(zip(candidates.properties, candidates.error.mean(dim=0).tolist(), strict=True))


class Refinement:
    """Turns any designs into candidates on target by a surrogate, a down-selection and a localization.

    Args:
        surrogate: predicts the properties of designs and their gradients.
        selection: drops designs before localization; when omitted, those outside the bounds or farther than 0.5 from the
            target. Some of its rules are applied again after localization, see `Selection.rules_after_localization`; there
            the name of a property means its latest prediction.
        localization: moves the selected designs onto the target; ``None`` to stop after the selection.
        accepted_error: a localized candidate farther than this from its target, in the unit of each property, or outside the
            bounds is dropped; ``None`` to keep every localized candidate.
        accurate_surrogate: a slower and more accurate surrogate; in the end the candidates are moved onto the target as it
            predicts it. Its property may be a better version of the surrogate's, such as the gap on a finer grid.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: float | None = 0.01,
        accurate_surrogate: Surrogate | None = None,
    ) -> None:
        self.surrogate = surrogate.eval()
        self.accurate_surrogate = None if accurate_surrogate is None else accurate_surrogate.eval()
        self.selection = selection or All([InsideSpace(), Tolerance(0.5)])
        self.localization = localization
        self.accepted_error = accepted_error
        again = self.selection.rules_after_localization()
        self.accepted = All() if accepted_error is None else All([InsideSpace(), Tolerance(accepted_error), *again])

    def refine(
        self,
        designs: Float[Tensor, "n dx"],
        target: Target,
        sampling: float = 0.0,
        space: DesignSpace | None = None,
    ) -> DesignRun:
        """Predict, down-select and localize.

        Args:
            designs: physical units, shape [n, dx].
            target: values or intervals of the properties.
            sampling: seconds that it took to draw the designs, for the report.
            space: narrower bounds for the candidates, see `DesignSpace.narrowed`; those of the surrogate when omitted.

        Raises:
            EmptyResultError: if no candidate is left after a stage.
        """
        start = time.perf_counter()
        mean, std = self.surrogate.predict_many(designs)
        space = space or self.surrogate.space
        sampled = Candidates(space, self.surrogate.properties, designs, target, mean, std, "sampled")
        candidates = self._select(sampled, self.selection, "selected")
        stages, seconds = {"sampled": sampled, "selected": candidates}, {"sampled": sampling}
        seconds["selected"] = time.perf_counter() - start
        if self.localization is not None:
            start = time.perf_counter()
            candidates = self._select(self.localization.localize(candidates, self.surrogate), self.accepted, "localized")
            stages["localized"], seconds["localized"] = candidates, time.perf_counter() - start
        if self.accurate_surrogate is not None:
            start = time.perf_counter()
            candidates = self._select(_localize_again(candidates, self.accurate_surrogate), self.accepted, "refined")
            stages["refined"], seconds["refined"] = candidates, time.perf_counter() - start
        return DesignRun(stages, seconds, int((~InsideSpace().mask(sampled)).sum()))

    def _select(self, candidates: Candidates, rule: Selection, stage: str) -> Candidates:
        # a rule uses the names of the surrogate's properties, also for the better versions of the accurate surrogate
        selected = candidates.take(rule.mask(replace(candidates, properties=self.surrogate.properties)), stage)
        if len(selected) == 0:
            error = candidates.error.amax(dim=1)
            raise EmptyResultError(
                f"Expected candidates for {candidates.target.format(candidates.properties)}, got none of "
                f"{len(candidates)} after the stage {stage!r} (smallest error {error.min():.3g}): "
                "move the target, sample more, or loosen the selection (bounds and fixed values cost no samples)."
            )
        return selected


def _localize_again(candidates: Candidates, surrogate: Surrogate) -> Candidates:
    mean, std = surrogate.predict_many(candidates.designs)
    predicted = replace(candidates, properties=surrogate.properties, mean=mean, std=std)
    return Newton(_ON_TARGET).localize(predicted, surrogate)
