import json
import math

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from matdesinne.files import atomic_path, list_folder, read_json, write_json, write_table


def test_good_block_writes(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_good_block_replaces(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failed_block_keeps_the_old_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("fails", [False, True])
def test_no_temporary_stays(tmp_path, fails):
    try:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ([] if fails else ["a.txt"])


def test_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not (tmp_path / "a.txt").exists()


def test_temporary_is_beside_with_the_same_ending(tmp_path):
    with atomic_path(tmp_path / "a.parquet") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        temporary.touch()


def test_folder_is_made(tmp_path):
    with atomic_path(tmp_path / "b" / "c" / "a.txt") as temporary:
        temporary.touch()
    assert (tmp_path / "b" / "c" / "a.txt").exists()


def test_json_round_trip(tmp_path):
    content = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_rejects_what_is_not_finite(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [{"a": [1, None, "é"]}, [], 3.5, None])
def test_read_json_reads_what_was_written(tmp_path, content):
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"text"], ids=["empty", "truncated", "bytes", "text"])
def test_read_json_of_a_damaged_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


@pytest.mark.parametrize("path", ["a.json", "b/a.json", "."], ids=["file", "folder", "is-folder"])
def test_read_json_of_nothing(tmp_path, path):
    assert read_json(tmp_path / path) is None


def test_hidden_files_are_not_told(tmp_path):
    for name in ("b.csv", "a.json", ".hydra"):
        (tmp_path / name).touch()
    assert list_folder(tmp_path) == f"Wrote a.json, b.csv to {tmp_path}"


COLUMNS = {"name": ("", ["a", "b"]), "gap": ("eV", [0.5, None]), "count": ("1", [1, 2])}


def test_table_has_units_and_metadata(tmp_path):
    write_table(tmp_path / "new" / "a.parquet", COLUMNS, {"key": "text"})
    table = pyarrow.parquet.read_table(tmp_path / "new" / "a.parquet")
    assert table.to_pydict() == {name: values for name, (_, values) in COLUMNS.items()}
    assert {name: table.schema.field(name).metadata[b"unit"].decode() for name in COLUMNS} == {
        name: unit for name, (unit, _) in COLUMNS.items()
    }
    assert table.schema.metadata == {b"key": b"text"}


def test_table_as_csv(tmp_path):
    write_table(tmp_path / "a.csv", COLUMNS)
    assert (tmp_path / "a.csv").read_text() == '"name","gap","count"\n"a",0.5,1\n"b",,2\n'


@pytest.mark.parametrize(
    "values",
    [np.empty(0), pyarrow.array([], pyarrow.float64()), pyarrow.array([None, None], pyarrow.float64())],
    ids=["numpy", "no rows", "no values"],
)
def test_table_keeps_the_type_of_an_array(tmp_path, values):
    write_table(tmp_path / "a.parquet", {"gap": ("eV", values)})
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").schema.field("gap").type == pyarrow.float64()


def test_table_of_lists(tmp_path):
    bands = pyarrow.array([[1.0, 2.0], None], pyarrow.list_(pyarrow.float32()))
    write_table(tmp_path / "a.parquet", {"bands": ("eV", bands)})
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["bands"].to_pylist() == [[1.0, 2.0], None]


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_table_of_an_unknown_kind(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / name, COLUMNS)
    assert not list(tmp_path.iterdir())


def test_failed_table_keeps_the_old_file(tmp_path):
    (tmp_path / "a.parquet").write_text("old")
    with pytest.raises(pyarrow.ArrowInvalid):
        write_table(tmp_path / "a.parquet", {"a": ("", [1, 2]), "b": ("", [1])})
    assert (tmp_path / "a.parquet").read_text() == "old"
