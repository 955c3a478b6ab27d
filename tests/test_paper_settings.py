"""Each published setting of the paper (jxzhangjhu/MatDesINNe, commit 2c7ab5e) as `experiment=paper` has it."""

import functools

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.data.published import PublishedSplit
from matdesinne.localization import MeanGradientDescent
from matdesinne.models.published_mdn import PublishedMDN
from matdesinne.training.build import build_module
from matdesinne.training.module import DesignModule

from .toys import CONF, box, prop, rows, script_config, toy_data

FLOWS = ["model/paper/inn", "model/paper/cinn_affine", "surrogate/paper/inn"]
PLAIN = ["model/paper/mdn", "model/paper/mdn_6000", "model/paper/cvae", "model/paper/cvae_6000"]


@functools.cache
def experiment() -> DictConfig:
    return script_config("benchmark", "out", "experiment=paper")  # type: ignore[arg-type]


@functools.cache
def data() -> PublishedSplit:
    """Ten rows of a plane with the split, the space and the property of the experiment."""
    settings = {
        key: value for key, value in experiment().data.items() if key not in ("source", "space", "properties", "prototype")
    }
    made = instantiate(settings, _partial_=True, _convert_="all")
    x = torch.linspace(-1, 1, 20).reshape(10, 2)
    return made((x, x[:, :1]), box(), [prop()])


@functools.cache
def module(name: str) -> DesignModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_module(OmegaConf.load(CONF / f"{name}.yaml"), toy_data(space=box(7)))


@pytest.mark.slow
def test_choices():
    choices = {name: experiment()[name] for name in ("suite", "callbacks", "accepted_error")}
    assert choices == {"suite": "paper", "callbacks": {}, "accepted_error": None}
    assert experiment().surrogate == OmegaConf.load(CONF / "surrogate" / "paper" / "inn.yaml")
    assert experiment().trainer.gradient_clip_algorithm == "value"
    names = ("mdn", "mdn_6000", "cvae", "cvae_6000", "inn", "cinn_affine")
    assert list(experiment().models) == [f"paper/{name}" for name in names]


def test_no_symmetry_no_synthetic_row_and_no_floor():
    """No augmentation; squared errors at labels of zero; |prediction - target| at 0 eV, too."""
    space = instantiate(experiment().data.space, _convert_="all")
    assert len(space.group()) == 1
    assert experiment().data.synthetic is None
    (gap,) = instantiate(experiment().data.properties, _convert_="all")
    assert (gap.floor, gap.censored, gap.resolution) == (None, False, 0.0)


def test_split_is_that_of_scikit_learn():
    """What train_test_split(range(10), test_size=0.2, random_state=0) gives."""
    split = data().split
    assert (split.train.ids.tolist(), split.test.ids.tolist()) == ([4, 9, 1, 6, 7, 3, 0, 5], [2, 8])
    assert len(split.validation) == 0


def test_equal_designs_stay():
    x = torch.zeros(10, 2)
    made = PublishedSplit((x, torch.arange(10.0).unsqueeze(1)), box(), [prop()], test=0.25)
    assert (len(made.split.train), len(made.split.test), made.duplicates) == (7, 3, 0)


def with_adam(name):
    made = module(name)
    optimizer = made.make_optimizer(made.network.parameters())
    assert type(optimizer) is torch.optim.Adam
    return made, optimizer


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_adam_of_the_flows(name):
    """config.py: lr_init, adam_betas, l2_weight_reg, final_decay, grad_clamp; model.py: eps."""
    made, optimizer = with_adam(name)
    settings = {key: optimizer.defaults[key] for key in ("lr", "betas", "eps", "weight_decay")}
    assert {**settings, "betas": list(settings["betas"])} == {
        "lr": 1e-3,
        "betas": [0.9, 0.95],
        "eps": 1e-6,
        "weight_decay": 1e-5,
    }
    scheduler = made.make_scheduler(optimizer)
    assert scheduler.gamma == pytest.approx(0.02 ** (1 / 1000), abs=1e-8)
    assert (made.batch_size, made.max_epochs, made.gradient_clip_val) == (500, 1000, 15.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_adam_of_mdn_and_cvae(name):
    made, optimizer = with_adam(name)
    assert {key: optimizer.defaults[key] for key in ("lr", "eps", "weight_decay")} == {
        "lr": 1e-3,
        "eps": 1e-8,
        "weight_decay": 0,
    }
    assert tuple(optimizer.defaults["betas"]) == (0.9, 0.999)
    assert made.make_scheduler is None and made.gradient_clip_val is None
    assert (made.batch_size, made.max_epochs) == (500, 6000 if name.endswith("_6000") else 1000)


@pytest.mark.parametrize("name", [*FLOWS, *PLAIN])
def test_physical_units_without_noise(name):
    network = module(name).network
    assert network.coordinates == "physical"
    assert getattr(network, "target_noise", 0.0) == 0.0


@pytest.mark.parametrize("name", FLOWS)
def test_flows_have_six_blocks_of_256(name):
    network = module(name).network
    assert (network.blocks, network.hidden, network.depth, network.paper_network) == (6, 256, 1, True)
    assert getattr(network, "padding", 0) == 0


def test_inn_loss():
    made = module("model/paper/inn")
    assert (made.lambda_y, made.lambda_z, made.lambda_x) == (1.0, 1.0, 100.0)
    assert [tuple(pair) for pair in made.kernels_z] == [(0.2, 2.0), (1.5, 2.0), (3.0, 2.0)]
    assert [tuple(pair) for pair in made.kernels_x] == [(0.2, 0.1), (0.2, 0.5), (0.2, 2.0)]


def test_mdn_network():
    network = module("model/paper/mdn").network
    assert isinstance(network, PublishedMDN)
    assert (network.components, network.hidden) == (3, 1)


def test_cvae_loss_is_the_sum_over_a_batch(close):
    """The published one, written out: squared errors and divergences summed over rows."""
    made = module("model/paper/cvae")
    batch = rows(box(7), 500)
    torch.manual_seed(1)
    found = made.losses(batch)["loss"]
    torch.manual_seed(1)
    torch.randn(batch.y.shape)  # the noise on y, of size 0
    mean, log_variance = made.network.encode(batch.x, batch.y)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    error = torch.nn.functional.mse_loss(made.network.decode(z, batch.y), batch.x, reduction="sum")
    close(found, error - 0.5 * torch.sum(1 + log_variance - mean.square() - log_variance.exp()), factor=10)
    assert {type(layer) for layer in made.network.encoder} == {torch.nn.Linear, torch.nn.ReLU}
    assert (made.network.latent, made.network.hidden, made.network.depth) == (3, 128, 1)


def test_localization_and_selection():
    localization = instantiate(experiment().localization, _convert_="all")
    assert isinstance(localization, MeanGradientDescent)
    assert (localization.rate, localization.steps) == (0.01, 2000)
    assert [rule.get("tolerance", rule.get("text")) for rule in experiment().selection.rules] == [
        0.1,
        "abs(electric_field) < 1",
    ]
    published = experiment().published
    assert (list(published.steps), list(published.tolerances), published.localized) == ([2000, 5000], [0.1, 0.95], 1000)
