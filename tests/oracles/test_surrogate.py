import pickle

import pytest
import torch

from matdesinne.errors import CheckpointError
from matdesinne.network import save_network
from matdesinne.oracles.surrogate import SurrogateOracle

from ..toys import CONF, box, prop, rows, tiny_network


@pytest.fixture
def surrogate(tmp_path):
    made = tiny_network(CONF / "surrogate" / "mlp.yaml", box(), [prop()]).eval()
    made.fit_scales(rows(box()))
    save_network(made, tmp_path, "surrogate")
    return made


def test_labels_are_mean_and_spread(surrogate, tmp_path):
    oracle = SurrogateOracle(str(tmp_path), "surrogate", 100)
    x = rows(box(), 20).x
    found = oracle.label(x.double())
    mean, std = surrogate.predict_many(x)
    torch.testing.assert_close(torch.tensor([[row["y"], row["y_std"]] for row in found]), torch.cat([mean, std], dim=1))
    assert oracle.columns()["y_std"].unit == "eV" and oracle.space == box()


def test_travels_without_its_network(surrogate, tmp_path):
    oracle = SurrogateOracle(str(tmp_path), "surrogate", 100)
    assert len(pickle.dumps(oracle)) < 2000
    assert pickle.loads(pickle.dumps(oracle)).label(torch.zeros(1, 2).double())[0]["status"] == "done"


def test_other_weights_are_another_oracle(surrogate, tmp_path):
    first = SurrogateOracle(str(tmp_path), "surrogate", 100).settings()
    save_network(tiny_network(CONF / "surrogate" / "mlp.yaml", box(), [prop()], seed=1), tmp_path, "surrogate")
    assert SurrogateOracle(str(tmp_path), "surrogate", 100).settings() != first


def test_missing_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"surrogate\.safetensors"):
        SurrogateOracle(str(tmp_path), "surrogate", 100)
