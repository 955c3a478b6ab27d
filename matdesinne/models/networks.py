"""The plain networks inside the models."""

from __future__ import annotations

__all__ = ["perceptron"]

import itertools

from torch import nn


def perceptron(inputs: int, outputs: int, hidden: int, depth: int, zero_last: bool = False) -> nn.Sequential:
    """Fully connected network with SiLU activations.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        hidden: width of each hidden layer.
        depth: number of hidden layers.
        zero_last: start with an output of zero, so that a coupling block starts as the identity.
    """
    widths = [inputs] + [hidden] * depth
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.SiLU()]
    last = nn.Linear(widths[-1], outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
