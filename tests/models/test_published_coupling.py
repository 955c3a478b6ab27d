"""The network of the paper's code: FrEIA's old coupling block, written out here again, and its fixed permutations."""

import math

import numpy as np
import pytest
import torch
from FrEIA.modules import FixedLinearTransform

from matdesinne.models.published_coupling import published_network

from ..toys import perturb

PERMUTATIONS = [[6, 2, 1, 3, 0, 5, 4], [6, 2, 1, 0, 4, 3, 5], [4, 1, 3, 2, 6, 5, 0]]
"""What NumPy's generator gives for seven coordinates and the seeds 0, 1 and 2."""


def network(condition: int = 0, dimension: int = 7, blocks: int = 3, last_first: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return published_network(dimension, condition, blocks, hidden=8, depth=1, last_first=last_first).double()


def inputs(condition: int, count: int = 20, dimension: int = 7):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return x, torch.randn(count, condition, generator=generator, dtype=torch.float64)


def old_block(x: torch.Tensor, c: torch.Tensor, subnet1, subnet2) -> torch.Tensor:
    """FrEIA's GLOW block at the time of the paper, for 7 coordinates: 3 of them first, log-scale 2 * 0.636 atan(s / 2)."""

    def scaled(values, output):
        s, t = output.chunk(2, dim=1)
        return values * (2 * 0.636 * torch.atan(s / 2)).exp() + t

    x1, x2 = x[:, :3], x[:, 3:]
    y1 = scaled(x1, subnet2(torch.cat([x2, c], dim=1)))
    return torch.cat([y1, scaled(x2, subnet1(torch.cat([y1, c], dim=1)))], dim=1)


@pytest.mark.parametrize("condition", [0, 1])
def test_forward_is_that_of_the_old_version(condition, close):
    made = network(condition)
    x, c = inputs(condition)
    expected = x
    for block, permutation in zip(list(made)[::2], PERMUTATIONS, strict=True):
        expected = old_block(expected, c, block.subnet1, block.subnet2)[:, permutation]
    close(made(x, c=[c] if condition else None)[0], expected)


@pytest.mark.parametrize("condition", [0, 1])
def test_inverse(condition, close):
    made = network(condition)
    perturb(made, 0.2)
    x, c = inputs(condition)
    known = [c] if condition else None
    z, forward = made(x, c=known)
    back, backward = made(z, c=known, rev=True)
    close(back, x, factor=1e5)
    close(forward + backward, torch.zeros(len(x)), factor=1e5)


def test_last_outputs_come_first(close):
    x, _ = inputs(0)
    close(network(last_first=1)(x)[0], network()(x)[0].roll(1, dims=1))


def test_permutations_leave_numpys_generator_alone():
    before = np.random.get_state()[1].copy()
    made = network()
    assert (np.random.get_state()[1] == before).all()
    found = [block.M.T.argmax(dim=1).tolist() for block in made if isinstance(block, FixedLinearTransform)]
    assert found == PERMUTATIONS


def test_first_weights_have_the_published_spread():
    made = published_network(6, 0, blocks=3, hidden=64, depth=1)
    drawn = torch.cat([parameter.flatten() for parameter in made.parameters() if parameter.requires_grad])
    assert math.isclose(drawn.std().item(), 0.1, rel_tol=0.1)
    assert abs(drawn.mean().item()) < 0.01
