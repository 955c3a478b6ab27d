"""The layer in a structure file, and numerics that fit it."""

import sys

import ase.io
import pytest
from omegaconf import OmegaConf

from matdesinne.cli.arguments import positional
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.layers.structure import complete_oracle, layer_space, read_layer
from matdesinne.oracles.relaxation import relax_layer

from ..toys import CONF
from .toy import ToyCalculator, ToyOracle

SETTINGS = {
    "_target_": "tests.layers.toy.ToyOracle",
    "functional": "PBE",
    **dict.fromkeys(("cutoff", "kpoints", "second_kpoints", "bands", "converged_bands")),
}


def written(folder, symbols="MoS2", a=3.2, c=12.0, heights=(0.5, 0.62, 0.38), **changes):
    cell = changes.get("cell", [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]])
    places = [[1 / 3, 2 / 3, heights[0]], *([2 / 3, 1 / 3, z] for z in heights[1:])]
    ase.Atoms(symbols, scaled_positions=places, cell=cell, pbc=True).write(folder / "layer.vasp", format="vasp")
    return folder / "layer.vasp"


@pytest.mark.parametrize("heights", [(0.5, 0.62, 0.38), (0.0, 0.12, 0.88), (0.9, 1.02, 0.78)])
def test_layer_is_moved_into_the_middle_of_a_higher_cell(tmp_path, heights):
    layer = read_layer(written(tmp_path, heights=heights), 16.0, 10.0)
    assert layer.cell == {"a": 3.2, "b": 3.2, "c": 16.0, "alpha": 90.0, "beta": 90.0, "gamma": 120.0}
    assert [z * 16 for _, _, z in layer.prototype.positions] == pytest.approx([8.0, 8 + 1.44, 8 - 1.44])


def test_height_grows_with_the_layer(tmp_path):
    layer = read_layer(written(tmp_path, c=30.0, heights=(0.5, 0.63, 0.38)), 16.0, 10.0)
    assert layer.cell["c"] == 18.0  # 7.5 angstrom and 10 of vacuum, rounded up


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"c": 6.0}, "one layer with more than 5 angstrom of vacuum"),
        ({"c": 40.0, "heights": (0.2, 0.5, 0.55)}, "got 2 such gaps"),
        ({"cell": [[3.2, 0, 0], [-1.6, 2.8, 0], [2.0, 0, 12.0]]}, "c perpendicular to a and b"),
    ],
)
def test_what_is_no_layer_is_refused(tmp_path, changes, text):
    with pytest.raises(DatasetError, match=text):
        read_layer(written(tmp_path, **changes), 16.0, 10.0)


@pytest.mark.parametrize(
    ("symbols", "a", "cutoff", "kpoints"), [("MoS2", 3.184, 300, 9), ("SnS2", 3.7, 300, 9), ("MoO2", 2.6, 500, 12)]
)
def test_numerics_that_are_null_fit_the_structure(tmp_path, monkeypatch, symbols, a, cutoff, kpoints):
    monkeypatch.setattr(ToyOracle, "valence_electrons", lambda symbols, functional: 26)
    found = complete_oracle(SETTINGS, read_layer(written(tmp_path, symbols, a), 16.0, 10.0))
    wanted = {"cutoff": cutoff, "kpoints": kpoints, "second_kpoints": 2 * kpoints, "bands": 16, "converged_bands": 14}
    assert {name: found[name] for name in wanted} == wanted
    assert complete_oracle({**SETTINGS, "kpoints": 5}, read_layer(written(tmp_path), 16.0, 10.0))["second_kpoints"] == 10


def test_odd_number_of_electrons_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyOracle, "valence_electrons", lambda symbols, functional: 25)
    with pytest.raises(ConfigError, match="even number of electrons, all paired, got 25"):
        complete_oracle(SETTINGS, read_layer(written(tmp_path), 16.0, 10.0))


def test_oracle_without_bands_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="oracle=gpaw_relaxed"):
        complete_oracle({**SETTINGS, "_target_": "matdesinne.oracles.ase.ASEOracle"}, read_layer(written(tmp_path), 16.0, 10.0))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"strain": (0.01, 0.1)}, "strain="),
        ({"angle": 70.0}, "angle"),
        ({"extra": {"alpha": [80, 100]}}, "parameters="),
    ],
)
def test_wrong_ranges_are_refused(tmp_path, changes, text):
    layer = read_layer(written(tmp_path), 16.0, 10.0)
    with pytest.raises(ConfigError, match=text):
        layer_space(layer, **{"strain": (-0.04, 0.1), "angle": 6.0, "extra": {}, **changes})


def test_further_parameters_are_constants_no_longer(tmp_path):
    layer = read_layer(written(tmp_path), 16.0, 10.0)
    space = layer_space(layer, (-0.04, 0.1), 6.0, {"c": [14.0, 18.0], "electric_field": [-1.0, 1.0]})
    assert space.names == ("a", "b", "gamma", "c", "electric_field")
    assert space.constants == {"alpha": 90.0, "beta": 90.0}
    assert space.reference.tolist() == pytest.approx([3.2, 3.2, 120.0, 16.0, 0.0])


def test_relaxation_of_the_cell_ends_at_rest_and_goes_on_from_its_trace(tmp_path):
    layer = read_layer(written(tmp_path, a=3.1), 16.0, 10.0)

    def relaxed(steps):
        atoms = layer.prototype.atoms(dict(layer.cell))
        atoms.calc = ToyCalculator(3)
        return relax_layer(atoms, 1e-3, steps, tmp_path / "trace.extxyz")

    with pytest.raises(RuntimeError, match="did not converge in 2 steps"):
        relaxed(2)
    before = ase.io.read(tmp_path / "trace.extxyz", index=":")
    cell = relaxed(40).cell.cellpar()
    assert cell.tolist() == pytest.approx([3.2, 3.2, 16.0, 90.0, 90.0, 120.0], abs=1e-3)
    after = ase.io.read(tmp_path / "trace.extxyz", index=":")
    assert after[len(before)].cell.cellpar().tolist() == pytest.approx(before[-1].cell.cellpar().tolist())


def test_settings_file_has_no_setting_that_the_oracle_lacks():
    named = OmegaConf.load(CONF / "layer.yaml").oracle
    known = OmegaConf.load(CONF / "oracle" / "gpaw.yaml")
    assert set(named) <= set(known)


@pytest.mark.parametrize(
    ("words", "composed"),
    [
        (["My Layer.cif", "target=1"], ["--config-name=layer", "structure='My Layer.cif'", "target=1"]),
        (["--cfg", "job", "target=1", "POSCAR"], ["--cfg", "job", "target=1", "--config-name=layer", "structure='POSCAR'"]),
        (["table.csv", "--cfg", "job"], ["table='table.csv'", "--cfg", "job"]),
    ],
)
def test_file_chooses_the_way(monkeypatch, words, composed):
    seen = []
    monkeypatch.setattr(sys, "argv", ["design.py", *words])
    positional("table", {"layer": ("structure", [".cif", "poscar"])})(lambda: seen.extend(sys.argv[1:]))()
    assert seen == composed
