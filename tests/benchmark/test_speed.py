import json
import math

import pytest
import torch

from matdesinne.benchmark.speed import Floor, Speed, exponent
from matdesinne.benchmark.speed_report import write_speed
from matdesinne.benchmark.training_speed import PLAIN_LOSSES, TrainingRow, training_rows
from matdesinne.localization import GradientDescent, Newton
from matdesinne.pipeline import InverseDesign
from matdesinne.selection import All
from matdesinne.training.module import DesignModule

from ..toys import CONF, box, linear, perturb, prop, rows, tiny_module, tiny_network

FLOOR = Floor("cpu", 1, 1e9)


def timer(**settings) -> Speed:
    model = tiny_network(CONF / "model" / "mdn.yaml", box(), [prop()])
    model.fit_scales(rows(box()))
    design = InverseDesign(model, linear(), All([]), accepted_error=10.0)
    return Speed({"mdn": design}, **{"target": 0.3, "repeats": 2, "seconds": 60.0, "seed": 0, **settings})


@pytest.mark.slow
def test_one_row_for_each_localizer_and_size():
    found = timer().rows({"newton": Newton(1e-4), "descent": GradientDescent(0.1, 50)}, [20, 50], FLOOR)
    assert [(row.localizer, row.size) for row in found] == [(name, size) for name in ("newton", "descent") for size in (20, 50)]
    for row in found:
        assert (row.model, row.device, row.repeats, row.kept) == ("mdn", "cpu", 2, row.size)
        assert min(row.sample, row.select, row.localize) > 0
        assert row.total == row.sample + row.select + row.localize
        assert row.floor == row.operations / FLOOR.rate


@pytest.mark.slow
def test_no_more_runs_than_there_is_time_for():
    (row,) = timer(repeats=1000, seconds=0.0).rows({"newton": Newton()}, [20], FLOOR)
    assert row.repeats == 1


@pytest.mark.slow
def test_operations_of_a_known_pass():
    """A model's layers, then the one product of the exact surrogate for its prediction, and two products a linearization."""
    speed = timer()
    model = speed.designs["mdn"].model
    layers = sum(2 * layer.weight.numel() for layer in model.network if isinstance(layer, torch.nn.Linear))
    (row,) = speed.rows({"newton": Newton(1e-4, steps=1)}, [20], FLOOR)
    product = 2 * 2
    assert row.operations == pytest.approx(20 * (layers + product + 2 * product), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 50])
def test_paper_is_taken_in_proportion(steps):
    (found,) = timer().paper("cpu", 30, steps, steps=30)
    assert (found.rows, found.size, found.steps, found.timed_steps) == (30, 30, 30, min(steps, 30))
    assert found.seconds >= 0


@pytest.mark.slow
def test_floor_is_measured():
    floor = Floor.measure("cpu", 1)
    assert floor.rate > 1e8 and floor.threads == torch.get_num_threads()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent(power):
    sizes = [10, 100, 5000]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_exponent_needs_two_sizes():
    assert exponent([10, 10], [1.0, 2.0]) is None


@pytest.mark.slow
def test_report(tmp_path):
    speed = timer()
    found = speed.rows({"newton": Newton(1e-4)}, [20, 10_000, 20_000], FLOOR)
    paper = speed.paper("cpu", 20, 2)
    text = write_speed(tmp_path, found, paper, [FLOOR], [TrainingRow("INN", 64, 0.01, 0.02)], {"unit": "eV", "target": 0.3})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"speed.{suffix}" for suffix in ("json", "md", "pdf", "png")]
    content = json.loads((tmp_path / "speed.json").read_text())
    assert [row["size"] for row in content["rows"]] == [20, 10_000, 20_000]
    (growth,) = content["growth"]
    times = [row.total for row in found[1:]]
    assert growth["exponent"] == pytest.approx(math.log(times[1] / times[0]) / math.log(2))
    assert text == (tmp_path / "speed.md").read_text()
    assert "| INN | 64 | 10.0 | 20.0 | 2.0 |" in text
    assert f"| mdn | cpu | 20 | 20 | 2000 | 2 | {paper[0].seconds:.3g} |" in text
    assert "total [s]" in text and "| 10,000 |" in text and "| 20,000 |" in text
    assert f"| mdn | newton | cpu | {growth['exponent']:.3g} |" in text


@pytest.fixture(params=["cinn", "inn"])
def trained(request) -> tuple[str, DesignModule]:
    """The name of a model and its LightningModule with weights that are not those of its start."""
    module = tiny_module(CONF / "model" / f"{request.param}.yaml", box(), [prop()])
    module.network.fit_scales(rows(box()))
    perturb(module.network)
    return request.param, module.train()


@pytest.mark.slow
def test_straightforward_loss_is_the_same(trained):
    name, module = trained
    batch = rows(box(), 128, seed=3)
    torch.manual_seed(0)
    expected = float(PLAIN_LOSSES[name](module, batch).detach())
    torch.manual_seed(0)
    u, v = module.network.standardize(batch.x, module.network.add_target_noise(batch.y))
    # a training step of the cINN is that of one factor of its likelihood; evaluation has all of them
    module.train(name == "inn")
    assert float(module.standard_losses(u, v)["loss"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_training_steps_are_timed(trained):
    name, module = trained
    found = training_rows(name, module, rows(box(), 64), 16, 3)
    labels = {"inn": ["INN"], "cinn": ["cINN (mixture), one block", "cINN (mixture), all blocks"]}
    assert [row.model for row in found] == labels[name]
    assert all(row.batch == 16 and min(row.step, row.reference) > 0 for row in found)
