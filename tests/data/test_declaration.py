"""What is guessed of a table."""

import pandas
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.cli.config import config_folder
from matdesinne.data.declaration import guess_declaration
from matdesinne.errors import DatasetError

COLUMNS = {
    "id": list(range(12)),
    "temperature [K]": [300.0 + i for i in range(12)],
    "flow (mL/min)": [0.5 * (i % 4) for i in range(12)],
    "solvent": ["water", "ethanol"] * 6,
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
        {"name": "flow", "unit": "mL/min", "lower": 0.0, "upper": 1.5},
    ]
    assert [(entry["name"], entry["unit"]) for entry in made.properties] == [("yield", "%")]
    assert made.headers == {"temperature": "temperature [K]", "flow": "flow (mL/min)", "yield": "yield [%]"}
    assert made.left_out == {
        "id": "the number of the row",
        "solvent": "not all entries are numbers",
        "pressure": "always 1",
    }
    assert all(any(name in line for line in made.sentences()) for name in ["temperature 300 to 311 K", *made.left_out])


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.xlsx"])
def test_the_file_declares_the_table(tmp_path, name):
    """As train.py reads it by --config-dir."""
    guess_declaration(write(tmp_path, name), ["yield [%]"]).write(tmp_path / "data" / "mine.yaml")
    with initialize_config_dir(config_folder(), version_base="1.3"):
        config = compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "data=mine", "folder=unused"])
    data = instantiate(config.data, _convert_="all")
    assert sum(len(part) for part in data.split.row_ids().values()) == 12
    assert data.space.names == ("temperature", "flow") and data.properties[0].unit == "%"
    assert "mlp" in OmegaConf.select(config, "surrogate._target_").lower()


@pytest.mark.parametrize(
    ("columns", "wanted", "said"),
    [
        ({}, "gap", "Expected property out of the columns .*'yield'.*got 'gap'"),
        ({"yield [%]": [1.0] * 12}, "yield", "varying numbers in the column"),
        ({"yield [%]": ["x"] * 12}, "yield", "varying numbers in the column"),
        ({"temperature [K]": [1] * 12, "flow (mL/min)": [2] * 12}, "yield", "columns of varying numbers"),
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
