"""The training of the Gaussian process by one search."""

import torch

from matdesinne.surrogates.gp import GPSurrogate
from matdesinne.training.fit import fit
from matdesinne.training.gp import LightningGP

from ..toys import box, make_trainer, prop, toy_data


def test_one_epoch_finds_a_larger_likelihood_and_small_errors(tmp_path):
    data = toy_data(60)
    module = LightningGP(GPSurrogate(box(), [prop()]))
    module.network.fit_scales(data.training_batch())
    before = module.losses(data.training_batch())["loss"].item()
    network = fit(module, data, make_trainer(max_epochs=None), tmp_path)
    assert module.losses(data.training_batch())["loss"].item() < before - 0.5
    test = data.split.test
    assert (network.predict_many(test.x)[0] - test.y).abs().max() < 0.02


def test_validation_loss_is_the_density_of_each_row(close):
    data = toy_data(60)
    module = LightningGP(GPSurrogate(box(), [prop()])).eval()
    module.network.fit_scales(data.training_batch())
    rows = data.split.validation
    with torch.no_grad():
        mean, std = module.network.predict_many(rows.x)
        expected = -torch.distributions.Normal(mean, std).log_prob(rows.y) - module.network.target_scale.std.log()
        close(module.loss(module.evaluate(rows), rows), expected.mean(), factor=10)
