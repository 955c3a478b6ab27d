import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from matdesinne.errors import CheckpointError
from matdesinne.models.base import InverseModel
from matdesinne.models.mdn import MDN
from matdesinne.network import DesignNetwork, load_network, network_from_config, save_network
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.checkpoints import read_checkpoint
from matdesinne.training.mdn import LightningMDN

from .toys import CONF, box, line, prop, tiny_module, tiny_network, toy_data, trainer

MDN_YAML = CONF / "model" / "mdn.yaml"


@pytest.fixture
def module() -> MDN:
    return tiny_network(MDN_YAML, box(), [prop(floor=0.0)])


@pytest.fixture
def checkpoint(tmp_path):
    """Of a training by Lightning."""
    runner = trainer(tmp_path)
    runner.fit(tiny_module(MDN_YAML, box(), [prop(floor=0.0)]), datamodule=toy_data())
    runner.save_checkpoint(tmp_path / "module.ckpt")
    return tmp_path / "module.ckpt"


@pytest.mark.parametrize("space", [box(), line()], ids=["bounded", "unbounded"])
def test_description_rebuilds(space):
    made = tiny_network(MDN_YAML, space, [prop(floor=0.0)])
    again = network_from_config(json.loads(json.dumps(made.to_config(), allow_nan=False)))
    assert type(again) is MDN
    assert again.to_config() == made.to_config()
    assert (again.space, again.properties, again.hidden) == (made.space, made.properties, made.hidden)


def test_abstract_networks_cannot_be_made():
    for kind in (DesignNetwork, InverseModel, Surrogate):
        with pytest.raises(TypeError, match="abstract"):
            kind(box(), [prop()])


@pytest.mark.slow
def test_checkpoint_holds_plain_containers(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    json.dumps(content["hyper_parameters"], allow_nan=False)


@pytest.mark.slow
def test_lightning_loads_a_checkpoint_from_the_file_alone(checkpoint):
    made = LightningMDN.load_from_checkpoint(checkpoint)
    assert (
        type(made.network) is MDN
        and made.batch_size == torch.load(checkpoint, weights_only=True)["hyper_parameters"]["batch_size"]
    )
    state = read_checkpoint(checkpoint)["state_dict"]
    assert all(torch.equal(made.state_dict()[key], value) for key, value in state.items())


@pytest.mark.slow
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
        read_checkpoint(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["os.system", "matdesinne.errors.ConfigError", "matdesinne.models.mdn.Nothing", "matdesinne.nothing.MDN", "", "MDN"]
)
def test_description_chooses_no_foreign_code(module, name):
    with pytest.raises(CheckpointError):
        network_from_config({**module.to_config(), "name": name})


@pytest.mark.slow
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
def test_description_of_another_version(module, edit):
    config = module.to_config()
    edit(config)
    with pytest.raises(CheckpointError):
        network_from_config(config)


def test_weights_of_an_older_version_name_it(module, tmp_path):
    """What version 0.1.0 wrote had other settings."""
    save_network(module, tmp_path, "model")
    config = json.loads((tmp_path / "model.json").read_text())
    config["version"] = "0.1.0"
    config["settings"]["optimization"] = {"learning_rate": 0.01}
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"version 0\.1\.0.*train again"):
        load_network(MDN, tmp_path, "model")


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
