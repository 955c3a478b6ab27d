"""One command from a table to designs, and what it says where something is wrong."""

import csv
import importlib
import logging
import math
import os
import random
import re
import subprocess
import sys
import time

import pytest
import torch

from matdesinne.candidates import Candidates

from .toys import OWN, ROOT, box, script_config, write_table

QUICK = "trainer.accelerator=cpu surrogate=gp surrogate.optimizer.max_iter=40 model=mdn model.max_epochs=2"
QUICK = f"train='{QUICK} model.network.hidden=16'"


def design(folder, *words: str) -> None:
    config = script_config("design", folder, "table=table.csv", "property=y", "folder=run", "num_samples=200", QUICK, *words)
    importlib.import_module("design").main(config)


def noisy(folder) -> None:
    """90 designs in three columns, one of them notes, every third one measured twice."""
    generator = torch.Generator().manual_seed(0)
    x = box().sample(90, generator)
    x = torch.cat([x, x[::3]])
    y = 50 + 20 * x.sum(dim=1) + torch.randn(len(x), generator=generator)
    lines = ["x1 [m],x2,note,y [%]", *(f"{a},{b},note {c},{c}" for (a, b), c in zip(x.tolist(), y.tolist(), strict=True))]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_from_a_table_to_ten_designs_and_a_second_target(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    noisy(tmp_path)
    with caplog.at_level(logging.INFO, "matdesinne"):
        design(tmp_path, "target=60")
    said = capsys.readouterr().out
    for part in ("120 rows of 90 designs", "Left out: note", "edit it", "takes", "about"):
        assert part in caplog.text
    for part in ("test rows (mean of the table", "Expect y within", "alone: 0.0", "nearest measured row", "in the table"):
        assert part in said
    place = tmp_path / "run" / "designs" / "60"
    made = Candidates.read_parquet(place / "candidates.parquet")
    assert len(made) > 100 and made.error.max() < 0.2
    with open(place / "ten.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    # the formula, not the surrogate: within three times the noise
    assert all(abs(50 + 20 * (float(row["x1"]) + float(row["x2"])) - 60) < 3 for row in rows)
    start = time.perf_counter()
    monkeypatch.setattr("matdesinne.training.runs.fit", None)  # nothing is trained again
    design(tmp_path, "target=[null,40]")
    assert (tmp_path / "run" / "designs" / "-inf_to_40" / "ten.csv").is_file()
    assert time.perf_counter() - start < 60


def hardness(temperature: float, layers: float, solvent: str, oxide: float, nitride: float, carbide: float) -> float:
    """An invented coating."""
    offset = {"water": 0.0, "ethanol": 1.5, "2-MeTHF": 3.0}[solvent]
    return 10 + 4 * math.sin((temperature - 300) / 80) + 1.5 * layers + offset + 8 * oxide * nitride + 5 * carbide


def mixed_table(folder) -> None:
    """A column of each kind: continuous, integer, text, and three shares that add up to one."""
    source = random.Random(0)
    lines = ["temperature [K],layers,solvent,oxide,nitride,carbide,y"]
    while len(lines) < 201:
        layers, solvent = source.randint(1, 4), source.choice(["water", "ethanol", "2-MeTHF"])
        temperature, oxide, nitride = source.uniform(300, 500), source.uniform(0, 0.8), source.uniform(0, 0.6)
        carbide = 1 - oxide - nitride
        if carbide >= 0.1:
            y = hardness(temperature, layers, solvent, oxide, nitride, carbide) + source.gauss(0, 0.1)
            lines.append(f"{temperature},{layers},{solvent},{oxide:.4f},{nitride:.4f},{carbide:.4f},{y}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_a_mixed_table_from_end_to_end(tmp_path, monkeypatch, capsys, caplog):
    """Every candidate is valid, and on target by the formula, which nothing of the package knows."""
    monkeypatch.chdir(tmp_path)
    mixed_table(tmp_path)
    with caplog.at_level(logging.INFO, "matdesinne"):
        shorter = QUICK.replace("max_iter=40", "max_iter=20").replace("max_epochs=2", "max_epochs=1")
        design(tmp_path, "target=20", "accepted_error=0.5", shorter)
    assert "Mixture: oxide + nitride + carbide = 1" in caplog.text and "solvent out of {2-MeTHF, ethanol, water}" in caplog.text
    assert "Left out" not in caplog.text and "solvent " in capsys.readouterr().out
    kinds = {"solvent": str, "stage": str}
    for name in ("candidates.csv", "ten.csv"):
        with open(tmp_path / "run" / "designs" / "20" / name, newline="") as file:
            rows = [{key: kinds.get(key, float)(value) for key, value in row.items()} for row in csv.DictReader(file)]
        designs = [{key: row[key] for key in hardness.__annotations__ if key != "return"} for row in rows]
        assert len(designs) == 10 if name == "ten.csv" else len(designs) > 50
        for made in designs:
            assert made["layers"] in (1, 2, 3, 4) and made["solvent"] in ("water", "ethanol", "2-MeTHF")
            assert abs(made["oxide"] + made["nitride"] + made["carbide"] - 1) < 1e-9
            assert 300 <= made["temperature"] <= 500 and made["oxide"] <= 0.8 and made["nitride"] <= 0.6
            assert min(made["oxide"], made["nitride"]) >= 0 and made["carbide"] >= 0.1
        errors = [abs(hardness(**made) - 20) for made in designs]
        assert sorted(errors)[len(errors) // 2] < 0.5
    assert len({row["layers"] for row in designs}) > 1 and len({row["solvent"] for row in designs}) > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["target=0.5", "property=z"], "property out of the columns"),
        (["target=0.5", "property=null"], "property=COLUMN"),
        (["target={y:1,w:2}"], "a target for some of"),
        (["target=0.5", "table=none.csv"], "no such file"),
        ([], "give target="),
    ],
)
def test_rejects(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path)
    with pytest.raises(SystemExit, match=said):
        design(tmp_path, *words)


def test_another_table_needs_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noisy(tmp_path)
    own = importlib.import_module("matdesinne.training.own_table")
    config = script_config("design", tmp_path, "table=table.csv", "property=y", "target=1", "folder=run")
    own.declare(config, tmp_path / "run")
    config.table = "other.csv"
    with pytest.raises(Exception, match="another folder="):
        own.declare(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("script", "word", "meant"), [("design", "targt=50", "target="), ("generate", "num_sample=5", "num_samples=")]
)
def test_a_setting_that_does_not_exist(monkeypatch, script, word, meant):
    monkeypatch.setattr(sys, "argv", [script, word])
    with pytest.raises(SystemExit, match=f"got {word.split('=')[0]}=: do you mean {meant}"):
        importlib.import_module(script).main()


def test_a_field_of_a_parameter_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path)
    words = [word.replace("lower", "low", 1) for word in OWN]
    with pytest.raises(SystemExit, match=r"got 'low', which is none of name, unit, lower, .* \(do you mean lower\?\)"):
        importlib.import_module("train").main(script_config("train", tmp_path / "out", *words, "logger=csv"))


def test_the_training_of_a_small_table_is_short():
    """Steps and labelled designs for four parameters: a fifteenth of what conf/data/csv.yaml asks for."""
    own = importlib.import_module("matdesinne.training.own_table")
    words = dict(word.split("=", 1) for word in own.synthetic_words(4))
    assert int(words["data.synthetic.uniform"]) <= 1_500_000 / 15 and int(words["data.synthetic.chains"]) <= 150_000 / 15


def train(folder, *words: str) -> str:
    """The log of train.py on the table of `write_table`, as it is redirected into a file."""
    cheap = ["model=mdn", "model.network.hidden=16", "model.max_epochs=11", "surrogate=gp", "trainer.accelerator=cpu"]
    cheap += ["surrogate.optimizer.max_iter=5"]
    command = [sys.executable, str(ROOT / "train.py"), *OWN, *cheap, "folder=run", "hydra.run.dir=run", *words]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_log_of_a_training_on_a_few_rows(tmp_path):
    """Eleven steps on 96 rows leave samples that are no better than the prior: a warning, the only one. Epochs are shown."""
    said = train(write_table(tmp_path), "data.synthetic=null")
    assert "The training of MDN takes 11 steps, too few to learn from 96 rows" in said
    assert "Epoch 11 of 11: " in said and "val/target_mae" in said
    assert "generate.py run=run target=VALUE" in said and "target=1.0" not in said
    assert [
        line for line in said.splitlines() if re.search("warn|deprecated", line, re.IGNORECASE) and "too few" not in line
    ] == []
