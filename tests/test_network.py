import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.models.base import InverseModel
from matdesinne.models.cinn import CINN
from matdesinne.models.mdn import MDN
from matdesinne.network import DesignNetwork, Optimization, load_network, save_network
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.module import DesignModule

from .conftest import CONF, box, line, prop, tiny_module, toy_data, trainer

MDN_YAML, MLP_YAML = CONF / "model" / "mdn.yaml", CONF / "surrogate" / "mlp.yaml"


@pytest.fixture
def module() -> MDN:
    return tiny_module(MDN_YAML, box(), [prop(floor=0.0)])


@pytest.fixture
def checkpoint(module, tmp_path):
    runner = trainer(tmp_path)
    runner.fit(module, datamodule=toy_data())
    runner.save_checkpoint(tmp_path / "module.ckpt")
    return tmp_path / "module.ckpt"


def change(path, edit) -> None:
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


@pytest.mark.parametrize("space", [box(), line()], ids=["bounded", "unbounded"])
def test_description_rebuilds(space):
    module = tiny_module(MDN_YAML, space, [prop(floor=0.0)])
    again = DesignNetwork.build(json.loads(json.dumps(module.describe(), allow_nan=False)))
    assert type(again) is MDN
    assert again.describe() == module.describe()
    assert (again.space, again.properties, again.optimization) == (module.space, module.properties, module.optimization)


def test_checkpoint_holds_plain_containers(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    json.dumps(content["matdesinne"], allow_nan=False)
    assert "hyper_parameters" not in content


@pytest.mark.parametrize("kind", [MDN, InverseModel, DesignNetwork])
def test_checkpoint_loads_by_any_base(checkpoint, kind):
    assert type(kind.load_from_checkpoint(checkpoint)) is MDN


def test_loaded_module_is_in_evaluation_mode(checkpoint):
    assert not MDN.load_from_checkpoint(checkpoint).training


@pytest.mark.parametrize("kind", [CINN, Surrogate])
def test_checkpoint_of_another_class(checkpoint, kind):
    with pytest.raises(CheckpointError, match=f"{kind.__name__}.*MDN"):
        kind.load_from_checkpoint(checkpoint)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "foreign"])
def test_damaged_checkpoint(checkpoint, damage):
    if damage == "missing":
        checkpoint.unlink()
    elif damage == "foreign":
        torch.save({"state_dict": {}}, checkpoint)
    else:
        content = checkpoint.read_bytes()
        checkpoint.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"weights"}[damage])
    with pytest.raises(CheckpointError, match=str(checkpoint)):
        MDN.load_from_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "name", ["os.system", "matdesinne.errors.ConfigError", "matdesinne.models.mdn.Nothing", "matdesinne.nothing.MDN", "", "MDN"]
)
def test_checkpoint_chooses_no_foreign_code(checkpoint, name):
    change(checkpoint, lambda content: content["matdesinne"].update(name=name))
    with pytest.raises(CheckpointError):
        MDN.load_from_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("settings"),
        lambda d: d.pop("name"),
        lambda d: d["settings"].update(renamed=3),
        lambda d: d["settings"].pop("space"),
        lambda d: d["settings"]["space"].pop("parameters"),
        lambda d: d["settings"]["properties"][0].update(renamed=3),
        lambda d: d.update(name="matdesinne.network.DesignNetwork"),
    ],
    ids=["settings", "name", "setting", "space", "parameters", "property", "abstract"],
)
def test_checkpoint_of_another_version(checkpoint, edit):
    change(checkpoint, lambda content: edit(content["matdesinne"]))
    with pytest.raises(CheckpointError):
        DesignNetwork.load_from_checkpoint(checkpoint)


@pytest.mark.parametrize("edit", ["lacks", "extra", "shape"])
def test_checkpoint_with_tensors_that_do_not_fit(checkpoint, edit):
    def spoil(content):
        state = content["state_dict"]
        name = next(iter(state))
        if edit == "lacks":
            state.pop(name)
        elif edit == "extra":
            state["extra"] = torch.zeros(1)
        else:
            state[name] = torch.zeros(99)

    change(checkpoint, spoil)
    with pytest.raises(CheckpointError, match="fit"):
        MDN.load_from_checkpoint(checkpoint)


def test_folder_round_trip(module, tmp_path):
    save_network(module, tmp_path, "model")
    again = load_network(MDN, tmp_path, "model")
    assert again.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in module.state_dict().items())


def test_folder_holds_two_files(module, tmp_path):
    save_network(module, tmp_path, "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_folder_of_another_class(module, tmp_path):
    save_network(module, tmp_path, "model")
    with pytest.raises(CheckpointError, match=r"Surrogate.*MDN"):
        load_network(Surrogate, tmp_path, "model")


def test_folder_with_tensors_that_do_not_fit(module, tmp_path):
    save_network(module, tmp_path, "model")
    state = load_file(tmp_path / "model.safetensors")
    state.popitem()
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_network(MDN, tmp_path, "model")


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"batch_size": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"final": -0.1},
        {"final": 1.1},
        {"clip": 0.0},
        {"clip": float("nan")},
    ],
)
def test_optimization_rejects(settings):
    with pytest.raises(ConfigError, match="Expected"):
        Optimization(**settings)


def learning_rates(folder, monkeypatch, **settings) -> list[float]:
    """Of every step, and of the one that would follow."""
    module = tiny_module(MLP_YAML, box(), [prop()])
    module.optimization = Optimization(learning_rate=1.0, batch_size=10, **settings)
    seen = []
    monkeypatch.setattr(
        DesignModule, "on_train_batch_end", lambda task, *_: seen.append(task.optimizers().param_groups[0]["lr"])
    )
    trainer(folder, max_epochs=2).fit(module, datamodule=toy_data(250))
    return seen


def test_learning_rate_rises_and_falls(tmp_path, monkeypatch):
    seen = learning_rates(tmp_path, monkeypatch, warmup=0.25)
    peak = seen.index(max(seen))
    assert max(seen) == pytest.approx(1.0)
    assert peak == pytest.approx(0.25 * len(seen), abs=2)
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)
    assert seen[-1] < 0.01


@pytest.mark.parametrize("final", [0.02, 1.0])
def test_learning_rate_falls_exponentially(tmp_path, monkeypatch, final):
    seen = learning_rates(tmp_path, monkeypatch, warmup=0.0, final=final)
    assert seen[-1] == pytest.approx(final, rel=0.02)
    assert seen[len(seen) // 2] == pytest.approx(math.sqrt(final), rel=0.3)
    ratios = [after / before for before, after in itertools.pairwise(seen)]
    assert min(ratios) == pytest.approx(max(ratios))


def test_muon_moves_square_matrices_orthogonally(tmp_path):
    module = tiny_module(CONF / "model" / "cinn.yaml", box(), [prop()], depth=3)
    module.optimization = Optimization("muon", learning_rate=1e-3, warmup=0.0, batch_size=250)
    data = toy_data(250)
    module.fit_scales(data.training_batch())
    before = [parameter.clone() for parameter in module.parameters()]
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    changes = [(after - old).detach() for after, old in zip(module.parameters(), before, strict=True)]
    square = [change for change in changes if change.ndim == 2 and change.shape[0] == change.shape[1] and change.any()]
    assert square
    for change in square:
        size = len(change)
        # Newton and Schulz's iteration leaves singular values between 0.7 and 1.2 of the rate; a vanishing gradient gives less
        assert torch.linalg.matrix_norm(change, 2) <= 1.3e-3 * size**0.5
        assert change.square().mean().sqrt() > 0.5e-3
