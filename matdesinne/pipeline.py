"""Inverse design from target to localized candidates."""

from __future__ import annotations

__all__ = ["DesignRun", "InverseDesign", "Refinement"]

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError, DeviceError, EmptyResultError
from matdesinne.localization import Localizer, Newton
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, run_folder, save_network
from matdesinne.selection import All, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target

_ON_TARGET = 1e-4
"""Distance to the target at which the accurate_surrogate stops, in the unit of the property; rounding hides less."""


@dataclass(frozen=True)
class DesignRun:
    """What one run gave: the candidates after each stage and the seconds that each stage took.

    Args:
        stages: ``"sampled"``, ``"selected"``, ``"localized"``, ``"refined"``, in this order, as far as they were run.
        seconds: wall time of each stage in seconds.
        outside: how many samples left the design space, or the narrower bounds that were asked for.
    """

    stages: Mapping[str, Candidates]
    seconds: Mapping[str, float]
    outside: int

    @property
    def candidates(self) -> Candidates:
        """The survivors of the last stage."""
        return list(self.stages.values())[-1]

    def summary(self) -> dict[str, object]:
        """Counts and seconds per stage, mean absolute error by the localizing surrogate, share kept: plain numbers."""
        last, first = self.candidates, self.stages["sampled"]
        return {
            "target": last.target.format(last.properties),
            "counts": {name: len(candidates) for name, candidates in self.stages.items()},
            "outside_design_space": self.outside,
            "share_kept": len(last) / len(first),
            "mae": {
                name: dict(zip(_labels(candidates), candidates.error.mean(dim=0).tolist(), strict=True))
                for name, candidates in self.stages.items()
                if len(candidates)
            },
            "seconds": dict(self.seconds),
        }

    def report(self) -> str:
        """The summary as lines of text with units."""
        last = self.candidates
        lines = [f"Candidates for {last.target.format(last.properties)}"]
        for name, candidates in self.stages.items():
            errors = ", ".join(
                f"mean |{prop.name} - target| {error:.2g} {prop.unit}"
                for prop, error in zip(candidates.properties, candidates.error.mean(dim=0).tolist(), strict=True)
            )
            lines.append(f"  {name:<10} {len(candidates):>9,} designs  {self.seconds[name]:8.3f} s  {errors}")
        lines.append(
            f"  outside the design space: {self.outside:,}; kept: {100 * len(last) / len(self.stages['sampled']):.1f} %"
        )
        return "\n".join(lines)


class Refinement:
    """A surrogate, a down-selection and a localization, composed: from any designs to candidates on target.

    Args:
        surrogate: predicts the properties of designs and their gradients.
        selection: drops designs before localization; inside the bounds and within 0.5 of the target when omitted. Some of its
            rules hold for localized designs, too, see `Selection.rules_after_localization`; there a property's name stands for
            its latest prediction.
        localization: moves the survivors onto the target; ``None`` to stop after the selection.
        accepted_error: a localized candidate farther than this from its target is dropped, in the unit of each property.
        accurate_surrogate: a slower and more accurate surrogate, onto whose level set the survivors are moved in the end; its
            property may be a better version of the surrogate's, such as the gap on a finer grid.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: float = 0.01,
        accurate_surrogate: Surrogate | None = None,
    ) -> None:
        self.surrogate = surrogate.eval()
        self.accurate_surrogate = None if accurate_surrogate is None else accurate_surrogate.eval()
        self.selection = selection or All([InsideSpace(), Tolerance(0.5)])
        self.localization = localization
        self.accepted = All([InsideSpace(), Tolerance(accepted_error), *self.selection.rules_after_localization()])

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
            target: what is wanted.
            sampling: seconds that it took to draw the designs, for the report.
            space: the surrogate's, narrowed; its bounds hold. See `DesignSpace.narrowed`.

        Returns:
            The candidates after each stage, with times.

        Raises:
            EmptyResultError: if a stage leaves nothing.
        """
        clock = [time.perf_counter()]
        mean, std = self.surrogate.predict_many(designs)
        space = space or self.surrogate.space
        sampled = Candidates(space, self.surrogate.properties, designs, target, mean, std, "sampled")
        stages = {"sampled": sampled, "selected": self._kept(sampled, self.selection, "selected")}
        clock.append(time.perf_counter())
        seconds = {"sampled": sampling, "selected": clock[1] - clock[0]}
        if self.localization is not None:
            moved = self.localization.localize(stages["selected"], self.surrogate)
            stages["localized"] = self._kept(moved, self.accepted, "localized")
            seconds["localized"] = time.perf_counter() - clock[1]
        if self.accurate_surrogate is not None:
            clock.append(time.perf_counter())
            stages["refined"] = self._kept(
                self._finish(self.accurate_surrogate, list(stages.values())[-1]), self.accepted, "refined"
            )
            seconds["refined"] = time.perf_counter() - clock[2]
        outside = int((~InsideSpace().mask(sampled)).sum())
        return DesignRun(stages, seconds, outside)

    @staticmethod
    def _finish(accurate_surrogate: Surrogate, candidates: Candidates) -> Candidates:
        mean, std = accurate_surrogate.predict_many(candidates.designs)
        judged = replace(candidates, properties=accurate_surrogate.properties, mean=mean, std=std, stage="refined")
        return Newton(_ON_TARGET).localize(judged, accurate_surrogate)

    def _kept(self, candidates: Candidates, rule: Selection, stage: str) -> Candidates:
        # a rule names the surrogate's properties, also where the accurate_surrogate has better versions of them
        kept = candidates.take(rule.mask(replace(candidates, properties=self.surrogate.properties)), stage)
        if len(kept) == 0:
            error = candidates.error.amax(dim=1)
            raise EmptyResultError(
                f"Expected candidates for {candidates.target.format(candidates.properties)}, got none of "
                f"{len(candidates)} after the stage {stage!r} (smallest error {error.min():.3g}): "
                "move the target, sample more, or loosen the selection (bounds and fixed values cost no samples)."
            )
        return kept


class InverseDesign:
    """A generative model and the refinement of its samples: surrogate, down-selection, localization.

    Args:
        model: samples designs for a target.
        surrogate: predicts their properties and their gradients.
        selection: drops samples before localization.
        localization: moves the survivors onto the target; ``None`` to stop after the selection.
        accepted_error: a localized candidate farther than this from its target is dropped, in the unit of each property.
        accurate_surrogate: see `Refinement`.

    Example:
        >>> design = InverseDesign.load("pretrained")
        >>> run = design.run(1.0, num_samples=100, generator=torch.Generator().manual_seed(0))
        >>> bool(run.candidates.error.max() < 0.01)
        True
    """

    def __init__(
        self,
        model: InverseModel,
        surrogate: Surrogate,
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: float = 0.01,
        accurate_surrogate: Surrogate | None = None,
    ) -> None:
        if model.space != surrogate.space or model.properties != surrogate.properties:
            raise ConfigError(
                "Expected a model and a surrogate of the same designs and properties, got different ones: "
                "train both on one data set."
            )
        self.model = model.eval()
        self.refinement = Refinement(surrogate, selection, localization, accepted_error, accurate_surrogate)

    @property
    def surrogate(self) -> Surrogate:
        """Predicts and localizes."""
        return self.refinement.surrogate

    def run(
        self,
        target: object,
        num_samples: int = 10_000,
        generator: torch.Generator | None = None,
        bounds: Mapping[str, Sequence[float | None]] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> DesignRun:
        """Sample, down-select and localize.

        Args:
            target: a value, ``[lower, upper]``, one of these for each property, or a `Target`; in physical units.
            num_samples: how many designs to sample.
            generator: source of randomness; torch's global one when omitted.
            bounds: narrower bounds ``[lower, upper]`` by the name of a parameter, in its unit; samples outside are drawn again.
            fixed: values by the name of a parameter, in its unit: samples are moved there, and localized in the others.

        Returns:
            The candidates after each stage, with times.

        Raises:
            TargetError: if the target cannot be read.
            ConfigError: if `num_samples` is not positive, or a bound or fixed value lies outside the design space.
            EmptyResultError: if a stage leaves nothing.
        """
        if num_samples < 1:
            raise ConfigError(f"Expected num_samples of at least 1, got {num_samples}: ask for more.")
        wanted = target if isinstance(target, Target) else Target.parse(target, self.model.properties)
        space = self.model.space.narrowed(bounds, fixed)
        start = time.perf_counter()
        designs, drawn = self.model.sample_target(wanted, num_samples, generator, space)
        run = self.refinement.refine(designs, wanted, time.perf_counter() - start, space)
        return replace(run, outside=run.outside + drawn - len(designs))

    def to(self, accelerator: str) -> InverseDesign:
        """Move both networks to a device.

        Raises:
            DeviceError: if it is not there.
        """
        try:
            device = torch.device(accelerator)
            self.model.to(device)
            self.surrogate.to(device)
            if self.refinement.accurate_surrogate is not None:
                self.refinement.accurate_surrogate.to(device)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"Expected the device {accelerator!r}, got none ({error}): use accelerator=cpu.") from error
        return self

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and descriptions (JSON) into a folder."""
        save_network(self.model, folder, "model")
        save_network(self.surrogate, folder, "surrogate")

    @classmethod
    def load(
        cls,
        folder: str | Path = "pretrained",
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: float = 0.01,
        finish: str | None = None,
    ) -> InverseDesign:
        """Read what `save` wrote.

        Args:
            folder: a folder that `train.py` wrote, or ``"pretrained"`` for the weights that come with the package.
            selection: drops samples before localization.
            localization: moves the survivors; Newton's projection when omitted.
            accepted_error: see the class.
            finish: property of the accurate_surrogate to end with, of those that were trained; none when omitted.

        Raises:
            CheckpointError: if a file is missing, damaged or foreign.
        """
        path = run_folder(folder)
        model = load_network(InverseModel, path, "model")
        surrogate = load_network(Surrogate, path, "surrogate")
        accurate_surrogate = None if finish is None else load_network(Surrogate, path, f"accurate_{finish}")
        return cls(model, surrogate, selection, localization or Newton(), accepted_error, accurate_surrogate)


def _labels(candidates: Candidates) -> list[str]:
    return [f"{prop.name} [{prop.unit}]" for prop in candidates.properties]
