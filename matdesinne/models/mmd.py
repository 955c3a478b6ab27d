"""Maximum mean discrepancy with multiscale inverse multiquadric kernels."""

from __future__ import annotations

__all__ = ["mmd"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SCALES = (0.05, 0.2, 0.9)


def mmd(
    p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], scales: Sequence[float] = SCALES, unbiased: bool = False
) -> Float[Tensor, ""]:
    r"""Squared MMD between two samples, with :math:`k(a, b) = \sum_h 1 / (1 + \|a - b\|^2 / h^2)`.

    .. math:: MMD^2 = E k(p, p') + E k(q, q') - 2 E k(p, q)

    References:
        Gretton et al., A kernel two-sample test, JMLR 13, 723 (2012); the kernels: Ardizzone et al., Analyzing inverse
        problems with invertible neural networks, ICLR 2019, arXiv 1808.04730.

    Args:
        p: one sample, shape [n, d].
        q: another sample, shape [m, d].
        scales: kernel widths h, in the unit of the samples.
        unbiased: leave each point's kernel with itself out.

    Returns:
        A scalar; the unbiased estimate can be negative.
    """
    within_p, within_q, between = (_kernel(p, p, scales), _kernel(q, q, scales), _kernel(p, q, scales))
    if unbiased:
        return _off_diagonal_mean(within_p) + _off_diagonal_mean(within_q) - 2 * between.mean()
    return within_p.mean() + within_q.mean() - 2 * between.mean()


def _kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], scales: Sequence[float]) -> Float[Tensor, "n m"]:
    # |a - b|^2 by a matrix product: no [n, m, d] array is formed
    squared = torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2).clamp_min(0)
    total = torch.zeros_like(squared)
    for scale in scales:
        total = total + (1 + squared / scale**2).reciprocal()
    return total


def _off_diagonal_mean(kernel: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    n = kernel.shape[0]
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
