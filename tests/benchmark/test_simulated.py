import pytest
import torch

from matdesinne.benchmark.simulated import sbi_c2st, simulated_rows
from matdesinne.oracles.simulators import GaussianMixture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 2, generator=seeded(seed))


@pytest.mark.slow
def test_c2st_of_equal_distributions_is_a_half():
    assert sbi_c2st(normal(500, 0), normal(500, 1)) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_c2st_of_two_normals_is_that_of_the_best_classifier():
    """One standard deviation apart it finds Phi(1/2) = 0.69 of them, in whatever unit."""
    found = sbi_c2st(100 * normal(500, 0), 100 * (normal(500, 1) + torch.tensor([1.0, 0.0])))
    assert found == pytest.approx(0.69, abs=0.04)


class Exact:
    """Draws from the posterior of the task."""

    def sample(self, y, generator, truncate):
        assert not truncate
        return GaussianMixture().sample_posterior(y[0], len(y), generator)


class Prior:
    def sample(self, y, generator, truncate):
        return GaussianMixture().sample_prior(len(y), generator)


@pytest.mark.slow
def test_rows(short_classifier):
    models, seconds = {"exact": Exact(), "prior": Prior()}, {"exact": 3.0}
    rows = list(simulated_rows(models, GaussianMixture(), seconds, observations=2, count=200, truncate=False, seed=4))
    assert [(row.method, row.observation, row.seed, row.samples) for row in rows] == [
        (method, number, 4, 200) for method in models for number in (1, 2)
    ]
    assert [row.seconds_training for row in rows] == [3.0, 3.0, None, None]
    assert all(row.c2st < 0.65 for row in rows[:2]) and all(row.c2st > 0.9 for row in rows[2:])
