"""Simulators against their stated moments and likelihoods, and exact posteriors against the likelihood."""

import math

import pytest
import torch
from scipy.stats import kstest, multivariate_normal

from matdesinne.errors import EmptyResultError
from matdesinne.oracles.simulators import SLCP, GaussianMixture, Simulator, TwoMoons

TASKS = {"two_moons": TwoMoons(), "gaussian_mixture": GaussianMixture(), "slcp": SLCP()}
tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)

SHAPES = {"two_moons": (2, 2), "gaussian_mixture": (2, 2), "slcp": (5, 8)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TASKS)
def test_shapes(name):
    task, (dx, dy) = TASKS[name], SHAPES[name]
    x = task.sample_prior(7, seeded())
    y = task.simulate(x, seeded())
    posterior = task.sample_posterior(y[0], 5, seeded())
    assert (x.shape, y.shape, posterior.shape) == ((7, dx), (7, dy), (5, dx))
    assert task.log_likelihood(x, y[0]).shape == (7,)
    assert x.dtype == y.dtype == posterior.dtype == torch.float32


@tasks
def test_prior_is_uniform(task):
    x = task.sample_prior(20_000, seeded()) / task.half_width
    assert x.abs().max() <= 1
    assert x.mean(dim=0).abs().max() < 0.02
    torch.testing.assert_close(x.var(dim=0), torch.full((task.dimension,), 1 / 3), rtol=0.03, atol=0)


def test_two_moons_is_a_crescent():
    """Its radius, and its centre of mass: 2 r / pi along the opening."""
    x = torch.tensor([[0.3, -0.5]])
    y = TwoMoons().simulate(x.expand(20_000, -1), seeded()) - torch.tensor([0.25 - 0.2 / math.sqrt(2), -0.8 / math.sqrt(2)])
    radius = y.norm(dim=1)
    assert radius.mean().item() == pytest.approx(0.1, abs=3e-4)
    assert radius.std().item() == pytest.approx(0.01, rel=0.03)
    assert y[:, 0].min() > 0
    assert y.mean(dim=0).tolist() == pytest.approx([0.2 / math.pi, 0.0], abs=2e-3)


def test_gaussian_mixture_has_the_moments_of_two_gaussians():
    x = torch.tensor([[3.0, -7.0]])
    shift = GaussianMixture().simulate(x.expand(40_000, -1), seeded()) - x
    assert shift.mean(dim=0).abs().max() < 0.02
    assert shift.var(dim=0).tolist() == pytest.approx([0.505, 0.505], rel=0.04)
    assert shift.pow(4).mean(dim=0).tolist() == pytest.approx([1.5, 1.5], rel=0.1)  # 3 (1 + 1e-4) / 2


def test_slcp_has_the_stated_mean_and_covariance():
    x = torch.tensor([[0.7, -2.9, -1.0, 0.9, 0.6]])
    y = SLCP().simulate(x.expand(20_000, -1), seeded()).reshape(-1, 2).double()
    s1, s2, correlation = 1.0, 0.81, math.tanh(0.6)
    assert y.mean(dim=0).tolist() == pytest.approx([0.7, -2.9], abs=0.02)
    assert y.T.cov().flatten().tolist() == pytest.approx([s1**2, correlation * s1 * s2, correlation * s1 * s2, s2**2], rel=0.03)


def test_slcp_likelihood_is_that_of_four_gaussian_points():
    x = SLCP().sample_prior(5, seeded()).double()
    y = SLCP().simulate(x, seeded(1))[0]
    for row, found in zip(x, SLCP().log_likelihood(x, y), strict=True):
        s1, s2, correlation = row[2] ** 2, row[3] ** 2, row[4].tanh()
        covariance = [[s1**2, correlation * s1 * s2], [correlation * s1 * s2, s2**2]]
        expected = multivariate_normal(row[:2].numpy(), covariance).logpdf(y.reshape(4, 2).numpy()).sum()
        assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("task", "edge"), [(TwoMoons(), 0.15), (GaussianMixture(), 6.0)], ids=["two_moons", "gaussian_mixture"]
)
def test_likelihood_integrates_to_one_over_the_data(task, edge):
    """By y on a grid about the simulator's mean; x moves the data without changing their distribution."""
    axis = torch.linspace(-edge, edge, 601, dtype=torch.float64)
    shift = torch.cartesian_prod(axis, axis)
    x = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    centre = torch.tensor([0.3, 0.0], dtype=torch.float64) if isinstance(task, TwoMoons) else torch.zeros(2).double()
    density = torch.func.vmap(lambda y: task.log_likelihood(x, y)[0])(shift + centre).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("task", [TwoMoons(), GaussianMixture()], ids=["two_moons", "gaussian_mixture"])
def test_posterior_has_the_mass_of_the_likelihood(task):
    """In each cell of a coarse grid, against the likelihood on a fine one; an observation near the edge of the box."""
    x = torch.tensor([[0.95, -0.3]]) * task.half_width
    y = task.simulate(x, seeded())[0]
    samples = task.sample_posterior(y, 40_000, seeded(1)) / task.half_width
    middle = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    grid = torch.cartesian_prod(middle, middle)
    weight = task.log_likelihood(task.half_width * grid, y.double()).exp().reshape(10, 200, 10, 200).sum(dim=(1, 3))
    cell = ((samples + 1) * 5).long().clamp(0, 9)
    found = torch.bincount(10 * cell[:, 0] + cell[:, 1], minlength=100).reshape(10, 10) / len(samples)
    assert (found - weight / weight.sum()).abs().max() < 0.012
    assert (found > 0.05).sum() >= 2


def metropolis(task: Simulator, x: torch.Tensor, y: torch.Tensor, steps: int, size: float) -> torch.Tensor:
    """Each design moves by random steps that leave the posterior unchanged."""
    generator, current = seeded(2), task.log_likelihood(x, y)
    for _ in range(steps):
        moved = x + size * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        proposed = task.log_likelihood(moved, y).masked_fill((moved.abs() > task.half_width).any(dim=1), -torch.inf)
        taken = torch.rand(len(x), generator=generator).log() < proposed - current
        x, current = torch.where(taken.unsqueeze(1), moved, x), torch.where(taken, proposed, current)
    return x


@pytest.mark.parametrize("seed", [0, 1])
def test_slcp_posterior_is_left_unchanged_by_metropolis_steps(seed):
    task = SLCP()
    y = task.simulate(torch.tensor([[0.7, -2.9, -1.0, -0.9, 0.6]]), seeded(seed))[0].double()
    before = task.sample_posterior(y, 4000, seeded(seed)).double()
    after = metropolis(task, before, y, steps=200, size=0.25)
    assert ((after - before).abs().amax(dim=1) > 0.1).double().mean() > 0.8
    for features in (lambda x: x, lambda x: x.square(), lambda x: x[:, 2:3].abs() * x[:, 4:]):
        first, second = features(before), features(after)
        error = (first.var(dim=0) + second.var(dim=0)).div(4000).sqrt()
        assert ((first.mean(dim=0) - second.mean(dim=0)).abs() < 4.5 * error).all()


@pytest.mark.slow
@tasks
def test_posterior_over_the_prior_predictive_is_the_prior(task):
    """A design of the posterior of simulated data is distributed as the designs that they were simulated for."""
    x = task.sample_prior(400, seeded())
    y = task.simulate(x, seeded(1))
    drawn = torch.cat([task.sample_posterior(row, 1, seeded(i)) for i, row in enumerate(y)]) / task.half_width
    assert min(kstest(column.numpy(), "uniform", args=(-1, 2)).pvalue for column in drawn.T) > 1e-3


@tasks
def test_same_seed_same_posterior(task, untouched_seed):
    y = task.simulate(task.sample_prior(1, seeded()), seeded())[0]
    draws = [task.sample_posterior(y, 20, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert all((draw.abs() <= task.half_width).all() for draw in draws)


def test_data_that_the_simulator_cannot_give(monkeypatch):
    monkeypatch.setattr("matdesinne.oracles.simulators._MOST_ROUNDS", 3)
    with pytest.raises(EmptyResultError, match=r"TwoMoons at y = \[50.0, 0.0\], got 0 of 3,000"):
        TwoMoons().sample_posterior(torch.tensor([50.0, 0.0]), 5, seeded())
