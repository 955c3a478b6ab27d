"""Every entry point answers bad input by one line and a non-zero exit, and leaves earlier results as they were."""

import gc
import http.server
import importlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.cli.config import OutputFolder
from matdesinne.data.sources import PublishedSource
from matdesinne.errors import DatasetError
from matdesinne.pipeline import InverseDesign
from matdesinne.space import DesignSpace, Parameter

from .toys import CONF, OWN, PARAMETERS, QUICK, ROOT, box, prop, rows, script_config, tiny_network, write_table

TRAIN = ["model=mdn", *OWN, *QUICK]
LABEL = ["folder=out", "oracle=surrogate", "oracle.run=run", "executor.workers=1", "points=sobol"]


@pytest.fixture(scope="module")
def design() -> InverseDesign:
    """A design that has learnt its scales, and nothing else."""
    modules = [tiny_network(CONF / group / f"{name}.yaml", box(), [prop(floor=-1.0)]) for group, name in PARTS]
    for module in modules:
        module.fit_scales(rows(box()))
    return InverseDesign(*modules)


PARTS = [("model", "mdn"), ("surrogate", "mlp")]


@pytest.fixture
def place(tmp_path, monkeypatch, design) -> Path:
    """A folder with a table, a run, and results of before."""
    monkeypatch.chdir(tmp_path)
    design.save(write_table(tmp_path) / "run")
    for name in ("candidates.parquet", "metrics.json", "table1.json", "labels.parquet", "summary.json"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("of before")
    return tmp_path


@pytest.fixture
def fails(place):
    """The error line of a script's task, run in this process."""

    def run(name: str, *overrides: str) -> str:
        main = importlib.import_module(name).main
        with pytest.raises(SystemExit) as caught:
            main(script_config(name, place / "out", *overrides))
        said = str(caught.value)
        assert said.startswith("Error: ") and "\n" not in said, said
        assert {path.read_text() for path in (place / "out").glob("*.parquet")} == {"of before"}
        assert {(place / "out" / name).read_text() for name in ("metrics.json", "table1.json", "summary.json")} == {"of before"}
        return said

    return run


WRONG = {
    "generate": [
        ("target=nan", "nan"),
        ("target=inf", "finite"),
        ("target=true", "True"),
        ("target=[1,2,3]", "lower, upper"),
        ("target={a: 1}", "by names"),
        ("num_samples=abc", "num_samples"),
        ("num_samples=-3", "num_samples"),
        ("num_samples=1.5", "num_samples"),
        ("num_samples=true", "num_samples"),
        ("seed=99999999999", "seed"),
        ("accepted_error=abc", "accepted_error"),
        ("accepted_error=nan", "accepted_error"),
        ("selection.rules=[{_target_:matdesinne.selection.Tolerance,tolerance:abc}]", "Tolerance"),
        ("localization.steps=0", "steps"),
        ("localization.steps=abc", "Newton"),
        ("localization.longest_step=nan", "longest_step"),
        ("bounds={x1:[2,3]}", "x1"),
        ("bounds={x1:[a,b]}", "x1"),
        ("bounds={q:[0,1]}", "q"),
        ("bounds=[0,1]", "bounds"),
        ("fixed={x1:abc}", "x1"),
        ("fixed=3", "fixed"),
        ("refine_with=nothing", "accurate_nothing"),
        ("run=out", "model"),
        ("run=table.csv", "model"),
        ("accelerator=3", "accelerator"),
    ],
    "train": [
        ("seed=-1", "seed"),
        ("trainer.max_epochs=0", "max_epochs"),
        ("trainer.max_epochs=abc", "max_epochs"),
        ("callbacks.early_stopping.patience=0", "patience"),
        ("trainer.gradient_clip_val=abc", "gradient_clip_val"),
        ("trainer.devices=0", "devices"),
        ("trainer.accelerator=abc", "abc"),
        ("trainer.precision=abc", "abc"),
        ("trainer.strategy=abc", "abc"),
        ("property=nothing", "nothing"),
        ("data.validation=abc", "validation"),
        ("data.validation=0", "validation"),
        ("data.test=1.5", "test"),
        ("data.split_seed=abc", "split_seed"),
        ("data.source.path=[1]", "FileSource"),
        ("data.space.parameters=[]", "parameter"),
        ("data.properties=[]", "propert"),
        ("data.synthetic.uniform=abc", "SyntheticDesigns"),
        ("data.synthetic.chains=0", "chains"),
        ("surrogate.network.hidden=abc", "hidden"),
        ("surrogate.network.members=0", "members"),
        ("surrogate.network.pieces=0", "pieces"),
        ("surrogate.huber=0", "huber"),
        ("surrogate.max_epochs=0", "epochs"),
        ("surrogate.batch_size=-1", "batch_size"),
        ("surrogate.optimizer.lr=nan", "learning rate: nan"),
        ("model.network.components=0", "components"),
        ("model.network.depth=-1", "depth"),
        ("model.network.target_noise=-1", "target_noise"),
        ("model.network.target_noise=abc", "MDN"),
        ("surrogates_folder=table.csv", "table.csv"),
        ("+trainer.nothing=3", "nothing"),
        ("+model.nothing=3", "nothing"),
        ("model._target_=os.system", "os.system"),
        ("model._target_=matdesinne.nothing.MDN", "nothing"),
    ],
    "benchmark": [
        ("repeats=abc", "repeats"),
        ("workers=1.5", "workers"),
        ("num_samples=0", "num_samples"),
        ("seed=abc", "seed"),
        ("targets=[nan]", "nan"),
        ("targets=abc", "abc"),
        ("targets=[]", "targets"),
        ("models=nothing", "nothing"),
        ("+runs.mdn=nowhere", "nowhere"),
    ],
    "label": [
        ("per_target=0", "per_target"),
        ("outlier=abc", "outlier"),
        ("sobol.count=0", "count"),
        ("sobol.start=-1", "start"),
        ("points=run", "run"),
        ("points=run/model.json", "model.json"),
        ("oracle.run=out", "out"),
        ("oracle.part=nothing", "nothing"),
        ("executor.workers=0", "workers"),
    ],
}
WORDS = {"generate": ["run=run", "target=0.5"], "train": TRAIN, "benchmark": [*OWN, *QUICK[:2]], "label": LABEL}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "word", "named"),
    [(script, word, named) for script, cases in WRONG.items() for word, named in cases],
    ids=lambda value: None if value is None else str(value)[:40],
)
def test_wrong_setting(fails, script, word, named):
    words = [known for known in WORDS[script] if not known.startswith(word.split("=")[0].lstrip("+") + "=")]
    assert named in fails(script, *words, word)


def test_missing_target_is_asked_for(fails):
    assert "give target=" in fails("generate", "run=run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "word", "advice"),
    [
        ("train", f"data.space.parameters=[{PARAMETERS.replace('lower', 'low', 1)}]", "correct data.space.parameters."),
        ("generate", "selection.rules=[{_target_:matdesinne.selection.Nothing}]", "correct selection.rules."),
        ("generate", "+localization.nothing=3", "correct localization."),
    ],
    ids=["argument", "class", "setting"],
)
def test_wrong_argument_is_told_with_its_place(fails, script, word, advice):
    said = fails(script, *WORDS[script], word)
    assert said.endswith(advice) and "HYDRA_FULL_ERROR" not in said and "full_key" not in said


@pytest.mark.slow
def test_a_model_needs_a_surrogate(fails):
    assert "Expected a surrogate" in fails("train", "model=mdn", *OWN, "~surrogate")


@pytest.mark.slow
def test_far_target_is_a_warning_with_the_range(place, design, caplog):
    """Six standard deviations of the sum of two coordinates are out of reach, but the selection is told to let them pass."""
    words = ["run=run", "target=2.3", "selection.rules=[]", "localization.steps=1", "accepted_error=9", "num_samples=20"]
    with caplog.at_level(logging.WARNING, "matdesinne"):
        importlib.import_module("generate").main(script_config("generate", place / "new", *words))
    (said,) = [record.getMessage() for record in caplog.records if "training range" in record.getMessage()]
    seen = design.model.target_reference
    assert f"{seen.min():.3g} to {seen.max():.3g} eV" in said and "y = 2.3 eV" in said


def test_far_target_is_an_error_with_the_values_in_reach(fails, place):
    said = fails("generate", "run=run", "target=50.0", "num_samples=30", "folder=far")
    assert "got y = 50 eV. Designs within the bounds reach y from " in said
    assert not list((place / "far").glob("candidates*"))


def test_rule_that_leaves_nothing_is_an_error_with_counts_and_values_in_reach(fails):
    said = fails("generate", "run=run", "target=0.5", "num_samples=30", "where='x1 > 2'")
    assert "none of " in said and "Designs within the bounds and rules reach no y (y from -" in said


def test_near_target_is_no_warning(place, design, caplog):
    with caplog.at_level(logging.WARNING, "matdesinne"):
        design.model.sample_target(_target(0.5), 5, torch.Generator().manual_seed(0))
    assert not caplog.records


def _target(value: float):
    from matdesinne.targets import Target

    return Target.parse(value, [prop(floor=-1.0)])


@pytest.mark.parametrize("mode", ["run", "multirun"])
def test_folder_that_cannot_be_made(place, capsys, mode):
    """Below a file; root may write everywhere else."""
    folder = str(place / "table.csv" / "inside")
    config = OmegaConf.create({"hydra": {"run": {"dir": folder}, "sweep": {"dir": folder}}})
    with pytest.raises(SystemExit, match=r"^Error: Expected files .*table\.csv"):
        getattr(OutputFolder(), f"on_{mode}_start")(config)


def test_folder_that_can_be_made_is_empty(place):
    config = OmegaConf.create({"hydra": {"run": {"dir": str(place / "new")}}})
    OutputFolder().on_run_start(config)
    assert list((place / "new").iterdir()) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_script_tries_its_folder(name):
    callbacks = OmegaConf.load(CONF / f"{name}.yaml").hydra.callbacks
    assert callbacks.output_folder._target_ == f"{OutputFolder.__module__}.{OutputFolder.__name__}"


@pytest.mark.slow
def test_script_in_a_folder_that_cannot_be_made(place):
    """As its user runs it: Hydra itself would end in a traceback."""
    command = [sys.executable, str(ROOT / "generate.py"), "target=0.5", "hydra.run.dir=table.csv/inside"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr


@pytest.fixture
def full_disk(monkeypatch):
    """No file may grow beyond some bytes: what a full disk does to a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(signal, "SIGXFSZ", signal.SIGXFSZ)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, kept)


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 3000])
def test_full_disk_at_the_end_of_generate(fails, full_disk, place, size):
    full_disk(size)
    assert "File too large" in fails("generate", "run=run", "target=[null,9]", "num_samples=40", "accepted_error=99")
    assert not list((place / "out").glob(".*partial*"))


@pytest.mark.slow
def test_full_disk_in_training(fails, full_disk, place):
    full_disk(5000)
    said = fails("train", *TRAIN, "trainer.log_every_n_steps=1", "surrogate.max_epochs=1")
    assert "File too large" in said
    assert not list(place.rglob("*.ckpt"))


class Broken(http.server.BaseHTTPRequestHandler):
    """A server that promises a file and then does as it is told."""

    answer = "cut"

    def do_GET(self):
        self.send_response(503 if self.answer == "refuse" else 200)
        self.send_header("Content-Length", "1000" if self.answer == "cut" else "6")
        self.end_headers()
        self.wfile.write(b"0.5,1\n")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def published(url: str) -> PublishedSource:
    sums = {"x.csv": "0" * 64, "y.csv": "0" * 64}
    return PublishedSource("x.csv", "y.csv", url, sums, variable="MATDESINNE_NOT_SET")


def load(url: str) -> str:
    with pytest.raises(DatasetError, match=r"Expected to fetch x\.csv .* data\.root=") as caught:
        published(url).load(DesignSpace([Parameter("x1", "m"), Parameter("x2", "m")]), [prop()])
    said = str(caught.value)
    assert "\n" not in said
    del caught
    with warnings.catch_warnings():  # urllib3 leaves its socket to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "named"), [("cut", "Incomplete|broken|ended"), ("whole", "hash"), ("refuse", "503")])
def test_download_that_goes_wrong(place, monkeypatch, server, answer, named):
    monkeypatch.setattr(Broken, "answer", answer)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said = load(f"http://127.0.0.1:{server.server_port}")
    assert any(word in said for word in named.split("|")), said
    assert not [path for path in (place / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "nonsense://proxy"])
def test_broken_proxy(place, monkeypatch, proxy):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    load("https://files.invalid/set")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["checksum", "missing"])
def test_published_folder_with_a_fault(fails, place, change):
    for name in ("data_x.csv", "data_y.csv"):
        if change == "checksum":
            (place / name).write_text("0\n")
    said = fails("train", "model=mdn", "data=mos2_vasp", "data.root=.", *QUICK)
    assert "data_x.csv" in said and ("sha256" in said) is (change == "checksum")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("train", "trainer.accelerator=gpu"),
        ("benchmark", "trainer.accelerator=gpu"),
        ("generate", "accelerator=cuda"),
        ("generate", "accelerator=gpu"),
    ],
)
def test_no_gpu(fails, script, word):
    assert f"{word.split('=')[0]}=cpu" in fails(script, *WORDS[script], word)
