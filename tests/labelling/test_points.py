import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch

from matdesinne.errors import ConfigError, DatasetError
from matdesinne.labelling.points import SobolPoints, read_points
from matdesinne.network import load_network, run_folder
from matdesinne.space import DesignSpace
from matdesinne.surrogates.base import Surrogate

from ..toys import ROOT, box, line, load_part

SEED = 20211209


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return load_part("space")


@pytest.fixture(scope="module")
def packaged() -> pandas.DataFrame:
    return pyarrow.parquet.read_table(ROOT / "matdesinne" / "datasets" / "mos2_gpaw.parquet").to_pandas()


@pytest.fixture(scope="module")
def sequence(space, packaged) -> torch.Tensor:
    points = SobolPoints(int(packaged["index"].max()) + 1, 0, SEED).draw(space)
    assert points.index.tolist() == list(range(len(points)))
    return points.x


@pytest.mark.slow
def test_sobol_gives_the_packaged_designs(space, packaged, sequence):
    np.testing.assert_array_equal(sequence.numpy()[packaged["index"].to_numpy()], packaged[list(space.names)].to_numpy())


def test_sobol_from_any_start(space, sequence):
    points = SobolPoints(30, 5001, SEED).draw(space)
    assert points.index.tolist() == list(range(5001, 5031))
    assert torch.equal(points.x, sequence[5001:5031])


def test_reserved_points_are_passed_over(space, sequence, packaged):
    points = SobolPoints(200, 100, SEED, reserved=7).draw(space)
    assert not (points.index % 10 == 7).any()
    assert torch.equal(points.x, sequence[points.index])
    assert not (packaged["index"] % 10 == 7).any()


@pytest.mark.slow
def test_min_gap_asks_the_surrogate(space, sequence):
    """Exactly those of the passed range that the network predicts to have the gap."""
    points = SobolPoints(40, 1024, SEED, min_gap=0.5).draw(space)
    surrogate = load_network(Surrogate, run_folder("pretrained"), "surrogate").eval()
    passed = torch.arange(1024, int(points.index[-1]) + 1)
    wanted = surrogate.predict_many(sequence[passed].float())[0][:, 0] >= 0.5
    assert points.index.tolist() == passed[wanted].tolist()


def test_sobol_needs_bounds():
    with pytest.raises(ConfigError, match="bounds"):
        SobolPoints(10, 0, 0).draw(line())


@pytest.mark.parametrize(("count", "start"), [(0, 0), (5, -1)])
def test_sobol_numbers(count, start):
    with pytest.raises(ConfigError, match="count"):
        SobolPoints(count, start, 0)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_table_with_other_columns(tmp_path, suffix):
    frame = pandas.DataFrame({"note": ["p", "q"], "x2": [0.1, 0.25], "x1": [1 / 3, -0.5]})
    path = tmp_path / f"points.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    points = read_points(path, box())
    assert points.x.tolist() == [[1 / 3, 0.1], [-0.5, 0.25]]
    assert points.index.tolist() == [0, 1]


def test_index_of_a_table(tmp_path):
    pandas.DataFrame({"index": [40, 12], "x1": [0.0, 0.5], "x2": [0.0, 0.5]}).to_csv(tmp_path / "points.csv", index=False)
    assert read_points(tmp_path / "points.csv", box()).index.tolist() == [40, 12]


@pytest.mark.parametrize(
    ("content", "named"),
    [("x1,y\n0,0\n", "x2"), ("x1,x2\n0,abc\n", "abc"), ("x1,x2\n0,0\n0,nan\n", "row 1"), (None, "no such file")],
)
def test_faults_of_a_table(tmp_path, content, named):
    if content is not None:
        (tmp_path / "points.csv").write_text(content)
    with pytest.raises(DatasetError, match=named):
        read_points(tmp_path / "points.csv", box())
