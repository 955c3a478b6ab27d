"""One command from the structure file of a layer to designs, with formulas in the place of DFT."""

import importlib
import json
import shlex
from types import SimpleNamespace

import ase
import ase.io
import pandas
import pyarrow.parquet
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.cli.config import composed
from matdesinne.labelling.points import Points
from matdesinne.layers.learning import Learning
from matdesinne.space import DesignSpace
from matdesinne.targets import Property

from ..toys import ROOT, load_part, script_config

MOSE2 = ROOT / "matdesinne" / "datasets" / "tmd_strain_mose2.parquet"
QUICK = "trainer.accelerator=cpu model=mdn model.max_epochs=2 model.network.hidden=16 surrogate.optimizer.max_iter=20"
QUICK += " trainer.log_every_n_steps=1 data.synthetic.uniform=2000 data.synthetic.chains=200 data.synthetic.steps=1"


def write_layer(folder, a: float = 3.15) -> None:
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 14]]
    places = [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.6], [2 / 3, 1 / 3, 0.4]]
    ase.Atoms("MoS2", scaled_positions=places, cell=cell, pbc=True).write(folder / "layer.cif")


def design(folder, *words: str) -> None:
    fixed = ["structure=layer.cif", "folder=run", "num_samples=200", f"train={shlex.quote(QUICK)}", "checked=4", "batch=10"]
    fixed += ["oracle._target_=tests.layers.toy.ToyOracle", "oracle.soc=false", "oracle.kpoints=3", "tolerance=9"]
    fixed += ["executor._target_=tests.layers.toy.Threads", "accepted_error=3"]
    importlib.import_module("design").main(script_config("layer", folder, *fixed, *words))


@pytest.mark.slow
def test_from_a_structure_to_checked_designs_and_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_layer(tmp_path)
    run, records = tmp_path / "run", tmp_path / "run" / "labels" / "records.jsonl"
    design(tmp_path, "target=1.0", "labels=20", "accuracy=1e-9")
    said = capsys.readouterr().out
    for part in ("a = 3.199", "gamma = 120.00", "gap of 1.50", "20 labels took", "The oracle checked 4 candidates"):
        assert part in said
    assert ase.io.read(run / "reference.cif").cell.cellpar()[0] == pytest.approx(3.2, abs=2e-3)
    place = run / "designs" / "band_gap_fine_1"
    assert len(Candidates.read_parquet(place / "candidates.parquet")) > 100
    assert len(ase.io.read(place / "candidates.extxyz", index=":")) > 100
    validation = json.loads((place / "checked" / "validation.json").read_text())
    assert validation["targets"][0]["mae"] < 0.05 and (place / "checked" / "report.html").is_file()
    before = pandas.read_csv(run / "learning_curve.csv")
    assert before["labels"].tolist() == [10, 20] and before["new_error"].isna().tolist() == [True, False]

    # killed within the second batch: the next call goes on, and ends although more labels are allowed
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:14]))
    accuracy = 1.01 * max(before["new_error"][1], before["left_out_error"][1])
    design(tmp_path, "target={band_gap_fine:[1.0,null],direct_gap_fine:1.2}", "labels=40", f"accuracy={accuracy}", "checked=2")
    after = pandas.read_csv(run / "learning_curve.csv")
    assert after["labels"].tolist() == [10, 20]
    again = records.read_bytes().splitlines(keepends=True)
    assert again[:14] == lines[:14] and len(again) == len(lines)
    assert (run / "designs" / "band_gap_fine_1_to_inf_and_direct_gap_fine_1.2" / "checked" / "direct_gap_fine").is_dir()

    with pytest.raises(SystemExit, match="started with, got another strain: take another folder"):
        design(tmp_path, "target=1.0", "strain=[-0.02,0.1]")


def test_what_cannot_work_is_said_before_any_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_layer(tmp_path)
    with pytest.raises(SystemExit, match="Expected an oracle of band_gap_hse"):
        design(tmp_path, "target=1.0", "property=band_gap_hse")
    with pytest.raises(SystemExit, match="of at least 0"):
        design(tmp_path, "target=-1.0")
    assert not (tmp_path / "run" / "layer.json").exists()
    with pytest.raises(SystemExit, match="at least two batches"):
        design(tmp_path, "target=1.0", "labels=15")


def learning_from(folder, table: pyarrow.Table, space, *words: str) -> Learning:
    """The strain energy of MoSe2, learnt from a table in the place of its labels."""
    (folder / "labels").mkdir()
    pyarrow.parquet.write_table(table, folder / "labels" / "labels.parquet")
    oracle = SimpleNamespace(space=space, prototype=load_part("prototype", "tmd_strain/mose2"))
    prop = Property("strain_energy", "eV")
    words = ("data=layer", "surrogate.optimizer.max_iter=10", "logger=csv", f"folder={folder}", *words)
    settings = composed("train", [*words, f"surrogates_folder={folder}"])
    points = Points(torch.zeros(40, len(space.names)), torch.arange(40))
    return Learning(settings, oracle, points, None, folder, [prop], prop, 10, 0.01)


def test_similar_materials_help(tmp_path):
    """The packaged rows of MoSe2 as labels of a new layer."""
    table, space = pyarrow.parquet.read_table(MOSE2), load_part("space", "tmd_strain/mose2")
    errors = []
    for without, similar in {"~data.relatives.mose2": {"mos2", "ws2", "wse2"}, "~data.relatives": set()}.items():
        (folder := tmp_path / str(len(similar))).mkdir()
        learning = learning_from(folder, table, space, without)
        trained = learning._train(12, SimpleNamespace(failed=[]))
        assert set(trained.settings.data.get("relatives", {})) == similar
        errors.append(learning._left_out_error(trained))
    assert errors[0] < 0.5 * errors[1]


def test_similar_materials_without_a_parameter_are_left_out(tmp_path):
    """A field, which the packaged layers do not have."""
    table = pyarrow.parquet.read_table(MOSE2)
    table = table.append_column("electric_field", pyarrow.array([index % 5 / 5 for index in range(len(table))]))
    plain = load_part("space", "tmd_strain/mose2").to_dict()
    plain["parameters"].append({"name": "electric_field", "unit": "V/angstrom", "lower": 0.0, "upper": 1.0})
    learning = learning_from(tmp_path, table, DesignSpace.from_dict(plain))
    assert "relatives" not in learning._train(12, SimpleNamespace(failed=[])).settings.data
