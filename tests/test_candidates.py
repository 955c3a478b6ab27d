import csv
import dataclasses
import json
import math

import pyarrow
import pyarrow.parquet
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.space import DesignSpace, Parameter
from matdesinne.targets import Target

from .toys import box, candidates, linear, prop, quadratic, rows

TARGETS = {"value": 0.5, "interval": [0.2, 0.4], "open": [None, 0.3], "two": [0.5, [0.1, 0.2]], "one of two": {"w": 0.1}}


@pytest.fixture(params=TARGETS)
def table(request) -> Candidates:
    surrogate = linear(outputs=2) if "two" in request.param else quadratic()
    return candidates(surrogate, rows(box(), 6).x, TARGETS[request.param])


def test_length(table):
    assert len(table) == 6


def test_frozen(table):
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.stage = "localized"


@pytest.mark.parametrize("keep", [torch.tensor([True, False] * 3), torch.tensor([0, 2, 4])], ids=["mask", "numbers"])
def test_take(table, keep):
    kept = table.take(keep, "selected")
    assert kept.stage == "selected"
    assert torch.equal(kept.designs, table.designs[::2])
    assert torch.equal(kept.mean, table.mean[::2])
    assert torch.equal(kept.std, table.std[::2])


def test_take_keeps_stage(table):
    assert table.take(torch.tensor([0])).stage == table.stage


def test_error_is_the_distance(close):
    table = candidates(linear(), torch.tensor([[0.5, 0.5], [-0.5, 0.0]]), [0.0, 0.4])
    close(table.error, [[0.6], [0.5]])


def test_columns_order():
    table = candidates(quadratic(), rows(box(), 2).x, 0.5)
    assert list(table.columns()) == ["x1", "x2", "target", "target_lower", "target_upper", "y", "y_std", "stage"]


def test_columns_of_two_properties_name_them():
    table = candidates(linear(outputs=2), rows(box(), 2).x, [0.5, 0.1])
    assert {"target_y", "target_w", "target_lower_w", "target_upper_y", "y_std", "w_std"} <= set(table.columns())


@pytest.mark.parametrize(("target", "edges"), [({"w": 0.1}, [0.1, 0.1, 0.1]), ({"y": [None, 0.2]}, [0.2, -math.inf, 0.2])])
def test_columns_say_what_was_asked(target, edges):
    columns = candidates(linear(outputs=2), rows(box(), 2).x, target).columns()
    assert [values[0] for name, (_, values) in columns.items() if name.startswith("target")] == edges
    assert list(columns) == [
        *("x1", "x2"),
        *(["y", "y_std"] if "w" in target else []),
        *("target", "target_lower", "target_upper"),
        *(["w", "w_std"] if "w" in target else ["y", "y_std", "w", "w_std"]),
        "stage",
    ]


def test_one_of_the_properties(close):
    table = candidates(linear(outputs=2), rows(box(), 4).x, {"w": 0.1})
    first, second = table.properties
    assert [prop.name for prop in table.mean_errors()] == ["w"]
    own = table.only([second])
    assert own.target == Target((0.1,), (0.1,)) and list(own.properties) == [second]
    close(own.mean[:, 0], table.mean[:, 1])
    with pytest.raises(ConfigError, match=r"'w'"):
        own.only([first])


@pytest.mark.parametrize("name", ["target", "stage", "y", "y_std"])
def test_names_may_not_collide(name):
    space = DesignSpace([Parameter(name, "m", -1, 1)])
    values = torch.zeros(1, 1)
    with pytest.raises(ConfigError, match=name):
        Candidates(space, [prop()], values, Target((0.0,), (0.0,)), values, values, "sampled").columns()


@pytest.mark.slow
def test_parquet_round_trip(table, tmp_path):
    table.write_parquet(tmp_path / "candidates.parquet")
    again = Candidates.read_parquet(tmp_path / "candidates.parquet")
    assert (again.space, list(again.properties), again.target, again.stage) == (
        table.space,
        list(table.properties),
        table.target,
        table.stage,
    )
    assert torch.equal(again.designs, table.designs)
    assert torch.equal(again.mean, table.mean)
    assert torch.equal(again.std, table.std)


def test_parquet_round_trip_of_no_rows(table, tmp_path):
    table.take(torch.zeros(6, dtype=torch.bool)).write_parquet(tmp_path / "candidates.parquet")
    again = Candidates.read_parquet(tmp_path / "candidates.parquet")
    assert again.designs.shape == (0, 2)


def test_parquet_units(table, tmp_path):
    table.write_parquet(tmp_path / "candidates.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "candidates.parquet")
    units = {field.name: field.metadata[b"unit"].decode() for field in schema}
    assert (units["x1"], units["y"], units["y_std"]) == ("m", "eV", "eV")
    assert all(unit == "eV" for name, unit in units.items() if name.startswith("target"))


def test_parquet_metadata_is_standard_json(table):
    def refuse(word):
        raise AssertionError(word)

    json.loads(table.to_arrow().schema.metadata[b"matdesinne"], parse_constant=refuse)


def test_csv(table, tmp_path, close):
    table.write_csv(tmp_path / "candidates.csv")
    with open(tmp_path / "candidates.csv", newline="") as stream:
        header, *lines = list(csv.reader(stream))
    assert header == list(table.columns())
    found = torch.tensor([[float(value) for value in line[:2]] for line in lines])
    close(found, table.designs)
    assert {line[-1] for line in lines} == {"sampled"}


@pytest.mark.parametrize("content", [None, b"", b"PAR1 nothing"], ids=["missing", "empty", "damaged"])
def test_read_rejects(content, tmp_path):
    path = tmp_path / "candidates.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"candidates\.parquet"):
        Candidates.read_parquet(path)


def test_read_rejects_a_foreign_table(tmp_path):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0]}), path)
    with pytest.raises(DatasetError, match=r"other\.parquet"):
        Candidates.read_parquet(path)
