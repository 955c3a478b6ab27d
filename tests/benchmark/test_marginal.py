import torch

from matdesinne.benchmark.marginal import MarginalGaussian
from matdesinne.network import Batch

from ..toys import box, prop


def test_samples_have_mean_and_covariance_of_the_rows_at_every_target():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]]) + 2
    model = MarginalGaussian(box(), [prop()])
    model.fit_scales(Batch(x, x[:, :1]))
    for y in (0.0, 5.0):
        samples = model.sample(torch.full((40_000, 1), y), torch.Generator().manual_seed(1))
        torch.testing.assert_close(samples.mean(0), x.mean(0), rtol=0, atol=0.02)
        torch.testing.assert_close(samples.T.cov(), x.T.cov(), rtol=0.03, atol=0.02)
