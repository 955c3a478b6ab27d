"""The pipeline of inverse design: from a target, or from designs of any origin, to candidates on target."""

from __future__ import annotations

__all__ = ["DesignRun", "InverseDesign", "Refinement"]

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, EmptyResultError
from matdesinne.localization import Localizer, Newton
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, run_folder, save_network
from matdesinne.selection import All, EnclosesVolume, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.start import Start
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property, Target

_LOGGER = logging.getLogger(__name__)
_ROUNDING = 1e-5
"""An error smaller than this share of that of the samples is a rounding error of float32, and is printed as 0."""

_MOST_FALL = 0.2
"""Share of kept candidates below which a stage says which rules reject the others."""
_ON_TARGET = 1e-4
"""Distance to the target in the unit of the property; the accurate surrogate's rounding hides smaller ones."""


@dataclass(frozen=True)
class DesignRun:
    """The candidates after each stage of one run, and the time in seconds that each stage took.

    Args:
        stages: ``"sampled"``, ``"selected"``, ``"localized"``, ``"refined"``, in this order; those that were run.
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
        """Return counts, mean distances of the predictions to the target and seconds for each stage, and the share kept."""
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
        share = len(self.candidates) / len(self.stages["sampled"])
        numbers: dict[str, float] = {"share_kept": share, "outside_design_space": self.outside}
        for name, candidates in self.stages.items():
            numbers |= {f"{name}/designs": len(candidates), f"{name}/seconds": self.seconds[name]}
            numbers |= {f"{name}/mae_{prop.name}": error for prop, error in _mean_errors(candidates)}
        return numbers

    def report(self) -> str:
        """Return the summary as lines of text with units."""
        last = self.candidates
        lines = [f"Candidates for {last.target.format(last.properties)}"]
        sampled = [error for _, error in _mean_errors(next(iter(self.stages.values())))]
        for name, candidates in self.stages.items():
            pairs = zip(_mean_errors(candidates), sampled, strict=True)
            # what is left after localization is no more than rounding errors of float32
            shown = [(p, error if error > _ROUNDING * first else 0.0) for (p, error), first in pairs]
            errors = ", ".join(f"mean |{p.name} - target| {error:.2g}{p.suffix}" for p, error in shown)
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
        accepted_error: float | Sequence[float] | None = 0.01,
        accurate_surrogate: Surrogate | None = None,
    ) -> None:
        self.surrogate = surrogate.eval()
        self.accurate_surrogate = None if accurate_surrogate is None else accurate_surrogate.eval()
        volume = [] if surrogate.prototype is None else [EnclosesVolume()]
        self.selection = All([selection or All([InsideSpace(), Tolerance(0.5)]), *volume])
        self.localization = localization
        self.accepted_error = accepted_error
        again = self.selection.rules_after_localization()
        self.accepted = All() if accepted_error is None else All([InsideSpace(), Tolerance(accepted_error), *volume, *again])

    def refine(
        self,
        designs: Float[Tensor, "n dx"],
        target: Target,
        sampling: float = 0.0,
        space: DesignSpace | None = None,
        start: Start | None = None,
    ) -> DesignRun:
        """Predict, down-select and localize designs in physical units.

        The candidates keep the bounds of `space`, see `DesignSpace.narrowed`, or those of the surrogate; `sampling` is the time
        in seconds that it took to draw the designs, for the report. With a `start` the candidates are sorted by the distance
        to it.

        Raises:
            EmptyResultError: if no candidate is left after a stage.
        """
        began = time.perf_counter()
        mean, std = self.surrogate.predict_many(designs)
        space = space or self.surrogate.space
        sampled = Candidates(space, self.surrogate.properties, designs, target, mean, std, "sampled", start)
        candidates = self._select(sampled, self.selection, "selected")
        stages, seconds = {"sampled": sampled, "selected": candidates}, {"sampled": sampling}
        seconds["selected"] = time.perf_counter() - began
        if self.localization is not None:
            began = time.perf_counter()
            moved = self.localization.localize(candidates, self.surrogate)
            candidates = self._select(moved, self.accepted, "localized").distinct()
            stages["localized"], seconds["localized"] = candidates, time.perf_counter() - began
        if self.accurate_surrogate is not None:
            began = time.perf_counter()
            _LOGGER.info("Refining %s candidates with the accurate surrogate, which takes longer", f"{len(candidates):,}")
            mean, std = self.accurate_surrogate.predict_many(candidates.designs)
            candidates = replace(candidates, properties=self.accurate_surrogate.properties, mean=mean, std=std)
            candidates = Newton(_ON_TARGET).localize(candidates, self.accurate_surrogate)
            candidates = self._select(candidates, self.accepted, "refined").distinct()
            stages["refined"], seconds["refined"] = candidates, time.perf_counter() - began
        outside = int((~InsideSpace().mask(sampled)).sum())
        return DesignRun({name: table.nearest_first() for name, table in stages.items()}, seconds, outside)

    def from_start(self, start: Start, target: Target, space: DesignSpace) -> Float[Tensor, "1 dx"]:
        """Move the start itself onto the target, however far off it is, within the bounds of a space."""
        design = torch.where(space.lower == space.upper, space.lower, start.design).unsqueeze(0)
        mean, std = self.surrogate.predict_many(design)
        found = Candidates(space, self.surrogate.properties, design, target, mean, std, "sampled")
        return (self.localization or Newton()).localize(found, self.surrogate).designs

    def _select(self, candidates: Candidates, rule: Selection, stage: str) -> Candidates:
        # a rule uses the names of the surrogate's properties, also for the better versions of the accurate surrogate
        named = replace(candidates, properties=self.surrogate.properties)
        selected = candidates.take(rule.mask(named), stage)
        if len(selected) < _MOST_FALL * len(candidates):
            target, rejections = candidates.target.format(candidates.properties), "; ".join(rule.rejections(named))
            if len(selected) == 0:
                raise EmptyResultError(
                    f"Expected candidates for {target}, got none of {len(candidates):,} after the stage {stage!r}: "
                    f"{rejections}: change the first of these or the target, or sample more (bounds and fixed values "
                    "cost no samples)."
                )
            _LOGGER.warning(
                f"{len(selected):,} of {len(candidates):,} are left after the stage {stage!r} for {target}: {rejections}."
            )
        return selected


class InverseDesign:
    """A generative model, which samples designs for a target, and the `Refinement` of its samples, for the other arguments.

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
        accepted_error: float | Sequence[float] = 0.01,
        accurate_surrogate: Surrogate | None = None,
    ) -> None:
        if model.space != surrogate.space or model.properties != surrogate.properties:
            raise ConfigError(
                "Expected a model and a surrogate of the same designs and properties, got different ones: "
                "train both on one data set."
            )
        self.model = model.eval()
        self.surrogate, self.accurate_surrogate = surrogate, accurate_surrogate
        self.refinement = Refinement(surrogate, selection, localization, accepted_error, accurate_surrogate)

    def run(
        self,
        target: object,
        num_samples: int = 10_000,
        generator: torch.Generator | None = None,
        bounds: Mapping[str, Sequence[float | None]] | None = None,
        fixed: Mapping[str, float] | None = None,
        start: Float[Tensor, " dx"] | None = None,
    ) -> DesignRun:
        """Sample, down-select and localize.

        Args:
            target: a value, ``[lower, upper]``, one of these for each property, or a `Target`; in physical units.
            num_samples: how many designs to sample.
            generator: source of randomness; torch's global one when omitted.
            bounds: narrower bounds ``[lower, upper]`` in the unit of a parameter, by its name; samples outside are replaced.
            fixed: values in the unit of a parameter, by its name: samples are moved there and localized in the others.
            start: a design, see `read_start`; it joins the samples, and the candidates are sorted by the distance to it.

        Raises:
            TargetError: if the target cannot be read.
            ConfigError: if `num_samples` is not positive, or a bound or fixed value lies outside the design space.
            EmptyResultError: if no candidate is left after a stage.
        """
        if num_samples < 1:
            raise ConfigError(f"Expected num_samples of at least 1, got {num_samples}: ask for more.")
        target = target if isinstance(target, Target) else Target.parse(target, self.model.properties)
        space = self.model.space.narrowed(bounds, fixed)
        began = time.perf_counter()
        designs, drawn = self.model.sample_target(target, num_samples, generator, space)
        origin = None if start is None else Start.of(self.model.space, start)
        if origin is not None:
            others = origin.nearest_images(designs[1:], space)
            designs = torch.cat([self.refinement.from_start(origin, target, space), others])
        run = self.refinement.refine(designs, target, time.perf_counter() - began, space, origin)
        return replace(run, outside=run.outside + drawn - len(designs))

    def to(self, accelerator: str) -> InverseDesign:
        """Move all networks to a device.

        Args:
            accelerator: a device of torch (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...), or ``"gpu"`` for ``"cuda"`` as in the
                settings of a trainer.

        Raises:
            DeviceError: if there is no such device.
        """
        try:
            for network in filter(None, (self.model, self.surrogate, self.accurate_surrogate)):
                network.to(torch.device("cuda" if accelerator == "gpu" else accelerator))
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"Expected the device {accelerator!r}, got none ({error}): use accelerator=cpu.") from error
        return self

    def save(self, folder: str | Path) -> None:
        """Write the networks into a folder for `load`, see `save_network`; the accurate surrogate as ``accurate_PROPERTY``."""
        save_network(self.model, folder, "model")
        save_network(self.surrogate, folder, "surrogate")
        if self.accurate_surrogate is not None:
            save_network(self.accurate_surrogate, folder, f"accurate_{self.accurate_surrogate.properties[0].name}")

    @classmethod
    def load(
        cls,
        folder: str | Path = "pretrained",
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: float | Sequence[float] = 0.01,
        refine_with: str | None = None,
    ) -> InverseDesign:
        """Read what `save` wrote.

        Args:
            folder: a folder that `train.py` wrote, or ``"pretrained"`` for the weights that come with the package.
            selection: see `Refinement`, as for `accepted_error`.
            localization: Newton's projection when omitted.
            accepted_error: largest distance of a candidate to its target.
            refine_with: property of the accurate surrogate to use in the end; none when omitted.

        Raises:
            CheckpointError: if a file is missing, damaged or not of MatDesINNe, or the run trained no surrogate.
        """
        path = run_folder(folder)
        _check_surrogates(path, refine_with)
        model = load_network(InverseModel, path, "model")
        surrogate = load_network(Surrogate, path, "surrogate")
        accurate_surrogate = None if refine_with is None else load_network(Surrogate, path, f"accurate_{refine_with}")
        return cls(model, surrogate, selection, localization or Newton(), accepted_error, accurate_surrogate)


def _check_surrogates(folder: Path, refine_with: str | None) -> None:
    """Raise an error that names the cause where a run has no surrogate, or was written by an older version."""
    if (folder / "model.json").is_file() and not any(folder.glob("surrogate.*")):
        raise CheckpointError(
            f"Expected a surrogate in {folder}, got a model alone, as surrogate=null trains it: train with a surrogate, or "
            f'draw samples without localization by load_network(InverseModel, "{folder}", "model").sample(y).'
        )
    if refine_with is not None and (folder / f"finisher_{refine_with}.json").is_file():
        raise CheckpointError(
            f"Expected accurate_{refine_with}.* in {folder}, got finisher_{refine_with}.*, the name that MatDesINNe used "
            "before: train again."
        )
