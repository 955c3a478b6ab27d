import csv
import json
from dataclasses import asdict, replace

import pytest

from matdesinne.benchmark.posterior import PosteriorRow
from matdesinne.benchmark.report import write_posterior, write_report, write_resimulation
from matdesinne.benchmark.table1 import Row

SCORED = Row("cINN", 1.0, 0, 0.2, 0.3, 1.0, 100, 50, 0.5, 0.75, 6.0, 1.0, 2.0, 3.0, 12.0)
BARE = replace(SCORED, mae_surrogate=None, mae_evaluator=None, inside_bounds=None, kept=0, diversity=None, coverage=None)
SEARCH = replace(BARE, method="DFT search", seconds=630.0, seconds_sampling=0, seconds_selection=0, seconds_localization=0)
COMPARED = PosteriorRow("MDN", 0.5, 0, 100, 200, 0.5, -0.001, 0.25, 1)


def line(text: str, start: str) -> list[str]:
    """The cells of the one line of a Markdown table that starts so."""
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.fixture
def report(tmp_path):
    def write(*rows: Row, facts=None) -> str:
        return write_report(tmp_path, "toy", "eV", rows, facts or {})

    return write


def test_json_holds_rows_and_facts(report, tmp_path):
    report(SCORED, BARE, facts={"seed0": {"threads": 1}})
    content = json.loads((tmp_path / "table1.json").read_text())
    assert content == {"data": "toy", "unit": "eV", "seed0": {"threads": 1}, "rows": [asdict(SCORED), asdict(BARE)]}


def test_csv_holds_the_rows(report, tmp_path):
    report(SCORED, SEARCH)
    with (tmp_path / "table1.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["kept"]) for row in found] == [("cINN", "0", "50"), ("DFT search", "0", "0")]


def test_markdown_is_returned(report, tmp_path):
    assert (tmp_path / "table1.md").exists() is False
    text = report(SCORED)
    assert (tmp_path / "table1.md").read_text() == text


def test_picture(report, tmp_path):
    report(SCORED, replace(SCORED, method="MDN", seed=1), BARE)
    assert (tmp_path / "table1.png").stat().st_size > 1000


def test_cells_of_one_seed(report):
    cells = line(report(SCORED), "cINN")
    assert cells[1:] == ["1", "0.193", "0.2", "0.300", "100.0 %", "50 / 100", "0.50", "0.75", "6 (1 + 2 + 3)"]


def test_mean_and_deviation_over_seeds(report):
    text = report(SCORED, replace(SCORED, seed=1, mae_evaluator=0.5, kept=70))
    cells = line(text, "cINN")
    assert cells[4] == "0.400 ± 0.141"  # of a sample: sqrt(2) / 10
    assert cells[6] == "60 / 100"
    assert "seeds 0, 1" in text


def test_worst_share_inside_over_seeds(report):
    assert line(report(SCORED, replace(SCORED, seed=1, inside_bounds=0.5)), "cINN")[5] == "50.0 %"


def test_seeds_without_a_score_are_counted(report):
    cells = line(report(SCORED, replace(BARE, seed=1)), "cINN")
    assert cells[3:5] == ["0.2 (1 of 2)", "0.300 (1 of 2)"]


def test_one_seed_is_not_counted(report):
    text = report(SCORED, replace(SCORED, method="MDN"))
    assert "±" not in text and "seeds" not in text


def test_methods_and_targets_are_not_mixed(report):
    text = report(SCORED, replace(SCORED, target=0.5), replace(SCORED, method="MDN"))
    assert "±" not in text
    assert text.count("\n| ") == 4


@pytest.mark.parametrize("rows", [[BARE], [BARE, replace(BARE, seed=1)], [replace(BARE, method="MDN"), SCORED]])
def test_rows_without_designs(report, rows):
    text = report(*rows)
    assert all(row.method in text for row in rows)


def test_no_picture_without_a_score(report, tmp_path):
    report(BARE)
    assert not (tmp_path / "table1.png").exists()


def test_search_is_a_cost_by_probability(report):
    assert line(report(SEARCH), "DFT search")[-1] == "630 (by probability)"


def test_posterior(tmp_path):
    coverage = [{"method": "MDN", "seed": 0, "0.5": 0.48}]
    text = write_posterior(tmp_path, "toy", [COMPARED], coverage)
    content = json.loads((tmp_path / "posterior.json").read_text())
    assert content == {"data": "toy", "rows": [asdict(COMPARED)], "expected_coverage": coverage}
    assert (tmp_path / "posterior.md").read_text() == text
    tables = [line for line in text.splitlines() if line.startswith("| MDN |")]
    assert tables == ["| MDN | 0.5 | 0 | 100 | 200 | 0.5 | -0.001 | 0.25 | 1 |", "| MDN | 0 | 0.48 |"]


def test_posterior_without_a_density(tmp_path):
    assert "coverage" not in write_posterior(tmp_path, "toy", [COMPARED], [])


def test_posterior_of_models_that_reach_no_target(tmp_path):
    assert "toy" in write_posterior(tmp_path, "toy", [], [])


def test_resimulation(tmp_path):
    rows = [{"method": name, "err_resim": value, "seconds_training": None} for name, value in (("MDN", 0.1234), ("INN", 2.0))]
    text = write_resimulation(tmp_path, "kinematics", rows)
    assert json.loads((tmp_path / "resimulation.json").read_text()) == {"data": "kinematics", "methods": rows}
    assert (tmp_path / "resimulation.md").read_text() == text
    assert line(text, "MDN")[1:] == ["0.123", ""]
