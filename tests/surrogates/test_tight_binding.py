"""The learnt Hamiltonian of a layer, and the ensemble that derives the gap from it."""

import pytest
import torch

from matdesinne.bands import BandLabels, band_gap
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.table import DesignTable
from matdesinne.errors import ConfigError
from matdesinne.network import Batch, load_network, network_from_config, save_network
from matdesinne.space import DesignSpace, Parameter
from matdesinne.structures import Prototype
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.tight_binding.bonds import Layer
from matdesinne.surrogates.tight_binding.slater_koster import SlaterKoster
from matdesinne.surrogates.tight_binding.surrogate import TightBindingSurrogate
from matdesinne.training.tight_binding import LightningTightBinding

from ..toys import CONF, TableSource, box, load_part, perturb, prop, rows, tiny_module, tiny_network, trainer

YAML = CONF / "surrogate" / "tight_binding.yaml"
GAP = [prop("band_gap", floor=0.0)]
SYMMETRIC = 1e-3
"""eV; what rounding in float32 leaves of an exact symmetry."""


SPACE, PROTOTYPE = load_part("space"), load_part("prototype")
OPERATIONS = SPACE.group()[1:]
KPOINTS = torch.rand(7, 2, generator=torch.Generator().manual_seed(3)) - 0.5


@pytest.fixture(scope="module")
def batch() -> Batch:
    table = PackagedSource("mos2_gpaw").load(SPACE, GAP)
    chosen = table.bands[0].energies.isfinite().all(dim=2).all(dim=1).nonzero()[:64, 0]
    table = table.take(chosen)
    return Batch(table.x, table.y, table.bands)


@pytest.fixture
def x(batch) -> torch.Tensor:
    return batch.x[:10]


@pytest.fixture
def hamiltonian(batch) -> SlaterKoster:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SlaterKoster(SPACE, PROTOTYPE, hidden=16)
    made.fit_scales(batch.x)
    perturb(made, 0.1)
    return made


def made_module(batch: Batch, size: float = 0.05, **settings: object) -> LightningTightBinding:
    made = tiny_module(YAML, SPACE, GAP, prototype=PROTOTYPE, **settings)
    made.network.fit_scales(batch)
    perturb(made, size)
    return made.eval()


def made_surrogate(batch: Batch, **settings: object) -> TightBindingSurrogate:
    return made_module(batch, **settings).network


def largest(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).detach().abs().max())


@pytest.mark.parametrize("element", OPERATIONS, ids=range(len(OPERATIONS)))
def test_symmetry_leaves_the_energies(hamiltonian, x, element):
    """E(g k; g x) = E(k; x)."""
    image = KPOINTS @ element.reciprocal.T
    assert largest(hamiltonian(element(x), image), hamiltonian(x, KPOINTS)) < SYMMETRIC


@pytest.mark.slow
@pytest.mark.parametrize("element", OPERATIONS, ids=range(len(OPERATIONS)))
def test_symmetry_permutes_the_grid(batch, x, element):
    made = made_surrogate(batch)
    order = batch.bands[0].permutation(element.reciprocal)
    assert largest(made.energies(element(x))[..., order], made.energies(x)) < SYMMETRIC


def test_swapping_the_axes_alone_is_no_symmetry(hamiltonian, x):
    """The second operation also turns the angles around: without that it is another crystal."""
    swapped = x[:, [1, 0, 2, 4, 3, 5, 6]]
    assert largest(hamiltonian(swapped, KPOINTS.flip(1)), hamiltonian(x, KPOINTS)) > 100 * SYMMETRIC


def test_time_reversal(hamiltonian, x):
    assert largest(hamiltonian(x, -KPOINTS), hamiltonian(x, KPOINTS)) < SYMMETRIC


@pytest.mark.parametrize("vector", [(1, 0), (0, 1), (-2, 3)])
def test_reciprocal_lattice_vectors_leave_the_energies(hamiltonian, x, vector):
    assert largest(hamiltonian(x, KPOINTS + torch.tensor(vector)), hamiltonian(x, KPOINTS)) < SYMMETRIC


def test_kpoints_of_each_design(hamiltonian, x):
    grids = torch.stack([KPOINTS.roll(row, 0) for row in range(len(x))])
    together = hamiltonian(x, KPOINTS)
    rolled = torch.stack([together[row].roll(row, 1) for row in range(len(x))])
    assert largest(hamiltonian(x, grids), rolled) < SYMMETRIC


def test_hamiltonian_is_hermitian(hamiltonian, x):
    matrix = hamiltonian.hamiltonian(hamiltonian.surroundings(x), KPOINTS)
    assert matrix.shape == (len(x), len(KPOINTS), 14, 14)
    torch.testing.assert_close(matrix, matrix.mH)


def test_energies_are_eigenvalues(hamiltonian, x):
    with torch.no_grad():
        plain = hamiltonian(x, KPOINTS)
    assert plain.shape == (len(x), 2, len(KPOINTS))
    assert (plain[:, 0] <= plain[:, 1]).all()
    assert largest(hamiltonian(x, KPOINTS), plain) < SYMMETRIC


@pytest.mark.slow
def test_gradient_with_respect_to_the_design(hamiltonian, x):
    made, x = hamiltonian.double(), x[:4].double().requires_grad_()
    weight = torch.randn(4, 2, len(KPOINTS), generator=torch.Generator().manual_seed(0)).double()
    (slope,) = torch.autograd.grad((weight * made(x, KPOINTS)).sum(), x)
    for column in range(SPACE.dimension):
        step = 1e-6 * torch.eye(SPACE.dimension, dtype=torch.float64)[column]
        change = made(x + step, KPOINTS) - made(x - step, KPOINTS)
        expected = (weight * change).sum(dim=(1, 2)).detach() / 2e-6
        torch.testing.assert_close(slope[:, column], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_gradient_with_respect_to_parameters(hamiltonian, x):
    made, x = hamiltonian.double(), x[:3].double()
    slopes = torch.autograd.grad(made(x, KPOINTS)[:, 1].sum(), tuple(made.parameters()))
    for parameter, slope in zip(made.parameters(), slopes, strict=True):
        flat, values = slope.flatten(), parameter.data.view(-1)
        place = int(flat.abs().argmax())
        ends = []
        for change in (1e-6, -2e-6):
            values[place] += change
            ends.append(float(made(x, KPOINTS)[:, 1].sum().detach()))
        values[place] += 1e-6
        assert float(flat[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_constants_are_not_saved(hamiltonian):
    assert not any(key.startswith(("bonds.", "matrices")) for key in hamiltonian.state_dict())


def test_a_space_without_field(batch):
    space = DesignSpace([parameter for parameter in SPACE.parameters if parameter.name != "electric_field"])
    made = SlaterKoster(space, PROTOTYPE, hidden=16)
    made.fit_scales(batch.x[:, :6])
    assert made(batch.x[:5, :6], KPOINTS).isfinite().all()


def test_layer_of_the_prototype(close):
    (first, second), height = Layer.of(PROTOTYPE)
    close([first, second, height], [1 / 3, -1 / 3, 0.127], factor=1e4)


@pytest.mark.parametrize(
    ("symbols", "positions"),
    [
        (["Mo", "S"], [[0, 0, 0.5], [0.3, 0.6, 0.6]]),
        (["Mo", "S", "Se"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.627], [2 / 3, 1 / 3, 0.373]]),
        (["Mo", "S", "S"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.627], [2 / 3, 1 / 3, 0.36]]),
        (["Mo", "S", "S"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.627], [0, 0, 0.373]]),
    ],
    ids=["two atoms", "three kinds", "no mirror", "other phase"],
)
def test_rejects_another_prototype(symbols, positions):
    with pytest.raises(ConfigError, match="one metal and two equal chalcogens"):
        SlaterKoster(SPACE, Prototype(symbols, positions))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (box(), "lattice|structure"),
        (DesignSpace([*SPACE.parameters, Parameter("doping", "1", 0.0, 1.0)]), "doping"),
        (DesignSpace([Parameter("a", "angstrom"), *SPACE.parameters[1:]]), "finite bounds"),
    ],
    ids=["toy", "unseen parameter", "unbounded"],
)
def test_rejects_another_space(space, message):
    with pytest.raises(ConfigError, match=message):
        SlaterKoster(space, PROTOTYPE)


def test_surrogate_needs_a_prototype():
    with pytest.raises(ConfigError, match=r"none.*surrogate=mlp"):
        tiny_network(YAML, SPACE, GAP)


def test_one_property_only():
    with pytest.raises(ConfigError, match="one band gap"):
        tiny_network(YAML, SPACE, [prop("y"), prop("w")], prototype=PROTOTYPE)


@pytest.mark.parametrize("settings", [{"huber": 0.0}, {"members": 0}, {"kpoints_per_step": 0}], ids=str)
def test_rejects(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        tiny_network(YAML, SPACE, GAP, prototype=PROTOTYPE, **settings)


def test_scales_need_bands(batch):
    with pytest.raises(ConfigError, match=r"none.*surrogate=mlp"):
        tiny_network(YAML, SPACE, GAP, prototype=PROTOTYPE).fit_scales(batch._replace(bands=()))


def test_energies_need_scales(x):
    with pytest.raises(ConfigError, match="fit_scales"):
        tiny_network(YAML, SPACE, GAP, prototype=PROTOTYPE).energies(x)


def test_energies_are_relative(batch, x, close):
    energies = made_surrogate(batch).energies(x)
    assert energies.shape == (2, 10, 2, 41)
    close(energies[:, :, 0].mean(dim=2).detach(), torch.zeros(2, 10), factor=10)


def test_gap_is_derived_from_the_mean_energies(batch, x, close):
    made = made_surrogate(batch)
    energies = made.energies(x).detach()
    mean, spread = made.predict_many(x)
    close(mean, band_gap(energies.mean(dim=0)), factor=100)
    close(spread, band_gap(energies).std(dim=0), factor=100)


@pytest.mark.slow
def test_jacobian_is_the_finite_difference(batch, x):
    made, x = made_surrogate(batch).double(), x[:4].double()
    value, _, jacobian = made.linearize(x)
    assert value.shape == (4, 1) and jacobian.shape == (4, 1, 7)
    for column in range(SPACE.dimension):
        step = 1e-6 * torch.eye(SPACE.dimension, dtype=torch.float64)[column]
        expected = (made.predict(x + step)[0] - made.predict(x - step)[0]).detach() / 2e-6
        torch.testing.assert_close(jacobian[:, :, column], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_chunks_change_nothing(batch, x, monkeypatch, close):
    made = made_surrogate(batch)
    before = [*made.predict_many(x), *made.linearize(x)]
    monkeypatch.setattr("matdesinne.surrogates.tight_binding.surrogate._CHUNK_ROWS", 3)
    for apart, together in zip([*made.predict_many(x), *made.linearize(x)], before, strict=True):
        close(apart, together, factor=100)


def test_no_rows(batch):
    assert made_surrogate(batch).predict_many(torch.empty(0, 7))[0].shape == (0, 1)


@pytest.mark.parametrize("count", [41, 5])
def test_folder_round_trip(batch, x, tmp_path, count):
    labels = batch.bands[0]
    made = made_surrogate(batch._replace(bands=(BandLabels(labels.energies[..., :count], labels.kpoints[:count]),)))
    save_network(made, tmp_path, "surrogate")
    again = load_network(Surrogate, tmp_path, "surrogate")
    assert again.kpoints.shape == (count, 2)
    assert all(torch.equal(a, b) for a, b in zip(made.predict_many(x), again.predict_many(x), strict=True))


def test_loads_over_another_grid(batch, x):
    labels = batch.bands[0]
    made, other = (
        made_surrogate(batch),
        made_surrogate(batch._replace(bands=(BandLabels(labels.energies[..., :5], labels.kpoints[:5]),))),
    )
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.predict_many(x)[0], made.predict_many(x)[0])


def test_describes_its_prototype(batch):
    again = network_from_config(made_surrogate(batch).to_config())
    assert again.prototype == PROTOTYPE


@pytest.mark.slow
def test_steps_lower_the_loss(batch):
    made = made_module(batch, size=0.0, members=1)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)

    def scores() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            error = (made.network.predict_many(batch.x)[0] - batch.y).abs().mean()
            return made.eval().losses(batch)["loss"], error

    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = scores()
        made.train()
        for _ in range(25):
            optimizer.zero_grad()
            made.losses(batch)["loss"].backward()
            optimizer.step()
    after = scores()
    assert after[0] < 0.6 * before[0]
    assert after[1] < before[1]


def made_data(batch: Batch) -> DesignDataModule:
    table = DesignTable(batch.x, batch.y, torch.arange(len(batch.x)), batch.bands)
    return DesignDataModule(TableSource(table), SPACE, GAP, PROTOTYPE, test=0.1, validation=0.2)


@pytest.mark.slow
def test_checkpoint_round_trip(batch, x, tmp_path):
    made = made_module(batch).train()
    runner = trainer(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        runner.fit(made, datamodule=made_data(batch))
    runner.save_checkpoint(tmp_path / "surrogate.ckpt")
    again = LightningTightBinding.load_from_checkpoint(tmp_path / "surrogate.ckpt", weights_only=True)
    assert torch.equal(again.network.eval().predict_many(x)[0], made.network.eval().predict_many(x)[0])
    assert torch.equal(again.network.kpoints, batch.bands[0].kpoints)


def second_grid(batch: Batch, count: int) -> Batch:
    """Energies on another grid in the last rows; NaN in the others."""
    labels = batch.bands[0]
    energies = torch.full((len(batch.x), 2, 6), torch.nan)
    energies[len(energies) - count :] = labels.energies[len(energies) - count :, :, :6]
    return batch._replace(bands=(labels, BandLabels(energies, labels.kpoints[:6] + 0.01)))


def loss(made, batch: Batch) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return made.train().losses(batch)["loss"].detach()


def test_rows_without_energies_are_ignored(batch, close):
    made = made_module(batch, kpoints_per_step=6)
    close(loss(made, second_grid(batch, 0)), loss(made, batch))
    assert loss(made, second_grid(batch, 5)).isfinite()


@pytest.mark.slow
def test_loss_is_the_mean_over_all_rows_of_all_grids(batch, close):
    made = made_module(batch, kpoints_per_step=41)
    first, energies = batch.bands[0], batch.bands[0].energies + torch.linspace(0, 0.1, 41)
    energies[:48] = torch.nan
    second = BandLabels(energies, first.kpoints)
    both, one, two = (loss(made, batch._replace(bands=bands)) for bands in ((first, second), (first,), (second,)))
    close(both, (64 * one + 16 * two) / 80, factor=10)


def test_rows_with_energies_count(batch):
    """In training those of every grid, in validation those of the property's own."""
    made = made_module(batch)
    assert [made.train(training).rows(second_grid(batch, 5)) for training in (True, False)] == [69, 64]


def without_energies(batch: Batch) -> Batch:
    labels = batch.bands[0]
    empty = BandLabels(torch.full_like(labels.energies, torch.nan), labels.kpoints)
    return batch._replace(y=torch.full_like(batch.y, torch.nan), bands=(empty,))


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_no_complete_row(batch, training):
    losses = made_module(batch).train(training).losses(without_energies(batch))
    losses["loss"].backward()
    assert all(value == 0 for value in losses.values())


def validated(made: LightningTightBinding, batch: Batch, folder) -> dict[str, float]:
    data = made_data(batch)
    rows_ = DesignTable(batch.x, batch.y, torch.arange(len(batch.x)), batch.bands)
    return trainer(folder).validate(made, datamodule=data.with_rows(rows_, rows_), verbose=False)[0]


@pytest.mark.slow
def test_validation_sees_the_own_grid_only(batch, tmp_path):
    made = made_module(batch)
    one, two = (validated(made, rows_, tmp_path) for rows_ in (batch, second_grid(batch, 5)))
    assert set(one) == {"val/loss", "val/mae", "val/rmse"}
    assert two == pytest.approx(one, rel=1e-5)
    assert one["val/mae"] == pytest.approx((made.network.predict_many(batch.x)[0] - batch.y).abs().mean().item(), rel=1e-3)


def test_rows_without_a_label_have_no_error(batch, tmp_path):
    """Half of the rows are known on another grid only."""
    made, labels = made_module(batch), batch.bands[0]
    energies, y = labels.energies.clone(), batch.y.clone()
    energies[32:], y[32:] = torch.nan, torch.nan
    known = Batch(batch.x[:32], batch.y[:32], (labels.take(torch.arange(32)),))
    partly = Batch(batch.x, y, (labels._replace(energies=energies),))
    assert validated(made, partly, tmp_path) == pytest.approx(validated(made, known, tmp_path), rel=1e-4)


def test_toy_rows_do_not_fit():
    with pytest.raises(ConfigError):
        tiny_network(YAML, box(), GAP, prototype=PROTOTYPE).fit_scales(rows(box()))


def test_on_another_grid(batch, x, close):
    made = made_surrogate(batch)
    labels = batch.bands[0]
    part = labels._replace(energies=labels.energies[:, :, ::4], kpoints=labels.kpoints[::4], name="band_gap_coarse")
    other = made.on_grid(part)
    assert other.properties[0].name == "band_gap_coarse"
    close(other.energies(x)[:, :, 1].amin(2), made.energies(x)[:, :, 1, ::4].amin(2) - shift(made, x), factor=1e2)
    assert torch.equal(made.kpoints, labels.kpoints)


def shift(made, x):
    """Both count from the mean valence energy of their own grid."""
    return made.energies(x)[:, :, 0, ::4].mean(2)
