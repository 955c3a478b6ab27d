import ase.neighborlist
import numpy as np
import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.space import DesignSpace, Parameter
from matdesinne.structures import CELL_PARAMETERS, Prototype
from matdesinne.transforms import BoxFeatures, CellFeatures

from .toys import box, line, load_part, rows

CUTOFF = 3.2


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return load_part("space")


@pytest.fixture(scope="module")
def prototype() -> Prototype:
    return load_part("prototype")


@pytest.fixture(scope="module")
def x(space) -> torch.Tensor:
    return torch.cat([space.reference.unsqueeze(0), space.sample(20, torch.Generator().manual_seed(0))])


@pytest.fixture
def features(space, prototype) -> CellFeatures:
    return CellFeatures(space, prototype, CUTOFF)


def atoms(space, prototype, row: torch.Tensor):
    return prototype.atoms(dict(zip(space.names, row.tolist(), strict=True)))


def distances(features, x: torch.Tensor) -> torch.Tensor:
    return features._unscaled(x)[:, : len(features.vectors)].exp()


@pytest.mark.slow
def test_distances_are_those_of_ase(space, prototype, features, x):
    """Distances in the reference cell; each translation of a pair counts once, a pair and its reverse too."""
    found = atoms(space, prototype, x[0])
    first, vector = ase.neighborlist.neighbor_list("iD", found, CUTOFF)
    offset = np.round(vector @ np.linalg.inv(found.cell), 6)
    distinct = {max(tuple(row), tuple(-row)) for row in offset + 0.0}
    expected = sorted(np.linalg.norm(np.array(sorted(distinct)) @ found.cell, axis=1))
    torch.testing.assert_close(
        distances(features, x[:1])[0].sort().values, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4
    )
    assert len(first) >= len(expected) > 5


@pytest.mark.slow
def test_distances_follow_the_cell(space, prototype, features, x):
    for row in range(len(x)):
        cell = np.asarray(atoms(space, prototype, x[row]).cell)
        expected = np.linalg.norm(features.vectors.double().numpy() @ cell, axis=1)
        np.testing.assert_allclose(distances(features, x[row : row + 1])[0].numpy(), expected, rtol=1e-5)


def test_height_and_potential_drop(space, prototype, features, x):
    geometry, pairs = features._unscaled(x), len(features.vectors)
    for row in range(len(x)):
        built = atoms(space, prototype, x[row])
        height = built.get_volume() / np.linalg.norm(np.cross(built.cell[0], built.cell[1]))
        field = float(x[row, space.index("electric_field")])
        np.testing.assert_allclose(geometry[row, pairs:].numpy(), [np.log(height), field * height], rtol=1e-4, atol=1e-5)


def test_size(features, x):
    assert features(x).shape == (len(x), features.size)


def test_first_symmetry_permutes_the_distances(space, features, x):
    """(alpha, beta, field) -> (180 - alpha, 180 - beta, -field) mirrors the layer: the same distances, the drop turned."""
    image = next(e for e in space.group() if torch.equal(e.reciprocal, torch.eye(2)) and (e.matrix != torch.eye(7)).any())
    mirrored = image(x)
    pairs = len(features.vectors)
    torch.testing.assert_close(
        distances(features, mirrored).sort(1).values, distances(features, x).sort(1).values, rtol=1e-5, atol=1e-5
    )
    one, two = features._unscaled(x)[:, pairs:], features._unscaled(mirrored)[:, pairs:]
    torch.testing.assert_close(two, one * torch.tensor([1.0, -1.0]), rtol=1e-5, atol=1e-5)


def test_differentiable(features, x):
    features.fit(x)
    x = x.double().requires_grad_()
    made = features.double()
    assert torch.autograd.gradcheck(made, x[:3].detach().requires_grad_(), eps=1e-5, atol=1e-4)
    (slope,) = torch.autograd.grad(made(x).square().sum(), x)
    assert slope.isfinite().all() and (slope != 0).any(0).all()


def test_angles_that_enclose_no_volume_are_finite(space, features, x):
    flat = x[:1].clone()
    for name in ("alpha", "beta", "gamma"):
        flat[:, space.index(name)] = 144.0
    flat.requires_grad_()
    made = features(flat)
    (slope,) = torch.autograd.grad(made.sum(), flat)
    assert made.isfinite().all() and slope.isfinite().all()


def test_fitted_features_are_standardised(space, features, close):
    x = space.sample(2000, torch.Generator().manual_seed(1))
    features.fit(x)
    made = features(x)
    close(made.mean(0), torch.zeros(features.size), factor=100)
    close(made.std(0, correction=0), torch.ones(features.size), factor=100)


@pytest.mark.slow
def test_other_parameters_are_features(prototype, space, close):
    wider = DesignSpace([*space.parameters, Parameter("doping", "1", 0.0, 1.0)])
    made = CellFeatures(wider, prototype, CUTOFF)
    x = wider.sample(5, torch.Generator().manual_seed(0))
    assert made.size == CellFeatures(space, prototype, CUTOFF).size + 1
    columns = made._unscaled(x)
    assert any(torch.equal(columns[:, j], x[:, -1]) for j in range(made.size))


@pytest.mark.slow
def test_no_field(prototype, space):
    narrower = DesignSpace(space.parameters[:6])
    assert CellFeatures(narrower, prototype, CUTOFF).size == CellFeatures(space, prototype, CUTOFF).size - 1


def test_needs_a_cell(prototype):
    with pytest.raises(ConfigError, match=CELL_PARAMETERS[0]):
        CellFeatures(box(3), prototype)


def test_box_features_scale_the_box(close):
    made = BoxFeatures(box(3, scale=5.0))
    x = rows(box(3, scale=5.0)).x
    made.fit(x)
    close(made(x), x / 5)


def test_box_features_standardise_what_is_open(close):
    made = BoxFeatures(line(2))
    x = 3 + 2 * rows(line(2)).x
    made.fit(x)
    close(made(x).mean(0), torch.zeros(2), factor=10)
    close(made(x).std(0, correction=0), torch.ones(2), factor=10)
