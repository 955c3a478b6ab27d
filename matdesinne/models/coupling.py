"""Invertible networks out of FrEIA's blocks."""

from __future__ import annotations

__all__ = ["affine_network"]

from collections.abc import Callable

from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import nn

from matdesinne.models.networks import perceptron

def affine_network(dimension: int, condition: int, blocks: int, hidden: int, depth: int, clamp: float = 2.0) -> SequenceINN:
    """FrEIA's affine coupling blocks (RealNVP with global scaling and a random rotation between them).

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        clamp: bound on the log-scale of one block.
    """
    network = SequenceINN(dimension)
    for _ in range(blocks):
        network.append(
            AllInOneBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_subnet(hidden, depth),
            affine_clamping=clamp,
            permute_soft=dimension > 1,
        )
    return network


def _subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    return lambda inputs, outputs: perceptron(inputs, outputs, hidden, depth, zero_last=True)
