"""The pipeline of inverse design: from a target to localized candidates."""

from __future__ import annotations

__all__ = ["DesignRun", "InverseDesign", "Refinement"]

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from matdesinne.errors import CheckpointError, ConfigError, DeviceError
from matdesinne.localization import Localizer, Newton
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, run_folder, save_network
from matdesinne.refinement import DesignRun, Refinement
from matdesinne.selection import Selection
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Target


class InverseDesign:
    """A generative model and the `Refinement` of its samples.

    Args:
        model: samples designs for a target.
        surrogate: see `Refinement`, as for the other arguments.
        selection: drops samples before localization.
        localization: moves the selected samples onto the target.
        accepted_error: largest distance of a candidate to its target, in the unit of each property.
        accurate_surrogate: the surrogate that is used in the end.

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
        """Predicts the properties of the samples; its gradients are used for localization."""
        return self.refinement.surrogate

    @property
    def accurate_surrogate(self) -> Surrogate | None:
        """The surrogate that is used in the end, if any."""
        return self.refinement.accurate_surrogate

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
            bounds: narrower bounds ``[lower, upper]`` in the unit of a parameter, by its name; samples outside are replaced.
            fixed: values in the unit of a parameter, by its name: samples are moved there and localized in the others.

        Raises:
            TargetError: if the target cannot be read.
            ConfigError: if `num_samples` is not positive, or a bound or fixed value lies outside the design space.
            EmptyResultError: if no candidate is left after a stage.
        """
        if num_samples < 1:
            raise ConfigError(f"Expected num_samples of at least 1, got {num_samples}: ask for more.")
        target = target if isinstance(target, Target) else Target.parse(target, self.model.properties)
        space = self.model.space.narrowed(bounds, fixed)
        start = time.perf_counter()
        designs, drawn = self.model.sample_target(target, num_samples, generator, space)
        run = self.refinement.refine(designs, target, time.perf_counter() - start, space)
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
        """Write the weights (safetensors) and configurations (JSON) of all networks into a folder.

        The accurate surrogate is written as ``accurate_PROPERTY``, so that `load` finds it by its property.
        """
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
        accepted_error: float = 0.01,
        refine_with: str | None = None,
    ) -> InverseDesign:
        """Read what `save` wrote.

        Args:
            folder: a folder that `train.py` wrote, or ``"pretrained"`` for the weights that come with the package.
            selection: drops samples before localization.
            localization: moves the selected samples; Newton's projection when omitted.
            accepted_error: see the class.
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
