"""The spread of a surrogate, before and after it was compared with real errors."""

import math
from statistics import NormalDist

import pytest
import torch

from matdesinne.network import Batch, load_network, save_network
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.mlp import MLPSurrogate
from matdesinne.training.surrogates import LightningMLP

from ..toys import CONF, Linear, box, prop, rows, tiny_network, toy_data, trainer

LEVELS = [0.5, 0.6827, 0.9]


class Uneven(Linear):
    """Two members that differ by |x1|: the spread changes from design to design."""

    def member_predictions(self, features):
        x = self.features.scale.inverse(features)
        mean, gap = x @ self.matrix.T, x[:, :1].abs()
        return torch.stack([mean - gap / 2, mean + gap / 2])


class Single(Linear):
    """One member, no spread at all."""


def surrogate(kind: type[Linear] = Uneven, outputs: int = 1, **settings: object) -> Linear:
    matrix = [[1.0, 1.0], [1.0, -1.0]][:outputs]
    return kind(box(), [prop("y", **settings), prop("w", **settings)][:outputs], matrix).eval()


def labelled(made: Surrogate, count: int, noise: float = 0.3, seed: int = 0) -> Batch:
    """Rows whose error grows with the spread, and has a part that does not."""
    generator = torch.Generator().manual_seed(seed)
    x = made.space.sample(count, generator)
    mean, _ = made.predict_many(x)
    error = torch.randn(mean.shape, generator=generator) * noise * (0.2 + x[:, :1].abs())
    return Batch(x, mean + error)


def covered(made: Surrogate, batch: Batch, level: float) -> torch.Tensor:
    mean, std = made.predict_many(batch.x)
    return ((batch.y - mean).abs() <= made.half_width(std, level)).float().mean(dim=0)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("level", [0.05, 0.33, 0.5, 0.6827, 0.9, 0.98])
def test_coverage_is_the_inverse_of_the_half_width(level, calibrated, close):
    made = surrogate(outputs=2)
    if calibrated:
        made.calibrate(labelled(made, 400))
    std = torch.tensor([[0.5, 0.1], [2.0, 0.3]])
    close(made.coverage(std, made.half_width(std, level)), torch.full((2, 2), level), factor=10)


def test_coverage_is_at_most_what_calibration_has_seen():
    made = surrogate()
    assert made.coverage(torch.tensor([[1.0]]), torch.tensor([[100.0]])).item() == pytest.approx(0.99)
    assert made.coverage(torch.tensor([[1.0]]), torch.tensor([[0.0]])).item() == 0.0
    assert made.coverage(torch.tensor([[0.0]]), torch.tensor([[0.0]])).item() == 0.0


def test_spread_is_that_of_the_members_at_first(close):
    x = rows(box(), 50).x
    close(surrogate().predict_many(x)[1][:, 0], x[:, 0].abs() / math.sqrt(2), factor=10)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.6827, 0.9, 0.99])
def test_intervals_are_normal_at_first(level):
    std = torch.tensor([[0.5], [2.0]])
    width = surrogate().half_width(std, level)
    expected = std * NormalDist().inv_cdf(0.5 + level / 2)
    torch.testing.assert_close(width, expected, rtol=2e-3, atol=0)


def test_intervals_grow_with_the_level():
    made = surrogate()
    made.calibrate(labelled(made, 500))
    widths = [made.half_width(torch.ones(1, 1), level).item() for level in (0.02, 0.1, 0.5, 0.9, 0.985)]
    assert widths == sorted(widths) and widths[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Uneven, Single])
@pytest.mark.parametrize("noise", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("level", LEVELS)
def test_calibrated_intervals_hold_what_they_say(kind, noise, level):
    made = surrogate(kind)
    made.calibrate(labelled(made, 2000, noise))
    share = covered(made, labelled(made, 4000, noise, seed=1), level).item()
    # four standard errors of both draws
    assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) * (1 / 2000 + 1 / 4000)))


@pytest.mark.parametrize("noise", [0.3, 5.0])
def test_expected_error_is_the_mean_error(noise):
    made = surrogate()
    made.calibrate(labelled(made, 2000, noise))
    batch = labelled(made, 4000, noise, seed=1)
    mean, std = made.predict_many(batch.x)
    assert made.expected_error(std).mean().item() == pytest.approx((batch.y - mean).abs().mean().item(), rel=0.06)


def test_uncalibrated_intervals_do_not():
    made = surrogate()
    assert covered(made, labelled(made, 2000, noise=5.0), 0.9) < 0.5


def test_properties_are_calibrated_apart():
    made = surrogate(outputs=2)
    batch = labelled(made, 2000)
    mean, _ = made.predict_many(batch.x)
    scaled = batch._replace(y=mean + torch.tensor([1.0, 20.0]) * (batch.y - mean))
    made.calibrate(scaled)
    assert covered(made, scaled, 0.9).tolist() == pytest.approx([0.9, 0.9], abs=0.01)
    std = made.predict_many(batch.x)[1]
    assert (std[:, 1] / std[:, 0]).median() == pytest.approx(20, rel=0.2)


def test_calibration_leaves_the_mean():
    made, x = surrogate(), rows(box(), 20).x
    before = made.predict_many(x)[0]
    made.calibrate(labelled(made, 100))
    assert torch.equal(made.predict_many(x)[0], before)


def test_a_design_with_more_spread_stays_less_certain():
    made = surrogate()
    made.calibrate(labelled(made, 500))
    std = made.predict_many(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]))[1][:, 0]
    assert 0 < std[0] < std[1] < std[2]


def test_calibrating_again_changes_nothing():
    """It starts from the members' spread, not from a calibrated one."""
    made, x = surrogate(), rows(box(), 20).x
    batch, found = labelled(made, 300), []
    for _ in range(2):
        made.calibrate(batch)
        found.append(made.predict_many(x)[1])
    assert torch.equal(*found)


@pytest.mark.parametrize(("count", "changes"), [(1, False), (19, False), (20, True)])
def test_few_rows_leave_it_alone(count, changes):
    made, batch = surrogate(), rows(box(), 5)
    before = made.predict_many(batch.x)[1]
    made.calibrate(labelled(made, count))
    assert torch.equal(made.predict_many(batch.x)[1], before) is not changes


def floored(made: Surrogate, count: int = 1000) -> Batch:
    """What a censored data set has: labels at the floor tell nothing of the error, here of -1 and more."""
    batch = labelled(made, count)
    return batch._replace(y=torch.where(batch.y > 0, batch.y, torch.zeros_like(batch.y)))


def test_censored_labels_at_the_floor_are_left_out():
    first, second = (surrogate(floor=0.0, censored=True) for _ in range(2))
    batch = floored(first)
    known = batch.y[:, 0] > 0
    first.calibrate(batch)
    second.calibrate(Batch(batch.x[known], batch.y[known]))
    assert torch.equal(first.spread_quantiles, second.spread_quantiles)


def test_labels_at_the_floor_count_where_nothing_is_censored():
    censored, exact = surrogate(floor=0.0, censored=True), surrogate(floor=0.0)
    batch = floored(exact)
    for made in (censored, exact):
        made.calibrate(batch)
    assert exact.spread_quantiles[0, 89] > 1.5 * censored.spread_quantiles[0, 89]


def test_rows_at_the_floor_are_too_few():
    made = surrogate(floor=0.0, censored=True)
    before = made.spread_quantiles.clone()
    made.calibrate(Batch(rows(box(), 100).x, torch.zeros(100, 1)))
    assert torch.equal(made.spread_quantiles, before)


def test_prediction_stays_differentiable():
    made, x = surrogate(), rows(box(), 5).x.requires_grad_()
    made.calibrate(labelled(made, 100))
    made.predict(x)[1].sum().backward()
    assert x.grad.isfinite().all() and (x.grad[:, 0] != 0).all()


@pytest.fixture
def calibrated() -> MLPSurrogate:
    made = tiny_network(CONF / "surrogate" / "mlp.yaml", box(), [prop()])
    made.fit_scales(rows(box()))
    made.eval().calibrate(rows(box(), 200, seed=1))
    return made


def test_folder_keeps_the_calibration(calibrated, tmp_path):
    x = rows(box(), 10).x
    save_network(calibrated, tmp_path, "surrogate")
    again = load_network(Surrogate, tmp_path, "surrogate")
    assert (again.spread_offset > 0).all()
    assert torch.equal(again.predict_many(x)[1], calibrated.predict_many(x)[1])


def test_checkpoint_keeps_the_calibration(calibrated, tmp_path):
    runner = trainer(tmp_path, max_epochs=0)
    runner.fit(LightningMLP(calibrated.train()), datamodule=toy_data())
    runner.save_checkpoint(tmp_path / "surrogate.ckpt")
    again = LightningMLP.load_from_checkpoint(tmp_path / "surrogate.ckpt", weights_only=True).network
    assert torch.equal(again.spread_quantiles, calibrated.spread_quantiles)
