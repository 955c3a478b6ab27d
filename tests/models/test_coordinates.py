"""Models and surrogates in physical units, the paper's choice: no box, no scales."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.models.base import DensityModel, InverseModel
from matdesinne.network import load_network, save_network
from matdesinne.surrogates.base import Surrogate

from ..toys import CONF, TOLERANCE, box, perturb, prop, rows, tiny_module, tiny_network, yaml_files

SPACE = box(3, scale=0.5)
FILES = yaml_files("model/paper")
paper = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
densities = pytest.mark.parametrize(
    "path", [p for p in FILES if isinstance(tiny_network(p, SPACE, [prop()]), DensityModel)], ids=lambda path: path.stem
)


def model(path, space=SPACE, size: float = 0.2, **settings: object) -> InverseModel:
    made = tiny_network(path, space, [prop()], **settings)
    made.fit_scales(rows(space))
    perturb(made, size)
    return made.eval()


def surrogate() -> Surrogate:
    made = tiny_network(CONF / "surrogate" / "paper" / "inn.yaml", SPACE, [prop()])
    batch = rows(SPACE)
    made.fit_scales(batch._replace(x=batch.x + 3, y=5 * batch.y))
    perturb(made, 0.2)
    return made.eval()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("group", ["model", "surrogate"])
def test_paper_files_are_physical(group):
    files = yaml_files(f"{group}/paper")
    assert [path.stem for path in files] == {
        "model": ["cinn_affine", "cvae", "cvae_6000", "inn", "mdn", "mdn_6000"],
        "surrogate": ["inn"],
    }[group]
    assert all(OmegaConf.load(path).network.coordinates == "physical" for path in files)


@paper
def test_designs_and_properties_are_seen_as_they_are(path):
    made, batch = model(path), rows(SPACE)
    assert torch.equal(made.transform(batch.x), batch.x)
    assert torch.equal(made.transform.inverse(batch.x), batch.x)
    assert torch.equal(made.target_scale(batch.y), batch.y)


@paper
def test_samples_may_leave_the_box(path):
    inside = SPACE.contains(model(path).sample(torch.zeros(500, 1), seeded()))
    assert not inside.all()


@paper
def test_the_box_keeps_them(path):
    """The same model in the other coordinates."""
    made = model(path, coordinates="box")
    assert SPACE.contains(made.sample(torch.zeros(500, 1), seeded()), tolerance=0).all()


@paper
def test_folder_round_trip(path, tmp_path):
    made = model(path)
    save_network(made, tmp_path, "model")
    again = load_network(InverseModel, tmp_path, "model")
    y = rows(SPACE, 20).y
    assert torch.equal(again.sample(y, seeded()), made.sample(y, seeded()))


@paper
def test_trains(path):
    made = tiny_module(path, SPACE, [prop()]).train()
    made.network.fit_scales(rows(SPACE))
    losses = made.losses(rows(SPACE, 64))
    losses["loss"].backward()
    assert losses["loss"].isfinite()


@pytest.mark.parametrize("path", [*FILES, CONF / "surrogate" / "paper" / "inn.yaml"])
def test_unknown_coordinates(path):
    with pytest.raises(ConfigError, match=r"\['box', 'physical'\], got 'polar'"):
        tiny_network(path, SPACE, [prop()], coordinates="polar")


@pytest.mark.slow
@densities
def test_density_integrates_to_one_beyond_the_box(path):
    made = model(path, box(2, scale=0.5), size=0.03).double()
    x = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(x, x)
    with torch.no_grad():
        density = made.log_prob(grid, torch.full((len(grid), 1), 0.3, dtype=torch.float64)).exp()
    assert float(density.sum() * (x[1] - x[0]) ** 2) == pytest.approx(1.0, abs=0.01)


@densities
def test_density_outside_the_box_is_finite(path):
    assert model(path).log_prob(torch.full((3, 3), 2.0), torch.zeros(3, 1)).isfinite().all()


@densities
def test_log_prob_has_no_volume(path, close):
    """Physical and standardised coordinates are the same."""
    made, batch = model(path), rows(SPACE, 20)
    assert isinstance(made, DensityModel)
    close(made.log_prob(batch.x, batch.y).detach(), made.standard_log_prob(batch.x, batch.y).detach())


def test_log_prob_is_that_of_the_jacobian(close):
    made, batch = model(CONF / "model" / "paper" / "cinn_affine.yaml").double(), rows(SPACE, 5)
    x, y = batch.x.double(), batch.y.double()

    def latent(row: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return made.network(row.unsqueeze(0), c=[made.features(wanted.unsqueeze(0))])[0][0]

    for row, wanted, found in zip(x, y, made.log_prob(x, y), strict=True):
        z = latent(row, wanted)
        jacobian = torch.autograd.functional.jacobian(lambda value, wanted=wanted: latent(value, wanted), row)
        normal = -0.5 * z.square().sum() - 1.5 * math.log(2 * math.pi)
        close(found.detach(), (normal + torch.linalg.slogdet(jacobian).logabsdet).detach(), factor=1e3)


@pytest.mark.slow
@densities
@pytest.mark.parametrize("column", [0, 1])
def test_log_prob_is_the_density_of_the_samples(path, column):
    """The histogram of one coordinate, and the density integrated over the other."""
    made = model(path, box(2, scale=0.5))
    samples = made.sample(torch.zeros(40_000, 1), seeded(), truncate=False)[:, column]
    counts = torch.histogram(samples, torch.linspace(-4, 4, 41)).hist / len(samples)
    fine = (torch.arange(400) + 0.5) / 50 - 4
    grid = torch.cartesian_prod(fine, 2 * fine)
    with torch.no_grad():
        density = made.log_prob(grid[:, [column, 1 - column]], torch.zeros(len(grid), 1)).exp()
    shares = density.reshape(40, -1).sum(1) * 0.02 * 0.04
    assert (counts - shares).abs().max() < 0.01


def test_surrogate_sees_designs_as_they_are():
    made, x = surrogate(), rows(SPACE, 10).x
    assert torch.equal(made.features(x), x)
    torch.testing.assert_close(made.predict(x)[0], made.network(x, jac=False)[0][:, :1], rtol=0, atol=0)


def test_surrogate_predicts_beyond_the_box():
    mean, _ = surrogate().predict_many(torch.full((3, 3), 20.0))
    assert mean.isfinite().all()


def test_surrogate_jacobian_is_in_physical_units():
    made, x = surrogate().double(), rows(SPACE, 10).x.double()
    exact = torch.stack([torch.autograd.functional.jacobian(lambda v: made.predict(v.unsqueeze(0))[0][0], row) for row in x])
    found = made.linearize(x).jacobian
    torch.testing.assert_close(found, exact, rtol=TOLERANCE[torch.float64], atol=TOLERANCE[torch.float64])


def test_surrogate_folder_round_trip(tmp_path):
    made, x = surrogate(), rows(SPACE, 10).x
    save_network(made, tmp_path, "surrogate")
    again = load_network(Surrogate, tmp_path, "surrogate")
    assert torch.equal(again.predict_many(x)[0], made.predict_many(x)[0])
    assert torch.equal(again.features(x), x)
