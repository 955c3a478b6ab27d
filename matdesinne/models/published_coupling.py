"""The invertible network of the paper's public code."""

from __future__ import annotations

__all__ = ["published_network"]

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from matdesinne.models.networks import perceptron

if TYPE_CHECKING:
    from FrEIA.framework import SequenceINN

_CLAMP = 2.0
_SPREAD = 0.1
"""Standard deviation of all first weights and biases."""


def published_network(dimension: int, condition: int, blocks: int, hidden: int, depth: int, last_first: int = 0) -> SequenceINN:
    r"""FrEIA's GLOW coupling blocks of the version that the paper used, each followed by a fixed permutation.

    That version splits 7 coordinates into 3 and 4 and scales by :math:`\exp(0.636\, c \arctan(s / c))`; FrEIA 0.2 splits into 4
    and 3 and scales by :math:`\exp(0.636\, c \arctan s)`. The permutation after block k
    is that of NumPy's generator with seed k.

    References:
        Fung et al. 2021, doi 10.1038/s41524-021-00670-x; its public repository jxzhangjhu/MatDesINNe, commit 2c7ab5e.

    Args:
        dimension: number of coordinates.
        condition: number of conditioning features, 0 for none.
        blocks: number of coupling blocks.
        hidden: width of the subnetworks.
        depth: number of hidden layers of the subnetworks.
        last_first: how many of the last outputs are moved to the front; the published INN gives the property last.
    """
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import FixedLinearTransform, GLOWCouplingBlock

    network = SequenceINN(dimension)
    for block in range(blocks):
        network.append(
            GLOWCouplingBlock,
            cond=0 if condition else None,
            cond_shape=(condition,) if condition else None,
            subnet_constructor=_subnet(hidden, depth),
            split_len=dimension // 2,
            clamp=_CLAMP,
            clamp_activation=_soft_clamp,
        )
        matrix = _permutation(dimension, block)
        network.append(FixedLinearTransform, M=matrix.roll(last_first, dims=0) if block == blocks - 1 else matrix)
    return network


def _soft_clamp(u: Tensor) -> Tensor:
    """What FrEIA multiplies by the clamp to give the log-scale."""
    return 0.636 * torch.atan(u / _CLAMP)


def _permutation(dimension: int, seed: int) -> Float[Tensor, "d d"]:
    return torch.eye(dimension)[np.random.RandomState(seed).permutation(dimension)]


def _subnet(hidden: int, depth: int) -> Callable[[int, int], nn.Module]:
    def make(inputs: int, outputs: int) -> nn.Module:
        subnet = perceptron(inputs, outputs, hidden, depth, activation=nn.ReLU)
        for parameter in subnet.parameters():
            nn.init.normal_(parameter, std=_SPREAD)
        return subnet

    return make
