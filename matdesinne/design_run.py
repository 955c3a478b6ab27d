"""What is left of the designs after each stage of the pipeline, in numbers and words."""

from __future__ import annotations

__all__ = ["DesignRun"]

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from matdesinne.candidates import Candidates
from matdesinne.objective import Objective

_ROUNDING = 1e-5
"""An error smaller than this share of that of the samples is a rounding error of float32, and is printed as 0."""
_SHOWN_MINIMA = 5


@dataclass(frozen=True)
class DesignRun:
    """The candidates after each stage of one run, and the time in seconds that each stage took.

    Args:
        stages: ``"sampled"``, ``"selected"``, ``"localized"``, ``"minimized"``, ``"refined"``, in this order; those that were
            run.
        outside: number of samples outside the design space, or outside the narrower bounds.
        minimized: what was minimised.
    """

    stages: Mapping[str, Candidates]
    seconds: Mapping[str, float]
    outside: int
    minimized: Objective | None = None

    @property
    def candidates(self) -> Candidates:
        """The candidates after the last stage."""
        return list(self.stages.values())[-1]

    def summary(self) -> dict[str, object]:
        """Return counts, mean distances of the predictions to the target and seconds for each stage, and the share kept."""
        last, first = self.candidates, self.stages["sampled"]
        return {
            "target": last.target.format(last.properties),
            "counts": {name: len(candidates) for name, candidates in self.stages.items()},
            "outside_design_space": self.outside,
            "share_kept": len(last) / len(first),
            "mae": {
                name: {f"{prop.name} [{prop.unit}]": error for prop, error in candidates.mean_errors().items()}
                for name, candidates in self.stages.items()
            },
            "seconds": dict(self.seconds),
            **({} if self.minimized is None else {"minimized": self.minimized.text, "objective": self._objectives()}),
        }

    def _objectives(self) -> dict[str, float]:
        """The mean of what was minimised after each stage; a minimum counts as often as designs ended there."""
        if self.minimized is None:
            return {}
        means = {}
        for name, table in self.stages.items():
            if name != "refined":
                values = self.minimized.values(table)
                _, starts = table.extra.get("starts", ("1", torch.ones_like(values)))
                means[name] = ((values * starts).sum() / starts.sum()).item()
        return means

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the summary by names for a logger, such as ``localized/mae_band_gap``."""
        share = len(self.candidates) / len(self.stages["sampled"])
        numbers: dict[str, float] = {"share_kept": share, "outside_design_space": self.outside}
        for name, candidates in self.stages.items():
            numbers |= {f"{name}/designs": len(candidates), f"{name}/seconds": self.seconds[name]}
            numbers |= {f"{name}/mae_{prop.name}": error for prop, error in candidates.mean_errors().items()}
        numbers |= {f"{name}/mean_objective": value for name, value in self._objectives().items()}
        return numbers

    def report(self) -> str:
        """Return the summary as lines of text with units."""
        last = self.candidates
        lines = [f"Candidates for {last.target.format(last.properties)}"]
        objectives = self._objectives()
        sampled = list(next(iter(self.stages.values())).mean_errors().values())
        for name, candidates in self.stages.items():
            pairs = zip(candidates.mean_errors().items(), sampled, strict=True)
            # what is left after localization is no more than rounding errors of float32
            shown = [(p, error if error > _ROUNDING * first else 0.0) for (p, error), first in pairs]
            errors = ", ".join(f"mean |{p.name} - target| {error:.2g}{p.suffix}" for p, error in shown)
            cost = f", mean {self._objective_name()} {objectives[name]:.4g}" if name in objectives else ""
            lines.append(f"  {name:<10} {len(candidates):>9,} designs  {self.seconds[name]:8.3f} s  {errors}{cost}")
        lines += self._minima()
        share = len(last) / len(self.stages["sampled"])
        return "\n".join([*lines, f"  outside the design space: {self.outside:,}; kept: {100 * share:.1f} %"])

    def _objective_name(self) -> str:
        text = "" if self.minimized is None else self.minimized.text
        return text if text.isidentifier() else "objective"

    def _minima(self) -> list[str]:
        """The line of a report on the lowest minima, and how many designs ended in each."""
        if self.minimized is None:
            return []
        table, formula = self.stages["minimized"], self._objective_name()
        [starts] = [values.long().tolist() for name, (_, values) in table.extra.items() if name == "starts"]
        shown = [f"{value:.4g} ({count:,})" for value, count in zip(self.minimized.values(table).tolist(), starts, strict=True)]
        rest = f", and {len(shown) - _SHOWN_MINIMA:,} higher ones" if len(shown) > _SHOWN_MINIMA else ""
        return [f"  minima of {formula} (designs that ended there): {', '.join(shown[:_SHOWN_MINIMA])}{rest}"]
