import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.exploration.transitions.transition import Levels, Transitions
from matdesinne.labelling.transitions import check_transitions
from matdesinne.oracles.base import Column, Oracle

from ..toys import Linear, box, prop


class Shifted(Oracle):
    """y = x1 + shift; no label for x2 > 0.5."""

    def __init__(self, shift: float, name: str = "y", dimension: int = 2) -> None:
        super().__init__(box(dimension))
        self.shift, self.name = shift, name

    def columns(self):
        return {self.name: Column("eV")}

    def settings(self):
        return {"shift": self.shift}

    def _label(self, x):
        if (x[:, 1] > 0.5).any():
            raise RuntimeError("not converged")
        return {self.name: (x[:, 0] + self.shift).tolist()}


class Here:
    """The part of an executor that labelling needs, in this process."""

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, wait: bool = True, cancel_futures: bool = False):
        pass


def transitions() -> Transitions:
    """Ends at y = -0.1 and 0.1, at -0.3 and 0.3, and two that cannot be labelled."""
    surrogate = Linear(box(), [prop("y", floor=0.0)], [[1.0, 0.0]]).eval()
    before = torch.tensor([[-0.1, 0.0], [0.3, 0.0], [-0.3, 0.9], [-0.5, 0.0]])
    after = before * torch.tensor([-1.0, 1.0])
    return Transitions.between(surrogate, Levels(-0.05, 0.05), before, after, ["x1"] * 4)


def check(folder, best: int = 3, **oracle):
    target = {"_target_": "tests.labelling.test_transitions.Shifted", **oracle}
    executor = {"_target_": "tests.labelling.test_transitions.Here"}
    config = OmegaConf.create({"oracle": target, "executor": executor})
    return check_transitions(transitions().take(torch.arange(best)), config, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "real"), [(0.0, [True, True]), (0.2, [False, True]), (-0.2, [False, True])])
def test_counts_signs_at_both_ends(shift, real, tmp_path):
    section = check(tmp_path, 2, shift=shift)
    assert [row[-1] for row in section.tables[0].rows] == ["yes" if one else "no" for one in real]
    assert f"{sum(real)} of 2 are real" in section.text


def test_a_failed_label_is_not_right(tmp_path):
    section = check(tmp_path, shift=0.0)
    assert [row[-1] for row in section.tables[0].rows] == ["yes", "yes", "no"]
    assert "not converged" in section.text


def test_table(tmp_path):
    check(tmp_path, 2, shift=0.05)
    table = pyarrow.parquet.read_table(tmp_path / "transitions_checked.parquet").to_pydict()
    assert table["label_before"] == pytest.approx([-0.05, 0.35]) and table["label_after"] == pytest.approx([0.15, -0.25])
    assert table["right_before"] == [True, True] and table["y_before"] == pytest.approx([-0.1, 0.3])
    assert (tmp_path / "transitions_checked.csv").is_file() and (tmp_path / "labels" / "labels.parquet").is_file()


@pytest.mark.parametrize("wrong", [{"name": "energy"}, {"dimension": 3}])
def test_rejects_another_oracle(wrong, tmp_path):
    with pytest.raises(ConfigError, match="Expected an oracle of y"):
        check(tmp_path, shift=0.0, **wrong)
