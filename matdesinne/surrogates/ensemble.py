"""Several perceptrons evaluated as one batched matrix product."""

from __future__ import annotations

__all__ = ["EnsemblePerceptron"]

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
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
        if not torch.is_grad_enabled():
            return self._outputs(u, None)
        h = u.expand(self.members, *u.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                h = functional.silu(h)
        return h

    @torch.no_grad()
    def evaluate(self, u: Float[Tensor, "n i"]) -> tuple[Float[Tensor, "m n o"], list[Float[Tensor, "n h"]]]:
        """Outputs, and what `pull_back` needs of the way to them: the arguments of all activations."""
        arguments: list[Tensor] = []
        return self._outputs(u, arguments), arguments

    @torch.no_grad()
    def pull_back(
        self,
        arguments: Sequence[Float[Tensor, "n h"]],
        columns: Int[Tensor, "m n a"],
        factors: Float[Tensor, "m n a"],
    ) -> Float[Tensor, "n i"]:
        """Gradient with respect to the input of a sum of few outputs of each row: no row pays for the other outputs.

        Args:
            arguments: of `evaluate` at these rows.
            columns: the outputs in the sum, for each member.
            factors: their factors.
        """
        slopes, depth = [], len(self.weights) - 1
        for member in range(self.members):
            table = self.weights[-1][member].T.contiguous()
            slope = functional.embedding_bag(columns[member], table, per_sample_weights=factors[member], mode="sum")
            for layer in reversed(range(depth)):
                slope = torch.ops.aten.silu_backward(slope, arguments[member * depth + layer]) @ self.weights[layer][member].T
            slopes.append(slope)
        return torch.stack(slopes).sum(dim=0)

    def _outputs(self, u: Float[Tensor, "n i"], arguments: list[Tensor] | None) -> Float[Tensor, "m n o"]:
        """One member after the other: what lies between its layers stays in the cache; keep the activations' arguments."""
        outputs = u.new_empty(self.members, u.shape[0], self.weights[-1].shape[2])
        for member in range(self.members):
            h = u
            for weight, bias in zip(list(self.weights)[:-1], self.biases, strict=False):
                h = torch.addmm(bias[member, 0], h, weight[member])
                if arguments is not None:
                    arguments.append(h)
                h = functional.silu(h, inplace=arguments is None)
            torch.addmm(self.biases[-1][member, 0], h, self.weights[-1][member], out=outputs[member])
        return outputs
