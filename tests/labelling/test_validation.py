import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from matdesinne.candidates import Candidates, read_candidates
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.labelling.validation import (
    Validation,
    log_validation,
    read_validation,
    stratified,
    validate,
    write_validation,
)
from matdesinne.labelling.validation_page import write_page
from matdesinne.oracles.base import Column, Oracle
from matdesinne.reporting.palette import GREEN
from matdesinne.structures import Prototype
from matdesinne.targets import Property, Target
from matdesinne.training.loggers import closed_runs, wandb_logger

from ..toys import box, load_part, wandb_log_names

GAP = Property("y", "eV", floor=0.0)


class Sum(Oracle):
    """y = x1 + x2; there is none above 1.8."""

    def columns(self):
        return {"y": Column("eV")}

    def settings(self):
        return {"oracle": "sum"}

    def _label(self, x):
        return {"y": [math.nan if value > 1.8 else value for value in x.sum(dim=1).tolist()]}


def table(target: object, designs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, prop: Property = GAP) -> Candidates:
    columns = (mean.unsqueeze(1), std.unsqueeze(1))
    return Candidates(box(), [prop], designs, Target.parse(target, [prop]), *columns, "localized")


def drawn(target: float, count: int = 200, seed: int = 0) -> Candidates:
    """Predictions on the target, labels about it with a tenth as predicted spread."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, generator=generator) * 0.2
    spread = 0.02 + 0.1 * torch.rand(count, generator=generator)
    x[:, 1] = target + spread * torch.randn(count, generator=generator) - x[:, 0]
    return table(target, x, torch.full((count,), target), spread)


def labelled(tables: list[Candidates], folder: Path, count: int = 10_000) -> Validation:
    with ThreadPoolExecutor(1) as executor:
        [found] = validate(tables, count, Sum(box()), executor, folder, torch.Generator().manual_seed(0)).values()
        return found


class SumAndDifference(Oracle):
    """y = x1 + x2, w = x1 - x2."""

    def columns(self):
        return {"y": Column("eV"), "w": Column("eV")}

    def settings(self):
        return {"oracle": "sum and difference"}

    def _label(self, x):
        return {"y": x.sum(dim=1).tolist(), "w": (x[:, 0] - x[:, 1]).tolist()}


def of_two(target: object, count: int = 40) -> Candidates:
    x = box().sample(count, torch.Generator().manual_seed(0))
    properties, y = [GAP, Property("w", "eV")], torch.stack([x.sum(dim=1), x[:, 0] - x[:, 1] + 0.1], dim=1)
    return Candidates(box(), properties, x, Target.parse(target, properties), y, 0.1 + 0 * y, "localized")


def checked(tables: list[Candidates], folder: Path) -> dict[str, Validation]:
    with ThreadPoolExecutor(1) as executor:
        return validate(tables, 10, SumAndDifference(box()), executor, folder, torch.Generator().manual_seed(0))


def test_only_what_was_asked_for_is_validated(tmp_path):
    found = checked([of_two({"w": 0.5})], tmp_path)
    [errors] = found["w"].errors(0.1, 0)
    [table] = found["w"].chosen
    assert list(found) == ["w"] and errors.target == "w = 0.5 eV" and errors.labelled == 10
    assert errors.mae == pytest.approx((table.designs[:, 0] - table.designs[:, 1] - 0.5).abs().mean().item(), abs=1e-6)
    assert errors.prediction_mae == pytest.approx(0.1, abs=1e-6)


def test_each_property_that_was_asked_for_is_validated(tmp_path):
    found = checked([of_two({"y": 0.2, "w": [None, 0.5]})], tmp_path)
    assert list(found) == ["y", "w"]
    assert torch.equal(found["y"].chosen[0].designs, found["w"].chosen[0].designs)
    assert [found[name].errors(0.1, 0)[0].prediction_mae for name in found] == [
        pytest.approx(0.0, abs=1e-6),
        pytest.approx(0.1),
    ]
    write_validation(found["w"], tmp_path, None, 0.1, 0)
    assert read_validation(tmp_path / "validation.parquet", box()).chosen[0].target == Target((-math.inf,), (0.5,))


@pytest.mark.slow
def test_page_marks_what_was_checked(tmp_path):
    whole = drawn(0.5, 40)
    found = labelled([whole], tmp_path, count=5)
    write_validation(found, tmp_path, None, 0.1, 0)
    write_page(found, [whole], tmp_path, None, {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    content = re.search(r'<script type="application/json">(.*?)</script>', page)[1]
    colours = json.loads(re.search(r'\["colour",(\[.*?\])', content)[1])
    assert len(colours) == 40 and colours.count(GREEN) == 5
    assert "Green: the 5 candidates" in page


def test_stratified_choice_takes_every_part():
    spread = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    rows = stratified(spread, 50, torch.Generator().manual_seed(1))
    assert len(rows) == 50
    ranks = spread.argsort().argsort()[rows]
    assert ranks.div(20, rounding_mode="floor").tolist() == list(range(50))


@pytest.mark.slow
def test_stratified_choice_gives_every_row_the_same_chance():
    spread = torch.arange(7.0)
    counts = torch.zeros(7)
    for seed in range(3000):
        counts[stratified(spread, 3, torch.Generator().manual_seed(seed))] += 1
    assert counts.sum() == 9000
    torch.testing.assert_close(counts / counts.sum(), torch.full((7,), 1 / 7), atol=0.01, rtol=0)


def test_stratified_choice_of_more_than_there_is():
    assert sorted(stratified(torch.rand(5), 9, torch.Generator()).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_errors_are_those_of_the_labels(tmp_path):
    tables = [drawn(0.0), drawn(0.5)]
    found = labelled(tables, tmp_path)
    at_floor, half = found.errors(outlier=0.1, seed=0)
    y = [part.designs.double().sum(dim=1).numpy() for part in found.chosen]
    error = [np.maximum(y[0], 0.0), np.abs(y[1] - 0.5)]
    for entry, distance in zip((at_floor, half), error, strict=True):
        assert entry.mae == pytest.approx(distance.mean(), abs=1e-6)
        assert entry.rmse == pytest.approx(np.sqrt((distance**2).mean()), abs=1e-6)
        assert entry.outliers == (distance > 0.1).mean()
        assert entry.labelled == 200 and entry.failed == 0
    assert at_floor.target == "y <= 0 eV" and 0 < at_floor.wrong_side == (y[0] > 0.01).mean()
    assert half.wrong_side == (y[1] <= 0).mean()


@pytest.mark.slow
def test_spread_is_compared_with_the_distance_to_the_prediction(tmp_path):
    [entry] = labelled([drawn(0.5, 4000)], tmp_path).errors(0.1, 0)
    assert entry.within_spread == pytest.approx(0.683, abs=0.03)
    assert entry.within_two == pytest.approx(0.954, abs=0.02)
    assert 0.2 < entry.rank_correlation < 0.6


@pytest.mark.slow
def test_intervals(tmp_path):
    """Wilson's formula, and for the mean about two standard errors."""
    found = labelled([drawn(0.5)], tmp_path)
    [entry] = found.errors(0.1, 0)
    hits, z = round(200 * entry.outliers), stats.norm.ppf(0.975)
    centre = (hits + z**2 / 2) / (200 + z**2)
    half = z / (200 + z**2) * math.sqrt(hits * (200 - hits) / 200 + z**2 / 4)
    assert entry.outliers_interval == pytest.approx((centre - half, centre + half))
    distance = (found.labels[0] - 0.5).abs().numpy()
    error = distance.std() / math.sqrt(200)
    assert entry.mae_interval == pytest.approx((entry.mae - 1.96 * error, entry.mae + 1.96 * error), abs=0.3 * error)
    assert found.errors(0.1, 0) == found.errors(0.1, 0)


@pytest.mark.slow
def test_failures_are_counted_apart(tmp_path):
    x = torch.tensor([[1.0, 0.0], [1.0, 0.9], [0.5, 0.6]])
    found = labelled([table(1.0, x, torch.ones(3), torch.full((3,), 0.1))], tmp_path)
    [entry] = found.errors(0.05, 0)
    assert (entry.labelled, entry.failed) == (2, 1)
    assert entry.mae == pytest.approx(0.05, abs=1e-6)
    assert write_validation(found, tmp_path, None, 0.05, 0).count("\n| y") == 1


def test_only_failures(tmp_path):
    found = labelled([table(1.0, torch.ones(1, 2), torch.ones(1), torch.ones(1))], tmp_path)
    with pytest.raises(DatasetError, match="failures only"):
        found.errors(0.1, 0)


@pytest.mark.slow
def test_files(tmp_path):
    import pyarrow.parquet

    found = labelled([drawn(0.0, 20), drawn(0.5, 20)], tmp_path, 10)
    text = write_validation(found, tmp_path, None, 0.1, 0)
    assert text.splitlines()[-1].startswith("| y = 0.5 eV | 10 | 0 |")
    frame = pyarrow.parquet.read_table(tmp_path / "validation.parquet").to_pandas()
    assert len(frame) == 20 and frame["target"].tolist() == [0.0] * 10 + [0.5] * 10
    np.testing.assert_allclose(frame["label"], frame["x1"] + frame["x2"], atol=1e-6)
    ids = pyarrow.parquet.read_table(tmp_path / "labels.parquet").to_pandas()["id"]
    assert frame["id"].tolist() == ids.tolist()
    assert (tmp_path / "validation.png").stat().st_size > 10_000
    assert (tmp_path / "validation.json").is_file()


@pytest.mark.slow
def test_earlier_validation_is_read_and_drawn_again(tmp_path):
    found = labelled([drawn(0.0, 20), drawn(0.5, 20)], tmp_path)
    text = write_validation(found, tmp_path, None, 0.1, 0)
    again = read_validation(tmp_path / "validation.parquet", box())
    assert again.errors(0.1, 0) == found.errors(0.1, 0)
    (tmp_path / "validation.png").unlink()
    assert write_validation(again, tmp_path, None, 0.1, 0) == text
    assert (tmp_path / "validation.png").is_file() and (tmp_path / "validation.pdf").is_file()


def test_no_earlier_validation(tmp_path):
    with pytest.raises(DatasetError, match=r"Expected the validation\.parquet"):
        read_validation(tmp_path / "validation.parquet", box())


@pytest.mark.slow
def test_property_without_a_floor_has_no_wrong_side(tmp_path):
    one = drawn(0.5, 10)
    free = table(0.5, one.designs, one.mean[:, 0], one.std[:, 0], Property("y", "eV"))
    [entry] = labelled([free], tmp_path).errors(0.1, 0)
    assert entry.wrong_side is None and entry.wrong_side_interval is None


@pytest.mark.slow
def test_picture_with_structures(tmp_path):
    space, prototype = (load_part(name) for name in ("space", "prototype"))
    assert isinstance(prototype, Prototype)
    x = space.sample(6, torch.Generator().manual_seed(0))
    row = torch.full((6, 1), 0.5)
    candidates = Candidates(space, [GAP], x, Target.parse(0.5, [GAP]), row, 0.1 * row, "localized")
    found = labelled([drawn(0.5, 6)], tmp_path)
    with_cells = Validation([candidates], found.labels, found.run)
    write_validation(found, tmp_path, None, 0.1, 0)
    bare = (tmp_path / "validation.png").stat().st_size
    write_validation(with_cells, tmp_path, prototype, 0.1, 0)
    assert (tmp_path / "validation.png").stat().st_size > bare


def test_candidates_are_found_in_folders(tmp_path):
    for number, target in enumerate((0.5, 0.0)):
        drawn(target, 5).write_parquet(tmp_path / "sweep" / str(number) / "candidates.parquet")
    drawn(0.25, 5).write_parquet(tmp_path / "single.parquet")
    found = read_candidates([tmp_path / "sweep", tmp_path / "single.parquet"])
    assert [entry.target.values[0] for entry in found] == [0.0, 0.25, 0.5]


def test_no_candidates(tmp_path):
    with pytest.raises(DatasetError, match="none"):
        read_candidates([tmp_path])


def test_candidates_of_two_properties(tmp_path):
    other = Property("w", "eV")
    drawn(0.5, 5).write_parquet(tmp_path / "a.parquet")
    one = drawn(0.5, 5)
    table(0.5, one.designs, one.mean[:, 0], one.std[:, 0], other).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="'w'"):
        read_candidates([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_oracle_of_another_property(tmp_path):
    one = drawn(0.5, 5)
    foreign = table(0.5, one.designs, one.mean[:, 0], one.std[:, 0], Property("w", "eV"))
    with pytest.raises(ConfigError, match="oracle of w"):
        labelled([foreign], tmp_path)


def test_oracle_of_other_designs(tmp_path):
    with pytest.raises(ConfigError, match="x3"), ThreadPoolExecutor(1) as executor:
        validate([drawn(0.5, 5)], 5, Sum(box(3)), executor, tmp_path, torch.Generator())


def test_every_property_that_is_asked_for_is_compared(tmp_path):
    """One target asks for y and bounds w, another for w alone; each design is labelled once."""
    properties = [GAP, Property("w", "eV")]
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 0.4
    mean = torch.stack([x.sum(dim=1), x[:, 0] - x[:, 1]], dim=1)
    asked = ({"y": 0.5, "w": [None, 0.1]}, {"w": 0.2})
    tables = [
        Candidates(box(), properties, x, Target.parse(value, properties), mean, 0.1 * torch.ones(30, 2), "localized")
        for value in asked
    ]
    with ThreadPoolExecutor(1) as executor:
        oracle = SumAndDifference(box())
        found = validate(tables, 10, oracle, executor, tmp_path, torch.Generator().manual_seed(0))
    assert {name: len(validation.chosen) for name, validation in found.items()} == {"y": 1, "w": 2}
    for validation in found.values():
        assert len(validation.run.rows) == sum(map(len, validation.chosen))
        for chosen, labels in zip(validation.chosen, validation.labels, strict=True):
            torch.testing.assert_close(labels, chosen.mean[:, 0].double())
    [inside, _] = found["w"].errors(0.1, 0)
    outside = (found["w"].chosen[0].mean[:, 0] - 0.1).clamp_min(0.0)
    assert inside.mae == pytest.approx(outside.mean().item(), abs=1e-6)
    for name, validation in found.items():
        assert name in write_validation(validation, tmp_path / name, None, 0.1, 0)


@pytest.mark.slow
def test_errors_are_logged_to_wandb(tmp_path, monkeypatch):
    """A real offline run is read back."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    validation = labelled([drawn(0.5), drawn(0.0)], tmp_path)
    write_validation(validation, tmp_path, None, 0.1, 0)
    with closed_runs():
        log_validation([wandb_logger("matdesinne", str(tmp_path))], validation, tmp_path, 0.1, 0)
    [run] = tmp_path.glob("wandb/offline-run-*")
    [picture], [table] = (run.rglob(name) for name in ("validation*.png", "validation*.table.json"))
    assert picture.read_bytes() == (tmp_path / "validation.png").read_bytes()
    assert wandb_log_names(tmp_path, "y = 0.5 eV: mae")
    columns, rows = (json.loads(table.read_text())[key] for key in ("columns", "data"))
    assert [row[columns.index("labelled")] for row in rows] == [200, 200]
