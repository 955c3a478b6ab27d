"""Gaussian processes on band energies, on the packaged set of relaxed layers."""

import math

import pytest
import torch

from matdesinne.bands import band_gap, gap_level
from matdesinne.data.sources import PackagedSource
from matdesinne.errors import ConfigError
from matdesinne.network import Batch, load_network, save_network
from matdesinne.surrogates.gp_bands import BandGPSurrogate
from matdesinne.surrogates.shared_gp import Rows, SharedGP
from matdesinne.targets import Property

from ..toys import box, load_part, prop, rows

NAMES = ("band_gap_fine", "direct_gap_fine", "band_gap_hse_soc", "strain_energy", "thickness")
PROPERTIES = [Property(name, "angstrom" if name == "thickness" else "eV") for name in NAMES]


@pytest.fixture(scope="module")
def table():
    """The designs with every level of theory."""
    every = PackagedSource("tmd_strain_mos2").load(load_part("space", "tmd_strain/mos2"), PROPERTIES)
    return every.take(every.y.isfinite().all(dim=1).nonzero()[:, 0])


@pytest.fixture(scope="module")
def trained(table):
    """Conditioned on the first thirty designs, with the lengths that it starts with."""
    surrogate = BandGPSurrogate(load_part("space", "tmd_strain/mos2"), PROPERTIES)
    some = table.take(torch.arange(30))
    surrogate.fit_scales(Batch(some.x, some.y, some.bands))
    return surrogate.eval()


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("band_gap", "band_gap"),
        ("direct_gap_hse_soc", "band_gap_hse_soc"),
        ("strain_energy", None),
        ("band_gaps", None),
    ],
)
def test_level_of_a_property(name, level):
    assert gap_level(name) == level


def test_reproduces_the_rows_that_it_knows(trained, table):
    mean, std = trained.predict_many(table.x[:30])
    assert (mean - table.y[:30]).abs().max() < 0.01
    away, _ = trained.predict_many(table.x[30:36])
    assert (away - table.y[30:36])[:, 3].abs().max() < 0.05
    assert (trained.predict_many(trained.space.upper.unsqueeze(0))[1] > std.mean(dim=0)).all()


def test_prediction_has_the_symmetries(trained):
    x = trained.space.sample(20, torch.Generator().manual_seed(0))
    mean, std = trained.predict_many(x)
    for element in trained.space.group():
        for image, own in zip(trained.predict_many(element(x)), (mean, std), strict=True):
            torch.testing.assert_close(image, own, rtol=1e-3, atol=1e-4)


def test_direct_gap_is_at_least_the_gap(trained):
    mean, _ = trained.predict_many(trained.space.sample(200, torch.Generator().manual_seed(1)))
    assert (mean[:, 1] >= mean[:, 0] - 1e-6).all()


def test_leaving_out_is_what_training_without_the_design_gives(trained, table):
    mean, std, labels = trained.leave_one_out()
    torch.testing.assert_close(labels, table.y[:30], rtol=1e-4, atol=1e-5)
    for left_out in (0, 7):
        rest = table.take(torch.tensor([row for row in range(30) if row != left_out]))
        other = BandGPSurrogate(trained.space, PROPERTIES)
        other.fit_scales(Batch(rest.x, rest.y, rest.bands))
        # the offset and the scale of a process are those of its rows: close, not equal, without one of them
        expected, spread = other.eval().mean_and_std(other.features(table.x[left_out : left_out + 1]))
        torch.testing.assert_close(mean[left_out], expected[0], rtol=0, atol=0.02)
        torch.testing.assert_close(std[left_out], spread[0], rtol=0.5, atol=1e-4)


def test_rows_without_a_level_are_left_out_of_its_process(trained, table):
    """A few dozen labels of an expensive level beside many of a cheap one."""
    some = table.take(torch.arange(30))
    bands = [labels._replace(energies=labels.energies.clone()) for labels in some.bands]
    y = some.y.clone()
    bands[1].energies[10:], y[10:, 2] = torch.nan, torch.nan
    assert bands[1].name == "band_gap_hse_soc"
    surrogate = BandGPSurrogate(trained.space, PROPERTIES)
    surrogate.fit_scales(Batch(some.x, y, tuple(bands)))
    mean, _ = surrogate.eval().predict_many(some.x)
    torch.testing.assert_close(mean[:, [0, 1, 3, 4]], trained.predict_many(some.x)[0][:, [0, 1, 3, 4]])
    assert (mean[:10, 2] - some.y[:10, 2]).abs().max() < 1e-3
    assert (mean[10:, 2] - some.y[10:, 2]).abs().max() > 1e-3
    found, _, labels = surrogate.leave_one_out()
    assert found[:, 2].isfinite().sum() == 10 and labels[:, 0].isfinite().all()


def chosen(table, rows):
    some = table.take(torch.tensor(list(rows)))
    return Batch(some.x, some.y, some.bands)


def batch(table, first, last):
    return chosen(table, range(first, last))


def similar(part):
    """Rows of a material whose energies, bands and thickness are those of a batch in proportion, with other offsets."""
    bands = tuple(labels._replace(energies=1.03 * labels.energies) for labels in part.bands)
    return Batch(part.x, 1.03 * part.y + 0.5, bands)


def test_a_similar_material_helps_where_rows_are_few(trained, table):
    alone, helped = (BandGPSurrogate(trained.space, PROPERTIES) for _ in range(2))
    alone.fit_scales(batch(table, 0, 8))
    helped.fit_scales(batch(table, 0, 8)._replace(relatives=(similar(batch(table, 8, 30)),)))
    error = [(surrogate.eval().predict_many(table.x[30:])[0] - table.y[30:]).abs().mean(dim=0) for surrogate in (alone, helped)]
    assert (error[1] < 0.9 * error[0]).all()


def test_the_mean_of_a_similar_material_is_its_own(trained, table):
    means = []
    for offset in (0.0, 100.0):
        other = similar(batch(table, 8, 30))
        surrogate = BandGPSurrogate(trained.space, PROPERTIES)
        surrogate.fit_scales(batch(table, 0, 8)._replace(relatives=(other._replace(y=other.y + offset),)))
        surrogate.processes["strain_energy"].log_noise.data.fill_(-12.0)
        means.append(surrogate.eval().predict_many(table.x[30:])[0][:, 3:])
    torch.testing.assert_close(*means, rtol=0, atol=0.02)


def test_leaving_out_knows_the_similar_material(trained, table):
    surrogate = BandGPSurrogate(trained.space, PROPERTIES)
    surrogate.fit_scales(batch(table, 0, 10)._replace(relatives=(similar(batch(table, 10, 30)),)))
    mean, _, labels = surrogate.eval().leave_one_out()
    torch.testing.assert_close(labels, table.y[:10], rtol=1e-4, atol=1e-5)
    assert mean.shape == labels.shape and (mean - labels).abs()[:, 3].mean() < 0.05


@pytest.mark.parametrize("left_out", [3, 7])
def test_leaving_out_drops_the_same_strain_of_a_similar_material(trained, table, left_out):
    """A new design has no such row: with it, the gaps would be predicted otherwise."""
    rest = [row for row in range(12) if row != left_out]

    def surrogate(own, others):
        found = BandGPSurrogate(trained.space, PROPERTIES)
        found.fit_scales(chosen(table, own)._replace(relatives=(similar(chosen(table, others)),)))
        return found.eval()

    with_row, without = (surrogate(rest, others).predict_many(table.x[[left_out]])[0][0] for others in (range(12), rest))
    found = surrogate(range(12), range(12)).leave_one_out()[0][left_out]
    assert ((found - without).abs() < 0.1 * (with_row - without).abs())[:3].all()


def test_takes_the_most_similar_material(trained, table):
    near, far = (similar(batch(table, 0, 30)) for _ in range(2))
    far = far._replace(y=far.y + 0.3 * torch.randn(far.y.shape, generator=torch.Generator().manual_seed(0)))
    surrogate = BandGPSurrogate(trained.space, PROPERTIES)
    for others in ((near, far), (far, near)):
        surrogate.fit_scales(batch(table, 0, 10)._replace(relatives=others))
        torch.testing.assert_close(surrogate.processes["thickness"].similar_outputs[::2, 0].float(), near.y[:, 4])
    surrogate.fit_scales(batch(table, 0, 10)._replace(relatives=(far,)))
    assert len(surrogate.processes["thickness"].similar_outputs) == 0


def test_a_similar_material_survives_saving(trained, table, tmp_path):
    surrogate = BandGPSurrogate(trained.space, PROPERTIES)
    surrogate.fit_scales(batch(table, 0, 10)._replace(relatives=(similar(batch(table, 10, 30)),)))
    save_network(surrogate.eval(), tmp_path, "surrogate")
    loaded = load_network(BandGPSurrogate, tmp_path, "surrogate")
    for mine, theirs in zip(surrogate.predict_many(table.x), loaded.predict_many(table.x), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert loaded.leave_one_out()[0].shape == (10, 5)


def test_gaps_are_those_of_the_energies(table):
    for labels, column in zip(table.bands, (0, 2), strict=False):  # other levels follow
        torch.testing.assert_close(band_gap(labels.energies)[:, 0], table.y[:, column], atol=1e-5, rtol=0)


def test_needs_band_energies():
    surrogate = BandGPSurrogate(box(), [prop("band_gap")])
    with pytest.raises(ConfigError, match=r"band energies of band_gap.*surrogate=gp"):
        surrogate.fit_scales(rows(box()))


def test_needs_a_row_of_each_property(trained, table):
    part = batch(table, 0, 8)
    bands = tuple(b._replace(energies=b.energies * math.nan) if "hse" in b.name else b for b in part.bands)
    with pytest.raises(ConfigError, match="designs with band_gap_hse_soc"):
        BandGPSurrogate(trained.space, PROPERTIES).fit_scales(part._replace(bands=bands, relatives=(batch(table, 8, 20),)))


def test_needs_few_rows():
    with pytest.raises(ConfigError, match="at most 4,000 rows"):
        BandGPSurrogate(box(), [prop()]).fit_scales(rows(box(), 4001))


def test_survives_saving(trained, tmp_path):
    save_network(trained, tmp_path, "surrogate")
    loaded = load_network(BandGPSurrogate, tmp_path, "surrogate")
    x = trained.space.sample(5, torch.Generator().manual_seed(2))
    for mine, theirs in zip(trained.predict_many(x), loaded.predict_many(x), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("smooth", [True, False])
def test_density_is_that_of_the_normal_distribution(smooth):
    """Per row and output, with the best scale, less the constant terms and the prior."""
    generator = torch.Generator().manual_seed(0)
    process = SharedGP(2, smooth)
    process.keep(Rows(torch.randn(12, 2, generator=generator).double(), torch.randn(12, 3, generator=generator).double()))
    centred = process.outputs - process.outputs.mean(dim=0)
    correlation = process._correlation(process.inputs, process.inputs) + process.noise * torch.eye(12)
    correlation = correlation.detach()
    scales = (centred * torch.linalg.solve(correlation, centred)).mean(dim=0).sqrt()
    normal = [
        torch.distributions.MultivariateNormal(torch.zeros(12).double(), scale**2 * correlation).log_prob(column)
        for scale, column in zip(scales, centred.T, strict=True)
    ]
    prior = (process.log_lengths - math.sqrt(2) - math.log(2) - math.log(2) / 2).square().sum() / 6
    expected = -torch.stack(normal).mean() / 12 - 0.5 * (1 + math.log(2 * math.pi)) + prior / 12
    assert process.negative_log_density().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_constant_output_has_a_slope():
    """As has the only label of a level; the root of the spread must not make it NaN."""
    process = SharedGP(2, smooth=True)
    process.keep(Rows(torch.randn(4, 2).double(), torch.ones(4, 3).double()))
    process.negative_log_density().backward()
    assert process.log_lengths.grad.isfinite().all() and process.log_noise.grad.isfinite()
