import matplotlib.figure
import numpy as np
import pytest

from matdesinne.reporting.cells import atom_handles, draw_angles, draw_cell, draw_field, draw_vectors, show_whole

from ..toys import load_part


@pytest.fixture
def atoms():
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    return load_part("prototype").atoms(dict(zip(names, (3.16, 3.3, 12.3, 85.0, 95.0, 118.0), strict=True)))


@pytest.fixture
def axis():
    return matplotlib.figure.Figure().subplots()


def test_cell_has_twelve_edges_and_its_atoms(atoms, axis):
    draw_cell(atoms, axis)
    assert len(axis.lines) == 12 and len(axis.patches) == 3
    lengths = sorted(round(float(np.hypot(*np.diff(line.get_xydata(), axis=0)[0])), 6) for line in axis.lines)
    assert len(set(lengths)) == 3, "parallel edges are equally long"


def test_cell_without_atoms(atoms, axis):
    draw_cell(atoms, axis, "grey", "--", with_atoms=False)
    assert len(axis.lines) == 12 and not axis.patches


def test_vectors_and_angles_are_named(atoms, axis):
    draw_vectors(atoms, axis)
    draw_angles(atoms, axis)
    assert {text.get_text() for text in axis.texts} >= {"a", "b", "c", "α", "β", "γ"}


@pytest.mark.parametrize("field", [0.82, -0.82])
def test_field_points_along_its_sign(atoms, axis, field):
    draw_field(atoms, axis, field)
    arrow, text = axis.texts
    assert np.sign(arrow.xy[1] - arrow.xyann[1]) == np.sign(field)
    assert text.get_text() == f"field\n{'+' if field > 0 else '−'}0.82 V/Å"


def test_everything_is_inside(atoms, axis):
    draw_cell(atoms, axis)
    draw_field(atoms, axis, 1.0)
    show_whole(axis)
    points = np.concatenate([line.get_xydata() for line in axis.lines])
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left < points[:, 0].min() and right > points[:, 0].max() and bottom < points[:, 1].min() and top > points[:, 1].max()
    assert left < axis.texts[0].xy[0] < right


def test_legend_names_each_element_once():
    assert [handle.get_label() for handle in atom_handles(["Mo", "S", "S"])] == ["Mo", "S"]
