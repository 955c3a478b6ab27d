import torch

from matdesinne.benchmark.resimulation import resimulate
from matdesinne.oracles.analytic import Ballistics, Kinematics


class Stub:
    """Returns one fixed design whatever the target."""

    def __init__(self, design):
        self.design = torch.tensor(design)

    def sample(self, y, generator):
        return self.design.expand(len(y), -1)


def test_error_is_the_squared_distance_summed_over_properties():
    problem, generator = Kinematics(), torch.Generator().manual_seed(0)
    result = resimulate(Stub([0.0, 0.0, 0.0, 0.0]), problem, 50, 3, generator)
    wanted = problem.forward(problem.sample_prior(50, torch.Generator().manual_seed(0)))
    exact = (wanted - torch.tensor([2.0, 0.0])).square().sum(dim=1)
    assert abs(result.mean_squared_error - exact.mean().item()) < 1e-5
    assert abs(result.median_squared_error - exact.median().item()) < 1e-5
    assert result.failed == 0


def test_a_shot_without_impact_is_counted_and_not_scored():
    class Mixed(Stub):
        def sample(self, y, generator):
            x = self.design.repeat(len(y), 1)
            x[0, 1] = -5.0
            return x

    result = resimulate(Mixed([0.0, 1.5, 0.5, 10.0]), Ballistics(), 2, 4, torch.Generator().manual_seed(0))
    assert result.failed == 2
    assert result.mean_squared_error > 0
