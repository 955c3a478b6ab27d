import numpy as np
import pytest
import torch
from FrEIA.modules import FixedLinearTransform

from matdesinne.models.networks import affine_network

from ..toys import perturb

ROTATION = 1e5
"""The rotations are drawn in single precision: their determinant is 1 to 1e-6 only."""


def network(condition: int, dimension: int = 3, size: float = 0.2, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = affine_network(dimension, condition, blocks=3, hidden=8, depth=1).double()
    perturb(made, size)
    return made


def inputs(condition: int, count: int = 40, dimension: int = 3):
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return x, [torch.randn(count, condition, generator=generator, dtype=torch.float64)] if condition else []


def rotations(made) -> list[torch.Tensor]:
    return [block.M.T for block in made if isinstance(block, FixedLinearTransform)]


@pytest.mark.parametrize("condition", [0, 2])
def test_inverse(condition, close):
    made = network(condition)
    x, c = inputs(condition)
    z = made(x, c=c or None)[0]
    assert not torch.allclose(z, x, atol=1e-2)
    close(made(z, c=c or None, rev=True)[0], x, factor=ROTATION)


@pytest.mark.parametrize("condition", [0, 2])
@pytest.mark.parametrize("rev", [False, True], ids=["forward", "inverse"])
def test_log_det_is_the_jacobian(condition, rev, close):
    made = network(condition)
    x, c = inputs(condition, 6)
    log_det = made(x, c=c or None, rev=rev)[1]
    for row in range(len(x)):
        known = [entry[row : row + 1] for entry in c] or None

        def single(value, known=known):
            return made(value.unsqueeze(0), c=known, rev=rev)[0].squeeze(0)

        jacobian = torch.autograd.functional.jacobian(single, x[row])
        close(log_det[row], torch.linalg.slogdet(jacobian).logabsdet, factor=ROTATION)


def test_log_dets_cancel(close):
    made = network(2)
    x, c = inputs(2)
    z, forward = made(x, c=c)
    close(forward + made(z, c=c, rev=True)[1], torch.zeros(len(x)), factor=1e3)


def test_condition_matters():
    made = network(2)
    x, (c,) = inputs(2)
    assert not torch.allclose(made(x, c=[c])[0], made(x, c=[c + 1])[0])


def test_batch_equals_its_rows(close):
    made = network(2)
    x, (c,) = inputs(2)
    together = made(x, c=[c])[0]
    apart = torch.cat([made(x[i : i + 1], c=[c[i : i + 1]])[0] for i in range(len(x))])
    close(apart, together)


def test_every_input_moves_every_output():
    made = network(2)
    x, c = inputs(2, 1)
    jacobian = torch.autograd.functional.jacobian(lambda value: made(value, c=c)[0].sum(0), x)[:, 0]
    assert (jacobian.abs() > 1e-3).all()


@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_fresh_network_is_a_rotation(dimension, close):
    made = affine_network(dimension, 2, blocks=3, hidden=8, depth=1).double()
    x, c = inputs(2, dimension=dimension)
    z, log_det = made(x, c=c)
    close(z.norm(dim=1), x.norm(dim=1), factor=ROTATION)
    close(log_det, torch.zeros_like(log_det), factor=ROTATION)


def test_rotations_are_orthogonal(close):
    for rotation in rotations(affine_network(5, 0, blocks=3, hidden=8, depth=1)):
        close(rotation @ rotation.T, torch.eye(5), factor=10)


def test_rotations_come_from_torch():
    state = np.random.get_state()[1].copy()
    made = [rotations(network(0, seed=seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(made[0], made[1], strict=True))
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(made[0], made[2], strict=True))
    assert (np.random.get_state()[1] == state).all()


def test_rotations_are_saved_and_not_trained():
    made, other = network(0, seed=0), network(0, seed=1)
    other.load_state_dict(made.state_dict())
    x, _ = inputs(0)
    assert torch.equal(other(x)[0], made(x)[0])
    trained = {id(parameter) for parameter in made.parameters() if parameter.requires_grad}
    assert not any(id(block.M) in trained for block in made if isinstance(block, FixedLinearTransform))
