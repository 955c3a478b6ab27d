import math

import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.models.cinn import CINN
from matdesinne.models.mixture import MixtureCouplingBlock
from matdesinne.space import DesignSpace, Parameter

from ..conftest import TableSource, prop, toy_data, trainer


@pytest.mark.parametrize("bounds", [{}, {"lower": 0.0, "upper": 10.0}], ids=["unbounded", "bounded"])
def test_whole_numbers_are_learnt_as_such(tmp_path, generator, bounds):
    """Components that begin wider than the gaps never see them: nine samples in ten then lie beside every whole number."""
    space = DesignSpace([Parameter("layers", "1", **bounds), Parameter("strain", "1")], order=["layers", "strain"])
    layers = torch.randint(1, 10, (20_000,), generator=generator).float()
    x = torch.stack([layers, torch.randn(20_000, generator=generator)], dim=1)
    y = 0.2 * x.sum(dim=1, keepdim=True)
    data = toy_data(space=space)
    data.source = TableSource(DesignTable(x, y, torch.arange(len(x))))
    optimization = {"optimizer": "muon", "learning_rate": 6e-3, "batch_size": 512, "epochs": 20}
    made = CINN(space, [prop()], hidden=(32, 32), depth=3, components=24, target_noise=0.01, optimization=optimization)
    made.fit_scales(data.training_batch())
    trainer(tmp_path, max_epochs=20, gradient_clip_val=10.0).fit(made, datamodule=data)
    sampled = made.eval().sample(torch.full((2000, 1), 1.0), generator)[:, 0]
    beside = (sampled - sampled.round()).abs() > 0.05
    assert beside.float().mean() < 0.2
    # layers + strain = 5, so that each number is as likely as its strain; of a short training
    share = torch.stack([(sampled.round() == number).float().mean() for number in range(1, 10)])
    expected = torch.softmax(-0.5 * (5 - torch.arange(1.0, 10.0)).square(), dim=0)
    assert (share - expected).abs().max() < 0.2


@pytest.mark.parametrize("training", [True, False])
def test_weak_components_are_left_out_of_samples(training):
    block = MixtureCouplingBlock([(1,)], [(1,)], position=0, hidden=4, depth=1, components=2)
    with torch.no_grad():
        block.subnet.last.weight.zero_()
        # weights 0.98 and 0.02, at 0.2 and 0.8, of width exp(-6)
        block.subnet.last.bias.copy_(torch.tensor([math.log(49.0), 0.0, math.atanh(-0.5), math.atanh(0.5), -6.0, -6.0]))
    block.train(training)
    z = torch.special.ndtri((torch.arange(100_000) + 0.5) / 100_000).unsqueeze(1)
    condition = torch.zeros(len(z), 1)
    unit = torch.special.ndtr(block([z], [condition], rev=True)[0][0])
    weak = (unit > 0.5).double().mean().item()
    assert weak == pytest.approx(0.02 if training else 2e-5, rel=0.1)
    density = block.log_density(torch.special.ndtri(torch.tensor([[0.8]])), condition[:1])
    assert density.isfinite().all()
