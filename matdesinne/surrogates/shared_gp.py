"""Gaussian process of many outputs that share one covariance."""

from __future__ import annotations

__all__ = ["KeepsRows", "SharedGP"]

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_SMALLEST_NOISE = 1e-9
"""Variance of the noise in shares of that of the process, which also keeps the covariance positive definite."""
_START_NOISE = 1e-5
_START_LENGTH = 3.0
"""Of the correlation, in standardised features."""
_FREE_MEAN = 100.0
"""Variance of the mean of a material in shares of that of the process: the rows alone determine it."""
_START_RADIUS = 0.5
"""Of the circle on which the places of the materials start."""
_PRIOR_LENGTH, _PRIOR_WIDTH = math.sqrt(2) + math.log(2), math.sqrt(3)
"""Mean and width of the normal prior over the logarithm of a length, less half that of the number of features."""
_SAME_INPUTS = 1e-3
"""Largest distance of the features of two rows that have the same design."""


class _Posterior(NamedTuple):
    """What predictions need of the rows: the Cholesky factor of their correlation, its inverse times y, and the scales."""

    factor: Float[Tensor, "r r"]
    weights: Float[Tensor, "r o"]
    scale: Float[Tensor, " o"]


class KeepsRows(nn.Module):
    """Predicts given rows, the buffers `inputs` and `outputs`; what follows from them is computed once, as `_known`."""

    inputs: Tensor
    outputs: Tensor
    _known: Any = None

    def train(self, mode: bool = True) -> Self:
        """Forget what follows from the parameters, which may have changed."""
        self._known = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._known = None  # on another device, or of another precision
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Make room for the rows, whose number only the file knows."""
        for name in ("inputs", "outputs", "materials", "rows", "places"):
            if (kept := state_dict.get(prefix + name)) is not None:
                own = getattr(self, name)
                own.data = torch.empty_like(kept, dtype=own.dtype, device=own.device)
        self._known = None
        super()._load_from_state_dict(state_dict, prefix, *args)


class SharedGP(KeepsRows):
    r"""Gaussian process :math:`y_o \sim N(m_o, s_o^2 (C + \epsilon))` whose outputs share the correlation C.

    The lengths of C and the share :math:`\epsilon` of the noise maximise the marginal likelihood, averaged over the outputs and
    with the best scale :math:`s_o` of each, times a prior of the lengths. It works in double precision.

    Rows may belong to several materials. A material m is a place z of two coordinates that is learnt, too: the correlation of
    rows of two materials is multiplied by :math:`\exp(-|z_m - z_{m'}|^2 / 2)`, and each material has a mean of its own.
    Predictions are those of the material 0.

    References:
        Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 2.2 and 5.4.
        Bonilla, Chai, Williams, Multi-task Gaussian process prediction, NIPS 2007 (the correlation of materials).
        Hvarfner, Hellsten, Nardi, Vanilla Bayesian optimization performs great in high dimensions, 2024, arXiv 2402.02229 (the
        prior of the lengths).

    Args:
        features: number of features.
        smooth: a squared exponential correlation; else Matern's with nu = 5/2, for outputs with kinks.
    """

    def __init__(self, features: int, smooth: bool) -> None:
        super().__init__()
        self.smooth = smooth
        # learnt where there are several materials
        self.places = nn.Parameter(torch.empty(0, 2, dtype=torch.float64), requires_grad=False)
        self.log_lengths = nn.Parameter(torch.full((features,), math.log(_START_LENGTH), dtype=torch.float64))
        self.log_noise = nn.Parameter(torch.tensor(math.log(_START_NOISE), dtype=torch.float64))
        self.register_buffer("inputs", torch.empty(0, features, dtype=torch.float64))
        self.register_buffer("outputs", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("materials", torch.empty(0, dtype=torch.long))
        self.register_buffer("rows", torch.empty(0, dtype=torch.long))

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        """Write the rows in single precision, which they came in."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("inputs", "outputs"):
            destination[prefix + name] = destination[prefix + name].float()

    def keep(
        self,
        inputs: Float[Tensor, "r f"],
        outputs: Float[Tensor, "r o"],
        materials: Int[Tensor, " r"] | None = None,
        rows: Int[Tensor, " r"] | None = None,
    ) -> None:
        """Take the rows that predictions are conditioned on.

        Args:
            inputs: features.
            outputs: what they have.
            materials: number of the material of each row, those of 0 first; ``None``: all are of it.
            rows: number of each row in its table; ``None``: they are counted.
        """
        count = torch.arange(len(inputs), device=inputs.device)
        self.inputs, self.outputs, self.rows = inputs.double(), outputs.double(), count if rows is None else rows
        self.materials = torch.zeros_like(count) if materials is None else materials
        if last := int(self.materials.max()):
            angle = 2 * math.pi * torch.arange(last + 1, dtype=torch.float64) / (last + 1)
            self.places.requires_grad_()
            self.places.data = _START_RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1).to(self.places)
        self._known = None

    def negative_log_density(self) -> Float[Tensor, ""]:
        """Negative logarithm of the marginal likelihood of the rows times the prior, per row and output."""
        rows, features = self.inputs.shape
        factor = torch.linalg.cholesky(self._covariance())
        scale = self._scale(factor)
        lengths = (self.log_lengths - _PRIOR_LENGTH - math.log(features) / 2).square().sum() / (2 * _PRIOR_WIDTH**2)
        prior = lengths + self.places.square().sum() / 2
        return scale.log().mean() + (factor.diagonal().log().sum() + prior) / rows

    def mean(self, inputs: Float[Tensor, "n f"]) -> Float[Tensor, "n o"]:
        """Mean of the outputs."""
        return self._own_mean() + self._correlation(inputs.double(), None) @ self._posterior().weights

    def mean_and_std(self, inputs: Float[Tensor, "n f"]) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        """Mean and standard deviation of the outputs."""
        known = self._posterior()
        cross = self._correlation(inputs.double(), None)
        explained = torch.linalg.solve_triangular(known.factor, cross.T, upper=False).square().sum(dim=0)
        prior = 1.0 + _FREE_MEAN if len(self.places) else 1.0
        share = (prior - explained).clamp_min(0.0) + self.noise
        return self._own_mean() + cross @ known.weights, share.sqrt().unsqueeze(1) * known.scale

    def without_own_block(self, size: int) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r o"]]:
        """Mean and standard deviation at every row of the material 0, given the rows of other blocks.

        Blocks are `size` rows, one after another. Rows of other materials with the inputs of a block are left out with it,
        since a new design has none.

        References:
            Rasmussen and Williams 2006, equations 5.12, for blocks.
        """
        known, own = self._posterior(), len(self.own_outputs)
        precision = torch.cholesky_inverse(known.factor)
        errors, shares = [], []
        for start in range(0, own, size):
            block = torch.arange(start, start + size, device=self.inputs.device)
            distances = torch.cdist(self.inputs[own:], self.inputs[block])
            left_out = torch.cat([block, own + (distances < _SAME_INPUTS).any(dim=1).nonzero()[:, 0]])
            covariance = torch.linalg.inv(precision[left_out][:, left_out])
            errors.append((covariance @ known.weights[left_out])[:size])
            shares.append(covariance.diagonal()[:size])
        share = torch.cat(shares).clamp_min(0.0).sqrt()
        return self.own_outputs - torch.cat(errors), share.unsqueeze(1) * known.scale

    @property
    def own_outputs(self) -> Float[Tensor, "r o"]:
        """The outputs of the rows of the material 0."""
        return self.outputs[self.materials == 0]

    @property
    def own_rows(self) -> Int[Tensor, " r"]:
        """The numbers of these rows in their table."""
        return self.rows[self.materials == 0]

    @property
    def noise(self) -> Float[Tensor, ""]:
        """Variance of the noise in shares of that of the process."""
        return self.log_noise.exp() + _SMALLEST_NOISE

    def _covariance(self) -> Float[Tensor, "r r"]:
        identity = torch.eye(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        return self._correlation(self.inputs, self.materials) + self.noise * identity

    def _own_mean(self) -> Float[Tensor, " o"]:
        return self.own_outputs.mean(dim=0)

    def _correlation(self, inputs: Float[Tensor, "n f"], materials: Int[Tensor, " n"] | None) -> Float[Tensor, "n r"]:
        """Correlation of rows of these materials, or of the material 0, with the rows that are kept."""
        shape = self._shape(inputs, self.inputs)
        if len(self.places) == 0:
            return shape
        materials = self.materials.new_zeros(len(inputs)) if materials is None else materials
        alike = (-(self.places.unsqueeze(1) - self.places).square().sum(dim=2) / 2).exp()
        same = materials.unsqueeze(1) == self.materials
        return shape * alike[materials][:, self.materials] + _FREE_MEAN * same

    def _shape(self, first: Float[Tensor, "n f"], second: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
        lengths = self.log_lengths.exp()
        # of the squares, since the root has no slope at zero
        square = ((first / lengths).unsqueeze(1) - (second / lengths).unsqueeze(0)).square().sum(dim=2)
        if self.smooth:
            return (-square / 2).exp()
        distance = (5 * square + 1e-20).sqrt()
        return (1 + distance + distance.square() / 3) * (-distance).exp()

    def _scale(self, factor: Float[Tensor, "r r"]) -> Float[Tensor, " o"]:
        """The scale of each output that makes the rows most likely."""
        error = torch.linalg.solve_triangular(factor, self.outputs - self._own_mean(), upper=False)
        return error.square().mean(dim=0).clamp_min(1e-24).sqrt()  # the root has no slope at zero

    def _posterior(self) -> _Posterior:
        """Computed once where the parameters rest."""
        if self._known is not None and not self.training:
            return self._known
        with torch.no_grad():
            factor = torch.linalg.cholesky(self._covariance())
            weights = torch.cholesky_solve(self.outputs - self._own_mean(), factor)
            self._known = _Posterior(factor, weights, self._scale(factor))
        return self._known
