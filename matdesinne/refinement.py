"""From designs of any origin to candidates on target: predict, select, localize, minimise, refine."""

from __future__ import annotations

__all__ = ["AcceptedError", "Refinement"]

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.candidates import Candidates
from matdesinne.design_run import DesignRun
from matdesinne.errors import ConfigError, EmptyResultError, TargetError
from matdesinne.localization import Localizer, Newton
from matdesinne.minimization import Descent, merge_minima
from matdesinne.objective import Objective
from matdesinne.reachability import describe_reach, find_reach
from matdesinne.selection import All, EnclosesVolume, InsideSpace, Selection, Tolerance
from matdesinne.space import DesignSpace
from matdesinne.start import Start
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.combined import CombinedSurrogate
from matdesinne.targets import Target

AcceptedError = float | Sequence[float] | Mapping[str, float]
"""A distance to the target, one for each property, or one by the name of each property that is asked for."""

_LOGGER = logging.getLogger(__name__)
_MOST_FALL = 0.2
"""Share of kept candidates below which a stage says which rules reject the others."""
_ON_TARGET = 1e-4
"""Distance to the target in the unit of the property; the accurate surrogate's rounding hides smaller ones."""


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
            predicts it. Its property may be a better version of the surrogate's, such as the gap on a finer grid. Beside a
            `CombinedSurrogate` it may stand for the first part alone.
        minimize: what the localized candidates minimise while they keep their target: a property of the surrogate, or a
            formula, see `Objective`; equal minima are merged.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: AcceptedError | None = 0.01,
        accurate_surrogate: Surrogate | None = None,
        minimize: str | None = None,
    ) -> None:
        if minimize is not None and localization is None:
            raise ConfigError(f"Expected a localization before minimize={minimize!r}, got none: add one.")
        self.objective = None if minimize is None else Objective(minimize)
        self.surrogate = surrogate.eval()
        self.accurate_surrogate = None if accurate_surrogate is None else _beside(accurate_surrogate, surrogate).eval()
        volume = [] if surrogate.prototype is None else [EnclosesVolume()]
        self.possible = All([InsideSpace(), *volume])
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
        drawn_for: Target | None = None,
        start: Start | None = None,
    ) -> DesignRun:
        """Predict, down-select and localize designs in physical units.

        The candidates keep the bounds of `space`, see `DesignSpace.narrowed`, or those of the surrogate; `sampling` is the time
        in seconds that it took to draw the designs, for the report. The selection measures distances to `drawn_for`, the part
        of the target that the designs were drawn for, or to all of it; localization then moves them onto the rest, too. With a
        `start` the candidates are sorted by the distance to it, unless they minimise something else.

        Raises:
            EmptyResultError: if no candidate is left after a stage.
        """
        began = time.perf_counter()
        mean, std = self.surrogate.predict_many(designs)
        space = space or self.surrogate.space
        sampled = Candidates(space, self.surrogate.properties, designs, target, mean, std, "sampled", start=start)
        candidates = self._select(replace(sampled, target=drawn_for or target), self.selection, "selected", target)
        candidates = replace(candidates, target=target)
        stages, seconds = {"sampled": sampled, "selected": candidates}, {"sampled": sampling}
        seconds["selected"] = time.perf_counter() - began
        if self.localization is not None:
            began = time.perf_counter()
            moved = self.localization.localize(candidates, self.surrogate)
            candidates = self._select(moved, self.accepted, "localized").distinct().nearest_first()
            stages["localized"], seconds["localized"] = candidates, time.perf_counter() - began
        if self.objective is not None:
            began = time.perf_counter()
            candidates = self._minimized(candidates, self.objective)
            stages["minimized"], seconds["minimized"] = candidates, time.perf_counter() - began
        if self.accurate_surrogate is not None:
            began = time.perf_counter()
            _LOGGER.info("Refining %s candidates with the accurate surrogate, which takes longer", f"{len(candidates):,}")
            mean, std = self.accurate_surrogate.predict_many(candidates.designs)
            candidates = replace(candidates, properties=self.accurate_surrogate.properties, mean=mean, std=std)
            candidates = Newton(_ON_TARGET).localize(candidates, self.accurate_surrogate)
            candidates = self._select(candidates, self.accepted, "refined").distinct()
            candidates = candidates.nearest_first() if self.objective is None else candidates
            stages["refined"], seconds["refined"] = candidates, time.perf_counter() - began
        return DesignRun(stages, seconds, int((~InsideSpace().mask(sampled)).sum()), self.objective)

    def from_start(self, start: Start, target: Target, space: DesignSpace) -> Float[Tensor, "1 dx"]:
        """Move the start itself onto the target, however far off it is, within the bounds of a space."""
        design = torch.where(space.lower == space.upper, space.lower, start.design).unsqueeze(0)
        mean, std = self.surrogate.predict_many(design)
        found = Candidates(space, self.surrogate.properties, design, target, mean, std, "sampled")
        return (self.localization or Newton()).localize(found, self.surrogate).designs

    def _minimized(self, candidates: Candidates, objective: Objective) -> Candidates:
        found = Descent().descend(candidates, self.surrogate, objective, self.accepted)
        return replace(merge_minima(found, objective.values(found)), stage="minimized")

    def reach(self, target: Target, space: DesignSpace) -> str:
        """Say which values of the properties asked for designs reach; nothing where the space has no bounds."""
        if not space.bounded:
            return ""
        again = self.selection.rules_after_localization()
        found = find_reach(self.surrogate, space, target, All([self.possible, *again]))
        return describe_reach(found, rules=len(again) > 0)

    def check_reach(self, target: Target, space: DesignSpace) -> None:
        """Refuse a target of one property that no design within the bounds reaches.

        Raises:
            TargetError: with the interval that designs reach.
        """
        asked = target.asked_columns
        if len(asked) != 1 or not space.bounded or self.localization is None or self.accepted_error is None:
            return
        slack = Tolerance(self.accepted_error).distances(self.surrogate.properties, target)[asked[0]]
        within = (target.lower[asked[0]] - slack, target.upper[asked[0]] + slack)
        [found] = find_reach(self.surrogate, space, target, self.possible, within)
        if not found.empty and not found.meets(*within):
            raise TargetError(
                f"Expected a target that designs can reach, got {target.format(self.surrogate.properties)}. "
                f"{describe_reach([found], rules=False)} Ask for one of these values, or widen the bounds."
            )

    def _select(self, candidates: Candidates, rule: Selection, stage: str, whole: Target | None = None) -> Candidates:
        # a rule uses the names of the surrogate's properties, also for the better versions of the accurate surrogate
        named = replace(candidates, properties=self.surrogate.properties)
        selected = candidates.take(rule.mask(named), stage)
        if len(selected) < _MOST_FALL * len(candidates):
            target = (whole or candidates.target).format(candidates.properties)
            rejections = "; ".join(rule.rejections(named))
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


def _beside(accurate: Surrogate, surrogate: Surrogate) -> Surrogate:
    """The accurate surrogate in the place of the first part of a combined one, so that it has as many properties."""
    if isinstance(surrogate, CombinedSurrogate) and len(accurate.properties) < len(surrogate.properties):
        accurate = CombinedSurrogate([accurate, *surrogate.separate()[1:]])
    if len(accurate.properties) != len(surrogate.properties):
        names = [[prop.name for prop in network.properties] for network in (surrogate, accurate)]
        raise ConfigError(f"Expected an accurate surrogate of {names[0]}, got {names[1]}: train one of these properties.")
    return accurate
