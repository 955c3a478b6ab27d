"""The Gaussian process against the equations of the book."""

import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.network import Batch
from matdesinne.surrogates.gp import GPSurrogate

from ..toys import box, prop, rows


def process(count: int = 30, outputs: int = 1, **settings: object) -> GPSurrogate:
    made = GPSurrogate(box(), [prop("y"), prop("w")][:outputs], **settings)
    made.fit_scales(rows(box(), count, outputs))
    return made.eval()


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_mean_and_spread_are_those_of_the_joint_normal_distribution(kernel, close):
    """By the inverse of the whole covariance, where the surrogate uses its Cholesky factor."""
    made, x = process(kernel=kernel), rows(box(), 7, seed=3).x
    with torch.no_grad():
        every = torch.cat([made.inputs, made.features(x).double()])
        covariance = made.raw_scale.exp() * made.correlation(every.unsqueeze(0)).to_dense()[0]
        known = covariance[:30, :30] + made.noise * torch.eye(30)
        weights = covariance[30:, :30] @ known.inverse()
        mean = made.target_scale.inverse((weights @ made.outputs[0]).float().unsqueeze(1))
        variance = (covariance[30:, 30:] - weights @ covariance[:30, 30:]).diagonal() + made.noise
        found = made.predict_many(x)
        close(found[0], mean, factor=10)
        close(found[1][:, 0], variance.sqrt().float() * made.target_scale.std, factor=10)
        close(made.predict_mean(x), found[0])


def test_the_loss_is_the_marginal_likelihood_and_the_priors():
    made, batch = process(), rows(box(), 30)
    with torch.no_grad():
        covariance = made.raw_scale.exp() * made.correlation(made.inputs.unsqueeze(0)).to_dense()[0]
        normal = torch.distributions.MultivariateNormal(torch.zeros(30).double(), covariance + made.noise * torch.eye(30))
        density = normal.log_prob(made.outputs[0])
        lengths = made.correlation.lengthscale_prior.log_prob(made.correlation.lengthscale).sum()
        noise = torch.distributions.LogNormal(-4.0, 1.0).log_prob(made.noise).sum()
        expected = -(density + lengths + noise) / 30
        assert made.negative_log_density(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_spread_grows_away_from_the_rows_and_holds_the_noise():
    made = process(200)
    near, far = made.inputs[:1].float(), torch.tensor([[30.0, -30.0]])
    (_, small), (_, large) = made.predict_many(near), made.predict_many(far)
    noise = made.noise.sqrt().item() * made.target_scale.std.item()
    assert noise <= small.item() < large.item()
    assert large.item() == pytest.approx((1 + made.noise.item()) ** 0.5 * made.target_scale.std.item(), rel=1e-3)


def test_two_properties_are_two_processes(close):
    both, first = process(outputs=2), process()
    x = rows(box(), 5, seed=1).x
    mean, _, jacobian = both.linearize(x)
    assert mean.shape == (5, 2) and jacobian.shape == (5, 2, 2)
    close(mean[:, :1], first.predict_many(x)[0], factor=10)


@pytest.mark.parametrize(("settings", "count", "said"), [({"kernel": "linear"}, 9, "kernel"), ({}, 5001, "surrogate=mlp")])
def test_rejects(settings, count, said):
    with pytest.raises(ConfigError, match=said):
        process(count, **settings)


def test_a_row_without_a_label_is_left_out():
    batch = rows(box(), 30)
    made, y = GPSurrogate(box(), [prop()]), batch.y.clone()
    y[3] = torch.nan
    made.fit_scales(Batch(batch.x, y))
    assert made.inputs.shape == (29, 2) and made.eval().predict_many(batch.x)[0].isfinite().all()


@pytest.mark.parametrize(("log_variance", "length"), [(20.0, 1000.0), (25.0, 1e5), (800.0, 1.0)])
def test_a_process_that_is_too_large_is_no_error(log_variance, length):
    """Rows without noise drive the search there, where rounding or overflow would spoil the covariance."""
    made, batch = process(), rows(box(), 30)
    with torch.no_grad():
        made.raw_noise.fill_(-40.0)
        made.correlation.lengthscale = length
        made.raw_scale.fill_(log_variance)
        assert made.negative_log_density(batch).isfinite()


def test_the_loss_bounds_the_variance():
    made, batch = process(), rows(box(), 30)
    losses = []
    for log_variance in (9.0, 12.0, 20.0, 40.0):
        with torch.no_grad():
            made.raw_scale.fill_(log_variance)
            losses.append(made.negative_log_density(batch).item())
    assert losses == sorted(losses) and losses[-1] > 900
