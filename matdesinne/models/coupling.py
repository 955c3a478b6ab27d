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


def affine_network(dimension: int, condition: int, blocks: int, hidden: int, depth: int, clamp: float = 2.0) -> SequenceINN:
    """FrEIA's GLOW coupling blocks, each moves both halves, with a random rotation before each.

    It starts as a rotation. `published_network` is that of the paper's code.

    References:
        Kingma and Dhariwal, Glow, NeurIPS 2018, arXiv 1807.03039.

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        clamp: bound on the log-scale of one block.
    """
    # here, because the import takes a second that a mixture network need not wait
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import FixedLinearTransform, GLOWCouplingBlock

    network = SequenceINN(dimension)
    for _ in range(blocks):
        network.append(FixedLinearTransform, M=_rotation(dimension))
        network.append(
            GLOWCouplingBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_subnet(hidden, depth),
            clamp=clamp,
        )
    return network


def _rotation(dimension: int) -> Float[Tensor, "d d"]:
    """A random rotation from torch's generator."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension))
    return orthogonal * triangular.diagonal().sign()


def _subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: perceptron(inputs, outputs, hidden, depth, zero_last=True)
