"""Every suite of `benchmark.py` from the command line to files, with tiny settings, in this process."""

import contextlib
import importlib
import json
from pathlib import Path

import pytest

from matdesinne.benchmark.public_weights import checksum

from ..toys import OWN, QUICK, script_config, write_table
from .published_mirror import random_arrays, write_mirror

WORDS = [word for word in QUICK if not word.startswith(("model.", "logger="))]
EVALUATOR = [
    "surrogate.network.members=1",
    "evaluator_network.members=1",
    "evaluator_network.hidden=8",
    "evaluator_network.depth=1",
]
TABLE = [*OWN, *WORDS, *EVALUATOR, "surrogate=mlp", "models=[mdn,cvae]"]
PROBLEM = [*WORDS[:2], "trainer.max_epochs=1", "data.source.count=2000", "data.source.drawn=4000"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]


def benchmark(folder: Path, *words: str) -> None:
    main = importlib.import_module("benchmark").main
    with contextlib.chdir(folder):
        main(script_config("benchmark", folder / "out", "workers=1", *words))


def content(folder: Path, name: str) -> dict:
    return json.loads((folder / "out" / name).read_text())


def numbers(rows: list[dict]) -> list[dict]:
    """Rows without their times."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


TWO_SEEDS = [*TABLE, "trainer.max_epochs=2", "targets=[0.5,1.0]", "num_samples=60", "repeats=2", "seed=3"]


@pytest.fixture(scope="module")
def table1(tmp_path_factory) -> Path:
    folder = write_table(tmp_path_factory.mktemp("table1"))
    benchmark(folder, *TWO_SEEDS)
    return folder


def test_table1_has_every_seed(table1):
    rows = content(table1, "table1.json")["rows"]
    methods = {"MDN", "cVAE", "MatDesINNe-MDN", "MatDesINNe-cVAE", "uniform + localization", "rejection sampling"}
    methods |= {"DFT search", "DFT search, share of the data rows"}
    found = sorted((row["method"], row["target"], row["seed"]) for row in rows)
    assert found == sorted((method, target, seed) for method in methods for target in (0.5, 1.0) for seed in (3, 4))


def test_table1_keeps_what_each_seed_trained(table1):
    facts = content(table1, "table1.json")
    for seed in ("seed3", "seed4"):
        assert (table1 / "out" / seed / "cvae" / "model.safetensors").is_file()
        assert set(facts[seed]) == {"seconds_training", "surrogate_test_errors", "parameters"}
        assert set(facts[seed]["parameters"]) == {"MDN", "cVAE"}


def test_table1_trains_a_surrogate_for_each_seed_and_one_evaluator(table1):
    seeds = [json.loads(path.read_text())["seed"] for path in table1.glob("outputs/surrogates/*/settings.json")]
    assert sorted(seeds) == [3, 4, 1000]


def test_table1_is_written_as_text_and_picture(table1):
    text = (table1 / "out" / "table1.md").read_text()
    assert "std of MAE by the evaluator [eV]" in text and "seeds 3, 4" in text
    assert {"table1.csv", "table1.json", "table1.md", "table1.png"} <= {path.name for path in (table1 / "out").iterdir()}


@pytest.fixture(scope="module")
def before_and_after(table1) -> tuple[dict, dict]:
    """The results before and after another run in the same folder, which is logged to Weights & Biases."""
    before = content(table1, "table1.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        benchmark(table1, *TWO_SEEDS, "logger=default")
    return before, content(table1, "table1.json")


def test_table1_again_trains_nothing(before_and_after):
    before, after = before_and_after
    assert numbers(after["rows"]) == numbers(before["rows"])
    # the times too are those of the first run
    assert before["seed3"]["seconds_training"].keys() == {"MDN", "cVAE"}
    assert after["seed3"]["seconds_training"] == before["seed3"]["seconds_training"]


def test_table1_is_logged(table1, before_and_after):
    _, after = before_and_after
    (run,) = (table1 / "out" / "wandb").glob("offline-run-*")
    (table,) = (run / "files" / "media" / "table").glob("table1_*.table.json")
    logged = json.loads(table.read_text())
    assert [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]] == after["rows"]
    (picture,) = (run / "files" / "media" / "images").glob("*.png")
    assert picture.read_bytes() == (table1 / "out" / "table1.png").read_bytes()


def test_posterior(tmp_path):
    write_table(tmp_path)
    small = ["posterior.samples=100", "posterior.tolerance=0.05", "posterior.designs=20", "posterior.ranks=10"]
    small += ["trainer.max_epochs=2", "posterior.limit=500000", "targets=[0.2]", "posterior.levels=[0.5]", "seed=4"]
    # a Gaussian process learns the plane of the table in a moment, so that localization reaches the target
    gaussian = ["surrogate=gp", "surrogate.optimizer.max_iter=20"]
    words = [word for word in TABLE if not word.startswith(("surrogate", "evaluator"))]
    benchmark(tmp_path, "suite=posterior", *words, *gaussian, *small)
    found = content(tmp_path, "posterior.json")
    # a stage that leaves nothing has no row
    assert "MatDesINNe-MDN" in {row["method"] for row in found["rows"]} <= {"MDN", "MatDesINNe-MDN", "cVAE", "MatDesINNe-cVAE"}
    assert {(row["seed"], row["target"]) for row in found["rows"]} == {(4, 0.2)}
    assert all(0 <= row["c2st"] <= 1 for row in found["rows"])
    assert [(row["method"], row["seed"]) for row in found["expected_coverage"]] == [("MDN", 4)]
    assert all(0 <= row["0.5"] <= 1 for row in found["expected_coverage"])


def test_posterior_of_a_simulator(tmp_path, short_classifier):
    small = ["trainer.max_epochs=1", "data.source.count=2000", "posterior.samples=100", "posterior.observations=2", "repeats=2"]
    benchmark(tmp_path, "suite=posterior", "data=two_moons", *WORDS[:2], *small, "models=[mdn,cvae]")
    rows = content(tmp_path, "posterior.json")["rows"]
    found = [(row["method"], row["seed"], row["observation"], row["samples"]) for row in rows]
    assert found == [(method, seed, number, 100) for seed in (0, 1) for method in ("MDN", "cVAE") for number in (1, 2)]
    assert all(0.4 < row["c2st"] <= 1 and row["seconds_training"] > 0 for row in rows)
    assert "c2st, mean" in (tmp_path / "out" / "posterior.md").read_text()


def test_learning_curves(tmp_path):
    """Alone and with similar materials."""
    words = ["data=tmd_strain/mose2", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "workers=1", "repeats=2"]
    words += ["surrogate.optimizer.max_iter=2", "learning_curves.labels=[30,4]", "seed=4"]
    words += ["data.properties=[{_target_:matdesinne.targets.Property,name:strain_energy,unit:eV}]"]
    benchmark(tmp_path, "suite=learning_curves", *words)
    found = content(tmp_path, "learning_curves.json")["rows"]
    assert [(row["seed"], row["labels"], row["similar"] > 0) for row in found] == [
        (seed, labels, similar) for seed in (4, 5) for similar in (False, True) for labels in (4, 30)
    ]
    assert all(0 <= row["median_error"] <= row["mae"] <= row["largest_error"] for row in found)
    assert found[0]["mae"] > 2 * found[1]["mae"] and found[0]["mae"] > 2 * found[2]["mae"]
    text = (tmp_path / "out" / "learning_curves.md").read_text()
    assert text.startswith("Errors") and "| 4 | 0 |" in text and (tmp_path / "out" / "learning_curves.png").is_file()
    with pytest.raises(SystemExit, match=r"^Error: .* numbers of rows from 1 to \d+, .* got \[30, 9999\]"):
        benchmark(tmp_path, "suite=learning_curves", *words, "learning_curves.labels=[30,9999]")


def test_resimulation(tmp_path):
    """Of the problem in which some designs have no value."""
    small = ["resimulation.targets=3", "resimulation.samples=20", "resimulation.limit=400000"]
    benchmark(tmp_path, "suite=resimulation", "data=ballistics", *PROBLEM, *small, "models=[mdn,cvae]", "repeats=2")
    results = content(tmp_path, "resimulation.json")["rows"]
    assert [(row["method"], row["seed"]) for row in results] == [("MDN", 0), ("cVAE", 0), ("MDN", 1), ("cVAE", 1)]
    assert all((row["targets"], row["samples"]) == (3, 20) and row["err_resim"] > 0 for row in results)
    # one target and one reference for both models
    assert results[0]["fewest_references"] == results[1]["fewest_references"] > 1


PAPER = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1", "num_samples=40"]
PAPER += ["published.targets=[0.5]", "published.localized=20", "published.tolerances=[5.0]", "published.steps=[1,3]"]


def test_paper_experiment(tmp_path, published_folder, monkeypatch):
    """Every model is trained for an epoch on all rows of the split, and localized by the forward INN that is trained, too."""
    monkeypatch.setenv("MATDESINNE_MOS2_VASP", str(published_folder))
    words = ["surrogate.network.blocks=1", "surrogate.network.hidden=8", "published.forward=trained"]
    benchmark(tmp_path, "experiment=paper", *PAPER, *words, "models=[paper/mdn,paper/mdn_6000,paper/cinn_affine]")
    found = content(tmp_path, "paper.json")
    labels = ["MDN", "MDN (paper/mdn_6000)", "cINN (affine)"]
    assert [(row["method"], row["steps"]) for row in found["rows"]] == [(m, s) for m in labels for s in (None, 1, 3)]
    assert list(found["seed0"]["seconds_training"]) == labels
    assert json.loads((tmp_path / "out" / "seed0" / "paper" / "cinn_affine" / "metrics.json").read_text())["epochs"] == 1


def test_paper_suite_names_a_wrong_forward_inn(tmp_path, published_folder, monkeypatch):
    monkeypatch.setenv("MATDESINNE_MOS2_VASP", str(published_folder))
    with pytest.raises(SystemExit, match="public or trained, got 'mine'"):
        benchmark(tmp_path, "experiment=paper", "published.forward=mine", "models=[paper/mdn]")


def test_published_suite(tmp_path, published_folder, monkeypatch):
    """The whole suite on a mirror of the repository whose weights are random."""
    arrays = random_arrays()
    monkeypatch.setenv("MATDESINNE_MOS2_VASP", str(published_folder))
    monkeypatch.setenv("MATDESINNE_PUBLISHED_WEIGHTS", str(write_mirror(tmp_path / "mirror", arrays)))
    weights = {name: {key: part[key] for key in part if not key.startswith("tmp_var_")} for name, part in arrays.items()}
    sums = [f"published.weights.sha256.{name}={checksum(part)}" for name, part in weights.items()]
    benchmark(tmp_path, "suite=published", *PAPER, *sums)
    found = content(tmp_path, "published.json")
    labels = ("MDN", "cVAE", "INN", "cINN (affine)", "Gaussian of the rows")
    assert [row["method"] for row in found["rows"]] == [m for m in labels for _ in range(3)]
    assert set(found["forward_inn"]) == {"mae_test_rows", "mae_training_rows", "mae_all_rows"}
    assert {"config.yaml", "environment.json", "published.md", "published.png"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["suite=table2"], "'posterior'"),
        (["repeats=0"], "repeats as a whole number from 1"),
        (["models=[paper/nothing]"], "'paper/cinn_affine'"),
        (["suite=resimulation", "models=[mdn]"], "data=kinematics"),
    ],
    ids=["suite", "repeats", "models", "problem"],
)
def test_mistakes_are_named(tmp_path, words, named):
    with pytest.raises(SystemExit, match=r"^Error: ") as caught:
        benchmark(tmp_path, *OWN, "surrogate=mlp", *words)
    assert named in str(caught.value)


def test_speed_needs_no_training(tmp_path):
    sizes = [
        "speed.sizes=[20,40]",
        "speed.repeats=1",
        "speed.slow_size=5",
        "speed.slow_steps=3",
        "speed.training_steps=1",
        "speed.batch_size=32",
        "speed.paper_size=20",
        "speed.paper_steps=1",
    ]
    benchmark(tmp_path, "suite=speed", *sizes)
    speed = content(tmp_path, "speed.json")
    found = [(row["model"], row["localizer"], row["size"]) for row in speed["rows"] if row["device"] == "cpu"]
    assert found == [
        ("cinn", name, size) for name, size in (("newton", 20), ("newton", 40), ("adam", 5), ("gradient_descent", 5))
    ]
    assert (speed["property"], speed["unit"]) == ("band_gap", "eV")
    assert [row["model"] for row in speed["training"]] == ["cINN (mixture), one block", "cINN (mixture), all blocks", "INN"]
    assert not (tmp_path / "outputs").exists()


def test_search_needs_no_training(tmp_path):
    benchmark(tmp_path, "suite=search", "search.count=5", "search.batch=10", "search.limit=20")
    rows = content(tmp_path, "search.json")["rows"]
    assert rows[0]["candidates"] == 5 and len(rows) == 3 * 6
    assert "| 0.5 eV | cINN (mixture) + localization | 5 |" in (tmp_path / "out" / "search.md").read_text()
