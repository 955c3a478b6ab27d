"""What is guessed of a table."""

import itertools

import pandas
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.cli.config import config_folder
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.declaration import guess_declaration
from matdesinne.errors import DatasetError
from matdesinne.space import Category, DesignSpace, Mixture, Parameter

from ..toys import prop

COLUMNS = {
    "id": list(range(12)),
    "temperature [K]": [300.0 + i for i in range(12)],
    "flow (mL/min)": [0.5 * (i % 4) for i in range(12)],
    "solvent": ["water", "ethanol"] * 6,
    "note": [f"run {i}" for i in range(12)],
    "pressure": [1] * 12,
    "yield [%]": [float(i * i % 7) for i in range(12)],
}


def write(folder, name="table.csv", **changes):
    frame = pandas.DataFrame({**COLUMNS, **changes})
    path = folder / name
    {"csv": frame.to_csv, "parquet": frame.to_parquet, "xlsx": frame.to_excel}[name.split(".")[1]](path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.xlsx"])
def test_guess(tmp_path, name):
    made = guess_declaration(write(tmp_path, name), ["yield"])
    assert made.parameters == [
        {"name": "temperature", "unit": "K", "lower": 300.0, "upper": 311.0},
        {"name": "flow", "unit": "mL/min", "values": [0.0, 0.5, 1.0, 1.5]},
    ]
    assert made.categories == [{"name": "solvent", "values": ["ethanol", "water"]}] and made.mixtures == []
    assert [(entry["name"], entry["unit"]) for entry in made.properties] == [("yield", "%")]
    assert made.headers == {"temperature": "temperature [K]", "flow": "flow (mL/min)", "yield": "yield [%]"}
    assert made.left_out == {
        "id": "the number of the row",
        "note": "12 different texts, fewer than 3 rows for each",
        "pressure": "always 1",
    }
    said = ["temperature 300 to 311 K", "flow out of {0, 0.5, 1, 1.5} mL/min", "solvent out of {ethanol, water}"]
    assert all(any(name in line for line in made.sentences()) for name in [*said, *made.left_out])


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.xlsx"])
def test_the_file_declares_the_table(tmp_path, name):
    """As train.py reads it by --config-dir."""
    guess_declaration(write(tmp_path, name), ["yield [%]"]).write(tmp_path / "data" / "mine.yaml")
    with initialize_config_dir(config_folder(), version_base="1.3"):
        config = compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "data=mine", "folder=unused"])
    data = instantiate(config.data, _convert_="all")
    assert sum(len(part) for part in data.split.row_ids().values()) == 12
    assert data.space.columns == ("temperature", "flow", "solvent") and data.properties[0].unit == "%"
    assert data.space.parameters[1].values == (0.0, 0.5, 1.0, 1.5) and data.space.labels == {"solvent": ["ethanol", "water"]}
    assert data.space.allows(data.split.train.x).all()
    assert "mlp" in OmegaConf.select(config, "surrogate._target_").lower()


@pytest.mark.parametrize(
    ("columns", "wanted", "said"),
    [
        ({}, "gap", "Expected property out of the columns .*'yield'.*got 'gap'"),
        ({"yield [%]": [1.0] * 12}, "yield", "varying numbers in the column"),
        ({"yield [%]": ["x"] * 12}, "yield", "varying numbers in the column"),
        ({"temperature [K]": [1] * 12, "flow (mL/min)": [2] * 12, "solvent": "water"}, "yield", "columns of varying numbers"),
    ],
)
def test_rejects(tmp_path, columns, wanted, said):
    with pytest.raises(DatasetError, match=said):
        guess_declaration(write(tmp_path, **columns), [wanted])


def test_a_table_without_names_is_told(tmp_path):
    (tmp_path / "table.csv").write_text("75.0,0.5,1.0\n75.0,0.5,1.2\n")
    with pytest.raises(DatasetError, match="names of columns in the first line"):
        guess_declaration(str(tmp_path / "table.csv"), ["2"])


def test_eight_rows_are_too_few(tmp_path):
    (tmp_path / "table.csv").write_text("a,y\n" + "".join(f"{i},{i * i}\n" for i in range(8)))
    with pytest.raises(DatasetError, match="at least 10 rows"):
        guess_declaration(str(tmp_path / "table.csv"), ["y"])


def shares(rows=30, digits=4):
    """Two mixtures of one unit, one rounded as people round, and a column that belongs to none."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(rows, size, generator=generator).double() for size in (3, 2))
    first, second = (100 * part / part.sum(dim=1, keepdim=True) for part in (first, second))
    columns = {f"{name} [%]": [round(v, digits) for v in column] for name, column in zip("abc", first.T.tolist(), strict=True)}
    columns |= {f"{name} [%]": column for name, column in zip("de", second.T.tolist(), strict=True)}
    return columns | {"f [%]": (50 * torch.rand(rows, generator=generator)).tolist(), "y": torch.rand(rows).tolist()}


@pytest.mark.parametrize("rows", [8, 9])
def test_levels_stay_where_untried_ones_are_left(tmp_path, rows):
    """Of 16 combinations, each measured three times."""
    pairs = list(itertools.product([1.0, 2.0, 3.0, 5.0], repeat=2))
    chosen = [pairs[i] for i in (0, 5, 10, 15, 1, 6, 11, 12, 2)[:rows]] * 3
    frame = pandas.DataFrame(chosen, columns=["a", "b"]).assign(y=range(len(chosen)))
    frame.to_csv(tmp_path / "table.csv", index=False)
    made = guess_declaration(str(tmp_path / "table.csv"), ["y"])
    values = {"values": [1.0, 2.0, 3.0, 5.0]} if rows == 8 else {"lower": 1.0, "upper": 5.0}
    assert list(made.parameters) == [{"name": name, "unit": "1", **values} for name in "ab"]


@pytest.mark.parametrize("digits", [1, 4])
def test_sums_are_mixtures(tmp_path, digits):
    pandas.DataFrame(shares(digits=digits)).to_csv(tmp_path / "table.csv", index=False)
    made = guess_declaration(str(tmp_path / "table.csv"), ["y"])
    assert sorted(made.mixtures) == [(["a", "b", "c"], 100.0), (["d", "e"], 100.0)]
    assert "Mixture: a + b + c = 100" in made.sentences() and not made.left_out


def test_a_table_that_breaks_its_constraints_is_told():
    space = DesignSpace(
        [Parameter(name, "%", 0.0, 100.0) for name in "abc"] + [Parameter("n", "1", 1, 3, integer=True)],
        mixtures=[Mixture(["a", "b", "c"], 100.0)],
        categories=[Category("solvent", ["water", "DMF"])],
    )
    good = {"a": [20.0, 30.1], "b": [30.0, 29.9], "c": [50.0, 40.1], "n": [1, 3], "solvent": ["water", "DMF"], "y": [1.0, 2.0]}
    data = DesignDataModule(pandas.DataFrame(good), space, [prop()], validation=0.0, test=0.0)
    x = data.split.train.x
    assert space.allows(x).all() and sorted(x[:, 4].tolist()) == [0.0, 1.0]
    for change, said in [
        ({"c": [50.0, 41.0]}, "add up to 100 in .*, got 101 in row 1"),
        ({"n": [1, 2.5]}, "n out of 1, 2, 3 in .*, got 2.5 in row 1"),
        ({"solvent": ["water", "THF"]}, "one of \\['water', 'DMF'\\] in column 'solvent'.*'THF' in row 1"),
    ]:
        table = pandas.DataFrame({**good, **change})
        with pytest.raises(DatasetError, match=said):
            _ = DesignDataModule(table, space, [prop()], validation=0.0, test=0.0).split
