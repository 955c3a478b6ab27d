"""The labels of the packaged set, computed again; the calculations need GPAW."""

import importlib.util
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.oracles.gpaw import GPAWOracle, half_grid

from ..conftest import CONF, ROOT, part_config

needs_gpaw = pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="needs GPAW: make gpaw installs it")
BANDS = ["valence_energies", "conduction_energies"]


def oracle(**changes) -> GPAWOracle:
    config = OmegaConf.load(CONF / "oracle" / "gpaw.yaml")
    config.update(changes)
    parts = {name: part_config(name) for name in ("space", "prototype")}
    return instantiate(OmegaConf.create({"material": parts, "oracle": config}).oracle, _convert_="all")


@pytest.fixture(scope="module")
def packaged():
    return pyarrow.parquet.read_table(ROOT / "matdesinne" / "datasets" / "mos2_gpaw.parquet")


def design(packaged, row: int) -> torch.Tensor:
    return torch.tensor([[packaged[name][row].as_py() for name in oracle().space.names]], dtype=torch.float64)


@pytest.mark.parametrize(("name", "size"), [("kpoints", 9), ("kpoints_fine", 18)])
def test_grids_are_those_of_the_packaged_set(packaged, name, size):
    expected = json.loads(packaged.schema.metadata[name.encode()])
    np.testing.assert_allclose(half_grid(size), expected, atol=1e-6)
    assert oracle(fine=True).kpoints()[name] == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_half_grid_has_every_point_or_its_opposite_once(size):
    half = {tuple(point) for point in np.rint(half_grid(size) * size).astype(int) % size}
    both = half | {tuple(-np.array(point) % size) for point in half}
    assert len(both) == size * size
    assert sum(tuple(-np.array(point) % size) in half for point in half) == sum(
        2 * i % size == 2 * j % size == 0 for i, j in half
    )


@pytest.mark.parametrize("fine", [False, True])
def test_columns_are_those_of_the_packaged_set(packaged, fine):
    names = set(oracle(fine=fine).columns())
    labels = set(packaged.schema.names) - {"index", "stratum", "seconds", *oracle().space.names}
    assert names == {name for name in labels if fine or not name.endswith("_fine")}


def test_numerics_are_part_of_the_id():
    assert oracle().settings() != oracle(cutoff=400).settings()
    assert oracle().settings() != oracle(fine=True).settings()
    json.dumps(oracle().settings())


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


@needs_gpaw
def test_packaged_label_and_its_image(packaged):
    """A row in a field, and its image under (alpha, beta, E) -> (180 - alpha, 180 - beta, -E)."""
    row = packaged["index"].to_pylist().index(448)
    x = design(packaged, row)
    image = oracle().space.group()[1](x)
    assert not torch.equal(x, image)
    [label], [mirrored] = oracle(fine=True).label(x), oracle().label(image)
    for found in (label, mirrored):
        assert found["status"] == "done", found["reason"]
        assert found["band_gap"] == pytest.approx(packaged["band_gap"][row].as_py(), abs=2e-3)
        assert found["direct_gap"] == pytest.approx(packaged["direct_gap"][row].as_py(), abs=2e-3)
        for name in BANDS:
            np.testing.assert_allclose(found[name], packaged[name][row].as_py(), atol=2e-3)
        for name in ("valence_k", "conduction_k"):
            assert found[name] == packaged[name][row].as_py()
    assert label["energy"] == pytest.approx(packaged["energy"][row].as_py(), abs=1e-3)
    assert label["fermi_level"] == pytest.approx(packaged["fermi_level"][row].as_py(), abs=2e-3)
    assert label["band_gap_fine"] == pytest.approx(packaged["band_gap_fine"][row].as_py(), abs=5e-3)
    assert "gpaw " in label["versions"]
