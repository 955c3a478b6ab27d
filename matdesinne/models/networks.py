"""The plain networks inside the models."""

from __future__ import annotations

__all__ = ["ResidualPerceptron", "perceptron"]

import itertools

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


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
