"""Symmetries found from the atoms are those that the declarations state."""

import numpy as np
import pytest
import torch

from matdesinne.layers.structure import Layer, layer_space
from matdesinne.layers.symmetries import found_symmetries
from matdesinne.structures import CELL_PARAMETERS, Prototype
from matdesinne.symmetry import generate_group

from ..toys import load_part


def elements(group) -> set[tuple]:
    """k and -k are the same point."""
    return {
        (
            tuple(e.matrix.ravel().tolist()),
            tuple(e.offset.tolist()),
            max(tuple((s * e.reciprocal).ravel().tolist()) for s in (1, -1)),
        )
        for e in group
    }


@pytest.mark.parametrize("name", ["mos2", "tmd_strain/mos2"])
def test_group_is_that_of_the_declaration(name):
    space, prototype = load_part("space", name), load_part("prototype", name)
    found = generate_group(space.names, found_symmetries(space, prototype))
    assert elements(found) == elements(space.group())


def layer(a: float, b: float, gamma: float, symbols: list[str], positions: list[list[float]]) -> Layer:
    return Layer(Prototype(symbols, positions), dict(zip(CELL_PARAMETERS, (a, b, 16.0, 90.0, 90.0, gamma), strict=True)))


LAYERS = {
    # what a layer is, and how many strained cells are equivalent, without and with a field along c
    "1T": (
        layer(3.7, 3.7, 120.0, ["Sn", "S", "S"], [[0, 0, 0.5], [1 / 3, 2 / 3, 0.59], [2 / 3, 1 / 3, 0.41]]),
        (2, 4),
    ),
    "rectangular": (
        layer(3.3, 4.6, 90.0, ["P"] * 4, [[0, 0.09, 0.57], [0, 0.91, 0.43], [0.5, 0.41, 0.43], [0.5, 0.59, 0.57]]),
        (2, 4),
    ),
    "square": (layer(3.8, 3.8, 90.0, ["Pb", "O"], [[0, 0, 0.5], [0.5, 0.5, 0.5]]), (4, 8)),
    "no symmetry": (layer(3.8, 4.1, 100.0, ["Pb", "O", "S"], [[0, 0, 0.5], [0.4, 0.5, 0.55], [0.1, 0.2, 0.6]]), (1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_size_of_the_group(name):
    structure, (without, with_field) = LAYERS[name]
    assert len(layer_space(structure, (-0.04, 0.1), 6.0, {}).group()) == without
    assert len(layer_space(structure, (-0.04, 0.1), 6.0, {"electric_field": [-0.5, 0.5]}).group()) == with_field


@pytest.mark.parametrize("name", LAYERS)
def test_images_have_the_distances_of_the_design(name):
    """Of atoms at the same fractional positions: what every energy depends on."""
    structure, _ = LAYERS[name]
    space = layer_space(structure, (-0.04, 0.1), 6.0, {})
    [images] = space.images(space.sample(1, torch.Generator().manual_seed(0)).double())
    count, distances = len(structure.prototype.symbols), []
    for image in images:
        atoms = structure.prototype.atoms(space.design(image.tolist())).repeat((7, 7, 1))
        middle = range(24 * count, 25 * count)
        found = np.concatenate([atoms.get_distances(atom, range(len(atoms))) for atom in middle])
        distances.append(np.sort(found)[: 12 * count])
    np.testing.assert_allclose(distances, [distances[0]] * len(distances), atol=1e-5)
    assert space.contains(images).all()
