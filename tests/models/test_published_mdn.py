import torch

from matdesinne.models.published_mdn import PublishedMDN

from ..toys import box, prop


def network(**settings) -> PublishedMDN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PublishedMDN(box(), [prop()], **settings)


def mixture(made: PublishedMDN, y: torch.Tensor) -> torch.distributions.Distribution:
    """The same mixture by torch's distributions, from the outputs of both networks."""
    mean, log_std = made.gaussians(y).chunk(2, dim=1)
    shape = (len(y), made.components, -1)
    normal = torch.distributions.Independent(torch.distributions.Normal(mean.reshape(shape), log_std.reshape(shape).exp()), 1)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=made.weights(y)), normal)


def test_density_is_that_of_torch(close):
    made = network()
    y, x = torch.randn(20, 1), torch.randn(20, 2)
    close(made.log_prob(x, y), mixture(made, y).log_prob(x))


def test_samples_follow_the_density():
    made = network()
    y = torch.full((40_000, 1), 0.3)
    samples = made.sample(y, torch.Generator().manual_seed(0))
    expected = mixture(made, y[:1])
    torch.testing.assert_close(samples.mean(0), expected.mean[0].detach(), rtol=0, atol=0.03)
    torch.testing.assert_close(samples.var(0), expected.variance[0].detach(), rtol=0.05, atol=0)


def test_one_unit_in_physical_units_as_published():
    made = network()
    assert sum(p.numel() for p in made.weights.parameters()) == 2 + 2 * 3
    assert sum(p.numel() for p in made.gaussians.parameters()) == 2 + 2 * (2 * 3 * 2)
    assert made.coordinates == "physical"
