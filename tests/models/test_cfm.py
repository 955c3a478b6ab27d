import math

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.models.cfm import CFM
from matdesinne.training.cfm import LightningCFM

from ..toys import line, perturb, prop, rows


def model(dimension: int = 3, size: float = 0.1, **settings: int) -> CFM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CFM(line(dimension), [prop()], **{"hidden": 8, "depth": 1, **settings}).double()
    made.fit_scales(rows(line(dimension)))
    perturb(made, size)
    return made.eval()


def noise(count: int = 5, dimension: int = 3) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_divergence_is_the_trace_of_the_jacobian(close):
    made, u = model(), noise()
    t, c = torch.full((5, 1), 0.3, dtype=torch.float64), made.features(noise(5, 1))
    velocity, found = made._velocity_and_divergence(u, t, c)
    close(velocity, made.velocity(u, t, c))
    for row in range(5):
        one = slice(row, row + 1)
        jacobian = torch.autograd.functional.jacobian(lambda x, one=one: made.velocity(x, t[one], c[one])[0], u[one])
        close(found[row], jacobian[:, 0].trace())


def density_error(steps: int) -> float:
    """Largest distance of the log-density to that of the samples, by the Jacobian of sampling."""
    made, z, v = model(steps=steps), noise(), noise(5, 1)
    u = made.decode(z, v)
    expected = []
    for row in range(5):
        one = slice(row, row + 1)
        jacobian = torch.autograd.functional.jacobian(lambda x, one=one: made.decode(x, v[one])[0], z[one])[:, 0]
        normal = -0.5 * z[row].square().sum() - 1.5 * math.log(2 * math.pi)
        expected.append(normal - jacobian.slogdet().logabsdet)
    return (made.standard_log_prob(u, v) - torch.stack(expected)).abs().max().item()


def test_log_prob_is_that_of_the_jacobian_of_sampling():
    coarse, fine = density_error(8), density_error(32)
    assert fine < 1e-3
    assert fine < coarse / 8  # of the second order: 16 times smaller


@torch.no_grad()
def test_constant_field_is_a_shift(close):
    made, z, v = model(steps=1), noise(), noise(5, 1)
    made.network[-1].weight.zero_()
    shift = made.network[-1].bias
    close(made.decode(z, v), z + shift)
    normal = torch.distributions.Normal(0.0, 1.0)
    close(made.standard_log_prob(z + shift, v), normal.log_prob(z).sum(dim=1))


def test_loss_is_the_error_on_straight_paths(close):
    made, u, v, seen = model(), noise(), noise(5, 1), []
    field = made.velocity

    def watched(*arguments):
        seen.append((*arguments, field(*arguments)))
        return seen[-1][-1]

    made.velocity = watched
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss = LightningCFM(made).standard_losses(u, v)["loss"]
        torch.manual_seed(0)
        z = torch.randn_like(u)
    ((moved, t, c, velocity),) = seen
    assert 0 <= t.min() < t.max() < 1
    close(moved, z + t * (u - z))
    close(c, made.features(v))
    close(loss, (velocity - (u - z)).square().sum() / 5)


@pytest.mark.parametrize("name", ["steps", "hidden"])
def test_rejects(name):
    with pytest.raises(ConfigError, match=name):
        model(**{name: 0})
