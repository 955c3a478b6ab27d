"""What every model of conf/model must do; a new YAML file is tested by itself."""

import logging
import math

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError, TargetError
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.models.mixture import MixtureCouplingBlock
from matdesinne.network import Batch, load_network, network_from_config, save_network
from matdesinne.oracles.analytic import Kinematics
from matdesinne.space import DesignSpace, Parameter, Symmetry
from matdesinne.targets import Target
from matdesinne.training.module import InverseModule, LikelihoodModule

from ..toys import (
    CONF,
    box,
    line,
    loss_of,
    perturb,
    prop,
    rows,
    tiny_module,
    tiny_network,
    toy_data,
    trainer,
    yaml_files,
)

FILES = yaml_files("model")
SPACES = {"bounded": box(3), "unbounded": line(3)}
y_files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def is_density(path) -> bool:
    return isinstance(tiny_network(path, box(), [prop()]), DensityModel)


ONE_COORDINATE = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
"""Half of a coupling block of FrEIA is empty there, and torch warns."""

densities = pytest.mark.parametrize("path", [path for path in FILES if is_density(path)], ids=lambda path: path.stem)


def is_likelihood(path) -> bool:
    return isinstance(tiny_module(path, box(), [prop()]), LikelihoodModule)


likelihoods = pytest.mark.parametrize("path", [path for path in FILES if is_likelihood(path)], ids=lambda path: path.stem)


def module(path, space: DesignSpace | None = None, outputs: int = 1, size: float = 0.2, **settings: object) -> InverseModule:
    """A LightningModule whose network knows its scales and is away from its start."""
    space = space or box(3)
    made = tiny_module(path, space, [prop("y"), prop("w")][:outputs], **settings)
    made.network.fit_scales(rows(space, outputs=outputs))
    perturb(made, size)
    return made.eval()


def model(path, *args: object, **settings: object) -> InverseModel:
    return module(path, *args, **settings).network


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@y_files
@pytest.mark.parametrize(("space", "outputs"), [("bounded", 1), ("unbounded", 2)])
def test_samples(path, space, outputs):
    space = SPACES[space]
    y = rows(space, 100, outputs).y
    x = model(path, space, outputs).sample(y, seeded())
    assert x.shape == (100, 3)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert not x.requires_grad


@pytest.mark.slow
@y_files
def test_samples_are_inside_the_box(path):
    made = model(path)
    y = torch.tensor([0.0, 3.0, -100.0]).repeat(500).unsqueeze(1)
    assert made.space.contains(made.sample(y, seeded()), tolerance=0).all()


@y_files
def test_no_samples(path):
    assert model(path).sample(torch.empty(0, 1)).shape == (0, 3)


@pytest.mark.slow
@y_files
def test_sample_rejects(path):
    made = model(path)
    for y in (torch.zeros(3), torch.zeros(3, 2), torch.full((3, 1), math.nan)):
        with pytest.raises(TargetError, match="'y'"):
            made.sample(y)


@pytest.mark.slow
@y_files
def test_every_parameter_gets_a_gradient(path):
    made = module(path).train()
    batch = rows(box(3), 64)
    # a step of the cINN trains one block of its own choice
    steps = 60 if made.trains_in_parts else 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            loss_of(made, batch)["objective"].backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("training", [True, False])
def test_losses_are_finite_scalars(path, training):
    losses = module(path).train(training).losses(rows(box(3), 64))
    assert "loss" in losses
    assert all(value.shape == () and value.isfinite() for value in losses.values())


@pytest.mark.slow
@y_files
def test_same_seed_same_samples(path):
    made, y = model(path), torch.zeros(20, 1)
    draws = [made.sample(y, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@y_files
def test_sampling_leaves_the_global_seed(path, untouched_seed):
    model(path).sample(torch.zeros(5, 1), seeded())


@y_files
def test_samples_differ(path):
    x = model(path).sample(torch.zeros(50, 1), seeded())
    assert len(x.unique(dim=0)) == 50


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("chunk", [1, 7])
def test_batch_equals_its_rows(path, chunk, monkeypatch, close):
    made = model(path)
    y = rows(box(3), 15).y
    together = made.sample(y, seeded())
    monkeypatch.setattr("matdesinne.models.base._CHUNK_ROWS", chunk)
    close(made.sample(y, seeded()), together, factor=10)


WEIGHTS = {"alpha": 2.0, "beta": 3.0, "lambda_x": 4.0, "lambda_z": 5.0, "scales": [0.5, 1.5]}
"""Weights of the losses that are not the defaults."""


@pytest.mark.slow
@y_files
def test_checkpoint_round_trip(path, tmp_path):
    """By Lightning's own method, from the file alone."""
    made = tiny_module(path, box(), [prop()], batch_size=100, **WEIGHTS)
    runner = trainer(tmp_path)
    runner.fit(made, datamodule=toy_data())
    runner.save_checkpoint(tmp_path / "model.ckpt")
    torch.load(tmp_path / "model.ckpt", weights_only=True)
    again = type(made).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    y = torch.zeros(20, 1)
    assert torch.equal(again.network.eval().sample(y, seeded()), made.network.eval().sample(y, seeded()))
    assert again.batch_size == 100
    changed = [name for name in WEIGHTS if name in OmegaConf.load(path)]
    assert [list(value) if name == "scales" else value for name in changed for value in [getattr(again, name)]] == [
        WEIGHTS[name] for name in changed
    ]


@y_files
def test_network_alone_is_what_a_module_trains(path):
    """The LightningModule holds nothing that is trained but its network."""
    made = tiny_module(path, box(), [prop()])
    assert isinstance(made, pl.LightningModule) and not isinstance(made.network, pl.LightningModule)
    assert {id(parameter) for parameter in made.parameters()} == {id(parameter) for parameter in made.network.parameters()}


@pytest.mark.slow
def test_all_models_are_trained_on_one_datamodule(tmp_path):
    data = toy_data()
    for path in FILES:
        made = tiny_module(path, box(), [prop()], batch_size=64)
        before = [parameter.clone() for parameter in made.parameters()]
        runner = trainer(tmp_path, max_epochs=4)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            runner.fit(made, datamodule=data)
        assert isinstance(data, pl.LightningDataModule) and runner.global_step == 12
        assert any(not torch.equal(old, new) for old, new in zip(before, made.parameters(), strict=True))
        assert {"train/loss", "val/loss"} <= set(runner.callback_metrics)


@pytest.mark.slow
@y_files
def test_training_and_validation_have_the_same_loss(path):
    """On the same rows: the mean over steps, and over the blocks of the cINN, each trained alone."""
    made, batch = module(path, target_noise=0.01), rows(box(3), 256)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        train, validation = (
            torch.stack([made.train(training).losses(batch)["loss"] for _ in range(100)]) for training in (True, False)
        )
    expected, error = validation.mean().item(), math.hypot(train.std(), validation.std()) / 10
    # and the noise on y is another one in each training step, and always the same in validation
    assert train.mean().item() == pytest.approx(expected, abs=4 * error + 0.005 * (1 + abs(expected)))
    assert error < 0.1 * (1 + abs(expected))


@pytest.mark.slow
@y_files
def test_losses_are_logged_as_means_of_an_epoch(path, tmp_path, close):
    made, seen = tiny_module(path, box(), [prop()], batch_size=10), {"train": [], "val": []}
    losses = made.losses

    def watched(batch):
        values = losses(batch)
        stage = "train" if made.training else "val"
        seen[stage].append((len(batch.x), {f"{stage}/{name}": value.detach() for name, value in values.items()}))
        return values

    made.losses = watched
    runner = trainer(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        runner.fit(made, datamodule=toy_data(110))
    for stage in seen.values():
        assert len(stage) > 1
        for name in stage[0][1].keys() - {"train/objective", "val/objective"}:
            mean = sum(count * values[name] for count, values in stage) / sum(count for count, _ in stage)
            close(runner.callback_metrics[name], mean, factor=10)
    assert not {"train/objective", "val/objective"} & set(runner.callback_metrics)


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_folder_round_trip(path, space, tmp_path):
    made = model(path, space)
    save_network(made, tmp_path, "model")
    again = load_network(InverseModel, tmp_path, "model")
    y = torch.zeros(20, 1)
    assert torch.equal(again.sample(y, seeded()), made.sample(y, seeded()))


@pytest.mark.slow
@y_files
def test_folder_keeps_interval_targets(path, tmp_path):
    made = model(path)
    save_network(made, tmp_path, "model")
    again = load_network(InverseModel, tmp_path, "model")
    target = Target((-0.5,), (0.5,))
    assert torch.equal(again.draw_targets(target, 20, seeded()), made.draw_targets(target, 20, seeded()))


def tenfold(space: DesignSpace) -> DesignSpace:
    return DesignSpace([Parameter(p.name, p.unit, 10 * p.lower, 10 * p.upper) for p in space.parameters])


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_units_of_designs(path, space, close):
    batch = rows(space)
    first, second = tiny_network(path, space, [prop()]), tiny_network(path, tenfold(space), [prop()])
    first.fit_scales(batch)
    second.fit_scales(batch._replace(x=10 * batch.x))
    for made in (first, second):
        perturb(made, 0.2)
    close(second.eval().sample(batch.y, seeded()) / 10, first.eval().sample(batch.y, seeded()), factor=10)


@pytest.mark.slow
@y_files
def test_units_of_properties(path, close):
    batch = rows(box(3))
    first, second = tiny_network(path, box(3), [prop()]), tiny_network(path, box(3), [prop()])
    first.fit_scales(batch)
    second.fit_scales(batch._replace(y=10 * batch.y))
    for made in (first, second):
        perturb(made, 0.2)
    close(second.eval().sample(10 * batch.y, seeded()), first.eval().sample(batch.y, seeded()), factor=100)


@pytest.mark.slow
@y_files
def test_beats_the_prior(path, tmp_path, seed=0):
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.01, "betas": [0.9, 0.98], "fused": True}
    settings = {"hidden": 64, "blocks": 4, "batch_size": 256, "target_noise": 0.01, "optimizer": optimizer}
    made = tiny_module(path, box(), [prop()], seed, **settings)
    data = toy_data(2500)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer(tmp_path, max_epochs=12, gradient_clip_val=1.0).fit(made, datamodule=data)
    y = data.split.validation.y.repeat(4, 1)
    x = made.network.eval().sample(y, seeded())
    prior = box().sample(len(y), seeded(1))
    error, prior_error = ((designs.sum(1, keepdim=True) - y).abs().mean() for designs in (x, prior))
    assert error < 0.4 * prior_error
    # and the posterior keeps its width along the line x1 + x2 = y
    assert (x[:, 0] - x[:, 1]).std() > 0.25


@pytest.mark.slow
@y_files
def test_rejects_negative_noise(path):
    with pytest.raises(ConfigError, match="target_noise"):
        tiny_network(path, box(), [prop()], target_noise=-1.0)


def targets_seen(made: InverseModule, y: torch.Tensor) -> torch.Tensor:
    """The properties, in physical units, that the loss of a batch gets."""
    seen: list[torch.Tensor] = []
    made.standard_losses = lambda u, v: seen.append(v) or {"loss": v.sum()}
    made.losses(rows(box(3), len(y))._replace(y=y))
    del made.standard_losses
    return made.network.target_scale.inverse(seen[0])


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("training", [True, False])
def test_noise_is_added_to_the_targets(path, training):
    made, y = module(path, target_noise=0.5).train(training), rows(box(3), 4000).y
    noise = targets_seen(made, y) - y
    assert noise.mean().item() == pytest.approx(0.0, abs=0.04)
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
@y_files
def test_noise_is_another_one_in_each_step(path):
    made, y = module(path, target_noise=0.5).train(), rows(box(3), 16).y
    assert not torch.equal(targets_seen(made, y), targets_seen(made, y))


@pytest.mark.slow
@y_files
def test_noise_is_the_same_in_every_validation(path):
    made, y = module(path, target_noise=0.5), rows(box(3), 16).y
    assert torch.equal(targets_seen(made, y), targets_seen(made, y))


@pytest.mark.slow
@y_files
@pytest.mark.parametrize("training", [True, False])
def test_noise_of_nothing_is_none(path, training, close):
    made, y = module(path, target_noise=0.0).train(training), rows(box(3), 16).y
    close(targets_seen(made, y), y)


@y_files
def test_validation_noise_leaves_the_global_seed(path, untouched_seed):
    targets_seen(module(path, target_noise=0.5), rows(box(3), 16).y)


@pytest.mark.slow
@y_files
def test_samples_have_no_noise_of_the_targets(path):
    y = rows(box(3), 16).y
    assert torch.equal(*(model(path, target_noise=noise).sample(y, seeded()) for noise in (0.0, 10.0)))


@pytest.mark.slow
@densities
def test_density_has_no_noise_of_the_targets(path):
    batch = rows(box(3), 16)
    with torch.no_grad():
        assert torch.equal(*(model(path, target_noise=noise).log_prob(batch.x, batch.y) for noise in (0.0, 10.0)))


@likelihoods
def test_loss_is_the_negative_log_likelihood(path, close):
    """Per unit of the standardised coordinates: the volume of the transformation is not trained."""
    made, batch = module(path, target_noise=0.0), rows(box(3), 64)
    with torch.no_grad():
        density = made.network.log_prob(batch.x, batch.y) - made.network.transform.log_det(batch.x)
        close(made.losses(batch)["loss"], -density.mean(), factor=10)


@y_files
def test_settings_reach_the_description(path):
    made = tiny_network(path, box(), [prop()])
    described = made.to_config()["settings"]
    assert {"space", "properties", *OmegaConf.load(path).network} - {"_target_"} <= set(described)
    again = network_from_config(made.to_config())
    assert type(again) is type(made) and again.to_config() == made.to_config()


@pytest.mark.slow
@ONE_COORDINATE
@densities
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kind", [box, line], ids=["bounded", "unbounded"])
def test_density_integrates_to_one(path, kind, dimension):
    space = kind(dimension)
    # weights near their start: the integral must not miss a far tail
    made = model(path, space, size=0.03).double()
    # integrate over the normal quantile in a box, over x itself elsewhere
    bounded = kind is box
    edge = 4.7 if bounded else 12.0
    u = torch.linspace(-edge, edge, 4001 if dimension == 1 else 151, dtype=torch.float64)
    x = 2 * torch.special.ndtr(u) - 1 if bounded else u
    weight = (u[1] - u[0]) * (2 * torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi) if bounded else torch.ones_like(u))
    grid = torch.cartesian_prod(*[x] * dimension).reshape(-1, dimension)
    weights = torch.cartesian_prod(*[weight] * dimension).reshape(-1, dimension).prod(1)
    with torch.no_grad():
        density = made.log_prob(grid, torch.full((len(grid), 1), 0.3, dtype=torch.float64)).exp()
    assert float((density * weights).sum()) == pytest.approx(1.0, abs=0.01)


@densities
def test_density_is_zero_outside_the_box(path):
    made = model(path)
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
    assert made.log_prob(x, torch.zeros(2, 1)).isneginf().tolist() == [False, True]


@pytest.mark.slow
@densities
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_log_prob_units(path, space, close):
    batch = rows(space, 64)
    first, second = tiny_network(path, space, [prop()]).double(), tiny_network(path, tenfold(space), [prop()]).double()
    x, y = batch.x.double(), batch.y.double()
    for made, scale in ((first, 1), (second, 10)):
        made.fit_scales(batch._replace(x=scale * x, y=y))
        perturb(made, 0.2)
    close(second.log_prob(10 * x, y), first.log_prob(x, y) - 3 * math.log(10), factor=1e3)


@pytest.mark.slow
@densities
def test_log_prob_of_samples_is_higher(path):
    made = model(path, line(3))
    y = torch.zeros(500, 1)
    x = made.sample(y, seeded(), truncate=False)
    with torch.no_grad():
        assert made.log_prob(x, y).mean() > made.log_prob(x + 3 * x.std(0), y).mean()


@pytest.mark.slow
@ONE_COORDINATE
@densities
def test_log_prob_is_the_density_of_the_samples(path):
    # one dimension: the histogram of the samples follows the density
    made = model(path, box(1))
    x = made.sample(torch.zeros(10_000, 1), seeded(), truncate=False)[:, 0]
    edges = torch.linspace(-1, 1, 21)
    counts = torch.histogram(x, edges).hist / len(x)
    fine = torch.linspace(-0.9999, 0.9999, 4000).unsqueeze(1)
    with torch.no_grad():
        density = made.log_prob(fine, torch.zeros(4000, 1)).exp()
    share = density.reshape(20, 200).mean(1) * 0.1
    assert (counts - share)[1:-1].abs().max() < 0.01


@pytest.mark.slow
@y_files
def test_truncation_is_the_default(path):
    made, y = model(path), rows(box(3), 200).y
    assert torch.equal(made.sample(y, seeded()), made.sample(y, seeded(), truncate=True))


@pytest.mark.slow
@y_files
def test_only_mixture_couplings_truncate(path):
    made, y = model(path), rows(box(3), 200).y
    same = torch.equal(made.sample(y, seeded()), made.sample(y, seeded(), truncate=False))
    assert same is not any(isinstance(part, MixtureCouplingBlock) for part in made.modules())
    assert made.truncates is not same


def swapped(lower: float = -1.0) -> DesignSpace:
    """Two parameters that may change places, where that keeps them inside."""
    parameters = [Parameter("x1", "m", -1.0, 1.0), Parameter("x2", "m", lower, 1.0)]
    return DesignSpace(parameters, [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})])


@y_files
def test_loss_of_an_image_is_the_same(path):
    made = module(path, swapped())
    batch = rows(swapped(), 64)
    with torch.random.fork_rng():
        losses = [torch.manual_seed(0) and made.losses(batch._replace(x=x))["loss"] for x in (batch.x, batch.x.flip(1))]
    assert torch.equal(*losses)


@y_files
def test_samples_keep_the_symmetry(path):
    made = model(path, swapped())
    x = made.sample(torch.zeros(4000, 1), seeded())
    assert (x[:, 0] > x[:, 1]).float().mean() == pytest.approx(0.5, abs=0.03)


@y_files
def test_samples_of_a_lopsided_box_stay_inside(path):
    space = swapped(-0.5)
    assert space.contains(model(path, space).sample(torch.zeros(1000, 1), seeded()), tolerance=0).all()


@densities
def test_density_keeps_the_symmetry(path, close):
    made = model(path, swapped())
    x, y = rows(swapped(), 100)[:2]
    with torch.no_grad():
        close(made.log_prob(x.flip(1), y), made.log_prob(x, y), factor=10)


@pytest.mark.slow
@densities
@pytest.mark.parametrize("lower", [-1.0, -0.5])
def test_density_with_a_symmetry_is_that_of_the_samples(path, lower):
    space = swapped(lower)
    made = model(path, space, size=0.03)
    x = made.sample(torch.zeros(10_000, 1), seeded(), truncate=False)
    uniform = space.sample(20_000, seeded(1))
    with torch.no_grad():
        density = made.log_prob(uniform, torch.zeros(20_000, 1)).exp()
    # mass on either side of two lines, one of them the mirror
    assert float(density.mean()) * 2 * (1 - lower) == pytest.approx(1.0, abs=0.02)
    for side in (lambda x: x[:, 0] > x[:, 1], lambda x: x[:, 0] < -0.5):
        mass = float((density * side(uniform)).mean()) * 2 * (1 - lower)
        assert float(side(x).float().mean()) == pytest.approx(mass, abs=0.015)


REFERENCE = torch.linspace(-1, 2, 8192).unsqueeze(1)


@pytest.fixture
def reference() -> InverseModel:
    made = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop(floor=0.0)])
    batch = rows(box())
    made.fit_scales(batch, REFERENCE)
    return made


def test_value_is_repeated(reference):
    assert reference.draw_targets(Target((0.7,), (0.7,)), 5).tolist() == [[pytest.approx(0.7)]] * 5


def test_value_outside_is_allowed(reference):
    assert (reference.draw_targets(Target((99.0,), (99.0,)), 5) == 99).all()


def test_interval_is_drawn_inside(reference):
    y = reference.draw_targets(Target((0.5,), (0.7,)), 500, seeded())
    assert ((y >= 0.5) & (y <= 0.7)).all()
    assert y.mean() == pytest.approx(0.6, abs=0.02)


def test_floor_is_drawn_from_the_prior(reference):
    y = reference.draw_targets(Target.parse(0.0, reference.properties), 2000, seeded())
    assert ((y >= -1) & (y <= 0)).all()
    assert y.mean() == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("edges", [(1.9, math.inf), (-math.inf, math.inf), (-math.inf, -0.9)])
def test_open_interval_is_drawn_from_the_prior(reference, edges):
    y = reference.draw_targets(Target(edges[:1], edges[1:]), 50, seeded())
    assert ((y >= max(edges[0], -1)) & (y <= min(edges[1], 2))).all()


def test_interval_between_the_reference_values(reference):
    gap = Target((0.50001,), (0.50002,))
    y = reference.draw_targets(gap, 50, seeded())
    assert ((y >= 0.5) & (y <= 0.5001)).all()


@pytest.mark.parametrize("edges", [(2.5, 3.0), (2.5, math.inf), (-5.0, -2.0)])
def test_interval_outside_is_its_nearest_edge(reference, edges, caplog):
    """A value is treated alike: it is taken as it is, with a warning."""
    target = Target(edges[:1], edges[1:])
    with caplog.at_level(logging.WARNING, "matdesinne"):
        reference.sample_target(target, 5, seeded())
    assert "lies outside the training range of y" in caplog.text
    assert reference.draw_targets(target, 5).unique().tolist() == [min(edges, key=abs)]


def test_an_interval_beyond_the_prior_is_drawn_from_the_range_of_the_rows(reference):
    reference.target_range[1] = 4.0
    y = reference.draw_targets(Target((2.5,), (math.inf,)), 50, seeded())
    assert ((y >= 2.5) & (y <= 4)).all() and len(y.unique()) == 50


def test_interval_draw_is_reproducible(reference):
    target = Target((0.0,), (1.0,))
    draws = [reference.draw_targets(target, 20, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_value_and_interval_together():
    made = model(CONF / "model" / "mdn.yaml", outputs=2)
    y = made.draw_targets(Target((0.3, -0.5), (0.3, 0.5)), 100, seeded())
    assert (y[:, 0] == torch.tensor(0.3)).all()
    assert ((y[:, 1] >= -0.5) & (y[:, 1] <= 0.5)).all()
    assert len(y[:, 1].unique()) == 8


def with_reference(y: torch.Tensor) -> InverseModel:
    """A model of as many properties as y has columns, whose prior they are."""
    made = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop(f"y{j}") for j in range(y.shape[1])])
    made.fit_scales(Batch(rows(box(), len(y)).x, y))
    return made


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.5])
def test_what_is_not_asked_for_follows_the_prior_given_the_target(value):
    """Of uniform x1 and x2, x1 - x2 is uniform within 2 - |x1 + x2|."""
    made = with_reference(rows(box(), 8192, outputs=2).y)
    y = made.draw_targets(Target((value, -math.inf), (value, math.inf)), 4000, seeded())
    width = 2 - abs(value)
    assert (y[:, 0] == value).all() and y[:, 1].abs().max() < width + 0.05
    assert len(y[:, 1].unique()) == 64
    assert y[:, 1].std() == pytest.approx(width / 3**0.5, rel=0.25)


def test_what_is_not_asked_for_follows_the_arm_of_kinematics():
    problem = Kinematics()
    made = with_reference(problem.forward(problem.sample_prior(8192, seeded(1))))
    y = made.draw_targets(Target((1.5, -math.inf), (1.5, math.inf)), 4000, seeded())[:, 1]
    prior = problem.forward(problem.sample_prior(400_000, seeded(2)))
    exact = prior[(prior[:, 0] - 1.5).abs() < 0.01, 1]
    assert y.std() == pytest.approx(exact.std().item(), rel=0.25)
    assert y.mean() == pytest.approx(exact.mean().item(), abs=4 * exact.std().item() / 64**0.5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_nearest_rows_are_those_in_standard_deviations(scale):
    base = torch.randn(8192, 2, generator=seeded())
    made = with_reference(torch.cat([base, base.sum(dim=1, keepdim=True)], dim=1) * torch.tensor([1.0, scale, 1.0]))
    y = made.draw_targets(Target((0.5, 0.3 * scale, -math.inf), (0.5, 0.3 * scale, math.inf)), 500, seeded())
    assert (y[:, 2] - 0.8).abs().max() < 0.4


def test_an_interval_and_a_value_are_of_one_row():
    made = with_reference(rows(box(), 8192, outputs=2).y)
    y = made.draw_targets(Target((1.5, -0.1), (1.5, math.inf)), 500, seeded())
    assert y[:, 1].min() >= -0.1 and y[:, 1].max() < 0.55


def test_what_is_not_asked_for_beside_an_impossible_interval():
    made = with_reference(rows(box(), 8192, outputs=2).y)
    y = made.draw_targets(Target((3.0, -math.inf), (4.0, math.inf)), 50, seeded())
    assert (y[:, 0] == 3.0).all() and y[:, 1].abs().max() < 0.4


def test_inn_needs_more_parameters_than_properties():
    with pytest.raises(ConfigError, match="more parameters"):
        tiny_network(CONF / "model" / "inn.yaml", box(1), [prop()])


@pytest.mark.parametrize("padding", [0, 2])
def test_inn_padding(padding):
    made = module(CONF / "model" / "inn.yaml", padding=padding)
    assert made.network.sample(torch.zeros(5, 1), seeded()).shape == (5, 3)
    assert ("padding" in made.train().losses(rows(box(3), 32))) is (padding > 0)


def weighted(losses: dict[str, torch.Tensor], **weights: float) -> torch.Tensor:
    return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()


def test_inn_loss_is_the_weighted_sum_of_its_terms(close):
    made = module(CONF / "model" / "inn.yaml", lambda_y=2.0, lambda_z=3.0, lambda_x=5.0, lambda_padding=7.0)
    losses = made.losses(rows(box(3), 32))
    close(losses["loss"].detach(), weighted(losses, y=2.0, z=3.0, x=5.0, padding=7.0).detach())


def test_cvae_loss_is_the_weighted_sum_of_its_terms(close):
    losses = module(CONF / "model" / "cvae.yaml", alpha=2.0, beta=3.0).losses(rows(box(3), 32))
    close(losses["loss"].detach(), weighted(losses, reconstruction=2.0, divergence=3.0).detach())


def test_each_model_has_its_own_label():
    labels = {path.stem: tiny_network(path, box(), [prop()]).label for path in FILES}
    known = {"cfm": "CFM", "cinn": "cINN (mixture)", "cinn_affine": "cINN (affine)", "cvae": "cVAE", "inn": "INN", "mdn": "MDN"}
    assert {name: labels[name] for name in known} == known
    assert len(set(labels.values())) == len(labels)


def test_training_blocks_alone_is_training_the_likelihood(close):
    """Each block's own loss has the gradient that the whole likelihood has for its parameters."""
    made = module(CONF / "model" / "cinn.yaml", target_noise=0.0).double().train()
    network, batch = made.network, rows(box(3), 64)
    batch = batch._replace(x=batch.x.double(), y=batch.y.double())
    (-network.standard_log_prob(*network.standardize(batch.x, batch.y))).mean().backward()
    whole = {name: parameter.grad.clone() for name, parameter in made.named_parameters() if parameter.grad is not None}
    made.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made.losses(batch)["objective"].backward()
    alone = {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert 0 < len(alone) < len(whole)
    for name, gradient in alone.items():
        close(gradient, whole[name], factor=100)


@y_files
def test_values_below_the_margin_are_one_class(path):
    made = tiny_network(path, box(3), [prop(floor=0.0, margin=0.25)])
    made.fit_scales(rows(box(3)))
    perturb(made, 0.2)
    samples = [made.eval().sample(torch.full((20, 1), y), seeded()) for y in (-0.25, -1.0, -9.0, -0.2)]
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])
    assert not torch.equal(samples[0], samples[3])
