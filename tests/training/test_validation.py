"""Trained models on held-out properties."""

import pytest
import torch
from matdesinne.training.validation import validate

from matdesinne.data.table import DesignTable
from matdesinne.models.base import InverseModel

from ..conftest import Linear, box, linear, prop

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

    def sample(self, y, generator=None):
        total = y + self.offset
        half = 0.5 * total + self.spread * (1 - 0.5 * total.abs()) * (2 * torch.rand(total.shape, generator=generator) - 1)
        return torch.cat([half, total - half], dim=1)

    def _terms_standard(self, u, v):
        raise NotImplementedError

    def _decode(self, z, v):
        raise NotImplementedError


@pytest.fixture
def held_out() -> DesignTable:
    x = SPACE.sample(2000, torch.Generator().manual_seed(1))
    return DesignTable(x, x.sum(dim=1, keepdim=True), torch.arange(2000))


@pytest.mark.parametrize("offset", [0.0, 0.125])
def test_target_error(held_out, offset):
    assert validate(Fixed(offset), linear(), held_out)["target_mae_y"] == pytest.approx(offset, abs=1e-6)


def test_values_below_the_floor_are_equal(held_out):
    model, exact = Fixed(0.125), Linear(SPACE, [prop(floor=0.0)], [[1.0, 1.0]]).eval()
    below = held_out.take((held_out.y[:, 0] < -0.125).nonzero()[:, 0])
    assert validate(model, exact, below)["target_mae_y"] == 0


def test_discrepancy_of_the_posterior_is_small(held_out):
    assert abs(validate(Fixed(), linear(), held_out)["joint_mmd"]) < 0.005


def test_discrepancy_sees_what_is_missing(held_out):
    narrow = validate(Fixed(spread=0.1), linear(), held_out)
    assert narrow["target_mae_y"] < 1e-6 and narrow["joint_mmd"] > 0.05
