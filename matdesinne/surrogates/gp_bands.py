"""Gaussian processes on band energies and on other properties; the gaps are derived from the bands."""

from __future__ import annotations

__all__ = ["BandGPSurrogate"]

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.bands import gap_level, relative_energies, scalar_level
from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.shared_gp import Rows, SharedGP
from matdesinne.targets import Property

_MOST_ROWS = 4000
"""Rows, images under the symmetries among them, that a dense covariance allows."""


class _Moments(NamedTuple):
    """Mean and standard deviation of the outputs of a process."""

    mean: Float[Tensor, "n o"]
    std: Float[Tensor, "n o"]

    def plus(self, other: _Moments) -> _Moments:
        """Those of the sum of two independent processes."""
        return _Moments(self.mean + other.mean, torch.hypot(self.std, other.std))


class BandGPSurrogate(Surrogate):
    r"""Gaussian processes on the band energies at fixed k-points, and on each property that is no gap.

    The extremum in :math:`E_g = \min_k E_c(k) - \max_k E_v(k)` jumps between k-points, so the gap has kinks, while the energies
    at fixed fractional k-points are smooth but for crossings: a few dozen designs determine them. Each level of theory is a
    `SharedGP` over the energies of both bands at all k-points, relative to the mean valence energy of a design; those with
    spin-orbit coupling or a hybrid functional are learnt as corrections of the energies without, which a few dozen labels
    determine. The properties ``band_gap*`` and ``direct_gap*`` are those of the mean energies of the level with the same
    ending; every other property, such as ``strain_energy`` or ``thickness``, has a process of its own. A design without
    energies of a level does not take part in its process.

    Where rows of similar materials are given, `Batch.relatives`, each process may start from that of one of them and learn the
    difference: see `SharedGP`.

    Each row is learnt with its images under the symmetries of the space. The spread is that of the process at the edges of the
    gap; without rows for calibration it is calibrated by leaving out one design after another.

    Args:
        space: designs of few parameters, since the covariance of all rows is dense.
        properties: gaps and any others.
    """

    def __init__(self, space: DesignSpace, properties: Sequence[Property], prototype: Prototype | None = None) -> None:
        super().__init__(space, properties)
        self.prototype = prototype
        self.processes = nn.ModuleDict()
        for prop in self.properties:
            level = gap_level(prop.name)
            for name in (prop.name,) if level is None else (scalar_level(level), level):
                self.processes[name] = SharedGP(self.features.size, smooth=level is None)

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales, and keep the rows and their images: predictions are conditioned on them.

        Raises:
            ConfigError: if there are too many rows, or the data carry no band energies of a level.
        """
        parts = [batch, *batch.relatives]
        images, rows = len(self.space.group()), max(len(part.x) for part in parts)
        if rows * images > _MOST_ROWS:
            raise ConfigError(
                f"Expected at most {_MOST_ROWS // images:,} rows for surrogate=gp_bands, got {rows:,}: use "
                "surrogate=bands or surrogate=tight_binding."
            )
        super().fit_scales(batch)
        with torch.no_grad():
            inputs = [self._images(part.x).double() for part in parts]
            for name, process in self._processes():
                outputs = [self._outputs(name, part).double() for part in parts]
                known = [part.isfinite().all(dim=1).nonzero()[:, 0] for part in outputs]
                if not len(known[0]):
                    raise ConfigError(f"Expected designs with {name} to train on, got none: label some, or drop the property.")
                own, *others = (Rows(x[k], y[k]) for x, y, k in zip(inputs, outputs, known, strict=True))
                process.keep(own, known[0], [other for other in others if len(other.inputs)])

    def _images(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "r f"]:
        """Features of designs and their images, image by image of each design."""
        return self.features(torch.stack([element(x) for element in self.space.group()], dim=1).flatten(end_dim=1))

    def negative_log_density(self, batch: Batch) -> Float[Tensor, ""]:
        """Negative logarithm of the marginal likelihood of the kept rows times the priors, the mean over the processes."""
        return torch.stack([process.negative_log_density() for _, process in self._processes()]).mean().float()

    def mean_and_std(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "2 n dy"]:
        """Mean and standard deviation in physical units, before calibration."""
        found = {name: _Moments(*process.mean_and_std(features)) for name, process in self._processes()}
        return torch.stack(self._properties(found)).to(features)

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "1 n dy"]:
        """The mean in physical units."""
        means = {name: process.mean(features) for name, process in self._processes()}
        found = {name: _Moments(mean, torch.zeros_like(mean)) for name, mean in means.items()}
        return self._properties(found)[0].to(features).unsqueeze(0)

    def calibrate(self, batch: Batch) -> None:
        """Calibrate the spread by rows that were not trained on; without any by leaving out one design after another."""
        if len(batch.x):
            super().calibrate(batch)
        else:
            self.calibrate_by(*self.leave_one_out())

    @torch.no_grad()
    def leave_one_out(self) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        """Mean, standard deviation before calibration, and label of each training design, predicted from all others.

        What similar materials have at its strain is left out with it. They are NaN where a design lacks the property.
        """
        size = len(self.space.group())
        count = max(int(process.rows.max()) for _, process in self._processes()) + 1

        def aligned(process: SharedGP, values: Float[Tensor, "r o"]) -> Float[Tensor, "n o"]:
            every = values.new_full((count, values.shape[1]), torch.nan)
            return every.index_copy(0, process.rows, values)[::size]

        found, labels = {}, {}
        for name, process in self._processes():
            found[name] = _Moments(*(aligned(process, part) for part in process.without_own_block(size)))
            known = aligned(process, process.outputs)
            labels[name] = _Moments(known, known)
        mean, std = self._properties(found)
        return mean.float(), std.float(), self._properties(labels)[0].float()

    def _processes(self) -> list[tuple[str, SharedGP]]:
        return [(name, process) for name, process in self.processes.items() if isinstance(process, SharedGP)]

    def _outputs(self, name: str, batch: Batch) -> Float[Tensor, "r o"]:
        """What a process learns of the rows and their images, image by image of each row; NaN where there is none."""
        group = self.space.group()
        if gap_level(name) is None:
            column = [prop.name for prop in self.properties].index(name)
            return batch.y[:, column, None].repeat_interleave(len(group), dim=0)
        bands, base = ({labels.name: labels for labels in batch.bands}.get(level) for level in (name, scalar_level(name)))
        if bands is None or base is None:
            missing = name if bands is None else scalar_level(name)
            raise ConfigError(f"Expected band energies of {missing} for surrogate=gp_bands, got none: use surrogate=gp.")
        # the image of a design has at the image of k what the design has at k
        orders = [bands.permutation(element.reciprocal.cpu()).argsort() for element in group]
        energies = relative_energies(bands.energies)
        energies = energies if bands is base else energies - relative_energies(base.energies)
        return torch.stack([energies[..., order] for order in orders], dim=1).flatten(end_dim=1).flatten(start_dim=1)

    def _properties(self, found: Mapping[str, _Moments]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        """The properties from what the processes gave."""
        columns = []
        for prop in self.properties:
            level = gap_level(prop.name)
            if level is None:
                columns.append(found[prop.name])
                continue
            energies, base = found[level], scalar_level(level)
            energies = energies if level == base else energies.plus(found[base])
            columns.append(_gap(energies, level == prop.name))
        mean, std = (torch.cat(parts, dim=1) for parts in zip(*columns, strict=True))
        return mean, std

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        mean, std = self.mean_and_std(self.features(x))
        return mean, std

    def _mean(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        return self.member_predictions(self.features(x))[0]  # the variance takes most of the time


def _gap(level: _Moments, over_all: bool) -> _Moments:
    """The gap over all pairs of k-points, or the direct one, of energies that come valence before conduction."""
    valence, conduction = level.mean.chunk(2, dim=1)
    if over_all:
        top, bottom = valence.argmax(dim=1, keepdim=True), conduction.argmin(dim=1, keepdim=True)
    else:
        top = bottom = (conduction - valence).argmin(dim=1, keepdim=True)
    places = torch.cat([top, bottom + valence.shape[1]], dim=1)
    upper, lower = level.mean.gather(1, places).unbind(dim=1)
    return _Moments((lower - upper).unsqueeze(1), level.std.gather(1, places).norm(dim=1, keepdim=True))
