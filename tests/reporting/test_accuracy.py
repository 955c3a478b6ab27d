"""Errors of a surrogate on test rows."""

import pytest
import torch

from matdesinne.data.table import DesignTable
from matdesinne.reporting.accuracy import measure_accuracy, read_accuracy, write_accuracy

from ..toys import Linear, box, linear, prop


def table(x: list[list[float]], y: list[float]) -> DesignTable:
    return DesignTable(torch.tensor(x), torch.tensor(y).unsqueeze(1), torch.arange(len(x)))


@pytest.fixture
def found():
    """y = x1 + x2 predicts the test rows, which err by 0.1 and 0.3."""
    known = table([[0.0, 0.0], [0.5, 0.5], [-0.5, -0.5]], [0.0, 1.0, -1.0])
    test = table([[0.1, 0.0], [0.4, 0.5]], [0.2, 0.6])
    return measure_accuracy(linear(), known, test)


def test_errors_beside_the_mean_and_the_nearest_row(found, tmp_path):
    [entry] = found
    assert (entry.name, entry.unit, entry.rows) == ("y", "eV", 2)
    assert entry.mae == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)
    assert entry.std == pytest.approx(1.0)
    assert entry.mean_mae == pytest.approx((0.2 + 0.6) / 2)
    assert entry.nearest_mae == pytest.approx((0.2 + 0.4) / 2)
    assert (entry.lowest, entry.highest) == (-1.0, 1.0)
    assert entry.within_68 == entry.within_90 == 0.0  # one member has no spread
    write_accuracy(found, tmp_path)
    assert read_accuracy(tmp_path) == found


def test_values_far_below_the_floor_are_equal():
    """Predictions of -0.9 and 0.9 for -0.5 and 1.0: with a floor of 0 and a margin of 0.1 the first is right."""
    surrogate = Linear(box(), [prop("y", 0.0, margin=0.1)], [[1.0, 1.0]]).eval()
    known, test = table([[0.0, 0.0], [0.1, 0.0]], [-2.0, -3.0]), table([[-0.5, -0.4], [0.5, 0.4]], [-0.5, 1.0])
    [entry] = measure_accuracy(surrogate, known, test)
    assert entry.mae == pytest.approx(0.1 / 2, abs=1e-6)
    assert entry.mean_mae == pytest.approx(1.1 / 2)
    assert (entry.lowest, entry.highest) == (-3.0, 1.0)


def test_the_sentence_has_the_unit_and_simpler_predictions(found):
    said = found[0].sentence()
    assert "MAE 0.2 eV on 2 test rows (mean of the table" in said and "nearest row 0.3" in said


def test_no_test_rows_no_errors(tmp_path):
    nothing = DesignTable(torch.empty(0, 2), torch.empty(0, 1), torch.arange(0))
    assert measure_accuracy(linear(), table([[0.0, 0.0]], [0.0]), nothing) == []
    assert read_accuracy(tmp_path) == []
    (tmp_path / "accuracy.json").write_text('[{"name": 3}]')
    assert read_accuracy(tmp_path) == []
