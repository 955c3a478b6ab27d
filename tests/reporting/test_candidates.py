import math

import pytest
import torch

from matdesinne.pipeline import DesignRun
from matdesinne.reporting.candidates import candidate_view, draw_candidates, run_section

from ..toys import box, candidates, line, linear, quadratic, rows


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, [0.2, 0.4], [None, 0.3]], ids=["value", "interval", "open"])
@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_draws(tmp_path, target, ending):
    sampled = candidates(quadratic(), rows(box(), 100).x, target)
    run = DesignRun({"sampled": sampled, "selected": sampled.take(torch.arange(10), "selected")}, {}, 0)
    draw_candidates(run, tmp_path / f"figure.{ending}")
    assert (tmp_path / f"figure.{ending}").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("target", [[0.5, 0.1], {"w": 0.1}], ids=["both", "one"])
@pytest.mark.parametrize("space", [box(3), line(3)], ids=["bounded", "unbounded"])
def test_draws_two_properties(tmp_path, space, target):
    sampled = candidates(linear(3, outputs=2), rows(space, 100).x, target)
    draw_candidates(DesignRun({"sampled": sampled}, {}, 0), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()


def test_the_section_and_the_view_show_what_was_asked(tmp_path):
    sampled = candidates(linear(3, outputs=2), rows(box(3), 10).x, {"w": [None, 0.1]})
    [stages] = run_section(DesignRun({"sampled": sampled}, {"sampled": 0.1}, 0), tmp_path / "figure.png").tables
    assert list(stages.heads) == ["stage", "designs", "mean |w - target| [eV]", "time [s]"]
    view = candidate_view(sampled, labels=torch.zeros(10))
    assert view.targets == {"w": (-math.inf, 0.1)} and "y (checked)" in view.columns


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_draws_few_designs(tmp_path, count):
    sampled = candidates(linear(), rows(box(), count).x, 0.5)
    draw_candidates(DesignRun({"sampled": sampled}, {}, 0), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()


@pytest.mark.slow
def test_draws_candidates_away_from_the_samples(tmp_path):
    # localization can move all of them out of the range of the samples
    sampled = candidates(linear(), rows(box(), 3).x * 0.1, 0.5)
    moved = candidates(linear(), torch.full((2, 2), 0.9), 0.5)
    draw_candidates(DesignRun({"sampled": sampled, "localized": moved}, {}, 0), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").is_file()
