import errno
import json
import os
import random

import pytest

from matdesinne.errors import ConfigError, DatasetError, LabellingError
from matdesinne.labelling.records import Records, design_id

SETTINGS = {"oracle": "toy", "sizes": (1, 2)}


def row(number: int) -> dict:
    return {"id": f"id{number}", "value": float(number), "status": "done"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "records.jsonl"


@pytest.fixture
def three(path):
    with Records(path, SETTINGS) as records:
        records.append([row(0)])
        records.append([row(1), row(2)])
    return path


def found(path) -> list[str]:
    with Records(path, SETTINGS) as records:
        return list(records.rows)


def test_what_was_written_is_read(three):
    with Records(three, SETTINGS) as records:
        assert records.rows == {f"id{number}": row(number) for number in range(3)}


def test_rows_count_at_once(path):
    with Records(path, SETTINGS) as records:
        records.append([row(0)])
        assert json.loads(path.read_text().splitlines()[-1]) == row(0)
        assert list(records.rows) == ["id0"]


def test_later_row_counts(three):
    with Records(three, SETTINGS) as records:
        records.append([{**row(1), "value": 7.0}])
    with Records(three, SETTINGS) as records:
        assert records.rows["id1"]["value"] == 7.0
        assert len(records.rows) == 3


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_cut_file_loses_the_last_line_only(three, cut):
    """Whatever byte a write ended at, the whole lines before it count, and the file can be gone on with."""
    content = three.read_bytes()
    whole = [f"id{n}" for n in range(content[:-cut].count(b"\n") - 1)]
    three.write_bytes(content[:-cut])
    with Records(three, SETTINGS) as records:
        assert list(records.rows) == whole
        records.append([row(9)])
    assert found(three) == [*whole, "id9"]


def test_cut_in_the_first_line(three):
    three.write_bytes(three.read_bytes()[:5])
    assert found(three) == []
    assert found(three) == []


def test_full_disk(three, monkeypatch):
    """A disk that takes half a line: the run ends with a reason, and the next start has every row from before."""
    write, generator = os.write, random.Random(0)

    def full(file, data):
        if len(data) > 20:
            return write(file, data[: generator.randrange(1, 20)])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Records(three, SETTINGS) as records:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(LabellingError, match="No space left"):
            records.append([row(3)])
        assert "id3" not in records.rows
    monkeypatch.undo()
    assert found(three) == ["id0", "id1", "id2"]


def test_other_settings(three):
    with pytest.raises(ConfigError, match="another folder"), Records(three, {"oracle": "other"}):
        pass


def test_two_runs_in_one_folder(three):
    with Records(three, SETTINGS), pytest.raises(LabellingError, match="another run"), Records(three, SETTINGS):
        pass
    assert len(found(three)) == 3


@pytest.mark.parametrize("line", ["{not json", "[1]", '{"value": 1}'])
def test_damaged_line_is_named(three, line):
    lines = three.read_text().splitlines()
    three.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(DatasetError, match="line 3"), Records(three, SETTINGS):
        pass


def test_id_is_of_design_and_settings():
    base = design_id({"a": 3.16, "b": 1.0}, SETTINGS)
    assert base == design_id({"b": 1.0, "a": 3.16}, {"sizes": [1, 2], "oracle": "toy"})
    others = [design_id({"a": 3.1600001, "b": 1.0}, SETTINGS), design_id({"a": 3.16, "b": 1.0}, {"oracle": "toy"})]
    assert base not in others
    assert base == "c441f9d24c3375ba"
