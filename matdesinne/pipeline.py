"""The pipeline of inverse design: from a target, or from designs of any origin, to candidates on target."""

from __future__ import annotations

__all__ = ["DesignRun", "InverseDesign", "Refinement"]

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.design_run import DesignRun
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, EmptyResultError
from matdesinne.localization import Localizer, Newton
from matdesinne.models.base import InverseModel
from matdesinne.network import described_properties, load_network, run_folder, save_network
from matdesinne.refinement import AcceptedError, Refinement
from matdesinne.selection import Selection
from matdesinne.space import DesignSpace
from matdesinne.start import Start
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.combined import CombinedSurrogate
from matdesinne.targets import Target


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
        accepted_error: AcceptedError = 0.01,
        accurate_surrogate: Surrogate | None = None,
        minimize: str | None = None,
    ) -> None:
        if model.space != surrogate.space or not set(model.properties) <= set(surrogate.properties):
            raise ConfigError(
                "Expected a model and a surrogate of the same designs, and of its properties, got different ones: "
                "train both on one data set."
            )
        self.model, self.surrogate = model.eval(), surrogate
        self.refinement = Refinement(surrogate, selection, localization, accepted_error, accurate_surrogate, minimize)
        self.accurate_surrogate = self.refinement.accurate_surrogate

    def run(
        self,
        target: object,
        num_samples: int = 10_000,
        generator: torch.Generator | None = None,
        bounds: Mapping[str, Sequence[float | None]] | None = None,
        fixed: Mapping[str, float] | None = None,
        start: Float[Tensor, " dx"] | None = None,
        truncate: bool = True,
    ) -> DesignRun:
        """Sample, down-select and localize.

        Args:
            target: see `parse`.
            num_samples: how many designs to sample.
            generator: source of randomness; torch's global one when omitted.
            bounds: narrower bounds ``[lower, upper]`` in the unit of a parameter, by its name; samples outside are replaced.
            fixed: values in the unit of a parameter, by its name: samples are moved there and localized in the others.
            start: a design, see `read_start`; it joins the samples, and the candidates are sorted by the distance to it.
            truncate: leave out the far tails of the generative model, see `InverseModel.sample`.

        Raises:
            TargetError: if the target cannot be read, or asks for one property that no design within the bounds reaches.
            ConfigError: if `num_samples` is not positive, or a bound or fixed value lies outside the design space.
            EmptyResultError: if no candidate is left after a stage, with what designs can reach.
        """
        if num_samples < 1:
            raise ConfigError(f"Expected num_samples of at least 1, got {num_samples}: ask for more.")
        target = self.parse(target)
        asked_of_model = target.aligned(self.surrogate.properties, self.model.properties)
        space = self.model.space.narrowed(bounds, fixed)
        if not self._has_seen(asked_of_model, space):
            self.refinement.check_reach(target, space)
        drawn_for = asked_of_model.aligned(self.model.properties, self.surrogate.properties)
        origin = None if start is None else Start.of(self.model.space, start)
        began = time.perf_counter()
        try:
            designs, drawn = self.model.sample_target(asked_of_model, num_samples, generator, space, truncate)
            if origin is not None:
                others = origin.nearest_images(designs[1:], space)
                designs = torch.cat([self.refinement.from_start(origin, target, space), others])
            run = self.refinement.refine(designs, target, time.perf_counter() - began, space, drawn_for, origin)
        except EmptyResultError as error:
            raise EmptyResultError(f"{error} {self.refinement.reach(target, space)}".rstrip()) from error
        return replace(run, outside=run.outside + drawn - len(designs))

    def _has_seen(self, target: Target, space: DesignSpace) -> bool:
        """Whether designs of the prior lie on both sides of the target or inside, so that some design reaches it."""
        seen = self.model.target_reference.cpu()
        between = (seen.amin(dim=0) <= torch.tensor(target.upper)) & (seen.amax(dim=0) >= torch.tensor(target.lower))
        return any(target.asked) and space == self.model.space and bool(between.all())

    def parse(self, target: object) -> Target:
        """Read a target for the properties of the surrogate.

        Args:
            target: a value or ``[lower, upper]`` by the names of properties of the surrogate, the others stay open; or one of
                these for each property of the generative model, alone for a single one; or a `Target` for the properties of
                either; in physical units.

        Raises:
            TargetError: if it is anything else.
        """
        own, every = self.model.properties, self.surrogate.properties
        if isinstance(target, Mapping):
            return Target.parse(target, every)
        target = target if isinstance(target, Target) else Target.parse(target, own)
        return target if len(target.lower) == len(every) else target.aligned(own, every)

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
        """Write the networks into a folder for `load`, see `save_network`.

        Further parts of a `CombinedSurrogate` become ``surrogate_PROPERTY``, the accurate surrogate ``accurate_PROPERTY``;
        PROPERTY is the first one of a part.
        """
        save_network(self.model, folder, "model")
        first, *further = _separate(self.surrogate)
        save_network(first, folder, "surrogate")
        for part in further:
            save_network(part, folder, f"surrogate_{part.properties[0].name}")
        if self.accurate_surrogate is not None:
            accurate = _separate(self.accurate_surrogate)[0]
            save_network(accurate, folder, f"accurate_{accurate.properties[0].name}")

    @classmethod
    def load(
        cls,
        folder: str | Path = "pretrained",
        selection: Selection | None = None,
        localization: Localizer | None = None,
        accepted_error: AcceptedError = 0.01,
        refine_with: str | None = None,
        further: Collection[str] = (),
        minimize: str | None = None,
    ) -> InverseDesign:
        """Read what `save` wrote.

        Args:
            folder: a folder that `train.py` wrote, or ``"pretrained"`` for the weights that come with the package.
            selection: see `Refinement`, as for `accepted_error`.
            localization: Newton's projection when omitted.
            accepted_error: largest distance of a candidate to its target.
            refine_with: property of the accurate surrogate to use in the end; none when omitted.
            further: properties whose surrogates ``surrogate_*`` are used, too, where the folder has them: of the packaged
                weights ``strain_energy``.
            minimize: see `Refinement`.

        Raises:
            CheckpointError: if a file is missing, damaged or not of MatDesINNe, or the run trained no surrogate.
        """
        path = run_folder(folder)
        _check_surrogates(path, refine_with)
        model = load_network(InverseModel, path, "model")
        surrogate = load_network(Surrogate, path, "surrogate")
        parts = _further_surrogates(path, further)
        surrogate = CombinedSurrogate([surrogate, *parts]).eval() if parts else surrogate
        accurate_surrogate = None if refine_with is None else load_network(Surrogate, path, f"accurate_{refine_with}")
        return cls(model, surrogate, selection, localization or Newton(), accepted_error, accurate_surrogate, minimize)


def _further_surrogates(folder: Path, properties: Collection[str]) -> list[Surrogate]:
    """The further surrogates of a folder that predict one of some properties."""
    names = sorted(file.stem for file in folder.glob("surrogate_*.json")) if properties else []
    needed = [name for name in names if not described_properties(folder, name).isdisjoint(properties)]
    return [load_network(Surrogate, folder, name) for name in needed]


def _separate(surrogate: Surrogate) -> list[Surrogate]:
    return surrogate.separate() if isinstance(surrogate, CombinedSurrogate) else [surrogate]


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
