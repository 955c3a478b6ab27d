"""The paper's evaluation on a model and a surrogate whose errors are known."""

import math
from dataclasses import replace

import pytest
import torch

from matdesinne.benchmark.paper_report import write_paper_report
from matdesinne.benchmark.paper_table import PaperTable
from matdesinne.space import DesignSpace, Parameter
from matdesinne.targets import Property

from ..toys import Linear

SPACE = DesignSpace([Parameter("a", "m", -1.0, 1.0), Parameter("field", "V", -1.0, 1.0)])
GAP = Property("gap", "eV")
RATE = 0.01


class Grid:
    """A model whose samples for a target lie at the target plus known errors in a; some leave the box."""

    errors = torch.tensor([0.05, -0.05, 0.5, -2.0, 0.01])
    fields = torch.tensor([0.0, 0.5, 0.0, 0.0, 1.5])

    def sample_target(self, target, count, generator):
        assert count == len(self.errors)
        return torch.stack([target.values[0] + self.errors, self.fields], dim=1), count


@pytest.fixture(scope="module")
def surrogate() -> Linear:
    return Linear(SPACE, [GAP], [[1.0, 0.0]])


def rows(surrogate, target=0.0, localized=5, tolerances=(0.1,), steps=(2, 4)):
    table = PaperTable({"grid": Grid()}, surrogate, 5, localized, tolerances, steps, seed=3)  # type: ignore[dict-item]
    return list(table.rows([target]))


def test_raw_samples_count_all_of_them(surrogate):
    raw = rows(surrogate)[0]
    assert (raw.samples, raw.kept, raw.steps, raw.seed) == (5, 5, None, 3)
    assert raw.mae == pytest.approx((0.05 + 0.05 + 0.5 + 2.0 + 0.01) / 5)
    assert raw.median == pytest.approx(0.05)
    assert raw.inside_bounds == pytest.approx(3 / 5)
    assert raw.mae_inside == pytest.approx((0.05 + 0.05 + 0.5) / 3)


def test_below_the_target_is_an_error_at_zero_too(surrogate):
    """A prediction of -2 eV is 2 eV from 0 eV: this property has no floor."""
    assert rows(surrogate)[0].mae > 0.5


def test_selection_looks_at_the_target_and_the_last_parameter(surrogate):
    assert [row.kept for row in rows(surrogate)[1:]] == [2, 2]
    assert [row.kept for row in rows(surrogate, tolerances=(0.95,))[1:]] == [3, 3]


def test_localization_is_that_of_the_code(surrogate):
    """Each error e of n shrinks by 1 - 2 rate / n in a step, and none is dropped afterwards."""
    for row in rows(surrogate)[1:]:
        assert row.mae == pytest.approx(0.05 * (1 - 2 * RATE / 2) ** row.steps, rel=1e-3)


def test_more_steps_go_on_from_fewer(surrogate):
    assert rows(surrogate, steps=(4,))[1].mae == pytest.approx(rows(surrogate, steps=(2, 4))[2].mae)
    assert [row.steps for row in rows(surrogate, steps=(4, 2))[1:]] == [2, 4]


def test_only_the_first_samples_are_localized(surrogate):
    assert [(row.samples, row.kept) for row in rows(surrogate, localized=1)[1:]] == [(1, 1), (1, 1)]


def test_a_row_without_designs(surrogate):
    for row in rows(surrogate, tolerances=(0.001,))[1:]:
        assert (row.kept, row.mae, row.median, row.inside_bounds, row.mae_inside) == (0, None, None, None, None)
    assert not any(math.isnan(row.seconds) for row in rows(surrogate))


@pytest.mark.slow
def test_report(surrogate, tmp_path):
    text = write_paper_report(tmp_path, "published", rows(surrogate), {"forward_inn": {"mae_all_rows": 0.5}})
    assert {path.name for path in tmp_path.iterdir()} == {f"published.{end}" for end in ("json", "csv", "md", "png")}
    assert "| grid | 0 | 3 |  | 0.522 | 0.050 | 60.0 | 0.200 | 5 |" in text
    assert "| MatDesINNe-grid | 0 | 3 | 0.1 | 2 |" in text


@pytest.mark.slow
def test_report_shows_the_papers_number(surrogate, tmp_path):
    longer = [replace(row, method="MDN (paper/mdn_6000)") for row in rows(surrogate)[:1]]
    assert "| MDN (paper/mdn_6000) | 0 | 3 | 0.184 |" in write_paper_report(tmp_path, "paper", longer, {})
