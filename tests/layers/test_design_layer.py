"""One command from the structure file of a layer to designs, with formulas in the place of DFT."""

import importlib
import json
import shlex

import ase
import pandas
import pytest

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError

from ..toys import script_config

pytestmark = pytest.mark.usefixtures("forkserver")
QUICK = "trainer.accelerator=cpu model=mdn model.max_epochs=2 model.network.hidden=16 surrogate.optimizer.max_iter=20"
QUICK += " data.synthetic.uniform=2000 data.synthetic.chains=200 data.synthetic.steps=1"


def write_layer(folder, a: float = 3.15) -> None:
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 14]]
    places = [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.6], [2 / 3, 1 / 3, 0.4]]
    ase.Atoms("MoS2", scaled_positions=places, cell=cell, pbc=True).write(folder / "layer.cif")


def design(folder, *words: str) -> None:
    fixed = ["structure=layer.cif", "folder=run", "num_samples=200", f"train={shlex.quote(QUICK)}", "workers=2", "checked=4"]
    fixed += ["oracle._target_=tests.layers.toy.ToyOracle", "oracle.soc=false", "oracle.kpoints=3", "tolerance=9"]
    importlib.import_module("design").main(script_config("layer", folder, *fixed, *words))


def test_from_a_structure_to_checked_designs_in_two_calls(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_layer(tmp_path)
    design(tmp_path, "target=1.0", "labels=20", "batch=10", "accuracy=1e-9", "accepted_error=3")
    said = capsys.readouterr().out
    print(said)
    for part in ("a = 3.2000 and b = 3.2000", "gap of 1.500 eV", "20 labels took", "The oracle checked 4 candidates"):
        assert part in said
