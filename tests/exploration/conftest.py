"""Explorations of tiny problems whose answers are known."""

from pathlib import Path

import matplotlib.figure
import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.exploration import embedding
from matdesinne.exploration.designs import Exploration
from matdesinne.network import Batch
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate
from matdesinne.targets import Property

from ..toys import Linear, candidates, load_part

GAP = Property("band_gap", "eV", floor=0.0)
SLOPES = [1.0, -2.0, 0.5, 0.0, 0.0, -0.1, 0.0]
"""Of the gap along a, b, c, alpha, beta, gamma and the field, in eV and their units."""


def mos2() -> DesignSpace:
    return load_part("space")


class Tilted(Linear):
    """y = A (x - reference)."""

    def member_predictions(self, features):
        x = self.features.scale.inverse(features) - self.space.reference
        return (x @ self.matrix.T).unsqueeze(0)


def crystal() -> Tilted:
    return Tilted(mos2(), [GAP], [SLOPES]).eval()


def table(surrogate: Surrogate, x: torch.Tensor) -> DesignTable:
    return DesignTable(x, surrogate.predict_many(x)[0], torch.arange(len(x)))


def explored(
    surrogate: Surrogate, folder: Path, targets: list[object], count: int = 30, labelled: int | None = 40
) -> Exploration:
    """Uniform designs as candidates, whatever the target."""
    generator = torch.Generator().manual_seed(0)

    def draw(number: int) -> torch.Tensor:
        if surrogate.space.bounded:
            return surrogate.space.sample(number, generator)
        return torch.randn(number, surrogate.space.dimension, generator=generator)

    generated = tuple(candidates(surrogate, draw(count), target) for target in targets)
    return Exploration(generated, surrogate, None if labelled is None else table(surrogate, draw(labelled)), folder, 0)


@pytest.fixture
def flat(monkeypatch):
    """The first two coordinates in place of UMAP, which takes half a minute to compile."""
    monkeypatch.setattr(embedding, "_lay_out", lambda coordinates, seed: coordinates[:, :2].numpy())


@pytest.fixture
def undrawn(monkeypatch):
    """Files without pictures: to draw them is most of the work."""
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, path, dpi: path.write_bytes(b""))


def fit(surrogate: Surrogate, x: torch.Tensor) -> Surrogate:
    surrogate.fit_scales(Batch(x, x[:, :1]))
    return surrogate
