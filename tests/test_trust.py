"""Models and surrogates of a package of the user: nothing of it is imported unless the command trusts it."""

import json
import sys
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from matdesinne.errors import CheckpointError, ConfigError
from matdesinne.exploration.designs import data_settings
from matdesinne.models.base import InverseModel
from matdesinne.network import load_network, save_network
from matdesinne.processes import ProcessPool
from matdesinne.training.build import build_module
from matdesinne.trust import is_trusted, trusted_packages, trusting

from .toys import CONF, OWN, QUICK, ROOT, box, prop, rows, tiny_network, toy_data, write_table
from .warm import environment

CODE = """
from pathlib import Path

from matdesinne.models.mdn import MDN
from matdesinne.surrogates.mlp import MLPSurrogate
from matdesinne.training.mdn import LightningMDN
from matdesinne.training.surrogates import LightningMLP

Path("imported").touch()


class OwnModel(MDN):
    label = "own"


class OwnModule(LightningMDN):
    pass


class OwnSurrogate(MLPSurrogate):
    pass


class OwnSurrogateModule(LightningMLP):
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a model and a surrogate, and their YAML files, in the folder where the test runs."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "parts.py").write_text(CODE)
    for group, name, network, module in (
        ("model", "mdn", "OwnModel", "OwnModule"),
        ("surrogate", "mlp", "OwnSurrogate", "OwnSurrogateModule"),
    ):
        config = OmegaConf.load(CONF / group / f"{name}.yaml")
        config._target_, config.network._target_ = f"my_package.parts.{module}", f"my_package.parts.{network}"
        (tmp_path / "my" / group).mkdir(parents=True)
        OmegaConf.save(config, tmp_path / "my" / group / "own.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    assert find_spec("my_package").origin == str(tmp_path / "my_package" / "__init__.py")
    yield tmp_path
    forget()


def forget() -> None:
    """Forget the package, as if it had never been imported: each test has its own, in another folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]
    invalidate_caches()


def own_model(package: Path) -> InverseModel:
    network = tiny_network(package / "my" / "model" / "own.yaml", box(), [prop()])
    network.fit_scales(rows(box()))
    return network


def test_class_of_another_package_is_not_imported(package):
    config = OmegaConf.load(package / "my" / "model" / "own.yaml")
    with pytest.raises(ConfigError, match=r"my_package\.parts\.OwnModule.*trusted=\[my_package\]"):
        build_module(config, toy_data())
    config._target_ = OmegaConf.load(CONF / "model" / "mdn.yaml")._target_
    with pytest.raises(ConfigError, match=r"my_package\.parts\.OwnModel.*trusted=\[my_package\]"):
        build_module(config, toy_data())
    assert not (package / "imported").exists()


def test_saved_model_needs_trust_again(package):
    with trusting(["my_package"]):
        save_network(own_model(package), package / "run", "model")
        assert type(load_network(InverseModel, package / "run", "model")).__name__ == "OwnModel"
    (package / "imported").unlink()
    del sys.modules["my_package.parts"]
    with pytest.raises(CheckpointError, match=r"my_package\.parts\.OwnModel.*trusted=\[my_package\]") as caught:
        load_network(InverseModel, package / "run", "model")
    assert "train again" not in str(caught.value)
    assert not (package / "imported").exists()


def test_network_cannot_be_saved_without_trust(package):
    with trusting(["my_package"]):
        network = own_model(package)
    with pytest.raises(ConfigError, match="trusted"):
        save_network(network, package / "run", "model")


@pytest.mark.parametrize("name", ["matdesinne_other.x.Y", "my_package.x.Y", "xmatdesinne.x", "", "ümatdesinne.x.Y"])
def test_names_of_other_packages(name):
    assert not is_trusted(name)


def test_trust_ends_with_its_block(package):
    with pytest.raises(RuntimeError), trusting("my_package"):
        assert is_trusted("my_package.parts.OwnModel") and not is_trusted("my_package_2.x.Y")
        with trusting(["json"]):
            assert trusted_packages() == ["json", "my_package"]
        raise RuntimeError
    assert trusted_packages() == []


@pytest.mark.parametrize("names", [["no_such_package"], ["__main__"], ["my_package.parts"], [3], [""], "not a name"])
def test_wrong_names(package, names):
    with pytest.raises(ConfigError, match="in trusted"), trusting(names):
        pass
    assert not (package / "imported").exists()


def test_data_of_a_run(package):
    OmegaConf.save({"trusted": ["my_package"], "data": {"_target_": "my_package.parts.OwnModel"}}, package / "config.yaml")
    with pytest.raises(CheckpointError, match=r"trusted=\[my_package\]"):
        data_settings(str(package))
    assert not (package / "imported").exists()
    with trusting(["my_package"]):
        assert data_settings(str(package)) is not None


@pytest.mark.slow
def test_other_processes_trust_the_same_packages(package, forkserver):
    with ProcessPool(1) as pool:
        with trusting(["my_package"]):
            assert pool.submit(trusted_packages).result() == ["my_package"]
        assert pool.submit(trusted_packages).result() == []


@pytest.mark.slow
def test_from_training_to_candidates(package, warm):
    """The commands, with a model and a surrogate of the package."""

    def run(name: str, *words: str) -> tuple[int, str]:
        variables = environment(ROOT, WANDB_MODE="offline")
        return warm.run(ROOT / name, list(words), package, {**variables, "PYTHONPATH": f"{ROOT}:{package}"})

    write_table(package)
    train = ["--config-dir=my", "model=own", "surrogate=own", *OWN, *QUICK, "model.network.hidden=8", "folder=run"]
    status, said = run("train.py", *train)
    assert status != 0 and "trusted=[my_package]" in said and "Traceback" not in said
    assert not (package / "imported").exists()
    status, said = run("train.py", *train, "trusted=[my_package]")
    assert status == 0, said
    assert json.loads((package / "run" / "model.json").read_text())["name"] == "my_package.parts.OwnModel"
    (package / "imported").unlink()

    generate = ["run=run", "target=[-1,1]", "num_samples=50", "selection.rules.1.tolerance=9", "accepted_error=9", "folder=out"]
    status, said = run("generate.py", *generate)
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert status != 0 and len(errors) == 1 and "trusted=[my_package]" in errors[0] and "Traceback" not in said
    assert not (package / "imported").exists()
    status, said = run("generate.py", *generate, "trusted=[my_package]")
    assert status == 0, said
    assert (package / "out" / "candidates.parquet").is_file()
