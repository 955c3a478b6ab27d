from concurrent.futures import ThreadPoolExecutor

import pandas
import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.candidates import Candidates
from matdesinne.data.sources import LabelSource
from matdesinne.errors import ConfigError
from matdesinne.labelling.active import ActiveLearning, choose
from matdesinne.labelling.active_report import write_rounds
from matdesinne.oracles.base import Column, Oracle
from matdesinne.space import DesignSpace, Symmetry
from matdesinne.targets import Target

from ..toys import CONF, LEARNT, OWN, box, prop, script_config, tiny_network, write_table


class Sum(Oracle):
    """y = x1 + x2, as in `write_table`; none where x1 is above 0.9."""

    def columns(self):
        return {"y": Column("eV")}

    def settings(self):
        return {"oracle": "sum"}

    def _label(self, x):
        if float(x[0, 0]) > 0.9:
            raise RuntimeError("did not converge")
        return {"y": x.sum(dim=1).tolist()}


def table(designs: torch.Tensor, std: torch.Tensor, space: DesignSpace | None = None) -> Candidates:
    y = designs.sum(dim=1, keepdim=True)
    return Candidates(space or box(), [prop()], designs, Target.parse(0.0, [prop()]), y, std.unsqueeze(1), "localized")


def learning(folder, **changes) -> ActiveLearning:
    training = script_config("train", folder, *OWN, *LEARNT, f"surrogates_folder={folder / 'surrogates'}")
    training.data.source.path = str(write_table(folder) / "table.csv")
    settings = {"targets": [0.0, 0.5], "num_samples": 40, "per_round": 4, "fresh": 10, "seed": 0, **changes}
    model = tiny_network(CONF / "model" / "cinn.yaml", box(), [prop(floor=-1.0)]).eval()
    return ActiveLearning(training, model, Sum(box()), lambda: ThreadPoolExecutor(1), folder / "active", **settings)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    made = learning(tmp_path_factory.mktemp("active"))
    return made, made.run(2)


def test_choice_prefers_unsure_designs():
    designs = torch.tensor([[0.0, 0.1], [0.5, 0.5], [-0.5, 0.5]])
    rows = choose(table(designs, torch.tensor([0.1, 1.0, 0.1])), 1, torch.tensor([[-1.0, -1.0]]))
    assert rows.tolist() == [1]


def test_choice_takes_designs_that_differ():
    designs = torch.tensor([[0.5, 0.5], [0.5, 0.51], [-0.5, -0.5]])
    rows = choose(table(designs, torch.tensor([1.0, 0.99, 0.5])), 2, torch.tensor([[0.0, 0.0]]))
    assert rows.tolist() == [0, 2]


def test_choice_keeps_off_images_of_labelled_designs():
    mirrored = DesignSpace(box().parameters, [Symmetry({"x1": [1, "x2", 0], "x2": [1, "x1", 0]})])
    designs, known = torch.tensor([[0.5, -0.5], [0.1, 0.1]]), torch.tensor([[-0.5, 0.5]])
    assert choose(table(designs, torch.ones(2)), 1, known).tolist() == [0]
    assert choose(table(designs, torch.ones(2), mirrored), 1, known).tolist() == [1]


@pytest.mark.parametrize("count", [0, 3, 9])
def test_choice_takes_no_design_twice(count):
    designs = box().sample(5, torch.Generator().manual_seed(0))
    rows = choose(table(designs, torch.ones(5)), count, designs[:0])
    assert len(set(rows.tolist())) == len(rows) == min(count, 5)


@pytest.mark.slow
def test_training_rows_grow_by_the_labels(learnt):
    made, rounds = learnt
    joined = pyarrow.parquet.read_table(made.folder / "round_1" / "labels.parquet").to_pandas()
    assert rounds[1].training_rows - rounds[0].training_rows == (joined["status"] == "done").sum() > 0
    assert rounds[2].training_rows > rounds[1].training_rows
    assert rounds[2].chosen.numel() == 0


@pytest.mark.slow
def test_fresh_designs_are_in_no_training(learnt):
    made, _ = learnt
    fresh = pandas.concat(pandas.read_parquet(made.folder / f"fresh_{n}" / "labels.parquet") for n in range(3))
    chosen = pandas.concat(pandas.read_parquet(made.folder / f"round_{n}" / "labels.parquet") for n in (1, 2))
    assert set(fresh["id"]).isdisjoint(chosen["id"])
    assert chosen["id"].is_unique


def test_errors_are_distances_of_labels_to_targets(learnt):
    made, rounds = learnt
    labels = pandas.read_parquet(made.folder / "fresh_0" / "labels.parquet")["y"].dropna()
    nearest = (torch.tensor(labels.to_numpy()).unsqueeze(1) - torch.tensor([0.0, 0.5])).abs().amin(dim=1)
    errors = rounds[0].fresh[rounds[0].fresh.isfinite()]
    assert len(errors) == len(nearest)
    assert bool((errors.sort().values >= nearest.sort().values - 1e-6).all())
    assert sum(entry.failed for entry in rounds) == sum(
        (pandas.read_parquet(path)["status"] == "failed").sum() for path in made.folder.glob("*_*/labels.parquet")
    )


@pytest.mark.slow
def test_second_start_repeats_nothing(learnt):
    made, rounds = learnt
    before = {path: path.read_bytes() for path in made.folder.rglob("records.jsonl")}
    again = made.run(2)
    assert {path: path.read_bytes() for path in made.folder.rglob("records.jsonl")} == before
    for first, second in zip(rounds, again, strict=True):
        torch.testing.assert_close(first.fresh, second.fresh, equal_nan=True, rtol=0, atol=0)


@pytest.mark.slow
def test_report_has_a_line_a_round_and_one_table_of_labels(learnt):
    made, rounds = learnt
    text = write_rounds(rounds, made, 0)
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:]] == ["0", "1", "2"]
    frame = pandas.read_parquet(made.folder / "labels.parquet")
    assert sorted(frame["round"].unique()) == [1, 2]
    found = LabelSource(made.folder / "labels.parquet").load(box(), [prop()])
    assert len(found) == (frame["status"] == "done").sum()
    assert (made.folder / "active.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"targets": []}, "targets"),
        ({"fresh": 1}, "fresh"),
        ({"per_round": 0}, "per_round"),
        ({"num_samples": 3}, "num_samples"),
    ],
)
def test_wrong_numbers(tmp_path, changes, named):
    with pytest.raises(ConfigError, match=named):
        learning(tmp_path, **changes)


@pytest.mark.slow
def test_no_rounds(tmp_path):
    with pytest.raises(ConfigError, match="rounds"):
        learning(tmp_path).run(0)


@pytest.mark.slow
def test_data_that_takes_no_labels(tmp_path):
    made = learning(tmp_path)
    training = OmegaConf.masked_copy(made.training, ["surrogate", "trainer", "seed"])
    with pytest.raises(ConfigError, match="added"):
        ActiveLearning(
            OmegaConf.merge(training, {"data": {}}), made.model, made.oracle, made.executor, tmp_path, [0.0], 9, 9, 9, 0
        )


@pytest.mark.slow
def test_model_of_other_designs(tmp_path):
    made = learning(tmp_path)
    other = tiny_network(CONF / "model" / "cinn.yaml", box(scale=2.0), [prop(floor=-1.0)]).eval()
    changed = ActiveLearning(made.training, other, made.oracle, made.executor, made.folder, [0.0], 9, 9, 9, 0)
    with pytest.raises(ConfigError, match=r"active\.run"):
        changed.run(1)
