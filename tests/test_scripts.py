"""The scripts as a user runs them: in a folder of one's own, with tiny settings."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.learning import save_module
from matdesinne.pipeline import InverseDesign

from .conftest import CONF, ROOT, box, prop, rows, tiny_module

PARAMETERS = ",".join(
    f"{{_target_:matdesinne.space.Parameter,name:{name},unit:m,lower:-1.0,upper:1.0}}" for name in ("x1", "x2")
)
TINY = [
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "logger=csv",
    "surrogate.hidden=16",
    "surrogate.optimization.epochs=1",
    "model.hidden=16",
    "model.optimization.epochs=1",
    "data.labels.pool=2000",
    "data.labels.count=1000",
]
OWN = [
    "data=csv",
    "data.source.path=table.csv",
    f"data.space.parameters=[{PARAMETERS}]",
    "data.properties=[{_target_:matdesinne.targets.Property,name:y,unit:eV,floor:-1.0}]",
]


def script(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run one script in a folder; both streams in one text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    environment.pop("HYDRA_FULL_ERROR", None)
    environment.pop("PYTHONWARNINGS", None)
    name, *arguments = words
    return subprocess.run(
        [sys.executable, str(ROOT / name), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def works(folder: Path, *words: str) -> str:
    result = script(folder, *words)
    assert result.returncode == 0, result.stdout
    return result.stdout


def fails(folder: Path, *words: str) -> str:
    """The one line that tells the user what is needed."""
    result = script(folder, *words)
    assert result.returncode != 0, result.stdout
    assert "Traceback" not in result.stdout, result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stdout
    return lines[0]


def write_table(folder: Path, change=None) -> Path:
    x = box().sample(120, torch.Generator().manual_seed(0))
    lines = ["x1,x2,y", *(f"{a},{b},{a + b}" for a, b in x.tolist())]
    lines = change(lines) if change else lines
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_run(folder: Path) -> Path:
    """A trained design, without the training."""
    properties = [prop(floor=-1.0)]
    model = tiny_module(CONF / "model" / "mdn.yaml", box(), properties)
    surrogate = tiny_module(CONF / "surrogate" / "mlp.yaml", box(), properties)
    for module in (model, surrogate):
        module.fit_scales(rows(box()))
    InverseDesign(model, surrogate).save(folder / "run")
    return folder


def test_from_the_packaged_set_to_structures(tmp_path):
    said = works(tmp_path, "train.py", *TINY, "model.blocks=2", "hydra.run.dir=run")
    assert "generate.py run=" in said
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "config.yaml",
        "split.json",
        "design.json",
        "model.json",
        "model.safetensors",
        "surrogate.json",
        "surrogate.safetensors",
        "checkpoints",
        "logs",
    }
    said = works(tmp_path, "generate.py", "run=run", "target=[null,9]", "num_samples=40", "hydra.run.dir=out")
    assert "band_gap" in said and "eV" in said
    table = Candidates.read_parquet(tmp_path / "out" / "candidates.parquet")
    assert len(table) > 0
    assert table.space.contains(table.designs).all()
    assert len(ase.io.read(tmp_path / "out" / "candidates.extxyz", index=":")) == len(table)
    with open(tmp_path / "out" / "candidates.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(table)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"]["sampled"] == 40
    assert (tmp_path / "out" / "candidates.png").is_file()


def test_same_seed_same_candidates(tmp_path):
    write_run(tmp_path)
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        words = ["run=run", "target=[null,9]", "num_samples=20", f"seed={seed}", f"hydra.run.dir={name}"]
        works(tmp_path, "generate.py", *words)
        tables.append(Candidates.read_parquet(tmp_path / name / "candidates.parquet").designs)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert not (tmp_path / "a" / "candidates.extxyz").exists()


def test_sweep_over_two_models(tmp_path):
    write_table(tmp_path)
    works(
        tmp_path,
        "train.py",
        "-m",
        "model=mdn,cvae",
        *OWN,
        *TINY,
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=${model._target_}",
    )
    runs = sorted(path.parent for path in (tmp_path / "sweep").rglob("model.safetensors"))
    assert len(runs) == 2
    assert {json.loads((run / "model.json").read_text())["name"].rsplit(".", 1)[1] for run in runs} == {"MDN", "CVAE"}
    assert len(list((tmp_path / "outputs" / "surrogates").iterdir())) == 1


def test_resume(tmp_path):
    write_table(tmp_path)
    works(tmp_path, "train.py", "model=mdn", *OWN, *TINY, "hydra.run.dir=run")
    works(tmp_path, "train.py", "resume=run", "trainer.max_epochs=3", "trainer.accelerator=cpu")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert last["matdesinne"]["name"].endswith("MDN")


def test_surrogate_alone(tmp_path):
    write_table(tmp_path)
    tiny = [word for word in TINY if not word.startswith("model.")]
    works(tmp_path, "train.py", "~model", *OWN, *tiny, "hydra.run.dir=run")
    assert (tmp_path / "run" / "surrogate.safetensors").is_file()
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["target=abc"], "abc"),
        (["target=-5"], "floor"),
        (["target=[2,1]"], "lower <= upper"),
        (["target=50.0"], "y = 50 eV"),
        (["target=0.5", "num_samples=0"], "num_samples"),
        (["target=0.5", "accelerator=abc"], "abc"),
        ([], "target"),
    ],
    ids=["text", "floor", "swapped", "far", "samples", "device", "none"],
)
def test_generate_names_what_is_needed(tmp_path, words, named):
    assert named in fails(write_run(tmp_path), "generate.py", "run=run", *words)


def test_missing_run(tmp_path):
    assert "nowhere" in fails(tmp_path, "generate.py", "run=nowhere", "target=0.5")


def test_truncated_weights(tmp_path):
    path = write_run(tmp_path) / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "model.safetensors" in fails(tmp_path, "generate.py", "run=run", "target=0.5")


def test_weights_of_another_model(tmp_path):
    write_run(tmp_path)
    other = tiny_module(CONF / "model" / "cvae.yaml", box(), [prop(floor=-1.0)])
    save_module(other, tmp_path / "other", "model")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "run" / "model.safetensors")
    assert "model.safetensors" in fails(tmp_path, "generate.py", "run=run", "target=0.5")


def test_unknown_model(tmp_path):
    assert "nothing" in fails(tmp_path, "train.py", "model=nothing")


def test_unknown_setting(tmp_path):
    assert "widht" in fails(tmp_path, "train.py", "model.widht=3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu(tmp_path):
    write_table(tmp_path)
    said = fails(tmp_path, "train.py", "model=mdn", *OWN, *TINY, "trainer.accelerator=gpu")
    assert "trainer.accelerator=cpu" in said


def test_resume_of_nothing(tmp_path):
    assert "config.yaml" in fails(tmp_path, "train.py", "resume=nowhere")


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
def test_table_faults_are_named(tmp_path, change, named):
    write_table(tmp_path, change)
    said = fails(tmp_path, "train.py", "model=mdn", *OWN, *TINY)
    assert all(word in said for word in named), said


def test_missing_table(tmp_path):
    assert "table.csv" in fails(tmp_path, "train.py", "model=mdn", *OWN, *TINY)
