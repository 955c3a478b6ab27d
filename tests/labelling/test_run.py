import json
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest
import torch

from matdesinne.errors import ConfigError
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import label_points
from matdesinne.oracles.analytic import AnalyticOracle, Ballistics, Kinematics
from matdesinne.processes import ProcessPool

from ..toys import ROOT, box, line
from ..warm import environment
from .fragile import Fragile

pytestmark = pytest.mark.usefixtures("forkserver")


def points(*designs: tuple[float, float]) -> Points:
    return Points(torch.tensor(designs, dtype=torch.float64), torch.arange(10, 10 + len(designs)))


def table(folder: Path) -> pandas.DataFrame:
    return pyarrow.parquet.read_table(folder / "labels.parquet").to_pandas()


DESIGNS = [(0.5, 0.25), (-0.5, 0.5), (0.25, -0.25), (0.125, 0.0)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, forkserver):
    folder = tmp_path_factory.mktemp("fresh")
    run = label_points(Fragile(box()), points(*DESIGNS), ProcessPool(2), folder)
    assert run.computed == 4
    return folder


@pytest.fixture
def labelled(fresh, tmp_path):
    """A copy, in which a test may go on."""
    return shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)


@pytest.mark.slow
def test_one_row_a_design_in_the_order_of_the_points(labelled):
    frame = table(labelled)
    assert frame[["x1", "x2"]].to_numpy().tolist() == [list(design) for design in DESIGNS]
    assert frame["index"].tolist() == [10, 11, 12, 13]
    assert frame["id"].nunique() == 4


def test_crash_and_failure_are_rows_with_reasons(labelled):
    frame = table(labelled)
    assert frame["status"].tolist() == ["done", "failed", "failed", "done"]
    assert "SIGKILL" in frame["reason"][1] and "did not converge" in frame["reason"][2]
    assert frame["total"].isna().tolist() == [False, True, True, False]
    assert frame["total"][0] == 0.75 and frame["both"][0].tolist() == [0.5, 0.25] and frame["both"][1] is None


@pytest.mark.slow
def test_units_and_kpoints_travel_with_the_table(labelled):
    schema = pyarrow.parquet.read_schema(labelled / "labels.parquet")
    units = {field.name: field.metadata[b"unit"].decode() for field in schema}
    assert units["x1"] == "m" and units["total"] == "eV" and units["seconds"] == "s"
    assert json.loads(schema.metadata[b"kpoints"]) == Fragile(box()).kpoints()["kpoints"]
    assert str(schema.field("count").type) == "int64"


@pytest.mark.slow
def test_second_start_computes_nothing(labelled):
    before = (labelled / "records.jsonl").read_bytes()
    run = label_points(Fragile(box()), points(*DESIGNS), ProcessPool(1), labelled)
    assert run.computed == 0
    assert (labelled / "records.jsonl").read_bytes() == before
    assert "2 failed" in run.report()


@pytest.mark.slow
def test_failed_designs_are_computed_again_on_request(labelled):
    oracle = Fragile(box())
    oracle.mended = True
    run = label_points(oracle, points(*DESIGNS), ProcessPool(1), labelled, retry=True)
    assert run.computed == 2
    assert table(labelled)["total"].tolist() == [sum(design) for design in DESIGNS]


@pytest.mark.slow
def test_more_points_in_the_same_folder(labelled):
    run = label_points(Fragile(box()), points((0.5, 0.25), (0.75, 0.0)), ProcessPool(1), labelled)
    assert run.computed == 1
    assert len(table(labelled)) == 5


def test_equal_designs_are_one_row(tmp_path):
    run = label_points(Fragile(box()), points((0.5, 0.25), (0.5, 0.25)), ProcessPool(1), tmp_path)
    assert (run.computed, len(table(tmp_path))) == (1, 1)


@pytest.mark.slow
def test_other_oracle_needs_another_folder(labelled):
    oracle = AnalyticOracle(line(4), Kinematics(), {"end_x": "1", "end_y": "1"}, chunk=10)
    with pytest.raises(ConfigError, match="another folder"):
        label_points(oracle, Points(torch.zeros(1, 4).double(), torch.zeros(1).long()), ProcessPool(1), labelled)


def test_any_executor_will_do(tmp_path):
    """A thread pool, and a chunk with a design that has no labels."""
    oracle = AnalyticOracle(line(4), Ballistics(), {"impact": "m"}, chunk=7)
    x = Ballistics().sample_prior(40, torch.Generator().manual_seed(0)).double()
    x[5, 1] = -50.0
    with ThreadPoolExecutor(2) as executor:
        label_points(oracle, Points(x, torch.arange(40)), executor, tmp_path)
    frame = table(tmp_path)
    assert frame["status"].tolist() == ["done"] * 5 + ["failed"] + ["done"] * 34
    exact = Ballistics().forward(x, strict=False)[:, 0]
    assert torch.equal(torch.tensor(frame["impact"].to_numpy())[frame["status"] == "done"], exact[~exact.isnan()])


def test_killed_and_started_again(tmp_path, warm):
    """SIGKILL at a random time: every design once, none lost, none twice."""
    x = Kinematics().sample_prior(24, torch.Generator().manual_seed(1)).double()
    names = ["height", "angle_1", "angle_2", "angle_3"]
    pandas.DataFrame(x.numpy(), columns=names).to_csv(tmp_path / "points.csv", index=False)
    words = ["oracle=kinematics", "oracle.chunk=1", "oracle.delay=0.2", "points=points.csv", "executor.workers=2", "folder=out"]
    words += ["executor.preload=[matdesinne.cli.config,matdesinne.oracles.analytic]"]
    run = ROOT / "label.py", words, tmp_path, environment()
    records = tmp_path / "out" / "records.jsonl"
    process = warm.start(*run)
    while not records.exists() or records.read_text().count("\n") <= 1:
        os.kill(process, 0)  # it has not ended
        time.sleep(0.02)
    time.sleep(random.Random().uniform(0.0, 0.6))
    os.kill(process, signal.SIGKILL)
    assert warm.wait() == -signal.SIGKILL
    count = records.read_text().count("\n") - 1
    assert 0 < count < 24
    status, said = warm.run(*run)
    assert status == 0 and f"{24 - count} labelled now" in said, said
    written = [json.loads(text)["id"] for text in records.read_text().splitlines()[1:]]
    assert len(written) == len(set(written)) == 24
    frame = pyarrow.parquet.read_table(tmp_path / "out" / "labels.parquet").to_pandas()
    assert frame[names].to_numpy().tolist() == x.tolist()
    assert frame[["end_x", "end_y"]].to_numpy().tolist() == Kinematics().forward(x).tolist()
