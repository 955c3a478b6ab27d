"""The plain and the invertible networks inside the models."""

from __future__ import annotations

__all__ = ["ResidualPerceptron", "affine_network", "perceptron"]

import itertools
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from FrEIA.framework import SequenceINN

_PAPER_SPREAD = 0.1
"""Standard deviation of all first weights and biases in the paper's code."""


def perceptron(
    inputs: int, outputs: int, hidden: int, depth: int, zero_last: bool = False, activation: type[nn.Module] = nn.SiLU
) -> nn.Sequential:
    """Fully connected network.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
        zero_last: start with an output of zero, so that a coupling block starts as the identity.
        activation: after each hidden layer.
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
    """Fully connected network with SiLU activations and a skip over each hidden layer after the first.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
    """

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


def affine_network(
    dimension: int, condition: int, blocks: int, hidden: int, depth: int, paper_network: bool = False, clamp: float = 2.0
) -> SequenceINN:
    """FrEIA's GLOW coupling blocks, each moves both halves, with a random rotation before each.

    The network of the paper's code has permutations for rotations, ReLU for SiLU, and first weights of a normal distribution;
    ours starts as a rotation.

    References:
        Kingma and Dhariwal, Glow, NeurIPS 2018, arXiv 1807.03039. Fung et al. 2021, doi 10.1038/s41524-021-00670-x.

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        paper_network: make that of the paper's code.
        clamp: bound on the log-scale of one block.
    """
    # here, because the import takes a second that a mixture network need not wait
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import FixedLinearTransform, GLOWCouplingBlock

    def subnet(inputs: int, outputs: int) -> nn.Module:
        if not paper_network:
            return perceptron(inputs, outputs, hidden, depth, zero_last=True)
        plain = perceptron(inputs, outputs, hidden, depth, activation=nn.ReLU)
        for parameter in plain.parameters():
            nn.init.normal_(parameter, std=_PAPER_SPREAD)
        return plain

    network = SequenceINN(dimension)
    conditioned = {"cond": 0, "cond_shape": (condition,)} if condition else {}
    for _ in range(blocks):
        mixing = torch.eye(dimension)[torch.randperm(dimension)] if paper_network else _rotation(dimension)
        network.append(FixedLinearTransform, M=mixing)
        network.append(GLOWCouplingBlock, **conditioned, subnet_constructor=subnet, clamp=clamp)
    return network


def _rotation(dimension: int) -> Float[Tensor, "d d"]:
    """A random rotation from torch's generator."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension))
    return orthogonal * triangular.diagonal().sign()
