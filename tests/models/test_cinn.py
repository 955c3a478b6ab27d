import math

import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.models.cinn import CINN
from matdesinne.models.mixture import MixtureCouplingBlock
from matdesinne.space import DesignSpace, Parameter
from matdesinne.training.cinn import LightningCINN

from ..toys import TableSource, box, prop, rows, toy_data, trainer


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [{}, {"lower": 0.0, "upper": 10.0}], ids=["unbounded", "bounded"])
def test_whole_numbers_are_learnt_as_such(tmp_path, generator, bounds):
    """Components that begin wider than the gaps never see them: nine samples in ten then lie beside every whole number."""
    space = DesignSpace([Parameter("layers", "1", **bounds), Parameter("strain", "1")], order=["layers", "strain"])
    layers = torch.randint(1, 10, (20_000,), generator=generator).float()
    x = torch.stack([layers, torch.randn(20_000, generator=generator)], dim=1)
    y = 0.2 * x.sum(dim=1, keepdim=True)
    data = toy_data(space=space)
    data.source = TableSource(DesignTable(x, y, torch.arange(len(x))))
    made = CINN(space, [prop()], hidden=(32, 32), depth=3, components=24, target_noise=0.01)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trainer(tmp_path, max_epochs=20, gradient_clip_val=10.0).fit(LightningCINN(made), datamodule=data)
    sampled = made.eval().sample(torch.full((2000, 1), 1.0), generator)[:, 0]
    beside = (sampled - sampled.round()).abs() > 0.05
    assert beside.float().mean() < 0.3
    # layers + strain = 5, so that each number is as likely as its strain; of a short training
    share = torch.stack([(sampled.round() == number).float().mean() for number in range(1, 10)])
    expected = torch.softmax(-0.5 * (5 - torch.arange(1.0, 10.0)).square(), dim=0)
    assert (share - expected).abs().max() < 0.2


@pytest.fixture
def block() -> MixtureCouplingBlock:
    """Weights 0.98 and 0.02, at 0.2 and 0.8, of width exp(-6)."""
    made = MixtureCouplingBlock([(1,)], [(1,)], position=0, hidden=4, depth=1, components=2)
    with torch.no_grad():
        made.subnet.last.weight.zero_()
        made.subnet.last.bias.copy_(torch.tensor([math.log(49.0), 0.0, math.atanh(-0.5), math.atanh(0.5), -6.0, -6.0]))
    return made


def unit_samples(block: MixtureCouplingBlock, truncate: bool, count: int) -> torch.Tensor:
    """What evenly spread levels of probability become, in [0, 1]."""
    z = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float().unsqueeze(1)
    return torch.special.ndtr(block([z], [torch.zeros(len(z), 1)], rev=True, truncate=truncate)[0][0])[:, 0].detach()


@pytest.mark.slow
@pytest.mark.parametrize("truncate", [False, True])
def test_weak_components_are_left_out_of_samples(block, truncate):
    weak = (unit_samples(block, truncate, 100_000) > 0.5).double().mean().item()
    assert weak == pytest.approx(2e-5 if truncate else 0.02, rel=0.1)
    density = block.log_density(torch.special.ndtri(torch.tensor([[0.8]])), torch.zeros(1, 1))
    assert density.isfinite().all()


@pytest.mark.parametrize("truncate", [False, True])
def test_far_tails_are_left_out_of_samples(block, truncate):
    """Of the strong component; a logistic distribution has 0.036 of its mass beyond four widths."""
    unit = unit_samples(block, truncate, 20_000)
    width = math.exp(-9 + math.log1p(math.exp(3)))  # -6 + 9 = 3, and no width is below exp(-9)
    share = ((unit[unit < 0.5] - 0.2).abs() > 4.05 * width).double().mean().item()
    assert share < 1e-3 if truncate else share == pytest.approx(2 / (1 + math.exp(4.05)), rel=0.05)


def test_truncated_samples_of_a_network_keep_the_box_and_miss_its_gaps(generator):
    """Of two shells of a hundredth of the box, what lies between comes from the tails."""
    made = CINN(box(1), [prop()], hidden=(4, 4), depth=1, components=2)
    made.fit_scales(rows(box(1)))
    bias = torch.tensor([0.0, 0.0, math.atanh(-0.5), math.atanh(0.5), -4.0, -4.0])
    with torch.no_grad():
        made.network[0].subnet.last.weight.zero_()
        made.network[0].subnet.last.bias.copy_(bias)
    between = []
    for truncate in (False, True):
        x = made.sample(torch.zeros(10_000, 1), generator, truncate=truncate)
        assert box(1).contains(x, tolerance=0).all()
        between.append((x.abs() < 0.4).float().mean().item())
    assert between[0] > 0.002 and between[1] < 1e-3
