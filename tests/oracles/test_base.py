import math

import pytest
import torch

from matdesinne.oracles.base import Column, Oracle, failed_row

from ..toys import box


class Root(Oracle):
    """The square root of the first parameter; a chunk with a negative one has no labels."""

    chunk = 4

    def columns(self):
        return {"root": Column("eV"), "digits": Column("", "list")}

    def settings(self):
        return {"oracle": "root"}

    def _label(self, x):
        return {"root": [math.sqrt(value) for value in x[:, 0]], "digits": [[value, 1.0] for value in x[:, 1].tolist()]}


def labels(*designs: tuple[float, float]) -> list[dict]:
    return Root(box()).label(torch.tensor(designs, dtype=torch.float64))


def test_rows():
    rows = labels((0.25, 1.0), (1.0, 0.5))
    assert [row["root"] for row in rows] == [0.5, 1.0]
    assert [row["digits"] for row in rows] == [[1.0, 1.0], [0.5, 1.0]]
    assert all(row["status"] == "done" and row["reason"] == "" and row["seconds"] >= 0 for row in rows)
    assert all(row["versions"].startswith("matdesinne 0.") for row in rows)


def test_failure_is_one_row():
    rows = labels((0.25, 1.0), (-1.0, 0.5), (0.0, 0.0))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["root"] is None and rows[1]["digits"] is None
    assert rows[1]["reason"].startswith("ValueError: ")


@pytest.mark.parametrize(("design", "named"), [((math.inf, 0.0), "root"), ((1.0, math.nan), "digits")])
def test_infinite_labels_are_failures(design, named):
    [row] = labels(design)
    assert row["status"] == "failed" and named in row["reason"]


def test_reason_is_one_line():
    assert failed_row(Root(box()), "two\n lines", 1.0)["reason"] == "two lines"


def test_done_and_failed_rows_have_the_same_columns():
    good, bad = labels((1.0, 0.0), (-1.0, 0.0))
    assert list(good) == list(bad)
