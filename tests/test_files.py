import json
import math

import pytest

from matdesinne.files import atomic_path, list_folder, read_json, write_json


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
