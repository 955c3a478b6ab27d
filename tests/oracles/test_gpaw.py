"""The labels of the packaged set, computed again; the calculations need GPAW."""

import contextlib
import importlib.util
import io
import json
from functools import cache

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.oracles.levels import half_grid
from matdesinne.oracles.relaxation import Relaxation

from ..toys import CONF, ROOT, part_config

needs_gpaw = pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="needs GPAW: make gpaw installs it")


def calculates(test):
    return pytest.mark.slow(needs_gpaw(test))


BANDS = ["valence_energies", "conduction_energies"]


@cache
def parts() -> dict[str, DictConfig]:
    return {name: part_config(name) for name in ("space", "prototype")}


def oracle(**changes) -> GPAWOracle:
    config = OmegaConf.load(CONF / "oracle" / "gpaw.yaml")
    config.update(changes)
    return instantiate(OmegaConf.create({"material": parts(), "oracle": config}).oracle, _convert_="all")


@pytest.fixture(scope="module")
def packaged():
    return pyarrow.parquet.read_table(ROOT / "matdesinne" / "datasets" / "mos2_gpaw.parquet")


def design(packaged, row: int) -> torch.Tensor:
    return torch.tensor([[packaged[name][row].as_py() for name in oracle().space.names]], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("kpoints", 9), ("kpoints_fine", 18)])
def test_grids_are_those_of_the_packaged_set(packaged, name, size):
    expected = json.loads(packaged.schema.metadata[name.encode()])
    np.testing.assert_allclose(half_grid(size), expected, atol=1e-6)
    assert oracle(second_kpoints=18).kpoints()[name] == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_half_grid_has_every_point_or_its_opposite_once(size):
    half = {tuple(point) for point in np.rint(half_grid(size) * size).astype(int) % size}
    both = half | {tuple(-np.array(point) % size) for point in half}
    assert len(both) == size * size
    assert sum(tuple(-np.array(point) % size) in half for point in half) == sum(
        2 * i % size == 2 * j % size == 0 for i, j in half
    )


@pytest.mark.slow
@pytest.mark.parametrize("second", [None, 18])
def test_columns_are_those_of_the_packaged_set(packaged, second):
    names = set(oracle(second_kpoints=second).columns())
    labels = set(packaged.schema.names) - {"index", "stratum", "seconds", "strain_energy", *oracle().space.names}
    assert names == {name for name in labels if second or not name.endswith("_fine")}


@pytest.mark.slow
def test_numerics_are_part_of_the_id():
    assert oracle().settings() != oracle(cutoff=400).settings()
    assert oracle().settings() != oracle(second_kpoints=18).settings()
    json.dumps(oracle().settings())


@pytest.mark.slow
def test_impossible_cell_is_a_failed_row():
    """Three angles that enclose no volume, as issue and user may give them: no calculation is started."""
    x = oracle().space.reference.double().unsqueeze(0)
    x[0, 3:6] = torch.tensor([60.0, 60.0, 130.0])
    if importlib.util.find_spec("gpaw") is None:
        with pytest.raises(ConfigError, match="GPAW"):
            oracle().check()
        return
    [row] = oracle().label(x)
    assert row["status"] == "failed" and "volume" in row["reason"] and row["band_gap"] is None


@calculates
def test_packaged_label(packaged):
    """A row in a field; of its fine grid a third of the divisions, each energy of which is a calculation of its own."""
    row = packaged["index"].to_pylist().index(448)
    [label] = oracle(second_kpoints=6).label(design(packaged, row))
    assert label["status"] == "done", label["reason"]
    assert label["band_gap"] == pytest.approx(packaged["band_gap"][row].as_py(), abs=2e-3)
    assert label["direct_gap"] == pytest.approx(packaged["direct_gap"][row].as_py(), abs=2e-3)
    for name in BANDS:
        np.testing.assert_allclose(label[name], packaged[name][row].as_py(), atol=2e-3)
    for name in ("valence_k", "conduction_k"):
        assert label[name] == packaged[name][row].as_py()
    assert label["energy"] == pytest.approx(packaged["energy"][row].as_py(), abs=1e-3)
    assert label["fermi_level"] == pytest.approx(packaged["fermi_level"][row].as_py(), abs=2e-3)
    fine = [half_grid(18).tolist().index(point) for point in half_grid(6).tolist()]
    valence, conduction = (np.array(packaged[f"{name}_fine"][row].as_py()) for name in BANDS)
    for name, energies in zip(BANDS, (valence, conduction), strict=True):
        np.testing.assert_allclose(label[f"{name}_fine"], energies[fine], atol=5e-3)
    assert packaged["band_gap_fine"][row].as_py() == pytest.approx(conduction.min() - valence.max(), abs=1e-4)
    assert "gpaw " in label["versions"]


SMALL = {"cutoff": 200, "kpoints": 3, "relax_force": 0.1}
"""Fast settings, about 15 s for all levels of one design."""
LEVELS = ["", "_fine", "_soc", "_fine_soc", "_hse", "_hse_soc"]


def stretched(strain: float = 0.04) -> torch.Tensor:
    """A biaxially stretched layer without a field."""
    space = oracle().space
    x = space.reference.double().unsqueeze(0)
    x[0, :2] *= 1 + strain
    x[0, 2] = 14.0
    return x


@pytest.fixture(scope="module")
def all_levels():
    made = oracle(**SMALL, second_kpoints=6, relax=True, soc=True, hybrid="HSE06", reference_energy=-20.0)
    made.check()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        [row] = made.label(stretched())
    assert row["status"] == "done", row["reason"]
    assert output.getvalue() == ""  # scripts print their own report
    return made, row


@pytest.mark.slow
def test_options_have_columns_of_their_own():
    plain, made = oracle(), oracle(relax=True, soc=True, hybrid="HSE06", second_kpoints=18)
    added = {name: column.unit for name, column in made.columns().items() if name not in plain.columns()}
    levels = {f"{name}{ending}" for ending in LEVELS[1:] for name in ("band_gap", "direct_gap", *BANDS)}
    assert levels < set(added)
    assert {name: unit for name, unit in added.items() if name not in levels} == {
        "energy_unrelaxed": "eV",
        "energy_gain": "eV",
        "thickness": "angstrom",
        "residual_force": "eV/angstrom",
        "relaxation_steps": "",
        "relaxed_positions": "angstrom",
    }
    assert set(made.kpoints()) == {f"kpoints{ending}" for ending in LEVELS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"relax": True},
        {"relax": True, "relax_force": 0.05},
        {"soc": True},
        {"hybrid": "HSE06"},
        {"hybrid": "PBE0"},
        {"reference_energy": -20.0},
    ],
)
def test_options_are_part_of_the_id(changes):
    assert oracle(**changes).settings() not in (oracle().settings(), oracle(relax=True, relax_steps=9).settings())


@pytest.mark.slow
def test_settings_without_options_are_those_of_earlier_folders():
    """A folder that was started before there were options is continued."""
    assert set(oracle().settings()).isdisjoint({"soc", "hybrid", "reference_energy", "relaxation"})
    assert oracle(relax_force=0.1).settings() == oracle().settings()
    assert set(oracle().settings()["prototype"]) == {"symbols", "positions"}


@pytest.mark.slow
@needs_gpaw
def test_unknown_hybrid():
    with pytest.raises(ConfigError, match="HSE07"):
        oracle(hybrid="HSE07").check()


@pytest.mark.parametrize(("force", "steps"), [(0.0, 60), (0.02, 0)])
def test_impossible_relaxation(force, steps):
    with pytest.raises(ConfigError, match="relax_force"):
        Relaxation(force, steps)


@calculates
def test_image_has_the_same_label(packaged):
    """Under (alpha, beta, E) -> (180 - alpha, 180 - beta, -E)."""
    x = design(packaged, packaged["index"].to_pylist().index(448))
    image = oracle().space.group()[1](x)
    assert not torch.equal(x, image)
    [label], [mirrored] = (oracle(**SMALL).label(each) for each in (x, image))
    assert label["status"] == mirrored["status"] == "done", (label["reason"], mirrored["reason"])
    for name in ("band_gap", "direct_gap", "energy", *BANDS):
        np.testing.assert_allclose(mirrored[name], label[name], atol=2e-3)
    for name in ("valence_k", "conduction_k"):
        assert mirrored[name] == label[name]


@calculates
def test_gap_of_every_level_is_that_of_its_bands(all_levels):
    made, row = all_levels
    for ending in LEVELS:
        valence, conduction = (np.array(row[f"{name}{ending}"]) for name in BANDS)
        assert len(valence) == len(made.kpoints()[f"kpoints{ending}"])
        assert row[f"band_gap{ending}"] == pytest.approx(conduction.min() - valence.max(), abs=2e-6)
        assert row[f"direct_gap{ending}"] == pytest.approx((conduction - valence).min(), abs=2e-6)


@calculates
def test_levels_differ_as_physics_says(all_levels):
    """At Gamma both edges are degenerate and keep their energies to first order; HSE06 opens the gap by about half an eV."""
    made, row = all_levels
    gamma = made.kpoints()["kpoints"].index([0.0, 0.0])
    for ending in ("", "_fine"):
        coupled = np.array(row[f"valence_energies{ending}_soc"]) - np.array(row[f"valence_energies{ending}"])
        assert coupled.min() > -0.02 and 0.03 < coupled.max() < 0.2
    assert abs(row["valence_energies_soc"][gamma] - row["valence_energies"][gamma]) < 0.01
    assert 0.3 < row["band_gap_hse"] - row["band_gap"] < 0.8
    for name in BANDS:
        shift = np.array(row[f"{name}_soc"]) - np.array(row[name])
        np.testing.assert_allclose(row[f"{name}_hse_soc"], np.array(row[f"{name}_hse"]) + shift, atol=2e-6)


@calculates
def test_stretched_layer_becomes_thinner(all_levels):
    made, row = all_levels
    frozen = made.prototype.atoms(made.space.design(stretched()[0].tolist()))
    assert row["thickness"] < np.ptp(frozen.positions[:, 2]) - 0.05
    positions = np.reshape(row["relaxed_positions"], (3, 3))
    assert row["thickness"] == pytest.approx(np.ptp(positions[:, 2]))
    assert row["residual_force"] <= 0.1 and row["relaxation_steps"] > 0
    assert row["energy_gain"] == pytest.approx(row["energy_unrelaxed"] - row["energy"]) and row["energy_gain"] > 0.01
    assert row["strain_energy"] == pytest.approx(row["energy"] + 20.0)


@calculates
def test_relaxation_that_does_not_converge_is_a_failed_row():
    [row] = oracle(**SMALL, relax=True, relax_steps=1).label(stretched())
    assert row["status"] == "failed" and "did not converge" in row["reason"] and "after 1 steps" in row["reason"]
    assert row["thickness"] is None and row["band_gap"] is None
