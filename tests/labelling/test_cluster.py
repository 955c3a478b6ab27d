import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.oracles.analytic import AnalyticOracle, Ballistics

from ..toys import CONF, ROOT, line
from ..warm import Warm, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("parsl") is None, reason="needs Parsl: the extra `cluster`"),
]

DEATH = """
from pathlib import Path
import torch
from parsl.providers import LocalProvider
from matdesinne.labelling.cluster import ParslExecutor
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.space import DesignSpace, Parameter
from tests.labelling.fragile import Fragile
space = DesignSpace([Parameter("x1", "m", -1.0, 1.0), Parameter("x2", "m", -1.0, 1.0)])
x = torch.tensor([[0.5, 0.25], [-0.5, 0.5], [0.25, -0.25], [0.125, 0.0]], dtype=torch.float64)
executor = ParslExecutor(LocalProvider(), 1, "127.0.0.1", "parsl")
label_points(Fragile(space), Points(x, torch.arange(4)), executor, Path("out"))
"""


def run(warm: Warm, folder: Path, script: Path, *words: str) -> pandas.DataFrame:
    """The table that a script with these words leaves."""
    status, said = warm.run(script, list(words), folder, environment())
    assert status == 0, said
    return pyarrow.parquet.read_table(folder / "out" / "labels.parquet").to_pandas()


def test_death_of_a_worker_costs_one_design(tmp_path, warm):
    """The only one, so that another has to be started."""
    (tmp_path / "death.py").write_text(DEATH)
    frame = run(warm, tmp_path, tmp_path / "death.py")
    assert frame["status"].tolist() == ["done", "failed", "failed", "done"]
    assert "did not converge" in frame["reason"][2]
    assert frame["total"][[0, 3]].tolist() == [0.75, 0.125]


def test_same_table_as_on_this_machine(tmp_path, warm):
    names = ["x0", "y0", "angle", "v0"]
    x = Ballistics().sample_prior(60, torch.Generator().manual_seed(0)).double()
    x[5, 1] = -50.0
    pandas.DataFrame(x.numpy(), columns=names).to_csv(tmp_path / "points.csv", index=False)
    words = ["oracle=ballistics", "oracle.chunk=9", "points=points.csv", "executor=parsl", "executor.workers=2", "folder=out"]
    found = run(warm, tmp_path, ROOT / "label.py", *words)
    oracle = AnalyticOracle(line(4), Ballistics(), {"impact": "m"}, chunk=7)
    with ThreadPoolExecutor(1) as executor:
        rows = label_points(oracle, Points(x, torch.arange(60)), executor, tmp_path).rows
    assert found[names].to_numpy().tolist() == x.tolist()
    for name in ("status", "reason"):
        assert found[name].tolist() == [row[name] for row in rows]
    assert found["impact"].dropna().tolist() == [row["impact"] for row in rows if row["status"] == "done"]


def test_slurm_jobs_can_be_described():
    """Building the provider checks each name; a scheduler is asked only when a job starts."""
    provider = instantiate(OmegaConf.load(CONF / "executor" / "slurm.yaml").provider)
    assert (provider.walltime, provider.max_blocks) == ("04:00:00", 4)
    assert "OMP_NUM_THREADS=1" in provider.worker_init
