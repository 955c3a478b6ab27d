"""Muon for square weight matrices, single or one for each member of an ensemble, AdamW for all other parameters."""

from __future__ import annotations

__all__ = ["Muon"]

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_COEFFICIENTS, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton-Schulz iteration: it ends with singular values between 0.7 and 1.2 in few steps, not at 1."""


class Muon(torch.optim.AdamW):
    r"""Square matrices move by the orthogonal factor of their momentum, all other parameters by AdamW.

    An orthogonal matrix of n rows has entries of about :math:`n^{-1/2}`, so its step is the learning rate times
    :math:`n^{1/2}`: entries change by as much as AdamW's at most. The iteration runs in float32 on a CPU, where bfloat16 is
    slow without its arithmetic, and in bfloat16 elsewhere.

    References:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024, kellerjordan.github.io/posts/muon.
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, arXiv 1711.05101.

    Args:
        params: parameters of a network.
        lr: learning rate of both.
        betas: decay of AdamW's running means.
        weight_decay: decoupled decay of both.
        momentum: decay of the running mean of the gradients of matrices, with Nesterov's look ahead.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        parameters = list(params)
        square = [parameter for parameter in parameters if parameter.ndim >= 2 and len(set(parameter.shape[-2:])) == 1]
        others = [parameter for parameter in parameters if all(parameter is not matrix for matrix in square)]
        groups = [{"params": square, "orthogonal": True}, {"params": others, "orthogonal": False}]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the matrices, then let AdamW move the parameters that are left."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        matrices = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            if group["orthogonal"]
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for group, parameter, gradient in matrices:
            self._move(parameter, gradient, group["lr"], group["weight_decay"])
            parameter.grad = None  # AdamW passes over parameters without a gradient
        super().step()
        for _, parameter, gradient in matrices:
            parameter.grad = gradient
        return loss

    def _move(self, matrix: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[matrix]
        if not state:
            # AdamW expects a step of every state that it reads from a checkpoint
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(matrix))
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        direction = _orthogonalize(gradient.lerp(state["momentum"], self.momentum))
        step = rate * math.sqrt(matrix.shape[-1])
        matrix.mul_(1 - step * decay).add_(direction, alpha=-step)


def _orthogonalize(matrix: Float[Tensor, "*m n n"]) -> Float[Tensor, "*m n n"]:
    """Nearest orthogonal matrix, approximately."""
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.float32 if matrix.device.type == "cpu" else torch.bfloat16)
    x = (x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)).view(-1, *x.shape[-2:])
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.view_as(matrix).to(matrix.dtype)
