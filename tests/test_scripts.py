"""The scripts as a user runs them: in a folder of one's own, with tiny settings."""

import csv
import importlib
import json
import runpy
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import ase.io
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, save_network
from matdesinne.pipeline import InverseDesign

from .toys import CONF, LEARNT, OWN, QUICK, ROOT, box, prop, rows, script_config, tiny_network, write_table
from .warm import environment


@pytest.fixture(scope="session")
def works(warm):
    """What a script says that runs in a folder, with more variables of its environment."""

    def run(folder: Path, name: str, *words: str, **variables: str) -> str:
        status, said = warm.run(ROOT / name, list(words), folder, environment(ROOT, **variables))
        assert status == 0, said
        return said

    return run


@pytest.fixture(scope="session")
def rejected(warm):
    """What a script says before it gives up, without a traceback."""

    def run(folder: Path, name: str, *words: str) -> str:
        status, said = warm.run(ROOT / name, list(words), folder, environment())
        assert status != 0 and "Traceback" not in said, said
        return said

    return run


def one_error(said: str) -> str:
    """The one line that tells the user what is needed."""
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.fixture
def fails(tmp_path, monkeypatch):
    """The error line of a script's task, run in this process: Hydra prints it and exits, as `rejected` sees."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *overrides: str) -> str:
        main = importlib.import_module(name).main
        folder = tmp_path / next((word[7:] for word in overrides if word.startswith("resume=")), "out")
        settings = script_config(name, folder, *overrides)
        with pytest.raises(SystemExit) as caught:
            main(settings)
        return one_error(str(caught.value))

    return run


def write_run(folder: Path) -> Path:
    """A trained design, without the training."""
    properties = [prop(floor=-1.0)]
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), properties)
    surrogate = tiny_network(CONF / "surrogate" / "mlp.yaml", box(), properties)
    for module in (model, surrogate):
        module.fit_scales(rows(box()))
    InverseDesign(model, surrogate).save(folder / "run")
    return folder


def test_a_model_without_a_surrogate(tmp_path, works, rejected):
    """It samples a posterior; there is nothing to localize by."""
    words = ["surrogate=null", "data.synthetic=null", "model.max_epochs=1", "logger=csv", "trainer.accelerator=cpu"]
    write_table(tmp_path)
    said = works(tmp_path, "train.py", "model=mdn", *OWN, *words, "model.network.hidden=8", "hydra.run.dir=run")
    assert "generate.py" not in said
    model = load_network(InverseModel, tmp_path / "run", "model")
    assert model.sample(torch.zeros(5, 1)).shape == (5, 2)
    assert "a model alone" in rejected(tmp_path, "generate.py", "run=run", "target=0.1")


CLOSED_PROXY = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
}
"""No way to any server."""


@pytest.fixture(scope="module")
def packaged_run(tmp_path_factory, works) -> Path:
    """A run on the packaged set, resumed for a second epoch; without a network, without and with a key for the log."""
    folder = tmp_path_factory.mktemp("packaged")
    words = [word for word in QUICK if word != "logger=csv"]
    words += ["model.network.hidden=[8,8]", "model.network.components=3", "hydra.run.dir=run"]
    said = works(folder, "train.py", *words, **CLOSED_PROXY)
    assert "generate.py run=" in said
    (folder / "said").write_text(said)
    said = works(folder, "train.py", "resume=run", "trainer.max_epochs=2", **CLOSED_PROXY, WANDB_API_KEY="a" * 40)
    (folder / "said_again").write_text(said)
    return folder


def test_train_writes_a_run(packaged_run):
    names = {path.name for path in (packaged_run / "run").iterdir()}
    parts = {f"{part}.{suffix}" for part in ("model", "surrogate") for suffix in ("json", "safetensors")}
    assert names >= {"config.yaml", "metrics.json", "split.json", "checkpoints", "logs", *parts}


def test_resume_goes_on(packaged_run):
    last = torch.load(packaged_run / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["loops"]["fit_loop"]["epoch_progress"]["total"]["processed"] == 2
    epochs = []
    for log in sorted((packaged_run / "run" / "logs").glob("version_*/metrics.csv")):
        with log.open(newline="") as stream:
            epochs.append({row["epoch"] for row in csv.DictReader(stream) if row["train/loss"]})
    assert epochs == [{"0"}, {"1"}]
    assert last["hyper_parameters"]["network"]["name"].endswith("CINN")


def test_offline_logs_lie_in_the_run(packaged_run):
    assert len(list((packaged_run / "run" / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.parametrize(("said", "reason"), [("said", "no key"), ("said_again", "no answer from")])
def test_offline_log_is_told(packaged_run, said, reason):
    lines = (packaged_run / said).read_text().splitlines()
    assert [reason in line for line in lines if "Weights & Biases is offline" in line] == [True]


def test_generate_writes_candidates(packaged_run, works):
    said = works(packaged_run, "generate.py", "run=run", "target=[null,9]", "num_samples=40", "hydra.run.dir=out")
    assert "band_gap" in said and "eV" in said
    out = packaged_run / "out"
    table = Candidates.read_parquet(out / "candidates.parquet")
    assert len(table) > 0
    assert table.space.contains(table.designs).all()
    assert len(ase.io.read(out / "candidates.extxyz", index=":")) == len(table)
    with open(out / "candidates.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(table)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"]["sampled"] == 40
    assert (out / "candidates.png").is_file()


def test_sweep_over_two_models(tmp_path, works):
    """One Weights & Biases run a job, one surrogate for both."""
    write_table(tmp_path)
    words = [word for word in QUICK if word != "logger=csv"]
    subdir = "hydra.sweep.subdir=${model._target_}"
    works(
        tmp_path, "train.py", "-m", "model=mdn,cvae", *OWN, *words, "model.network.hidden=16", "hydra.sweep.dir=sweep", subdir
    )
    runs = sorted(path.parent for path in (tmp_path / "sweep").rglob("model.safetensors"))
    assert {json.loads((run / "model.json").read_text())["name"].rsplit(".", 1)[1] for run in runs} == {"MDN", "CVAE"}
    assert [len(list((run / "wandb").glob("offline-run-*"))) for run in runs] == [1, 1]
    assert len(list((tmp_path / "outputs" / "surrogates").iterdir())) == 1
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert {row["model"] for row in table} == {"mdn", "cvae"}
    losses = [float(row["val/loss"]) for row in table]
    assert losses == sorted(losses)


def test_benchmark(tmp_path, works):
    words = [word for word in QUICK if not word.startswith(("model.", "logger="))]
    small = [
        "surrogate.network.members=1",
        "surrogate.network.hidden=8",
        "evaluator.network.members=1",
        "evaluator.network.hidden=8",
        "trainer.max_epochs=1",
        "baselines=false",
    ]
    words += [*small, "num_samples=100", "targets=[0.0,1.0]", "models=[mdn,cinn]", "hydra.run.dir=out"]
    said = works(tmp_path, "benchmark.py", *words)
    content = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert content["data"] == "mos2_gpaw"
    methods = {"MDN", "cINN (mixture)", "MatDesINNe-MDN", "MatDesINNe-cINN (mixture)"}
    assert {(row["method"], row["target"]) for row in content["rows"]} == {(m, t) for m in methods for t in (0.0, 1.0)}
    assert "| MatDesINNe-cINN (mixture) |" in said
    assert {"table1.csv", "table1.json", "table1.md", "config.yaml", "environment.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["target=abc"], "abc"),
        (["target=-5"], "floor"),
        (["target=[2,1]"], "lower <= upper"),
        (["target=50.0"], "y = 50 eV"),
        (["target=0.5", "export=[xyz]"], "xyz"),
        (["target=[null,9]", "export=[cif]"], "atoms"),
    ],
    ids=["text", "floor", "swapped", "far", "format", "atoms"],
)
def test_generate_names_what_is_needed(tmp_path, fails, words, named):
    write_run(tmp_path)
    assert named in fails("generate", "run=run", *words)


def test_where(tmp_path, works):
    """As a user writes it, with characters that Hydra's own grammar has not."""
    write_run(tmp_path)
    works(
        tmp_path, "generate.py", "run=run", "target=[null,9]", "num_samples=60", "where=abs(x1) < 0.5 and x2 != 0", "folder=out"
    )
    designs = Candidates.read_parquet(tmp_path / "out" / "candidates.parquet").designs
    assert 0 < len(designs) < 60 and (designs[:, 0].abs() < 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x1 % 2 == 0", "x9 < 1", "x1"])
def test_where_names_what_is_needed(tmp_path, fails, text):
    write_run(tmp_path)
    assert f"'{text}'" in fails("generate", "run=run", "target=[null,9]", f"where='{text}'")


def test_missing_run(fails):
    assert "nowhere" in fails("generate", "run=nowhere", "target=0.5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "points="),
        (["points=nowhere.csv"], "nowhere.csv"),
        (["task=nothing"], "validate"),
        (["task=validate"], "candidates="),
        (["task=active", "active.run=nowhere"], "nowhere"),
        (["task=validate", "candidates=nowhere"], "nowhere"),
        (["oracle=surrogate", "oracle.run=nowhere"], "nowhere"),
        (["oracle=kinematics", "points=sobol"], "bounds"),
    ],
    ids=["points", "file", "task", "candidates", "active", "folder", "run", "bounds"],
)
def test_label_names_what_is_needed(fails, words, named):
    assert named in fails("label", "folder=out", *words)


def test_label_and_validate(tmp_path, works):
    """Sobol designs by an ensemble, and candidates against it."""
    write_run(tmp_path)
    oracle = ["oracle=surrogate", "oracle.run=run", "executor.workers=1"]
    said = works(tmp_path, "label.py", *oracle, "points=sobol", "sobol.count=30", "folder=labels")
    assert "30 designs: 30 labelled now" in said
    again = works(tmp_path, "label.py", *oracle, "points=sobol", "sobol.count=40", "folder=labels")
    assert "40 designs: 10 labelled now" in again
    works(tmp_path, "generate.py", "run=run", "target=[null,9]", "num_samples=40", "structures=false", "hydra.run.dir=out")
    said = works(tmp_path, "label.py", *oracle, "task=validate", "candidates=out", "per_target=20", "folder=check")
    assert "| 20 | 0 | 0 | 0 | 0 |" in said
    assert (tmp_path / "check" / "validation.png").is_file()


def test_active_learning(tmp_path, works, rejected):
    """One round: labels by an ensemble join the user's table."""
    write_run(tmp_path)
    write_table(tmp_path)
    training = ",".join(f"'{word}'" for word in [*OWN, *LEARNT])
    words = [
        "active.rounds=1",
        "active.per_round=2",
        "active.fresh=2",
        "active.num_samples=20",
        "active.targets=[0.0,[0.3,0.4]]",
    ]
    oracle = ["oracle=surrogate", "oracle.run=run", "executor.workers=1"]
    said = works(
        tmp_path, "label.py", "task=active", "active.run=run", *oracle, *words, f"active.training=[{training}]", "folder=out"
    )
    assert "| 1 | 98 |" in said
    for name in ("labels.parquet", "active.json", "active.md", "active.png"):
        assert (tmp_path / "out" / name).is_file()
    wrong = rejected(tmp_path, "label.py", "task=active", "active.run=run", "active.training=['model=nothing']", "folder=other")
    assert "active.training" in one_error(wrong)


@pytest.mark.slow
def test_truncated_weights(tmp_path, fails):
    path = write_run(tmp_path) / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "model.safetensors" in fails("generate", "run=run", "target=0.5")


@pytest.mark.slow
def test_weights_of_another_model(tmp_path, fails):
    write_run(tmp_path)
    other = tiny_network(CONF / "model" / "cvae.yaml", box(), [prop(floor=-1.0)])
    save_network(other, tmp_path / "other", "model")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "run" / "model.safetensors")
    assert "model.safetensors" in fails("generate", "run=run", "target=0.5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "generate", "benchmark", "label", "explore"])
def test_command_of_a_checkout_that_is_installed_in_place(monkeypatch, capsys, name):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    entry = EntryPoint(f"matdesinne-{name}", scripts[f"matdesinne-{name}"], "console_scripts")
    monkeypatch.setattr("sys.argv", [entry.name, "--cfg", "job", "--package", "seed"])
    ran = []
    plain = runpy.run_path
    monkeypatch.setattr(runpy, "run_path", lambda path, **names: ran.append(Path(path)) or plain(path, **names))
    entry.load()()
    assert ran == [ROOT / f"{name}.py"]
    assert capsys.readouterr().out.strip().isdigit()


@pytest.mark.parametrize(("word", "wrong"), [("model=nothing", "nothing"), ("model.widht=3", "widht")])
def test_unknown_word(tmp_path, rejected, word, wrong):
    """In Hydra's own words: it reads the command line before any code of ours."""
    assert wrong in rejected(tmp_path, "train.py", word)


def test_error_is_one_line(tmp_path, rejected):
    """In a process of its own."""
    assert "nowhere" in one_error(rejected(tmp_path, "generate.py", "run=nowhere", "target=0.5"))


@pytest.mark.slow
def test_resume_of_nothing(fails):
    assert "config.yaml" in fails("train", "resume=nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lines: [line.rsplit(",", 1)[0] for line in lines], ["table.csv", "'y'"]),
        (lambda lines: [*lines[:5], "nan,0.0,0.0", *lines[5:]], ["table.csv", "'x1'", "row 4"]),
        (lambda lines: [*lines[:5], "0.0,abc,0.0", *lines[5:]], ["table.csv", "'x2'", "row 4"]),
        (lambda lines: [*lines[:5], "0.0,0.0,inf", *lines[5:]], ["table.csv", "'y'", "row 4"]),
        (lambda lines: [*lines[:5], "0.0,1.5,0.0", *lines[5:]], ["table.csv", "x2", "row 4", "[-1, 1] m"]),
        (lambda lines: lines[:1], ["table.csv", "empty"]),
        (lambda lines: [lines[0], *(line.rsplit(",", 1)[0] + ",2.0" for line in lines[1:])], ["table.csv", "y", "2 eV"]),
    ],
    ids=["column", "nan", "text", "infinite", "bounds", "empty", "constant"],
)
def test_table_faults_are_named(tmp_path, fails, change, named):
    write_table(tmp_path, change)
    said = fails("train", "model=mdn", *OWN, *QUICK)
    assert all(word in said for word in named), said


@pytest.mark.slow
def test_missing_table(fails):
    assert "table.csv" in fails("train", "model=mdn", *OWN, *QUICK)
