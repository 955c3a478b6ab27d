"""Gaussian process on the property itself, for tables of up to a few thousand rows."""

from __future__ import annotations

__all__ = ["GPSurrogate"]

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from gpytorch.constraints import GreaterThan, Positive
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel
from gpytorch.priors import LogNormalPrior
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.shared_gp import KeepsRows
from matdesinne.targets import Property

_SMALLEST_NOISE = 1e-6
"""Variance of the noise in standardised units, which also keeps the covariance of the rows positive definite."""
_JITTERS = (1e-9, 1e-8, 1e-7, 1e-6)
"""Added variances, in shares of that of the process, that are tried where the covariance is not positive definite."""
_LARGEST_LOG_VARIANCE = math.log(1e4)
"""Of the process, in standardised units: rows without noise would let it grow until rounding spoils the predictions."""
_MOST_ROWS = 5000
_RAW_START = -4.0
"""Start of the unconstrained variance of the noise: 0.018 in standardised units."""

KernelName = Literal["matern", "rbf"]


class _Posterior(NamedTuple):
    """What predictions need of the training rows: the Cholesky factor of their covariance, and its inverse times y."""

    factor: Float[Tensor, "dy n n"]
    weights: Float[Tensor, "dy n 1"]


class GPSurrogate(KeepsRows, Surrogate):
    r"""Gaussian process with a length for each feature and learnt noise, :math:`y \sim N(m + f(x), \sigma^2)`.

    One process for each property, on standardised outputs, in double precision. The spread is that of one more measurement:
    the variance of the process and the noise. Its parameters maximise the marginal likelihood times the priors of
    BoTorch, whose lengths grow with the number of features.

    References:
        Rasmussen and Williams, Gaussian processes for machine learning, 2006, algorithm 2.1.
        Hvarfner, Hellsten, Nardi, Vanilla Bayesian optimization performs great in high dimensions, 2024, arXiv 2402.02229.

    Args:
        kernel: ``"matern"``, which is twice differentiable (nu = 5/2), or ``"rbf"``, for smooth properties.
    """

    def __init__(
        self,
        space: DesignSpace,
        properties: Sequence[Property],
        prototype: Prototype | None = None,
        *,
        kernel: KernelName = "matern",
    ) -> None:
        super().__init__(space, properties, prototype)
        if kernel not in get_args(KernelName):
            raise ConfigError(f"Expected kernel out of {list(get_args(KernelName))}, got {kernel!r}: choose one.")
        self.kernel = kernel
        count, size = len(self.properties), self.features.size
        # the prior is that of the unit cube, features are in half-widths
        lengths = LogNormalPrior(math.sqrt(2) + math.log(size) / 2 + math.log(2), math.sqrt(3))
        options = {
            "ard_num_dims": size,
            "batch_shape": torch.Size([count]),
            "lengthscale_prior": lengths,
            "lengthscale_constraint": Positive(transform=nn.Softplus()),  # GPyTorch's default is one object for all kernels
        }
        self.correlation: Kernel = MaternKernel(nu=2.5, **options) if kernel == "matern" else RBFKernel(**options)
        self.correlation.lengthscale = 0.5 * math.sqrt(size)
        self.raw_scale = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self.raw_noise = nn.Parameter(torch.full((count,), _RAW_START, dtype=torch.float64))
        self.constant = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        self._noise_prior, self._positive = LogNormalPrior(-4.0, 1.0), GreaterThan(_SMALLEST_NOISE, transform=nn.Softplus())
        self.correlation.double()
        self.register_buffer("inputs", torch.empty(0, size, dtype=torch.float64))
        self.register_buffer("outputs", torch.empty(count, 0, dtype=torch.float64))

    def fit_scales(self, batch: Batch) -> None:
        """Learn the scales, and keep the rows: predictions are conditioned on them.

        Raises:
            ConfigError: if there are more rows than a dense covariance allows.
        """
        if len(batch.x) > _MOST_ROWS:
            raise ConfigError(
                f"Expected at most {_MOST_ROWS:,} rows for surrogate=gp, got {len(batch.x):,}: use surrogate=mlp."
            )
        super().fit_scales(batch)
        with torch.no_grad():
            self.inputs, self.outputs = self._standard(batch)
        self._known = None

    def negative_log_density(self, batch: Batch) -> Float[Tensor, ""]:
        """Negative logarithm of the marginal likelihood of rows times the priors, per row and property."""
        features, values = self._standard(batch)
        factor = self._factor(features)
        error = (values - self.constant.unsqueeze(1)).unsqueeze(2)
        fit = 0.5 * (error * torch.cholesky_solve(error, factor)).sum()
        volume = factor.diagonal(dim1=1, dim2=2).log().sum() + 0.5 * math.log(2 * math.pi) * values.numel()
        prior = self._noise_prior.log_prob(self.noise.float()).sum()
        prior = prior + self.correlation.lengthscale_prior.log_prob(self.correlation.lengthscale.float()).sum()
        excess = (self.raw_scale - _LARGEST_LOG_VARIANCE).clamp_min(0.0).square().sum()
        return ((fit + volume - prior) / values.numel() + excess).float()

    @property
    def noise(self) -> Float[Tensor, " dy"]:
        """Variance of the noise in standardised units."""
        return self._positive.transform(self.raw_noise)

    @property
    def _variance(self) -> Float[Tensor, " dy"]:
        """Variance of the process in standardised units; a step of the search may go where it would overflow."""
        return self.raw_scale.clamp_max(2 * _LARGEST_LOG_VARIANCE).exp()

    def member_predictions(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "1 n dy"]:
        """The mean of the process, in physical units."""
        _, mean = self._cross_and_mean(features, self._posterior())
        return self.target_scale.inverse(mean.T.to(features)).unsqueeze(0)

    def mean_and_std(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "2 n dy"]:
        """Mean and standard deviation of one more measurement in physical units, before calibration."""
        known = self._posterior()
        cross, mean = self._cross_and_mean(features, known)
        explained = torch.linalg.solve_triangular(known.factor, cross.mT, upper=False).square().sum(dim=1)
        variance = (self._variance.unsqueeze(1) - explained).clamp_min(0.0) + self.noise.unsqueeze(1)
        scale = self.target_scale.std
        return torch.stack([self.target_scale.inverse(mean.T.to(features)), variance.sqrt().T.to(features) * scale])

    def _mean_and_spread(self, x: Float[Tensor, "n dx"]) -> tuple[Float[Tensor, "n dy"], Float[Tensor, "n dy"]]:
        mean, std = self.mean_and_std(self.features(x))
        return mean, std

    def _mean(self, x: Float[Tensor, "n dx"]) -> Float[Tensor, "n dy"]:
        return self.member_predictions(self.features(x))[0]  # the variance takes most of the time

    def _cross_and_mean(
        self, features: Float[Tensor, "n f"], known: _Posterior
    ) -> tuple[Float[Tensor, "dy n r"], Float[Tensor, "dy n"]]:
        """Covariance of designs with the training rows, and the mean in standardised units."""
        cross = self._covariance(features.double(), self.inputs)
        return cross, self.constant.unsqueeze(1) + (cross @ known.weights).squeeze(2)

    def _standard(self, batch: Batch) -> tuple[Float[Tensor, "n f"], Float[Tensor, "dy n"]]:
        known = batch.y.isfinite().all(dim=1)
        return self.features(batch.x[known]).double(), self.target_scale(batch.y[known]).double().T.contiguous()

    def _covariance(self, first: Float[Tensor, "n f"], second: Float[Tensor, "m f"]) -> Float[Tensor, "dy n m"]:
        count = len(self.properties)
        rows = (part.expand(count, *part.shape) for part in (first, second))
        return self._variance[:, None, None] * self.correlation(*rows).to_dense()

    def _factor(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "dy n n"]:
        covariance = self._covariance(features, features)
        covariance = covariance + torch.diag_embed(self.noise.unsqueeze(1).expand(covariance.shape[:2]))
        for share in (0.0, *_JITTERS):  # rounding of a large, smooth process can exceed the noise
            jitter = share * self._variance[:, None, None] * torch.eye(len(features)).to(covariance)
            factor, failed = torch.linalg.cholesky_ex(covariance + jitter if share else covariance)
            if not failed.any():
                return factor
        return torch.linalg.cholesky(covariance)  # raises the error

    def _posterior(self) -> _Posterior:
        """Computed once where the parameters rest."""
        if self._known is not None and not self.training:
            return self._known
        with torch.no_grad():
            factor = self._factor(self.inputs)
            error = (self.outputs - self.constant.unsqueeze(1)).unsqueeze(2)
            self._known = _Posterior(factor, torch.cholesky_solve(error, factor))
        return self._known
