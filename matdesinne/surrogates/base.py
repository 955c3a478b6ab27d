"""The contract of every surrogate: properties of designs with a spread, differentiable in the design."""

from __future__ import annotations

__all__ = ["Linearization", "Surrogate", "spread_of"]

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from matdesinne.errors import ConfigError
from matdesinne.network import Batch, DesignNetwork
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.targets import Property
from matdesinne.transforms import BoxFeatures, BoxScaler, CellFeatures, Standardizer

_LOGGER = logging.getLogger(__name__)

_CHUNK_ROWS, _GPU_CHUNK_ROWS = 1 << 10, 1 << 16
"""Rows of one pass: their activations fit a core's cache, or fill a GPU."""
_LEVELS = torch.arange(1, 100) / 100
"""Contents of the intervals whose widths a calibrated surrogate knows."""
_ONE_SIGMA = 0.6827
"""Content of one standard deviation on both sides of a normal distribution."""
_FEWEST_ROWS = 20
"""Held-out rows below which a spread is not calibrated."""


class Linearization(NamedTuple):
    """Predictions with their derivative with respect to the design, the jacobian of the mean, in physical units."""

    mean: Float[Tensor, "n dy"]
    std: Float[Tensor, "n dy"]
    jacobian: Float[Tensor, "n dy dx"]


class Surrogate(DesignNetwork):
    """A differentiable model of y = f(x).

    A subclass fills `member_predictions`; its loss stands in `matdesinne.training`.

    Args:
        prototype: the atoms of a design; with it networks see the geometry of the cell, else the parameters.
    """

    spread_offset: Tensor
    spread_quantiles: Tensor

    def __init__(self, space: DesignSpace, properties: Sequence[Property], prototype: Prototype | None = None) -> None:
        super().__init__(space, properties)
        self.prototype = prototype
        self.features: BoxFeatures | CellFeatures = BoxFeatures(space) if prototype is None else CellFeatures(space, prototype)
        self.scale = BoxScaler(space)
        self.target_scale = Standardizer(len(self.properties))
        self.register_buffer("spread_offset", torch.zeros(len(self.properties)))
        normal = torch.special.ndtri(0.5 + 0.5 * _LEVELS)
        self.register_buffer("spread_quantiles", normal.repeat(len(self.properties), 1))
        self.spread_quantiles /= self._spread_factor(_ONE_SIGMA).unsqueeze(1)

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales of x and y from the training rows."""
        self.scale.fit(batch.x)
        self.features.fit(batch.x)
        self.target_scale.fit(batch.y)

    def predict(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        """Predict mean and standard deviation of the properties of designs, in physical units, differentiably.

        The standard deviation is that over the ensemble until `calibrate` has compared it with real errors.

        Raises:
            ConfigError: if the number of columns is wrong.
        """
        mean, spread = self._mean_and_spread(self._checked(x))
        return mean, self._calibrated(spread)

    def calibrate(self, batch: Batch) -> None:
        """`calibrate_by` the errors on rows that were not trained on."""
        if len(batch.x):
            self.calibrate_by(*self._in_chunks(self._mean_and_spread, batch.x), batch.y)

    def calibrate_by(self, mean: Float[Tensor, "n dy"], spread: Float[Tensor, "n dy"], y: Float[Tensor, "n dy"]) -> None:
        r"""Scale the spread by the errors of predictions, as split conformal prediction does.

        With the score :math:`|y - \mu| / (\sigma + \sigma_0)`, sigma_0 the median of sigma, an interval of content q reaches
        as far as the empirical quantile of the score at :math:`q (n + 1) / n`. A label at the floor of a censored property is
        left out. Fewer than 20 rows say nothing: the spread stays what it is, and a warning says so.

        References:
            Lei et al., Distribution-free predictive inference for regression, JASA 113, 1094 (2018), arXiv 1604.04173,
            section 5.2.

        Args:
            mean: predictions of rows by surrogates like this one that were not trained on them, in physical units.
            spread: their standard deviations before calibration.
            y: the labels of the rows.
        """
        for j, prop in enumerate(self.properties):
            known = y[:, j] > prop.floor if prop.censored and prop.floor is not None else y[:, j].isfinite()
            if known.sum() < _FEWEST_ROWS:
                unseen = f"{int(known.sum())} unseen rows, fewer than {_FEWEST_ROWS}"
                _LOGGER.warning(f"The spread of {prop.name} is not calibrated: {unseen}.")
                continue
            offset = spread[known, j].median().clamp_min(1e-6 * self.target_scale.std[j].cpu())
            score = (mean[known, j] - y[known, j]).abs() / (spread[known, j] + offset)
            level = (_LEVELS * (1 + 1 / len(score))).clamp_max(1.0)
            self.spread_offset[j] = offset
            self.spread_quantiles[j] = score.quantile(level)

    def half_width(self, std: Float[Tensor, "n dy"], level: float) -> Float[Tensor, "n dy"]:
        """Half the width of the interval that holds the property with a probability, from the spread that `predict` gave.

        The probability `level` is from 0.01 to 0.99; beyond, the interval is that of these.
        """
        return std * (self._spread_factor(level) / self._spread_factor(_ONE_SIGMA)).to(std)

    def expected_error(self, std: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        """Mean distance of the property to the prediction that calibration expects, from the spread that `predict` gave."""
        return std * (self.spread_quantiles.mean(dim=1) / self._spread_factor(_ONE_SIGMA)).to(std)

    def coverage(self, std: Float[Tensor, "n dy"], half_width: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        """Probability that the property lies within a distance of the prediction, the inverse of `half_width`.

        It is at most 0.99, the largest content that calibration has seen, and 0 where the spread is not known.
        """
        factors = half_width / std * self._spread_factor(_ONE_SIGMA).to(std)
        columns = []
        for factor, known in zip(factors.T, self.spread_quantiles.to(std), strict=True):
            # from 0 at no width; a table that is flat in places has no inverse there, and the lower end is the careful one
            known, levels = torch.cat([known.new_zeros(1), known]), torch.cat([known.new_zeros(1), _LEVELS.to(known)])
            high = torch.searchsorted(known, factor.nan_to_num(0.0).contiguous()).clamp(1, len(known) - 1)
            share = ((factor - known[high - 1]) / (known[high] - known[high - 1]).clamp_min(1e-12)).clamp(0.0, 1.0)
            columns.append(torch.lerp(levels[high - 1], levels[high], share.nan_to_num(0.0)))
        return torch.stack(columns, dim=1)

    def predict_many(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        """`predict` in chunks of bounded memory, without gradients, the result on the CPU."""
        if len(x) == 0:
            nothing = x.new_empty(0, len(self.properties))
            return nothing, nothing
        return self._in_chunks(self.predict, x)

    def predict_mean(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        """The mean of `predict_many` alone."""
        if len(x) == 0:
            return x.new_empty(0, len(self.properties))
        return self._in_chunks(lambda rows: (mean := self._mean(rows), mean), self._checked(x))[0]

    def linearize(self, x: Float[Tensor, "n dx"]) -> Linearization:
        """`predict` together with the derivative of the mean, without an autograd graph, in chunks of bounded memory."""
        parts = [self._linearize(rows) for rows in self._checked(x).split(self.chunk_rows)]
        return parts[0] if len(parts) == 1 else Linearization(*map(torch.cat, zip(*parts, strict=True)))

    @property
    def chunk_rows(self) -> int:
        """Number of rows that go through the networks at once."""
        return _CHUNK_ROWS if self.device.type == "cpu" else _GPU_CHUNK_ROWS

    def _linearize(self, x: Float[Tensor, "n dx"]) -> Linearization:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean, std = self.predict(x)
            columns = range(mean.shape[1])
            rows = [torch.autograd.grad(mean[:, j].sum(), x, retain_graph=j + 1 < len(columns))[0] for j in columns]
        return Linearization(mean.detach(), std.detach(), torch.stack(rows, dim=1))

    def _traced_features(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dx"], Float[Tensor, "n f"]]:
        """The designs as the start of a graph of their own, and their features in it."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return x, self.features(x)

    def _mean(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        """The mean alone, where a surrogate finds it faster without the spread."""
        return self.predict(x)[0]

    def _calibrated(self, spread: Float[Tensor, "n dy"]) -> Float[Tensor, "n dy"]:
        return (spread + self.spread_offset) * self._spread_factor(_ONE_SIGMA)

    def _spread_factor(self, level: float) -> Float[Tensor, " dy"]:
        place = min(max(level, 0.01), 0.99) * (len(_LEVELS) + 1) - 1
        low = min(max(int(place), 0), len(_LEVELS) - 2)
        return torch.lerp(self.spread_quantiles[:, low], self.spread_quantiles[:, low + 1], place - low)

    def _in_chunks(
        self, function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Float[Tensor, "n dx"]
    ) -> tuple[Tensor, Tensor]:
        # filled in place: many small results between large temporary ones would split the memory up
        mean, spread = (torch.empty(len(x), len(self.properties), dtype=x.dtype) for _ in range(2))
        size = self.chunk_rows
        with torch.no_grad():
            for rows, mean_rows, spread_rows in zip(x.split(size), mean.split(size), spread.split(size), strict=True):
                for part, target in zip(function(rows.to(self.device)), (mean_rows, spread_rows), strict=True):
                    target.copy_(part)
        return mean, spread

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        """Mean and standard deviation over the ensemble."""
        members = self.member_predictions(self.features(x))
        return members.mean(dim=0), spread_of(members)

    def _checked(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dx"]:
        if x.ndim != 2 or x.shape[1] != self.space.dimension:
            raise ConfigError(f"Expected designs of shape [n, {self.space.dimension}], got {list(x.shape)}: reshape them.")
        return x

    @abstractmethod
    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "m n dy"]:
        """Properties in physical units from standardised features, for each member of the ensemble."""


def spread_of(members: Float[Tensor, "m n dy"]) -> Float[Tensor, "n dy"]:
    """Standard deviation over the members; zero of a single one."""
    return members.std(dim=0) if members.shape[0] > 1 else torch.zeros_like(members[0])
