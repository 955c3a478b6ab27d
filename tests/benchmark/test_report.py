import csv
import json
from dataclasses import asdict, fields, replace

import pytest

from matdesinne.benchmark.posterior import PosteriorRow
from matdesinne.benchmark.report import write_posterior, write_report, write_resimulation
from matdesinne.benchmark.table1 import Row

CINN = "cINN (mixture)"
SCORED = Row(
    method=CINN,
    target=1.0,
    seed=0,
    mae_surrogate=0.2,
    mae_evaluator=0.3,
    off_target=0.125,
    inside_bounds=1.0,
    generated=100,
    kept=50,
    diversity=0.5,
    coverage=0.75,
    seconds=6.0,
    seconds_sampling=1.0,
    seconds_selection=2.0,
    seconds_localization=3.0,
    seconds_training=12.0,
)
EMPTY = ("mae_surrogate", "mae_evaluator", "off_target", "inside_bounds", "diversity", "coverage")
BARE = replace(SCORED, kept=0, **dict.fromkeys(EMPTY))
SEARCH = replace(BARE, method="DFT search", seconds=630.0, seconds_sampling=0, seconds_selection=0, seconds_localization=0)
COMPARED = PosteriorRow(
    method="MDN", target=0.5, seed=0, samples=100, references=200, c2st=0.5, mmd=-0.001, nearest=0.25, copies=1
)


def cells(text: str, start: str) -> dict[str, str]:
    """The cells of the one line of a Markdown table that starts so, by the name of their column."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    (line,) = [line for line in table if line[0] == start]
    return dict(zip(table[0], line, strict=True))


@pytest.fixture
def report(tmp_path):
    def write(*rows: Row, facts=None) -> str:
        return write_report(tmp_path, "toy", "eV", rows, facts or {})

    return write


@pytest.mark.slow
def test_json_holds_rows_and_facts(report, tmp_path):
    report(SCORED, BARE, facts={"seed0": {"threads": 1}})
    content = json.loads((tmp_path / "table1.json").read_text())
    assert content == {"data": "toy", "unit": "eV", "seed0": {"threads": 1}, "rows": [asdict(SCORED), asdict(BARE)]}


@pytest.mark.slow
def test_csv_holds_the_rows(report, tmp_path):
    report(SCORED, SEARCH)
    with (tmp_path / "table1.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["kept"]) for row in found] == [(CINN, "0", "50"), ("DFT search", "0", "0")]
    assert [row["mae_evaluator"] for row in found] == ["0.3", ""]
    assert list(found[0]) == [field.name for field in fields(Row)]


@pytest.mark.slow
def test_markdown_is_returned(report, tmp_path):
    assert (tmp_path / "table1.md").exists() is False
    text = report(SCORED)
    assert (tmp_path / "table1.md").read_text() == text


@pytest.mark.slow
def test_picture(report, tmp_path):
    report(SCORED, replace(SCORED, method="MDN", seed=1), BARE)
    assert (tmp_path / "table1.png").stat().st_size > 1000


@pytest.mark.slow
def test_cells_of_one_seed(report):
    assert cells(report(SCORED), CINN) == {
        "method": CINN,
        "target [eV]": "1",
        "MAE in the paper [eV]": "0.193",
        "MAE by the localizing surrogate [eV]": "0.2",
        "MAE by the evaluator [eV]": "0.300",
        "diversity": "0.50",
        "coverage": "0.75",
        "error > 0.01 eV by the evaluator [%]": "12.5",
        "inside the bounds [%]": "100.0",
        "generated": "100",
        "kept": "50",
        "sampling [s]": "1",
        "selection [s]": "2",
        "localization [s]": "3",
        "total time [s]": "6",
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cINN (mixture)", "cINN (affine)"])
@pytest.mark.parametrize(("prefix", "error"), [("", "0.193"), ("MatDesINNe-", "0.015")])
def test_the_paper_stands_beside_both_kinds_of_cinn(report, method, prefix, error):
    assert cells(report(replace(SCORED, method=prefix + method)), prefix + method)["MAE in the paper [eV]"] == error


@pytest.mark.slow
def test_mean_and_deviation_over_seeds(report):
    text = report(SCORED, replace(SCORED, seed=1, mae_evaluator=0.5, kept=70))
    line = cells(text, CINN)
    assert line["MAE by the evaluator [eV]"] == "0.400"
    assert line["std of MAE by the evaluator [eV]"] == "0.141"  # of a sample: sqrt(2) / 10
    assert (line["kept"], line["generated"]) == ("60", "100")
    assert "seeds 0, 1" in text


@pytest.mark.slow
def test_share_off_target_is_the_mean_over_seeds(report):
    line = cells(report(SCORED, replace(SCORED, seed=1, off_target=0.25), replace(BARE, seed=2)), CINN)
    assert line["error > 0.01 eV by the evaluator [%]"] == "18.8"


@pytest.mark.slow
def test_worst_share_inside_over_seeds(report):
    text = report(SCORED, replace(SCORED, seed=1, inside_bounds=0.5))
    assert cells(text, CINN)["inside the bounds [%]"] == "50.0"


@pytest.mark.slow
def test_seeds_without_a_score_are_counted(report):
    line = cells(report(SCORED, replace(BARE, seed=1)), CINN)
    assert line["seeds with a score"] == "1"
    assert line["MAE by the localizing surrogate [eV]"] == "0.2"
    assert line["MAE by the evaluator [eV]"] == "0.300"
    assert line["std of MAE by the evaluator [eV]"] == ""


@pytest.mark.slow
def test_one_seed_is_not_counted(report):
    text = report(SCORED, replace(SCORED, method="MDN"))
    assert "std" not in text and "seeds" not in text


@pytest.mark.slow
def test_methods_and_targets_are_not_mixed(report):
    text = report(SCORED, replace(SCORED, target=0.5), replace(SCORED, method="MDN"))
    assert "std" not in text
    assert text.count("\n| ") == 4


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[BARE], [BARE, replace(BARE, seed=1)], [replace(BARE, method="MDN"), SCORED]])
def test_rows_without_designs(report, rows):
    text = report(*rows)
    assert all(row.method in text for row in rows)


def test_no_picture_without_a_score(report, tmp_path):
    report(BARE)
    assert not (tmp_path / "table1.png").exists()


def test_search_has_a_cost_and_no_stages(report):
    line = cells(report(SEARCH), "DFT search")
    assert line["total time [s]"] == "630"
    assert {line[f"{stage} [s]"] for stage in ("sampling", "selection", "localization")} == {""}


def test_posterior(tmp_path):
    coverage = [{"method": "MDN", "seed": 0, "0.5": 0.48}]
    text = write_posterior(tmp_path, "toy", [COMPARED], coverage)
    content = json.loads((tmp_path / "posterior.json").read_text())
    assert content == {"data": "toy", "rows": [asdict(COMPARED)], "expected_coverage": coverage}
    assert (tmp_path / "posterior.md").read_text() == text
    lines = [line for line in text.splitlines() if line.startswith("| MDN |")]
    assert lines == ["| MDN | 0.5 | 0 | 100 | 200 | 0.5 | -0.001 | 0.25 | 1 |", "| MDN | 0 | 0.48 |"]


def test_posterior_without_a_density(tmp_path):
    assert "coverage" not in write_posterior(tmp_path, "toy", [COMPARED], [])


def test_posterior_of_models_that_reach_no_target(tmp_path):
    assert "toy" in write_posterior(tmp_path, "toy", [], [])


def test_resimulation(tmp_path):
    rows = [{"method": name, "err_resim": value, "seconds_training": None} for name, value in (("MDN", 0.1234), ("INN", 2.0))]
    text = write_resimulation(tmp_path, "kinematics", rows)
    assert json.loads((tmp_path / "resimulation.json").read_text()) == {"data": "kinematics", "rows": rows}
    assert (tmp_path / "resimulation.md").read_text() == text
    assert cells(text, "MDN") == {"method": "MDN", "err_resim": "0.123", "seconds_training": ""}
