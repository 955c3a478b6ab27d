"""Trained models on held-out properties."""

import json

import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel
from matdesinne.training.fit import fit
from matdesinne.training.metrics import TargetMetrics, TargetSamples

from ..toys import CONF, Linear, box, linear, make_trainer, prop, tiny_module, toy_data

SPACE = box()


class Fixed(InverseModel):
    """Answers every y with a design on the line x1 + x2 = y + offset; spread over it or always in its middle."""

    label = "fixed"

    def __init__(self, offset: float = 0.0, spread: float = 1.0) -> None:
        super().__init__(SPACE, [prop()])
        self.offset, self.spread = offset, spread

    @property
    def latent_dimension(self) -> int:
        return 1

    def sample(self, y, generator=None, truncate=True):
        total = y + self.offset
        half = 0.5 * total + self.spread * (1 - 0.5 * total.abs()) * (2 * torch.rand(total.shape, generator=generator) - 1)
        return torch.cat([half, total - half], dim=1)

    def decode(self, z, v, truncate=True):
        raise NotImplementedError


def metrics(model, surrogate, held_out) -> dict[str, float]:
    return TargetSamples.draw(model, surrogate, held_out).metrics()


@pytest.fixture
def held_out() -> DesignTable:
    x = SPACE.sample(2000, torch.Generator().manual_seed(1))
    return DesignTable(x, x.sum(dim=1, keepdim=True), torch.arange(2000))


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 0.125])
def test_target_error(held_out, offset):
    assert metrics(Fixed(offset), linear(), held_out)["target_mae"] == pytest.approx(offset, abs=1e-6)


def test_values_below_the_floor_are_equal(held_out):
    model, exact = Fixed(0.125), Linear(SPACE, [prop(floor=0.0)], [[1.0, 1.0]]).eval()
    below = held_out.take((held_out.y[:, 0] < -0.125).nonzero()[:, 0])
    assert metrics(model, exact, below)["target_mae"] == 0


@pytest.mark.slow
def test_discrepancy_of_the_posterior_is_small(held_out):
    assert abs(metrics(Fixed(), linear(), held_out)["joint_mmd"]) < 0.005


@pytest.mark.slow
def test_discrepancy_sees_what_is_missing(held_out):
    narrow = metrics(Fixed(spread=0.1), linear(), held_out)
    assert narrow["target_mae"] < 1e-6 and narrow["joint_mmd"] > 0.05


def test_each_of_several_properties():
    class Both(Fixed):
        """Designs with x1 + x2 = y1 and x1 - x2 = y2."""

        def sample(self, y, generator=None, truncate=True):
            return torch.stack([(y[:, 0] + y[:, 1]) / 2, (y[:, 0] - y[:, 1]) / 2], dim=1)

    x = SPACE.sample(100, torch.Generator().manual_seed(1))
    surrogate = linear(outputs=2)
    found = metrics(Both(), surrogate, DesignTable(x, surrogate.predict_many(x)[0], torch.arange(100)))
    assert set(found) == {"target_mae_y", "target_mae_w", "joint_mmd"}
    assert found["target_mae_y"] == pytest.approx(0, abs=1e-6) and found["target_mae_w"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "evaluations"), [(3, 4), (40, 21)])
def test_logged_in_at_most_twenty_epochs(held_out, tmp_path, monkeypatch, epochs, evaluations):
    """And once more for the best epoch."""
    calls = []
    monkeypatch.setattr(TargetSamples, "metrics", lambda _: calls.append(1) or {"target_mae": 1.5, "joint_mmd": 0.5})
    module = tiny_module(CONF / "model" / "mdn.yaml", SPACE, [prop()], batch_size=64)
    fit(module, toy_data(), make_trainer(max_epochs=epochs), tmp_path, callbacks=[TargetMetrics(linear(), held_out)])
    logged = json.loads((tmp_path / "metrics.json").read_text())
    assert len(calls) == evaluations
    assert (logged["val/target_mae"], logged["val/joint_mmd"]) == (1.5, 0.5)
