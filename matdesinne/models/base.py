"""The contract of every generative model: sample designs for a target, in physical units."""

from __future__ import annotations

__all__ = ["Coordinates", "DensityModel", "InverseModel", "check_coordinates"]

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError, EmptyResultError, TargetError
from matdesinne.network import Batch, DesignNetwork
from matdesinne.space import DesignSpace
from matdesinne.targets import Property, Target
from matdesinne.transforms import DesignTransform, PhysicalUnits, Standardizer

Coordinates = Literal["box", "physical"]

_LOGGER = logging.getLogger(__name__)

_REFERENCE_ROWS = 8192
_NEAREST, _FEWEST, _ROWS_OF_ONE = 64, 8, 128
"""Other properties are drawn from the reference rows nearest to the asked values: 64, or one of 128 rows, but at least 8."""
_CHUNK_ROWS, _GPU_CHUNK_ROWS = 1 << 12, 1 << 18
"""Rows of one pass: what lies between its layers fits a core's cache, or fills a GPU."""
_MOST_ROUNDS = 100
"""How many times as many designs as wanted are drawn at most to get these within bounds."""


def check_coordinates(name: str) -> None:
    """Raise a ConfigError for a setting `coordinates` that is no choice."""
    if name not in get_args(Coordinates):
        raise ConfigError(f"Expected coordinates out of {list(get_args(Coordinates))}, got {name!r}: choose one.")


class InverseModel(DesignNetwork):
    """A generative model of p(x | y): its networks, and how designs are sampled from them.

    A subclass fills `decode`, latent noise to designs in standardised coordinates; its loss stands in `matdesinne.training`. In
    box coordinates a model learns one of the images that the symmetries make equal, and a sample is a random one of the images.

    Args:
        target_noise: standard deviation of the noise added to y in training, in the unit of the properties; ``None`` for
            the resolution of each property.
        coordinates: ``"box"`` (normal quantiles of the box, standardised properties) or ``"physical"`` (as they are).
    """

    label: ClassVar[str]
    """The name of the method in the field's tables."""
    truncates: ClassVar[bool] = False
    """Whether `sample` can leave out far tails."""

    target_reference: Tensor
    target_range: Tensor
    resolution: Tensor

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        target_noise: float | None = None,
        coordinates: Coordinates = "box",
    ) -> None:
        super().__init__(space, properties)
        check_coordinates(coordinates)
        if target_noise is not None and target_noise < 0:
            raise ConfigError(f"Expected target_noise of at least 0, got {target_noise}: give a standard deviation.")
        self.target_noise, self.coordinates = target_noise, coordinates
        self.register_buffer("resolution", torch.tensor([prop.resolution for prop in self.properties]), persistent=False)
        box = coordinates == "box"
        self.transform = DesignTransform(space) if box else PhysicalUnits(space.dimension)
        self.canonicalizes = box and len(space.group()) > 1
        self.target_scale = (Standardizer if box else PhysicalUnits)(len(self.properties))
        self.register_buffer("target_reference", torch.zeros(_REFERENCE_ROWS, len(self.properties)))
        self.register_buffer("target_range", torch.zeros(2, len(self.properties)))

    @property
    def latent_dimension(self) -> int:
        """Number of standard normal variables that make one sample: by default one for each parameter."""
        return self.space.dimension

    def fit_scales(self, batch: Batch, prior: Float[Tensor, "m dy"] | None = None) -> None:
        """Learn the scales of x and y, and keep property values of the prior for targets that are intervals.

        `prior` holds properties of designs drawn from the prior; those of the training rows stand in when it is omitted.
        """
        self.transform.fit(self._canonicalize(batch.x))
        self.target_scale.fit(self._clamp_at_floor(batch.y))
        prior = batch.y if prior is None else prior
        rows = torch.linspace(0, prior.shape[0] - 1, _REFERENCE_ROWS).round().long()
        self.target_reference.copy_(prior[rows])
        known = batch.y[batch.y.isfinite().all(dim=1)]
        self.target_range.copy_(torch.stack([known.amin(dim=0), known.amax(dim=0)]))

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, "n dy"], generator: torch.Generator | None = None, truncate: bool = True
    ) -> Float[Tensor, "n dx"]:
        """Draw one design for each row of target properties y, both in physical units, the designs on the CPU.

        Args:
            y: where to sample.
            generator: source of randomness on the CPU; torch's global one when omitted.
            truncate: leave out the far tails of the conditional distributions of `CINN`, which fill the gaps between
                branches of designs on target; without it the samples follow the trained density. Other models have none.

        Raises:
            TargetError: if y has the wrong shape or is not finite.
        """
        y = self._checked(y)
        if len(y) == 0:
            return y.new_empty(0, self.space.dimension)
        noise = torch.randn(y.shape[0], self.latent_dimension, generator=generator)
        level = torch.rand(y.shape[0], generator=generator) if self.canonicalizes else torch.zeros(y.shape[0])
        designs = torch.empty(y.shape[0], self.space.dimension)
        chunk = _CHUNK_ROWS if self.device.type == "cpu" else _GPU_CHUNK_ROWS
        parts = (values.split(chunk) for values in (noise, level, y, designs))
        for z_rows, levels, y_rows, rows in zip(*parts, strict=True):
            standard = self.target_scale(self._clamp_at_floor(y_rows.to(self.device)))
            rows.copy_(self.transform.inverse(self.decode(z_rows.to(self.device), standard, truncate)))
            if self.canonicalizes:
                rows.copy_(self.space.random_images(rows, levels))
            if not isinstance(self.transform, PhysicalUnits):
                rows.clamp_(self.space.lower, self.space.upper)  # a single bound, too
            rows.copy_(self.space.snap(rows))
        return designs

    def sample_target(
        self,
        target: Target,
        count: int,
        generator: torch.Generator | None = None,
        space: DesignSpace | None = None,
        truncate: bool = True,
    ) -> tuple[Float[Tensor, "n dx"], int]:
        """Draw `count` designs for a target, within a `space` narrower than the model's if there is one.

        Bounds are held by rejection: what is left follows p(x | y) within them. A fixed parameter is set after sampling, which
        gives a start for the localization but not the posterior of the others given its value. `truncate` is that of `sample`.

        Returns:
            Designs in physical units, at most `count`, and how many were drawn for them.

        Raises:
            EmptyResultError: if none of 100 times as many lies within the bounds.
        """
        self._warn_of(target)
        if space is None or space == self.space:
            return self.sample(self.draw_targets(target, count, generator), generator, truncate), count
        fixed = space.lower == space.upper
        kept: list[Tensor] = []
        drawn = found = 0
        while found < count and drawn < _MOST_ROUNDS * count:
            designs = self.sample(self.draw_targets(target, count, generator), generator, truncate)
            designs = torch.where(fixed, space.lower, designs)
            kept.append(space.snap(designs[space.contains(designs, tolerance=0.0)]))
            drawn, found = drawn + count, found + len(kept[-1])
        designs = torch.cat(kept)[:count]
        if len(designs) == 0:
            raise EmptyResultError(
                f"Expected samples for {target.format(self.properties)} within the bounds, got none of {drawn:,}: "
                "widen the bounds, or sample more."
            )
        return designs, drawn

    def _warn_of(self, target: Target) -> None:
        """Say when a target lies outside everything that the model has seen."""
        seen = self.target_range.T.tolist()
        for prop, low, high, (lowest, highest) in zip(self.properties, target.lower, target.upper, seen, strict=True):
            if low > highest or high < lowest:
                _LOGGER.warning(
                    f"The target {target.format(self.properties)} lies outside the training range of {prop.name}, "
                    f"{lowest:.3g} to {highest:.3g} {prop.unit}: expect few candidates, or none."
                )

    def draw_targets(self, target: Target, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n dy"]:
        """Turn a target into property values to condition on.

        A value is repeated. What is not a value, an interval or a property that is not asked for, is drawn from the prior of
        y given the target, so that the samples follow p(x | target) and one model answers a target for any of its properties.
        The prior is that of the reference rows, see `fit_scales`: each sample takes its values from one row, drawn with equal
        chances out of those inside all intervals; where values are asked for, too, out of the 64 of these that are nearest to
        them (fewer of a prior of fewer than 8,192 rows: one of 128, at least 8), by the distance in standard deviations of
        the properties: a nearest-neighbour estimate of p(y_other | y_asked).

        Where no row is inside all intervals, the values of an interval are drawn uniformly from its overlap with the range of
        the training rows, and where there is none either, the edge of the interval that is nearest to this range is repeated.
        Properties that are not asked for come from the rows nearest to the target.
        """
        values = torch.tensor(target.values).repeat(count, 1)
        asked, wide = torch.tensor(target.asked), torch.tensor(target.is_interval)
        if not wide.any():
            return values
        inside, near = self._reference_rows(target)
        if inside or not asked.all():
            rows = near[torch.randint(near.shape[0], (count,), generator=generator)]
            values = torch.where(wide, rows, values)
        if inside:
            return values
        # outside everything that was seen it is the nearest edge, as a value is taken as it is
        lower, upper = torch.tensor(target.lower), torch.tensor(target.upper)
        lowest, highest = self.target_range.cpu()
        low = torch.maximum(lower, torch.minimum(lowest, upper))
        high = torch.minimum(upper, torch.maximum(highest, lower))
        columns = (wide & asked).nonzero()[:, 0]
        uniform = low[columns] + (high - low)[columns] * torch.rand(count, len(columns), generator=generator)
        return values.index_copy(1, columns, uniform)

    def _reference_rows(self, target: Target) -> tuple[bool, Float[Tensor, "m dy"]]:
        """Whether rows of the reference lie inside all intervals, and the rows to draw values from that are not asked for."""
        rows = self.target_reference.cpu()
        rows = rows[rows.isfinite().all(dim=1)]
        if not all(target.is_interval):
            rows = rows.unique_consecutive(dim=0)  # a prior of few rows repeats each
        count = min(max(len(rows) // _ROWS_OF_ONE, _FEWEST), _NEAREST)
        residual = target.residual(rows)
        inside = (residual[:, torch.tensor(target.is_interval)] == 0).all(dim=1)
        scale = rows.std(dim=0).clamp_min(torch.finfo(rows.dtype).tiny)
        if inside.any():
            rows, residual = rows[inside], residual[inside]
            if all(target.is_interval):
                return True, rows
        distance = (residual / scale).square().sum(dim=1)
        return bool(inside.any()), rows[distance.argsort(stable=True)[:count]]

    def _checked(self, y: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        if y.ndim != 2 or y.shape[1] != len(self.properties) or not y.isfinite().all():
            names = [prop.name for prop in self.properties]
            raise TargetError(f"Expected finite y of shape [n, {len(names)}] for {names}, got {list(y.shape)}: reshape it.")
        return y

    def standardize(
        self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]
    ) -> tuple[Float[Tensor, "n dx"], Float[Tensor, "n dy"]]:
        """Rows as the networks see them: the canonical image of each design, and y clamped at the floor, standardised."""
        return self.transform(self._canonicalize(x)), self.target_scale(self._clamp_at_floor(y))

    def _canonicalize(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        return self.space.canonicalize(x) if self.canonicalizes else x

    def add_target_noise(self, y: Float[Tensor, "n dy"], generator: torch.Generator | None = None) -> Float[Tensor, "n dy"]:
        """Add the noise of training to target properties in physical units."""
        width = self.resolution if self.target_noise is None else self.target_noise
        return y + width * torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)

    def _clamp_at_floor(self, y: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        """Clamp y at the floor of each property less its margin: lower values are one class."""
        lowest = torch.tensor([prop.lowest for prop in self.properties], dtype=y.dtype, device=y.device)
        return torch.maximum(y, lowest)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Weights of earlier versions lack the range of the training rows: that of the prior stands in."""
        if (reference := state_dict.get(f"{prefix}target_reference")) is not None and reference.ndim == 2:
            known = torch.stack([reference.amin(dim=0), reference.amax(dim=0)])
            state_dict.setdefault(f"{prefix}target_range", known)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @abstractmethod
    def decode(self, z: Float[Tensor, "n dz"], v: Float[Tensor, "n dy"], truncate: bool = True) -> Float[Tensor, "n dx"]:
        """Standard normal noise z and targets v to designs u, all in standardised coordinates; see `sample`."""


class DensityModel(InverseModel):
    """A generative model whose density is known; a subclass fills `standard_log_prob`."""

    def log_prob(self, x: Float[Tensor, "n dx"], y: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density log p(x | y) of designs given properties, as trained, per unit of the physical volume.

        It is the density of samples that are not truncated, see `sample`; x and y are in physical units.
        """
        v = self.target_scale(self._clamp_at_floor(self._checked(y)))
        if isinstance(self.transform, PhysicalUnits):
            return self._log_density(x, v)  # nothing keeps it inside the bounds
        images = (self.space.images(x) if self.canonicalizes else x.unsqueeze(1)).unbind(dim=1)
        inside = torch.stack([self.space.contains(image) for image in images])
        parts = torch.stack([self._log_density(image, v) for image in images])
        # a sample is any of its images inside the bounds, all equally likely
        total = parts.masked_fill(~inside, -torch.inf).logsumexp(dim=0) - inside.sum(dim=0).clamp_min(1).log()
        return total.masked_fill(~inside[0], -torch.inf)

    def _log_density(self, x: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        return self.standard_log_prob(self.transform(x), v) + self.transform.log_det(x)

    @abstractmethod
    def standard_log_prob(self, u: Float[Tensor, "n dx"], v: Float[Tensor, "n dy"]) -> Float[Tensor, " n"]:
        """Log-density of designs u given targets v, both in standardised coordinates."""
