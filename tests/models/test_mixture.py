import math

import pytest
import torch
from FrEIA.framework import SequenceINN

from matdesinne.models.mixture import (
    MixtureCouplingBlock,
    MixtureNetwork,
    _cdf,
    _log_density,
    _log_density_unit,
    _quantile,
    _unit,
)

from ..toys import perturb

DIMENSION, CONDITION = 3, 2
MODE = {"truncate": False, "bounded": True}
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def network(size: float = 0.1, dtype: torch.dtype = torch.float64, dimension: int = DIMENSION):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MixtureNetwork(dimension, CONDITION, hidden=(8, 16), depth=2, components=5).to(dtype)
    for block in made:
        block.begin(torch.tensor([MODE["bounded"] or i % 2 == 1 for i in range(dimension)]))
    perturb(made, size)
    return made


@pytest.fixture(params=["bounded", "bounded, truncated", "unbounded", "unbounded, truncated"])
def mode(request):
    MODE.update(truncate="truncated" in request.param, bounded="unbounded" not in request.param)
    yield
    MODE.update(truncate=False, bounded=True)


def transformed(made, x, c, **settings):
    """What a network, or a block of one, gives in this mode."""
    condition = c if isinstance(c, list) else [c]
    return made(x, c=condition, truncate=MODE["truncate"], **settings)


def block_density(block, x, c):
    """Log-density of the block's coordinate in this mode."""
    bounded = block.bounded[block.position]
    return _log_density(x[:, block.position], bounded, block._mixture(x, c, MODE["truncate"]))


def inputs(count: int = 40, dtype: torch.dtype = torch.float64, dimension: int = DIMENSION):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, dimension, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randn(count, CONDITION, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 7])
def test_inverse(dimension, close):
    made = network(dimension=dimension)
    x, c = inputs(dimension=dimension)
    z = transformed(made, x, c)[0]
    assert not torch.allclose(z, x, atol=1e-2)
    # the thousandth of a component that has long tails is nearly flat
    close(transformed(made, z, c, rev=True)[0], x, factor=1e7 if MODE["truncate"] else 1e4)


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
def test_inverse_of_the_inverse(close):
    made = network()
    z, c = inputs()
    close(transformed(made, transformed(made, z, c, rev=True)[0], c)[0], z, factor=1e4)


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
def test_log_det_is_the_jacobian(close):
    made = network()
    x, c = inputs(8)
    log_det = transformed(made, x, c)[1]
    for row in range(len(x)):

        def single(value, row=row):
            return transformed(made, value.unsqueeze(0), c[row : row + 1])[0].squeeze(0)

        jacobian = torch.autograd.functional.jacobian(single, x[row])
        close(log_det[row], torch.linalg.slogdet(jacobian).logabsdet, factor=1e3)


@pytest.mark.usefixtures("mode")
def test_jacobian_is_triangular():
    """Output j depends on the inputs up to j only: the density is a product of conditionals."""
    made = network()
    x, c = inputs(1)
    jacobian = torch.autograd.functional.jacobian(lambda value: transformed(made, value, c)[0].sum(0), x)[:, 0]
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian.tril()[torch.tril_indices(DIMENSION, DIMENSION).unbind()] != 0).all()


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
def test_log_dets_cancel(close):
    made = network()
    x, c = inputs()
    z, forward = transformed(made, x, c)
    close(forward + transformed(made, z, c, rev=True)[1], torch.zeros(len(x)), factor=1e4)


def test_no_log_det_on_request():
    made = network()
    x, c = inputs()
    assert torch.equal(transformed(made, x, c, jac=False)[0], transformed(made, x, c)[0])
    assert (transformed(made, x, c, jac=False)[1] == 0).all()


@pytest.mark.usefixtures("mode")
def test_densities_add_up(close):
    made = network()
    x, c = inputs()
    z, log_det = transformed(made, x, c)
    total = torch.stack([block_density(block, x, c) for block in made]).sum(0)
    close(total, log_det - 0.5 * z.square().sum(1) - DIMENSION * HALF_LOG_TAU, factor=1e3)


@pytest.mark.parametrize("mode", ["bounded", "unbounded"], indirect=True)
@pytest.mark.usefixtures("mode")
def test_density_of_the_network_is_not_truncated(close):
    made = network()
    x, c = inputs()
    z, log_det = made(x, c=[c], truncate=False)
    total = made.log_density(x, c)
    close(total, log_det - 0.5 * z.square().sum(1) - DIMENSION * HALF_LOG_TAU, factor=1e3)
    close(total, torch.stack([block.log_density(x, c) for block in made]).sum(0))


def test_truncation_is_off_unless_asked_for():
    made = network()
    x, c = inputs()
    assert torch.equal(made(x, c=[c])[0], made(x, c=[c], truncate=False)[0])
    assert not torch.equal(made(x, c=[c])[0], made(x, c=[c], truncate=True)[0])


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
@pytest.mark.parametrize("size", [0.0, 0.1, 0.3])
def test_density_of_a_block_integrates_to_one(size, close):
    made = network(size)
    unit = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for block in made:
        others, c = (rows[:1].expand(len(unit), -1).clone() for rows in inputs())
        bounded = bool(block.bounded[block.position])
        others[:, block.position] = u = torch.special.ndtri(unit) if bounded else 12 * unit - 6
        # per unit of v, on [0, 1]
        log_slope = -0.5 * u.square() - HALF_LOG_TAU if bounded else -math.log(12)
        density = (block_density(block, others, c) - log_slope).exp()
        close(density.mean(), 1.0, factor=1e6)


def test_block_moves_its_coordinate_only():
    x, c = inputs()
    for block in network():
        (z,), _ = transformed(block, [x], c)
        moved = (z != x).any(0)
        assert moved.tolist() == [j == block.position for j in range(DIMENSION)]


def test_block_does_not_see_later_coordinates():
    x, c = inputs()
    for block in network():
        changed = x.clone()
        changed[:, block.position + 1 :] += 1
        assert torch.equal(
            transformed(block, [changed], c)[0][0][:, block.position], transformed(block, [x], c)[0][0][:, block.position]
        )


@pytest.mark.usefixtures("mode")
def test_condition_matters():
    x, c = inputs()
    for block in network():
        assert not torch.allclose(transformed(block, [x], c)[0][0], transformed(block, [x], c + 1)[0][0])


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
@pytest.mark.parametrize("rev", [False, True], ids=["forward", "inverse"])
def test_batch_equals_its_rows(rev, close):
    made = network()
    x, c = inputs(8)
    together = transformed(made, x, c, rev=rev)
    apart = [transformed(made, x[i : i + 1], c[i : i + 1], rev=rev) for i in range(len(x))]
    close(torch.cat([z for z, _ in apart]), together[0], factor=10)
    close(torch.cat([log_det for _, log_det in apart]), together[1], factor=10)


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
@pytest.mark.parametrize("size", [0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_inverse_converges_for_every_row(dtype, size):
    """The distribution function at what the search found is the level that was asked for, also on flat stretches."""
    x, c = inputs(5000, dtype)
    level = torch.rand(5000, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for block in network(size, dtype):
        with torch.no_grad():
            mixture = block._mixture(x, c, MODE["truncate"])
            unit = _quantile(level, mixture)
            slope = _log_density_unit(unit, mixture).exp()
            # a rounding of the coordinate moves the level by the slope
            error = (_cdf(unit, mixture) - level).abs() / (1 + slope)
        assert ((unit >= 0) & (unit <= 1)).all()
        assert error.max() < 200 * torch.finfo(dtype).eps


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
@pytest.mark.parametrize("size", [0.1, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_distribution_function_goes_from_zero_to_one(dtype, size):
    """Also with components that are very narrow, very wide, or far outside the box."""
    x, c = inputs(2000, dtype)
    for block in network(size, dtype):
        with torch.no_grad():
            mixture = block._mixture(x, c, MODE["truncate"])
            ends = [_cdf(torch.full((2000,), end, dtype=dtype), mixture) for end in (0.0, 1.0)]
        assert ends[0].max() < 1e3 * torch.finfo(dtype).eps
        assert ends[1].min() > 1 - 1e3 * torch.finfo(dtype).eps


@pytest.mark.usefixtures("mode")
@pytest.mark.slow
def test_far_tails_are_finite():
    made = network(0.3, torch.float32)
    x, c = inputs(40, torch.float32)
    x = torch.tensor([-40.0, -8.0, 8.0, 40.0]).repeat_interleave(10).unsqueeze(1).expand_as(x)
    for rev in (False, True):
        z, log_det = transformed(made, x, c, rev=rev)
        assert z.isfinite().all() and log_det.isfinite().all()


@pytest.mark.parametrize("mode", ["bounded", "unbounded"], indirect=True)
@pytest.mark.usefixtures("mode")
def test_gradients_are_finite():
    made = network(0.5, torch.float32)
    x, c = inputs(200, torch.float32)
    x.requires_grad_()
    made.log_density(x, c).sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() and (parameter.grad != 0).any() for parameter in made.parameters())


@pytest.mark.slow
def test_blocks_fit_into_a_network_of_freia(close):
    """The same interface, so they can be mixed with FrEIA's own."""
    made = network()
    theirs = SequenceINN(DIMENSION)
    for block in made:
        settings = {"position": block.position, "hidden": block.subnet.first.out_features, "depth": 2, "components": 5}
        theirs.append(MixtureCouplingBlock, cond=0, cond_shape=(CONDITION,), **settings)
    theirs.to(torch.float64).load_state_dict(made.state_dict())
    x, c = inputs()
    for rev in (False, True):
        for mine, other in zip(made(x, c=[c], rev=rev), theirs(x, c=[c], rev=rev), strict=True):
            close(mine, other)


def test_one_block_for_each_coordinate():
    made = MixtureNetwork(4, 2, hidden=(10, 40), depth=2, components=3)
    assert [block.position for block in made] == [3, 2, 1, 0]
    assert all(isinstance(block, MixtureCouplingBlock) for block in made)
    assert [block.subnet.first.out_features for block in made] == [40, 30, 20, 10]


@pytest.mark.usefixtures("mode")
def test_narrow_components_are_sharp():
    """A shell of a thousandth of the box on two branches at once."""
    block = network(0.0)[-1]
    with torch.no_grad():
        block.subnet.last.weight.zero_()
        weight, mean, width = block.subnet.last.bias.chunk(3)
        weight.copy_(torch.tensor([0.0, -50.0, -50.0, -50.0, 0.0]))
        mean.copy_(torch.atanh((torch.tensor([0.25, 0.5, 0.5, 0.5, 0.75], dtype=torch.float64) - 0.5) / 0.6))
        width.fill_(-7.0)
    z, c = inputs(2000)
    unit = _unit(transformed(block, [z], c, rev=True)[0][0][:, 0], block.bounded[0])
    distance = torch.minimum((unit - 0.25).abs(), (unit - 0.75).abs())
    assert distance.max() < 0.02 and distance.mean() < 0.004
    assert (unit < 0.5).double().mean() == pytest.approx(0.5, abs=0.05)
