"""What every surrogate of conf/surrogate must do; a new YAML file is tested by itself."""

from functools import cache
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from FrEIA.framework import SequenceINN

from matdesinne.bands import BandLabels
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.network import Batch, load_network, save_network
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.surrogates import SurrogateModule, huber_loss

from ..toys import (
    CONF,
    TableSource,
    box,
    line,
    load_part,
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

FILES = yaml_files("surrogate")
KPOINTS = 5
GRID = torch.stack([torch.linspace(0, 0.4, KPOINTS), torch.zeros(KPOINTS)], dim=1)
files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def with_bands(batch: Batch) -> Batch:
    """Energies whose gap is y: bands that are flat but for the edges."""
    k = torch.linspace(0, 1, KPOINTS)
    valence = -(k + batch.x[:, :1].square())
    valence = valence - valence.amax(1, keepdim=True)
    conduction = batch.y[:, :1] + k.flip(0) * (1 + batch.x[:, 1:2].square())
    return batch._replace(bands=(BandLabels(torch.stack([valence, conduction], dim=1), GRID),))


@cache
def crystal(group: str):
    return load_part(group)


@cache
def packaged() -> DesignTable:
    return PackagedSource("mos2_gpaw").load(crystal("space"), [prop("band_gap")])


@cache
def needs_crystal(path: Path) -> bool:
    try:
        tiny_network(path, box(), [prop()])
    except ConfigError:
        return True
    return False


def home(path: Path) -> DesignSpace:
    """The simplest designs that a surrogate takes: a box, or the cells of the packaged set."""
    return crystal("space") if needs_crystal(path) else box()


def labelled(path: Path, count: int = 256, space: DesignSpace | None = None) -> Batch:
    """Rows with a property and band energies."""
    if not needs_crystal(path):
        return with_bands(rows(space or box(), count))
    table = packaged()
    table = table.take(table.y[:, 0].isfinite().nonzero()[:count, 0])
    return Batch(table.x, table.y, table.bands)


def module(path, space=None, size: float = 0.2, **settings: object) -> SurrogateModule:
    """A LightningModule whose network knows its scales and is away from its start."""
    prototype = crystal("prototype") if needs_crystal(path) else None
    made = tiny_module(path, space or home(path), [prop()], prototype=prototype, **{"kpoints": KPOINTS, **settings})
    made.network.fit_scales(labelled(path, space=space))
    perturb(made, size)
    return made.eval()


def surrogate(path, *args: object, **settings: object) -> Surrogate:
    return module(path, *args, **settings).network


def home_data(path: Path) -> DesignDataModule:
    batch = labelled(path)
    source = TableSource(DesignTable(batch.x, batch.y, torch.arange(len(batch.x)), batch.bands))
    return DesignDataModule(source, home(path), [prop()], validation=0.2, test=0.1)


@pytest.mark.slow
@files
def test_predict_shapes(path):
    """In its own space, and in others where it is for any."""
    for space in [None] if needs_crystal(path) else [None, line(), box(3)]:
        made = surrogate(path, space)
        mean, std = made.predict(labelled(path, 10, space).x)
        assert mean.shape == std.shape == (10, 1)
        assert mean.dtype == std.dtype == torch.float32
        assert mean.isfinite().all() and (std >= 0).all()


@pytest.mark.slow
@files
def test_predict_rejects(path):
    made = surrogate(path)
    for shape in ((4,), (4, 3), (4, 1), (1, 4, 2)):
        with pytest.raises(ConfigError, match=rf"\[n, {home(path).dimension}\]"):
            made.predict(torch.zeros(shape))


@pytest.mark.slow
@files
def test_differentiable(path):
    x = labelled(path, 10).x.requires_grad_()
    surrogate(path).predict(x)[0].sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()


@pytest.mark.slow
@files
def test_jacobian_is_the_finite_difference(path):
    made = surrogate(path).double()
    x = labelled(path, 10).x.double()
    value, _, jacobian = made.linearize(x)
    assert jacobian.shape == (10, 1, made.space.dimension)
    torch.testing.assert_close(value, made.predict(x)[0].detach())
    step = 1e-6
    for i in range(made.space.dimension):
        shift = step * torch.eye(made.space.dimension, dtype=torch.float64)[i]
        slope = (made.predict(x + shift)[0] - made.predict(x - shift)[0]) / (2 * step)
        torch.testing.assert_close(jacobian[:, :, i], slope.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@files
def test_jacobian_under_no_grad(path):
    with torch.no_grad():
        assert surrogate(path).linearize(labelled(path, 3).x).jacobian.isfinite().all()


@pytest.mark.slow
@files
@pytest.mark.parametrize("chunk", [1, 7])
def test_batch_equals_its_rows(path, chunk, monkeypatch, close):
    made, x = surrogate(path), labelled(path, 30).x
    together = made.predict_many(x)
    monkeypatch.setattr("matdesinne.surrogates.base._CHUNK_ROWS", chunk)
    for apart, value in zip(made.predict_many(x), together, strict=True):
        close(apart, value, factor=10)


@pytest.mark.slow
@files
def test_predict_many_equals_predict(path, close):
    made, x = surrogate(path), labelled(path, 30).x
    for many, once in zip(made.predict_many(x), made.predict(x), strict=True):
        close(many, once.detach(), factor=10)
        assert not many.requires_grad


@pytest.mark.slow
@files
def test_no_rows(path):
    mean, std = surrogate(path).predict_many(torch.empty(0, home(path).dimension))
    assert mean.shape == std.shape == (0, 1)


@pytest.mark.slow
@files
def test_every_parameter_gets_a_gradient(path):
    made = module(path).train()
    loss_of(made, labelled(path, 64))["objective"].backward()
    trained = {name: parameter for name, parameter in made.network.named_parameters() if parameter.requires_grad}
    idle = {name for name, parameter in trained.items() if parameter.grad is None or not (parameter.grad != 0).any()}
    # the second half of the last block of an invertible network moves outputs that are not scored
    flows = [(name, part) for name, part in made.network.named_modules() if isinstance(part, SequenceINN)]
    unscored = tuple(f"{name}.module_list.{len(part.module_list) - 1}.subnet1." for name, part in flows)
    assert idle == {name for name in trained if name.startswith(unscored)}
    assert all(parameter.grad.isfinite().all() for parameter in trained.values() if parameter.grad is not None)


@pytest.mark.slow
@files
@pytest.mark.parametrize("training", [True, False])
def test_losses_are_finite_scalars(path, training):
    losses = module(path).train(training).losses(labelled(path, 64))
    assert "loss" in losses
    assert all(value.shape == () and value.isfinite() for value in losses.values())


@pytest.mark.slow
@files
def test_prediction_is_that_of_the_network(path, close):
    made, batch = module(path), labelled(path, 64)
    with torch.no_grad():
        close(made.prediction(made.evaluate(batch)), made.network.predict_many(batch.x)[0], factor=10)


@pytest.mark.slow
@files
def test_training_and_validation_have_the_same_loss(path, close):
    """On the same rows; that at all k-points, where a step sees a few."""
    # the Hamiltonian learns from every grid, and is validated on the property's own
    batch = labelled(path, 64)
    batch = batch._replace(bands=batch.bands[:1])
    made = module(path, **({"kpoints_per_step": len(batch.bands[0].kpoints)} if needs_crystal(path) else {}))
    with torch.no_grad():
        close(*(made.train(training).losses(batch)["loss"] for training in (True, False)), factor=10)


def validated(made: SurrogateModule, data: DesignDataModule, folder: Path) -> dict[str, float]:
    return trainer(folder).validate(made, datamodule=data, verbose=False)[0]


@pytest.mark.slow
@files
def test_validation_logs_the_errors_of_the_prediction(path, tmp_path):
    """Over all rows, in batches of unequal size."""
    data, made = home_data(path), module(path, batch_size=20)
    rows_ = data.split.validation
    logged = validated(made, data, tmp_path)
    error = made.network.predict_many(rows_.x)[0] - rows_.y
    assert len(rows_) % 20
    assert logged["val/mae"] == pytest.approx(error.abs().mean().item(), rel=1e-4)
    assert logged["val/rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)
    if path.stem.startswith("gp"):
        return  # trained by the likelihood of all rows together: tests/training/test_gp.py
    with torch.no_grad():
        loss = made.eval().losses(Batch(rows_.x, rows_.y, rows_.bands))["loss"]
    assert logged["val/loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.slow
@files
def test_folder_round_trip(path, tmp_path):
    made, x = surrogate(path), labelled(path, 10).x
    save_network(made, tmp_path, "surrogate")
    again = load_network(Surrogate, tmp_path, "surrogate")
    assert all(torch.equal(a, b) for a, b in zip(made.predict_many(x), again.predict_many(x), strict=True))


@pytest.mark.slow
@files
def test_checkpoint_round_trip(path, tmp_path):
    """By Lightning's own method, from the file alone."""
    made = module(path, batch_size=100).train()
    assert isinstance(made, pl.LightningModule) and not isinstance(made.network, pl.LightningModule)
    runner = trainer(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        runner.fit(made, datamodule=home_data(path))
    runner.save_checkpoint(tmp_path / "surrogate.ckpt")
    torch.load(tmp_path / "surrogate.ckpt", weights_only=True)
    again = type(made).load_from_checkpoint(tmp_path / "surrogate.ckpt", weights_only=True)
    x = labelled(path, 10).x
    assert torch.equal(again.network.eval().predict_many(x)[0], made.network.eval().predict_many(x)[0])
    assert again.batch_size == 100


@files
def test_units_of_designs(path, close):
    if needs_crystal(path):
        pytest.skip("needs a crystal: its cell has units")
    batch = with_bands(rows(box()))
    first = tiny_network(path, box(), [prop()], kpoints=KPOINTS)
    second = tiny_network(path, box(scale=10.0), [prop()], kpoints=KPOINTS)
    first.fit_scales(batch)
    second.fit_scales(batch._replace(x=10 * batch.x))
    close(second.eval().predict_many(10 * batch.x)[0], first.eval().predict_many(batch.x)[0], factor=10)


@pytest.mark.slow
@files
def test_learns_a_toy(path):
    if needs_crystal(path):
        pytest.skip(f"needs a crystal: test_{path.stem}.py")
    settings = {"size": 0.0, "hidden": 32, "depth": 2, "blocks": 4}
    made = module(path, **settings).train()
    batch = with_bands(rows(box(), 128))
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        made.losses(batch)["loss"].backward()
        optimizer.step()
    test = rows(box(), 500, seed=5)
    error = (made.network.eval().predict_many(test.x)[0] - test.y).abs().mean()
    assert error < 0.1 * (test.y - test.y.mean()).abs().mean()


def test_ensemble_members_differ():
    _, std = surrogate(CONF / "surrogate" / "mlp.yaml", members=4).predict_many(rows(box(), 50).x)
    assert (std > 0).all()


@pytest.mark.parametrize("name", ["mlp", "inn"])
def test_one_member_has_no_spread(name):
    _, std = surrogate(CONF / "surrogate" / f"{name}.yaml", members=1).predict_many(rows(box(), 5).x)
    assert (std == 0).all()


@pytest.mark.parametrize("name", ["mlp", "inn"])
def test_two_properties(name):
    made = tiny_network(CONF / "surrogate" / f"{name}.yaml", box(3), [prop("y"), prop("w")])
    made.fit_scales(rows(box(3), outputs=2))
    value, _, jacobian = made.eval().linearize(rows(box(3), 10).x)
    assert value.shape == (10, 2)
    assert jacobian.shape == (10, 2, 3)


def censored(name: str, prediction: float, label: float, folder: Path, flag: bool = True) -> dict[str, float]:
    """What the validation logs for one row, or two equal ones, of a surrogate that predicts one value."""
    properties = [prop("y", floor=0.0, censored=flag)]
    made = tiny_module(CONF / "surrogate" / f"{name}.yaml", box(), properties)
    made.network.fit_scales(rows(box()))
    made.network.member_predictions = lambda features: torch.full((2, len(features), 1), prediction)
    table = DesignTable(torch.zeros(2, 2), torch.full((2, 1), label), torch.arange(2))
    return validated(made, toy_data().with_rows(table, table), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "inn"])
@pytest.mark.parametrize(
    ("prediction", "label", "costs"),
    [(-1.0, 0.0, False), (0.0, 0.0, False), (0.5, 0.0, True), (0.2, 0.5, True), (0.7, 0.5, True), (-0.2, 0.5, True)],
)
def test_censored_loss_is_one_sided(name, prediction, label, costs, tmp_path):
    logged = censored(name, prediction, label, tmp_path)
    assert {key for key, value in logged.items() if value > 0} == ({"val/loss", "val/mae", "val/rmse"} if costs else set())


def test_huber_loss_goes_from_quadratic_to_linear(close):
    size = torch.tensor([0.0, 0.05, 0.1, 0.2, 1.0, -1.0], dtype=torch.float64)
    close(huber_loss(size, 0.1), torch.tensor([0.0, 0.0125, 0.05, 0.15, 0.95, 0.95]).double(), factor=1e4)


@pytest.mark.parametrize("delta", [0.03, 1.0])
def test_huber_loss_is_smooth(delta):
    residual = torch.linspace(-2 * delta, 2 * delta, 401, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(huber_loss(residual, delta).sum(), residual)
    assert slope.abs().max() <= 1
    assert (slope.diff() >= 0).all() and slope.diff().max() < 0.02


@pytest.mark.parametrize(
    ("name", "settings"), [("mlp", {"pieces": 0}), ("mlp", {"huber": 0.0}), ("mlp", {"huber": -1.0}), ("bands", {"huber": 0.0})]
)
def test_rejects(name, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        tiny_module(CONF / "surrogate" / f"{name}.yaml", box(), [prop()], **settings)


def test_pieces_make_kinks():
    """One piece is smooth; with more, y = min - max has kinks where the piece that wins changes."""
    along = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    x = torch.stack([along, torch.full_like(along, 0.3)], dim=1)
    curvature = []
    for pieces in (1, 8):
        made = surrogate(CONF / "surrogate" / "mlp.yaml", size=1.0, members=1, pieces=pieces).double()
        curvature.append(float(made.predict_many(x)[0][:, 0].diff().diff().abs().max() / (along[1] - along[0]) ** 2))
    assert curvature[1] > 20 * curvature[0]


@pytest.mark.parametrize("name", ["mlp", "inn"])
def test_uncensored_loss_has_two_sides(name, tmp_path):
    assert min(censored(name, -1.0, 0.0, tmp_path, flag=False).values()) > 0
