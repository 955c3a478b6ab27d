import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from matdesinne.training.sweeps import SweepTable


def job(folder: Path, name: str, overrides: list[str], metrics: object = None) -> None:
    """What Hydra and a training leave behind."""
    (folder / name / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), folder / name / ".hydra" / "overrides.yaml")
    if metrics is not None:
        (folder / name / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics))


def table(folder: Path, metric: str = "val/loss") -> list[dict[str, str]]:
    SweepTable(metric).on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}), config_name="train")
    with (folder / "sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_changes_and_metrics_of_each_job(tmp_path):
    job(tmp_path, "0", ["model=cinn", "model.hidden=[8,8]", "trainer.max_epochs=3"], {"val/loss": 1.5, "epochs": 3})
    expected = {
        "job": "0",
        "model": "cinn",
        "model.hidden": "[8,8]",
        "trainer.max_epochs": "3",
        "val/loss": "1.5",
        "epochs": "3",
    }
    assert table(tmp_path) == [expected]


@pytest.mark.parametrize(("metric", "order"), [("val/loss", ["1", "2", "0"]), ("val/mae", ["0", "2", "1"])])
def test_best_first(tmp_path, metric, order):
    for name, (loss, mae) in enumerate([(3.0, 0.1), (-1.0, 10.0), (2.0, 9.0)]):
        job(tmp_path, str(name), [f"seed={name}"], {"val/loss": loss, "val/mae": mae})
    assert [row["job"] for row in table(tmp_path, metric)] == order


@pytest.mark.parametrize("metrics", [None, '{"val/loss"', "[1, 2]"], ids=["missing", "damaged", "foreign"])
def test_a_failed_job_is_last_with_its_changes(tmp_path, metrics):
    job(tmp_path, "0", ["seed=0"], metrics)
    job(tmp_path, "1", ["seed=1"], {"val/loss": 5.0})
    found = table(tmp_path)
    assert [(row["seed"], row["val/loss"]) for row in found] == [("1", "5.0"), ("0", "")]


def test_jobs_that_change_different_things(tmp_path):
    job(tmp_path, "0", ["model.hidden=8"], {"val/loss": 1.0})
    job(tmp_path, "1", ["model.depth=2"], {"val/loss": 2.0})
    assert [(row["model.hidden"], row["model.depth"]) for row in table(tmp_path)] == [("8", ""), ("", "2")]


def test_value_with_an_equals_sign(tmp_path):
    job(tmp_path, "0", ["+note=a=b", "~logger"], {"val/loss": 1.0})
    assert table(tmp_path)[0]["+note"] == "a=b"


def test_without_the_metric_the_loss_counts(tmp_path):
    for name in ("0", "1"):
        job(tmp_path, name, [f"seed={name}"], {"val/loss": -float(name)})
    assert [row["job"] for row in table(tmp_path, "val/mae")] == ["1", "0"]


def test_other_folders_are_no_jobs(tmp_path):
    job(tmp_path, "0", ["seed=0"], {"val/loss": 1.0})
    (tmp_path / "notes").mkdir()
    assert len(table(tmp_path)) == 1


def test_no_jobs_no_table(tmp_path):
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert list(tmp_path.iterdir()) == []
