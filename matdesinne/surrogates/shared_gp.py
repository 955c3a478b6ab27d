"""Gaussian process of many outputs that share one covariance."""

from __future__ import annotations

__all__ = ["KeepsRows", "Rows", "SharedGP"]

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_SMALLEST_NOISE = 1e-9
"""Variance of the noise in shares of that of the process, which also keeps the covariance positive definite."""
_START_NOISE = 1e-5
_START_LENGTH = 3.0
"""Of the correlation, in standardised features."""
_PRIOR_LENGTH, _PRIOR_WIDTH = math.sqrt(2) + math.log(2), math.sqrt(3)
"""Mean and width of the normal prior over the logarithm of a length, less half that of the number of features."""
_SAME_INPUTS = 1e-3
"""Largest distance of the features of two rows that have the same design."""


class _Posterior(NamedTuple):
    """A process given rows: the Cholesky factor of their correlation, its inverse times y, offset and scale of y."""

    inputs: Float[Tensor, "r f"]
    factor: Float[Tensor, "r r"]
    weights: Float[Tensor, "r o"]
    offset: Float[Tensor, " o"]
    scale: Float[Tensor, " o"]


class Rows(NamedTuple):
    """What a process is conditioned on, in double precision."""

    inputs: Float[Tensor, "r f"]
    outputs: Float[Tensor, "r o"]


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
        for name in ("inputs", "outputs", "rows", "similar_inputs", "similar_outputs"):
            if (kept := state_dict.get(prefix + name)) is not None:
                own = getattr(self, name)
                own.data = torch.empty_like(kept, dtype=own.dtype, device=own.device)
        self._known = None
        super()._load_from_state_dict(state_dict, prefix, *args)


class SharedGP(KeepsRows):
    r"""Gaussian process :math:`y_o \sim N(f_o + m_o, s_o^2 (C + \epsilon))` whose outputs share the correlation C.

    The lengths of C and the share :math:`\epsilon` of the noise maximise the marginal likelihood, averaged over the outputs and
    with the best scale :math:`s_o` of each, times a prior of the lengths. It works in double precision.

    The function f is zero, or the mean of such a process on rows of a similar material: then it is the difference between the
    materials that is learnt, and few rows determine it where it is small (recursive co-kriging). C and :math:`\epsilon` are the
    same for both: a difference is about as smooth as what it is the difference of, and few rows do not tell its own lengths.
    Of several materials `keep` takes the one that makes the rows most likely, or none.

    References:
        Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 2.2 and 5.4.
        Kennedy and O'Hagan, Predicting the output from a complex computer code when fast approximations are available,
        Biometrika 87, 1 (2000); Le Gratiet and Garnier, Recursive co-kriging model for design of computer experiments with
        multiple levels of fidelity, Int. J. Uncertainty Quantification 4, 365 (2014).
        Hvarfner, Hellsten, Nardi, Vanilla Bayesian optimization performs great in high dimensions, 2024, arXiv 2402.02229 (the
        prior of the lengths).

    Args:
        features: number of features.
        smooth: a squared exponential correlation; else Matern's with nu = 5/2, for outputs with kinks.
    """

    def __init__(self, features: int, smooth: bool) -> None:
        super().__init__()
        self.smooth = smooth
        self.log_lengths = nn.Parameter(torch.full((features,), math.log(_START_LENGTH), dtype=torch.float64))
        self.log_noise = nn.Parameter(torch.tensor(math.log(_START_NOISE), dtype=torch.float64))
        for kind in ("", "similar_"):
            self.register_buffer(f"{kind}inputs", torch.empty(0, features, dtype=torch.float64))
            self.register_buffer(f"{kind}outputs", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("rows", torch.empty(0, dtype=torch.long))

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        """Write the rows in single precision, which they came in."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("inputs", "outputs", "similar_inputs", "similar_outputs"):
            destination[prefix + name] = destination[prefix + name].float()

    def keep(self, own: Rows, rows: Int[Tensor, " r"] | None = None, others: Sequence[Rows] = ()) -> None:
        """Take the rows that predictions are conditioned on.

        Args:
            own: those of the material.
            rows: number of each of these in its table; ``None``: they are counted.
            others: those of similar materials.
        """
        self.inputs, self.outputs = own
        self.rows = torch.arange(len(own.inputs), device=own.inputs.device) if rows is None else rows
        losses = []
        choices = (*others, Rows(own.inputs[:0], own.outputs[:0]))
        for choice in choices:
            self._take_similar(choice)
            losses.append(self._loss(self._posteriors()[-1]).item())
        self._take_similar(choices[losses.index(min(losses))])

    def _take_similar(self, rows: Rows) -> None:
        self.similar_inputs, self.similar_outputs = rows
        self._known = None

    def negative_log_density(self) -> Float[Tensor, ""]:
        """Negative logarithm of the marginal likelihood of the rows times the prior, per row and output.

        To it comes that of the rows of a similar material. The likelihood of the own rows takes the mean of that process for f,
        without its spread.
        """
        return torch.stack([self._loss(known) for known in self._posteriors()]).sum()

    def mean(self, inputs: Float[Tensor, "n f"]) -> Float[Tensor, "n o"]:
        """Mean of the outputs."""
        return torch.stack([self._mean(known, inputs.double()) for known in self._posteriors()]).sum(dim=0)

    def mean_and_std(self, inputs: Float[Tensor, "n f"]) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        """Mean and standard deviation of the outputs."""
        means, stds = zip(*(self._mean_and_std(known, inputs.double()) for known in self._posteriors()), strict=True)
        return torch.stack(means).sum(dim=0), torch.stack(stds).norm(dim=0)

    def without_own_block(self, size: int) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r o"]]:
        """Mean and standard deviation at every row, given the rows of other blocks.

        Blocks are `size` rows, one after another. What a similar material has at the inputs of a block is left out with it,
        since a new design has none.

        References:
            Rasmussen and Williams 2006, equations 5.12, for blocks.
        """
        *similar, own = self._posteriors()
        error, std = _leave_out(own, size)
        mean = self.outputs - error
        for known in similar:
            distance, nearest = torch.cdist(self.inputs, known.inputs).min(dim=1)
            same = (distance < _SAME_INPUTS).unsqueeze(1)
            error, unseen_std = (part[nearest] for part in _leave_out(known, size))
            mean = mean - torch.where(same, error, 0.0)
            std = torch.hypot(std, torch.where(same, unseen_std, self._mean_and_std(known, self.inputs)[1]))
        return mean, std

    @property
    def noise(self) -> Float[Tensor, ""]:
        """Variance of the noise in shares of that of the process."""
        return self.log_noise.exp() + _SMALLEST_NOISE

    def _loss(self, known: _Posterior) -> Float[Tensor, ""]:
        rows, features = known.inputs.shape
        prior = (self.log_lengths - _PRIOR_LENGTH - math.log(features) / 2).square().sum() / (2 * _PRIOR_WIDTH**2)
        return known.scale.log().mean() + (known.factor.diagonal().log().sum() + prior) / rows

    def _mean(self, known: _Posterior, inputs: Float[Tensor, "n f"]) -> Float[Tensor, "n o"]:
        return known.offset + self._correlation(inputs, known.inputs) @ known.weights

    def _mean_and_std(
        self, known: _Posterior, inputs: Float[Tensor, "n f"]
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        cross = self._correlation(inputs, known.inputs)
        explained = torch.linalg.solve_triangular(known.factor, cross.T, upper=False).square().sum(dim=0)
        share = (1.0 - explained).clamp_min(0.0) + self.noise
        return known.offset + cross @ known.weights, share.sqrt().unsqueeze(1) * known.scale

    def _correlation(self, first: Float[Tensor, "n f"], second: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
        lengths = self.log_lengths.exp()
        # of the squares, since the root has no slope at zero
        square = ((first / lengths).unsqueeze(1) - (second / lengths).unsqueeze(0)).square().sum(dim=2)
        if self.smooth:
            return (-square / 2).exp()
        distance = (5 * square + 1e-20).sqrt()
        return (1 + distance + distance.square() / 3) * (-distance).exp()

    def _posteriors(self) -> list[_Posterior]:
        """That of the rows of a similar material, if there are any, and that of the own rows; computed once where all rest."""
        if self._known is not None and not self.training:
            return self._known
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            found, outputs = [], self.outputs
            if len(self.similar_inputs):
                found.append(self._given(self.similar_inputs, self.similar_outputs))
                outputs = outputs - self._mean(found[0], self.inputs)
            found.append(self._given(self.inputs, outputs))
        if not self.training:
            self._known = found
        return found

    def _given(self, inputs: Float[Tensor, "r f"], outputs: Float[Tensor, "r o"]) -> _Posterior:
        identity = torch.eye(len(inputs), dtype=torch.float64, device=inputs.device)
        factor = torch.linalg.cholesky(self._correlation(inputs, inputs) + self.noise * identity)
        offset = outputs.mean(dim=0)
        error = torch.linalg.solve_triangular(factor, outputs - offset, upper=False)
        scale = error.square().mean(dim=0).clamp_min(1e-24).sqrt()  # the likeliest; the root has no slope at zero
        return _Posterior(inputs, factor, torch.linalg.solve_triangular(factor.T, error, upper=True), offset, scale)


def _leave_out(known: _Posterior, size: int) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r o"]]:
    """Errors and standard deviations of blocks of rows, each predicted from the other blocks."""
    precision = torch.cholesky_inverse(known.factor)
    errors, shares = [], []
    for block, weights in zip(torch.arange(len(known.inputs)).split(size), known.weights.split(size), strict=True):
        covariance = torch.linalg.inv(precision[block][:, block])
        errors.append(covariance @ weights)
        shares.append(covariance.diagonal())
    return torch.cat(errors), torch.cat(shares).clamp_min(0.0).sqrt().unsqueeze(1) * known.scale
