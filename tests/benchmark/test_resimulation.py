import math

import pytest
import torch

from matdesinne.benchmark import resimulation
from matdesinne.benchmark.resimulation import rejection_posteriors, resimulate
from matdesinne.models.mmd import SCALES, mmd
from matdesinne.oracles.analytic import Ballistics, Kinematics


class Stub:
    """Returns one fixed design whatever the target."""

    def __init__(self, design):
        self.design = torch.tensor(design)

    def sample(self, y, generator, truncate):
        return self.design.expand(len(y), -1)


class Fresh:
    """Draws from the prior whatever the target."""

    def sample(self, y, generator, truncate):
        return Kinematics().sample_prior(len(y), generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wanted(problem=None, count: int = 50) -> torch.Tensor:
    problem = problem or Kinematics()
    return problem.forward(problem.sample_prior(count, seeded(1)))


def references(problem=None, count: int = 50) -> list[torch.Tensor]:
    return [(problem or Kinematics()).sample_prior(10, seeded(2))] * count


@pytest.mark.slow
def test_error_is_the_squared_distance_summed_over_properties():
    result = resimulate(Stub([0.0, 0.0, 0.0, 0.0]), Kinematics(), wanted(), references(), 3, seeded())
    exact = (wanted() - torch.tensor([2.0, 0.0])).square().sum(dim=1)
    assert result.err_resim == pytest.approx(exact.mean().item(), rel=1e-5)
    assert result.median_err_resim == pytest.approx(exact.median().item(), rel=1e-5)
    assert (result.failed, result.targets, result.samples) == (0, 50, 3)


def test_posterior_error_is_the_mean_discrepancy():
    made, posteriors = (
        resimulate(Fresh(), Kinematics(), wanted(count=3), references(count=3), 20, seeded()),
        references(count=3),
    )
    generator = seeded()
    expected = [mmd(Kinematics().sample_prior(20, generator), known, SCALES, unbiased=True).item() for known in posteriors]
    assert made.err_post == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_posterior_error_of_the_posterior_is_about_zero():
    """The prior against itself, and against a single design."""
    posteriors = [Kinematics().sample_prior(500, seeded(seed)) for seed in range(1, 4)]
    exact = resimulate(Fresh(), Kinematics(), wanted(count=3), posteriors, 500, seeded()).err_post
    collapsed = resimulate(Stub([0.0, 0.0, 0.0, 0.0]), Kinematics(), wanted(count=3), posteriors, 500, seeded()).err_post
    assert abs(exact) < 0.01 < 0.5 < collapsed


def test_smallest_posterior_is_told():
    posteriors = [*references(count=2), Kinematics().sample_prior(4, seeded())]
    assert resimulate(Fresh(), Kinematics(), wanted(count=3), posteriors, 3, seeded()).fewest_references == 4


def test_each_target_needs_its_posterior():
    with pytest.raises(ValueError, match="zip"):
        resimulate(Fresh(), Kinematics(), wanted(count=3), references(count=2), 3, seeded())


def test_a_shot_without_impact_is_counted_and_not_scored():
    class Mixed(Stub):
        def sample(self, y, generator, truncate):
            x = self.design.repeat(len(y), 1)
            x[0, 1] = -5.0
            return x

    problem, shot = Ballistics(), [0.0, 1.5, 0.5, 10.0]
    result = resimulate(Mixed(shot), problem, wanted(problem, 2), references(problem, 2), 4, seeded())
    alone = resimulate(Stub(shot), problem, wanted(problem, 2), references(problem, 2), 3, seeded())
    assert result.failed == 2
    assert result.err_resim == pytest.approx(alone.err_resim)


def test_a_model_without_any_impact_is_a_result():
    problem = Ballistics()
    below = Stub([0.0, -5.0, 0.5, 3.0])
    assert resimulate(below, problem, wanted(problem, 2), references(problem, 2), 4, seeded()).failed == 8


def test_a_target_with_few_references_is_left_out_of_the_discrepancy():
    posteriors = [*references(count=1), Kinematics().sample_prior(1, seeded())]
    assert math.isfinite(resimulate(Fresh(), Kinematics(), wanted(count=2), posteriors, 3, seeded()).err_post)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(resimulation, "_CHUNK_ROWS", 4096)


NEAR = torch.tensor([[1.5, 0.3], [1.8, 0.0], [1.0, -0.8]])


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "targets"), [(Kinematics(), NEAR), (Ballistics(), torch.tensor([[3.0], [6.0]]))])
def test_posteriors_are_within_the_tolerance(problem, targets, small_chunks):
    for target, found in zip(targets, rejection_posteriors(problem, targets, 5, 2_000_000, seeded()), strict=True):
        assert len(found) == 5
        assert (problem.forward(found) - target).norm(dim=1).max() < problem.tolerance


def test_posteriors_are_all_that_is_near_up_to_the_limit(small_chunks):
    _, found = rejection_posteriors(Kinematics(), NEAR[:2], 10**6, 100_000, seeded())
    generator = seeded()
    pool = torch.cat([Kinematics().sample_prior(count, generator) for count in [*[4096] * 24, 1696]])
    near = pool[(Kinematics().forward(pool) - NEAR[1]).norm(dim=1) < Kinematics.tolerance]
    assert 0 < len(near) == len(found)
    torch.testing.assert_close(found.sort(0).values, near.sort(0).values, rtol=0, atol=0)


def test_a_target_that_never_comes_gets_none(small_chunks):
    found = rejection_posteriors(Kinematics(), torch.tensor([[50.0, 0.0], [1.8, 0.0]]), 5, 200_000, seeded())
    assert [len(designs) for designs in found] == [0, 5]


def test_part_of_a_window_is_not_its_edge():
    """The window is sorted by the first property: the few that are kept must not be the lowest ones."""

    class Uniform(Kinematics):
        tolerance = 0.5

        def sample_prior(self, count, generator=None):
            return torch.rand(count, 1, generator=generator)

        def forward(self, x, strict=True):
            return x

    found = rejection_posteriors(Uniform(), torch.tensor([[0.5]]), 400, 20_000, seeded())[0][:, 0]
    assert len(found) == 400
    assert found.mean() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 400))


def test_posteriors_leave_the_global_seed(untouched_seed, small_chunks):
    rejection_posteriors(Kinematics(), NEAR, 3, 10_000, seeded())
