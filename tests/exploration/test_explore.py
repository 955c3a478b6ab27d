"""explore.py as a user runs it, in this process, with tiny settings and without UMAP's compilation."""

import importlib
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.exploration.designs import default_targets, gather
from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.accuracy import Accuracy, write_accuracy

from ..test_scripts import write_run
from ..toys import OWN, candidates, linear, prop, script_config, write_table
from .conftest import crystal

SMALL = ["run=run", "num_samples=40", "selection=default", "selection.rules.1.tolerance=9", "accepted_error=9"]


def explore(folder: Path, *words: str) -> str:
    """Run the script; the text of its report."""
    importlib.import_module("explore").main(script_config("explore", folder / "out", *words))
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path, monkeypatch, flat, undrawn) -> Path:
    monkeypatch.chdir(write_run(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_report_of_a_table_of_ones_own(run):
    """With rows beside; the figures that need cells are left out, and the report says so."""
    write_table(run)
    settings = script_config("train", run, *OWN)
    OmegaConf.save(settings, run / "run" / "config.yaml", resolve=True)
    page = explore(run, *SMALL, "targets=[0.5,0.0]")
    assert "rows of the data set" in page and "no parameters a, b, c" in page
    assert page.index("y = 0 eV") < page.index("y = 0.5 eV")
    assert page.count("<img") == 6


@pytest.mark.slow
def test_run_that_does_not_know_its_data(run):
    assert "rows of the data set</td>" not in explore(run, *SMALL, "targets=[0.5]")


@pytest.mark.slow
def test_candidates_of_generate(run):
    for target in (0.5, -0.5):
        table = candidates(linear(), torch.full((10, 2), target / 2) + 0.01 * torch.randn(10, 2), target)
        table.write_parquet(run / f"{target}" / "candidates.parquet")
    exploration = gather(script_config("explore", run, "run=run", "candidates=['0.5','-0.5']"), run)
    assert [(entry.target.values, len(entry)) for entry in exploration.generated] == [((-0.5,), 10), ((0.5,), 10)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["targets=[]"], "targets="),
        (["targets=[abc]"], "abc"),
        (["targets=[0.5]", "data=mos2_gpaw"], "data="),
        (["candidates=nowhere"], "nowhere"),
        (["candidates=other"], "run="),
        (["targets=[0.5]", "design={wrong: 1}"], "wrong"),
    ],
)
def test_names_what_is_needed(run, words, named):
    surrogate = crystal()
    candidates(surrogate, surrogate.space.sample(5), 0.5).write_parquet(run / "other" / "candidates.parquet")
    with pytest.raises(SystemExit) as caught:
        explore(run, *SMALL, *words)
    assert str(caught.value).startswith("Error: ") and named in str(caught.value)


def test_targets_of_own_data_lie_within_its_range(run):
    design = InverseDesign.load("run")
    low, high = design.model.target_range[:, 0].tolist()
    found = default_targets(design)
    assert found[0] == design.model.properties[0].floor and found == sorted(set(found)) and found[-1] < high
    design.model.properties = (prop(),)  # without a floor
    assert all(low < target < high for target in default_targets(design))


def test_tolerances_of_own_data_are_relative(run, monkeypatch):
    """Shares of the standard deviation and of the test error of the run, where it knows these; see conf/explore.yaml."""
    seen = []

    def load(folder, selection, localization, accepted, refine_with):
        seen.append((selection.rules[1].tolerance, accepted))
        raise ConfigError("seen")

    monkeypatch.setattr(InverseDesign, "load", load)
    known = Accuracy("y", "eV", 20, 30.0, 200.0, 150.0, 60.0, 0.68, 0.9, 0.0, 1000.0)
    for words in ([], ["accepted_error=5.0", "selection=default"]):
        with pytest.raises(ConfigError, match="seen"):
            gather(script_config("explore", run, "run=run", *words), run)
        write_accuracy([known], run / "run")
    with pytest.raises(ConfigError, match="seen"):
        gather(script_config("explore", run, "run=run"), run)
    assert seen == [(0.5, 0.01), (0.5, 5.0), ([100.0], [3.0])]
