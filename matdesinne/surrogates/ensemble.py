"""Several perceptrons evaluated as one batched matrix product."""

from __future__ import annotations

__all__ = ["EnsemblePerceptron"]

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class EnsemblePerceptron(nn.Module):
    """m independent perceptrons with SiLU activations; they differ by their initial weights.

    Args:
        members: m.
        inputs: width of the input.
        outputs: width of the output.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, members: int, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * depth + [outputs]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(widths):
            bound = 1 / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(torch.empty(members, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, fan_out).uniform_(-bound, bound)))

    @property
    def members(self) -> int:
        """Size of the ensemble."""
        return self.weights[0].shape[0]

    def forward(self, u: Float[Tensor, "n i"]) -> Float[Tensor, "m n o"]:
        """Outputs of every member for the same rows."""
        h = u.expand(self.members, *u.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                h = functional.silu(h)
        return h
