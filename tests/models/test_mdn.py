import pytest
import torch
from torch.distributions import MultivariateNormal

from matdesinne.models.mdn import MDN

from ..toys import line, perturb, prop, rows


def model(components: int, dimension: int = 3) -> MDN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MDN(line(dimension), [prop()], components=components, hidden=8, depth=1).double()
    perturb(made, 0.3)
    return made.eval()


def mixture(made: MDN, v: torch.Tensor):
    log_weight, mean, factor = made._mixture(v)
    return log_weight, MultivariateNormal(mean, precision_matrix=factor @ factor.mT)


@pytest.fixture
def batch():
    made = rows(line(3), 20)
    return made.x.double(), made.y.double()


def test_one_component_is_a_normal(batch, close):
    made = model(1)
    u, v = batch
    with torch.no_grad():
        close(made.standard_log_prob(u, v), mixture(made, v)[1].log_prob(u.unsqueeze(1)).squeeze(1), factor=100)


def test_components_are_mixed(batch, close):
    made = model(4)
    u, v = batch
    with torch.no_grad():
        log_weight, normal = mixture(made, v)
        close(made.standard_log_prob(u, v), torch.logsumexp(log_weight + normal.log_prob(u.unsqueeze(1)), dim=1), factor=100)


def test_weights_sum_to_one(batch, close):
    log_weight, _, _ = model(4)._mixture(batch[1])
    close(log_weight.exp().sum(1), torch.ones(20))


def test_samples_have_the_moments_of_the_normal(generator):
    made = model(1)
    v = torch.full((40_000, 1), 0.3, dtype=torch.float64)
    z = torch.randn(40_000, made.latent_dimension, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        u = made.decode(z, v)
        normal = mixture(made, v[:1])[1]
    scale = normal.variance[0, 0].sqrt()
    assert ((u.mean(0) - normal.mean[0, 0]) / scale).abs().max() < 0.03
    expected = normal.covariance_matrix[0, 0] / torch.outer(scale, scale)
    assert (u.T.cov() / torch.outer(scale, scale) - expected).abs().max() < 0.05


def test_components_are_drawn_by_their_weights(generator):
    made = model(3)
    v = torch.full((40_000, 1), 0.3, dtype=torch.float64)
    z = torch.randn(40_000, made.latent_dimension, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        log_weight, mean, _ = made._mixture(v[:1])
        expected = (log_weight.exp().unsqueeze(-1) * mean).sum(1)[0]
        u = made.decode(z, v)
    assert ((u.mean(0) - expected) / u.std(0)).abs().max() < 0.03


def test_one_parameter():
    made = model(2, dimension=1)
    assert made.sample(torch.zeros(5, 1, dtype=torch.float64)).shape == (5, 1)
