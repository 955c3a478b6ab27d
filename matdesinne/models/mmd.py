"""Maximum mean discrepancy with multiscale inverse multiquadric kernels."""

from __future__ import annotations

__all__ = ["Kernels", "kernel_mmd", "mmd"]

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SCALES = (0.05, 0.2, 0.9)
Kernels = Sequence[tuple[float, float]]
"""Pairs of a kernel's squared width and its power, see `kernel_mmd`."""
_ROWS = 128
"""Rows of one sample whose kernels with the other are formed at once: few enough for a cache."""


def mmd(
    p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], scales: Sequence[float] = SCALES, unbiased: bool = False
) -> Float[Tensor, ""]:
    r"""Squared MMD between two samples, with :math:`k(a, b) = \sum_h 1 / (1 + \|a - b\|^2 / h^2)` over the scales h.

    .. math:: MMD^2 = E k(p, p') + E k(q, q') - 2 E k(p, q)

    The unbiased estimate leaves each point's kernel with itself out, and can be negative.

    References:
        Gretton et al., A kernel two-sample test, JMLR 13, 723 (2012); the kernels: Ardizzone et al., Analyzing inverse
        problems with invertible neural networks, ICLR 2019, arXiv 1808.04730.
    """
    if unbiased:
        within = _off_diagonal_mean(_kernel(p, p, scales)) + _off_diagonal_mean(_kernel(q, q, scales))
        return within - 2 * _kernel(p, q, scales).mean()
    return kernel_mmd(p, q, [(scale**2, 1.0) for scale in scales])


def kernel_mmd(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], kernels: Kernels) -> Float[Tensor, ""]:
    r"""Squared MMD between two samples, with :math:`k(a, b) = \sum_{(C, s)} C^s ((C + \|a - b\|^2) / s)^{-s}`.

    These are the kernels of the paper's code; that of width h in `mmd` is :math:`(h^2, 1)`.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository, commit 2c7ab5e.

    Args:
        p: one sample, shape [n, d].
        q: another sample, shape [m, d].
        kernels: pairs (C, s), C in the squared unit of the samples.
    """
    pairs = tuple((float(size), float(power)) for size, power in kernels)
    within_p, within_q, between = (_KernelMean.apply(a, b, pairs) for a, b in ((p, p), (q, q), (p, q)))
    return within_p + within_q - 2 * between


class _KernelMean(torch.autograd.Function):
    r"""Mean of all kernels of two samples; the gradients are summed on the way, so that no [n, m] array is kept for them.

    With :math:`w_{ij} = 2 k'(\|a_i - b_j\|^2)` the gradient of their sum is :math:`\sum_j w_{ij} (a_i - b_j)`.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], kernels: Kernels
    ) -> Float[Tensor, ""]:
        needs_a, needs_b, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        slope_a, slope_b, total = torch.zeros_like(a), torch.zeros_like(b), a.new_zeros(())
        for rows, slope in zip(a.split(_ROWS), slope_a.split(_ROWS), strict=True):
            squared = _squared_distances(rows, b)
            weight = torch.zeros_like(squared)
            for size, power in kernels:
                inverse = squared.add(size).reciprocal_()
                kernel = inverse if power == 1 else inverse.pow(power)
                height = (size * power) ** power
                total += height * kernel.sum()
                if needs_a or needs_b:
                    weight.addcmul_(kernel, inverse, value=-2 * power * height)
            if needs_a:
                slope.copy_(weight.sum(dim=1, keepdim=True) * rows - weight @ b)
            if needs_b:
                slope_b += weight.sum(dim=0).unsqueeze(1) * b - weight.T @ rows
        count = a.shape[0] * b.shape[0]
        ctx.save_for_backward(slope_a / count, slope_b / count)
        return total / count

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"], None]:
        slope_a, slope_b = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * slope_a, grad * slope_b, None


def _squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """By a matrix product: no [n, m, d] array is formed."""
    return torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2).clamp_min_(0)


def _kernel(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], scales: Sequence[float]) -> Float[Tensor, "n m"]:
    squared = _squared_distances(a, b)
    total = torch.zeros_like(squared)
    for scale in scales:
        total = total + (1 + squared / scale**2).reciprocal()
    return total


def _off_diagonal_mean(kernel: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    n = kernel.shape[0]
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
