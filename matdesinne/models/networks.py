"""The plain and the invertible networks inside models and surrogates."""

from __future__ import annotations

__all__ = ["EnsemblePerceptron", "ResidualPerceptron", "affine_network", "perceptron"]

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from FrEIA.framework import SequenceINN


def perceptron(
    inputs: int, outputs: int, hidden: int, depth: int, zero_last: bool = False, activation: type[nn.Module] = nn.SiLU
) -> nn.Sequential:
    """Fully connected network of `depth` hidden layers of width `hidden`, an activation after each.

    With `zero_last` its first output is zero, so that a coupling block starts as the identity.
    """
    widths = [inputs] + [hidden] * depth
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), activation()]
    last = nn.Linear(widths[-1], outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class ResidualPerceptron(nn.Module):
    """Fully connected network with SiLU activations and a skip over each hidden layer after the first."""

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 1))
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Evaluate the network."""
        h = functional.silu(self.first(x))
        for layer in self.inner:
            h = h + functional.silu(layer(h))
        return self.last(h)


class EnsemblePerceptron(nn.Module):
    """`members` independent perceptrons with SiLU activations; they differ by their initial weights."""

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
        self, arguments: Sequence[Float[Tensor, "n h"]], columns: Int[Tensor, "m n a"], factors: Float[Tensor, "m n a"]
    ) -> Float[Tensor, "n i"]:
        """Gradient with respect to the input of a sum of few outputs of each row: no row pays for the other outputs.

        The sum is over the `columns` of each member's outputs times `factors`, `arguments` are those of `evaluate`.
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


def affine_network(dimension: int, condition: int, blocks: int, hidden: int, depth: int, clamp: float = 2.0) -> SequenceINN:
    """FrEIA's GLOW coupling blocks, each moves both halves, with a random rotation before each.

    It starts as a rotation. `condition` is the number of conditioning features, and `clamp` bounds the log-scale of a block.
    `published_network` is that of the paper's code.

    References:
        Kingma and Dhariwal, Glow, NeurIPS 2018, arXiv 1807.03039.
    """
    # here, because the import takes a second that a mixture network need not wait
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import FixedLinearTransform, GLOWCouplingBlock

    def subnet(inputs: int, outputs: int) -> nn.Module:
        return perceptron(inputs, outputs, hidden, depth, zero_last=True)

    network = SequenceINN(dimension)
    conditioned = {"cond": 0, "cond_shape": (condition,)} if condition else {}
    for _ in range(blocks):
        network.append(FixedLinearTransform, M=_rotation(dimension))
        network.append(GLOWCouplingBlock, **conditioned, subnet_constructor=subnet, clamp=clamp)
    return network


def _rotation(dimension: int) -> Float[Tensor, "d d"]:
    """A random rotation from torch's generator."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension))
    return orthogonal * triangular.diagonal().sign()
