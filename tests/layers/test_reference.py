"""The unstrained layer by DFT; the calculations need GPAW."""

import importlib.util

import ase
import ase.io
import pytest

from matdesinne.errors import ConfigError
from matdesinne.layers.reference import prepare_reference, read_start_layer
from matdesinne.oracles.gpaw import GPAWOracle

from ..toys import script_config
from .toy import ToyCalculator, ToyOracle

needs_gpaw = pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="needs GPAW: make gpaw installs it")
COARSE = ["oracle.cutoff=200", "cell_cutoff=300", "oracle.kpoints=3", "oracle.second_kpoints=3", "oracle.soc=false"]


def settings(folder, *words: str):
    a = 2.35
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 12]]
    layer = ase.Atoms("BN", scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], cell=cell, pbc=True)
    layer.write(folder / "hbn.cif")
    here = ["executor._target_=tests.layers.toy.Threads", "height=8", "vacuum=6", f"structure={folder / 'hbn.cif'}"]
    return script_config("layer", folder, *here, "target=1.0", *words)


@needs_gpaw
@pytest.mark.parametrize(("symbols", "count"), [(["Mo", "S", "S"], 26), (["Sn", "S", "S"], 26), (["B", "N"], 8)])
def test_valence_electrons(symbols, count):
    assert GPAWOracle.valence_electrons(symbols, "PBE") == count


@pytest.mark.slow
@needs_gpaw
def test_boron_nitride_is_relaxed_with_its_symmetry_and_once(tmp_path, monkeypatch):
    config = settings(tmp_path, *COARSE)
    start = read_start_layer(config)
    assert start.settings["bands"] == 7 and start.settings["converged_bands"] == 5
    reference = prepare_reference(config, start, tmp_path)
    a, b, gamma = (parameter.reference for parameter in reference.oracle.space.parameters)
    assert a == pytest.approx(b, abs=1e-4) and gamma == pytest.approx(120, abs=1e-3)
    assert abs(a - 2.35) > 1e-3 and 2.1 < a < 2.6  # 2.51 where the plane waves are converged
    assert 2 < reference.gap < 7 and reference.oracle.reference_energy < 0
    monkeypatch.setattr(GPAWOracle, "calculator", None)  # nothing is calculated again
    assert prepare_reference(config, start, tmp_path).sentence() == reference.sentence()
    assert ase.io.read(tmp_path / "reference.extxyz").cell.cellpar()[0] == pytest.approx(a)


def test_metal_is_refused(tmp_path, monkeypatch):
    class Metal(ToyCalculator):
        def get_eigenvalues(self, kpt):
            return self.bands[kpt] * 0

    monkeypatch.setattr(ToyOracle, "calculator", lambda oracle, *field: Metal(3))
    config = settings(
        tmp_path,
        "oracle._target_=tests.layers.toy.ToyOracle",
        "oracle.soc=false",
        "oracle.kpoints=3",
        "relax_cell=false",
        "oracle.relax=false",
    )
    with pytest.raises(ConfigError, match="a metal has no designs for a gap"):
        prepare_reference(config, read_start_layer(config), tmp_path)
