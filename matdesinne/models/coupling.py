"""Invertible networks out of FrEIA's blocks."""

from __future__ import annotations

__all__ = ["affine_network"]

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.models.networks import perceptron

if TYPE_CHECKING:
    from FrEIA.framework import SequenceINN

_PAPER_SPREAD = 0.1
"""Standard deviation of all first weights and biases in the paper's code."""


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

    network = SequenceINN(dimension)
    for _ in range(blocks):
        network.append(FixedLinearTransform, M=_permutation(dimension) if paper_network else _rotation(dimension))
        network.append(
            GLOWCouplingBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_paper_subnet(hidden, depth) if paper_network else _subnet(hidden, depth),
            clamp=clamp,
        )
    return network


def _permutation(dimension: int) -> Float[Tensor, "d d"]:
    """The matrix of a random permutation from torch's generator."""
    return torch.eye(dimension)[torch.randperm(dimension)]


def _rotation(dimension: int) -> Float[Tensor, "d d"]:
    """A random rotation from torch's generator."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension))
    return orthogonal * triangular.diagonal().sign()


def _subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: perceptron(inputs, outputs, hidden, depth, zero_last=True)


def _paper_subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    def make(inputs: int, outputs: int) -> nn.Module:
        subnet = perceptron(inputs, outputs, hidden, depth, activation=nn.ReLU)
        for parameter in subnet.parameters():
            nn.init.normal_(parameter, std=_PAPER_SPREAD)
        return subnet

    return make
