import csv
import json
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.errors import CheckpointError, ConfigError, DeviceError, TrainingError
from matdesinne.features import CellFeatures
from matdesinne.models.base import InverseModel
from matdesinne.models.mdn import MDN
from matdesinne.network import DesignNetwork
from matdesinne.pipeline import InverseDesign
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.fit import build, device_of, fit
from matdesinne.training.module import DesignModule
from matdesinne.training.runs import cached_surrogate, prepare_folder, train_design

from ..conftest import CONF, TINY, box, prop, tiny_module, toy_data, trainer_config

NAMES = ["x1", "x2", "y"]


def surrogate(seed: int = 0):
    module = tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()], seed)
    object.__setattr__(module.optimization, "batch_size", 32)
    return module


@pytest.fixture
def table(tmp_path):
    """A CSV file with y = x1 + x2."""
    x = box().sample(200, torch.Generator().manual_seed(0))
    lines = [",".join(NAMES), *(f"{a},{b},{a + b}" for a, b in x.tolist())]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


def whole(table, folder, **changes: object):
    """What train.yaml composes to, small, for a CSV file."""
    data = OmegaConf.load(CONF / "data" / "csv.yaml")
    del data["defaults"]
    parameter = {"_target_": "matdesinne.space.Parameter", "unit": "m", "lower": -1.0, "upper": 1.0}
    data = OmegaConf.merge(
        data,
        {
            "source": {"path": str(table)},
            "space": {"parameters": [{**parameter, "name": name} for name in NAMES[:2]]},
            "properties": [{"_target_": "matdesinne.targets.Property", "name": "y", "unit": "eV"}],
            "synthetic": {"uniform": 2000, "chains": 100, "steps": 1},
        },
    )
    parts = {}
    for group, name in (("model", "mdn"), ("surrogate", "mlp")):
        part = OmegaConf.load(CONF / group / f"{name}.yaml")
        parts[group] = {**part, **{key: value for key, value in TINY.items() if key in part}}
    base = {
        **parts,
        "data": data,
        "trainer": trainer_config(max_epochs=1),
        "logger": None,
        "property": None,
        "seed": 0,
        "resume": None,
        "surrogates_folder": str(folder / "surrogates"),
        "folder": str(folder),
    }
    return OmegaConf.merge(base, changes)


def test_fit_returns_the_best_epoch(tmp_path):
    trained = fit(surrogate(), toy_data(), trainer_config(max_epochs=3), tmp_path, None)
    best = DesignNetwork.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert all(torch.equal(best.state_dict()[key], value) for key, value in trained.state_dict().items())


def test_fit_learns_the_scales(tmp_path, close):
    data = toy_data()
    trained = fit(surrogate(), data, trainer_config(), tmp_path, None)
    close(trained.target_scale.mean, data.training_batch().y.mean(0))


def test_fit_is_reproducible(tmp_path):
    runs = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        runs.append(fit(surrogate(), toy_data(), trainer_config(), tmp_path / name, None).state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_resumed_run_ends_as_the_whole_one(tmp_path, monkeypatch):
    whole_run = fit(surrogate(), toy_data(), trainer_config(max_epochs=4), tmp_path / "whole", None)

    class Stop(Exception):
        pass

    module = surrogate()

    def stop(task):
        if task.current_epoch == 2:
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(DesignModule, "on_train_epoch_start", stop)
        fit(module, toy_data(), trainer_config(max_epochs=4), tmp_path / "parts", None)
    resumed = fit(surrogate(1), toy_data(), trainer_config(max_epochs=4), tmp_path / "parts", None, resume=True)
    assert all(torch.equal(resumed.state_dict()[key], value) for key, value in whole_run.state_dict().items())


def test_resume_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        fit(surrogate(), toy_data(), trainer_config(), tmp_path, None, resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_accelerator():
    with pytest.raises(DeviceError, match="gpu"):
        device_of(trainer_config(accelerator="gpu"))


def test_loss_that_is_not_finite(tmp_path):
    module = surrogate()
    with torch.no_grad():
        module.network.weights[0].fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite"):
        fit(module, toy_data(), trainer_config(), tmp_path, None)


def test_early_stopping(tmp_path, monkeypatch):
    module = surrogate()
    object.__setattr__(module.optimization, "learning_rate", 1e-30)
    epochs = []
    monkeypatch.setattr(DesignModule, "on_train_epoch_start", lambda task: epochs.append(task.current_epoch))
    fit(module, toy_data(), trainer_config(max_epochs=50, patience=2), tmp_path, None)
    assert len(epochs) <= 4


def test_epochs_come_from_the_module(tmp_path, monkeypatch):
    module = surrogate()
    object.__setattr__(module.optimization, "epochs", 3)
    epochs = []
    monkeypatch.setattr(DesignModule, "on_train_epoch_start", lambda task: epochs.append(task.current_epoch))
    fit(module, toy_data(), trainer_config(max_epochs=None), tmp_path, None)
    assert epochs == [0, 1, 2]


def test_csv_log_has_both_losses(tmp_path):
    logger = {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path), "name": "logs"}}
    fit(surrogate(), toy_data(), trainer_config(log_every_n_steps=1), tmp_path, OmegaConf.create(logger))
    header = (tmp_path / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/loss", "val/loss", "val/mae"} <= set(header.split(","))


def test_fit_writes_its_metrics(tmp_path):
    trained = fit(surrogate(), toy_data(), trainer_config(max_epochs=3), tmp_path, None)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics) >= {"val/loss", "val/mae", "epochs", "seconds", "parameters"}
    assert metrics["epochs"] == 3 and metrics["seconds"] > 0
    assert metrics["parameters"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_metrics_are_those_of_the_best_epoch(tmp_path):
    data = toy_data()
    trained = fit(surrogate(), data, trainer_config(max_epochs=3), tmp_path, None)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    validation = data.split.validation
    assert metrics["val/mae"] == pytest.approx(
        (trained.predict_many(validation.x)[0] - validation.y).abs().mean().item(), rel=1e-4
    )


def test_fit_returns_a_module_that_is_ready(tmp_path):
    trained = fit(surrogate(), toy_data(), trainer_config(), tmp_path, None)
    assert not trained.training and trained.device == torch.device("cpu")


@pytest.mark.parametrize("whole_design", [True, False], ids=["design", "alone"])
def test_trained_surrogates_are_calibrated(table, tmp_path, whole_design):
    # 60 validation rows
    changes = {"data": {"validation": 0.3}, **({} if whole_design else {"model": None})}
    made = train_design(whole(table, tmp_path, **changes), tmp_path / "run")
    assert (getattr(made, "surrogate", made).spread_offset > 0).all()


def test_kept_surrogate_stays_calibrated(table, tmp_path):
    config = whole(table, tmp_path, data={"validation": 0.3})
    first, second = (trained_surrogate(config, tmp_path / "kept") for _ in range(2))
    assert torch.equal(first.spread_quantiles, second.spread_quantiles) and (second.spread_offset > 0).all()


def test_log_has_the_epochs_of_the_training(tmp_path):
    logger = {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path), "name": "logs"}}
    fit(surrogate(), toy_data(), trainer_config(max_epochs=2, log_every_n_steps=1), tmp_path, OmegaConf.create(logger))
    with (tmp_path / "logs" / "version_0" / "metrics.csv").open(newline="") as stream:
        assert {row["epoch"] for row in csv.DictReader(stream)} == {"0", "1"}


def test_design_can_be_loaded(table, tmp_path):
    made = train_design(whole(table, tmp_path), tmp_path / "run")
    again = InverseDesign.load(tmp_path / "run")
    y = torch.zeros(10, 1)
    first, second = (d.model.sample(y, torch.Generator().manual_seed(0)) for d in (made, again))
    assert torch.equal(first, second)


def test_split_is_written(table, tmp_path):
    train_design(whole(table, tmp_path), tmp_path / "run")
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(split["train"] + split["validation"] + split["test"]) == list(range(200))
    assert split["duplicates_removed"] == 0


def test_surrogate_alone(table, tmp_path):
    trained = train_design(whole(table, tmp_path, model=None), tmp_path / "run")
    assert isinstance(trained, Surrogate)
    assert (tmp_path / "run" / "surrogate.safetensors").is_file()


def trained_surrogate(config, folder) -> Surrogate:
    return cached_surrogate(config, instantiate(config.data, _convert_="all"), config.seed, folder)


def test_equal_settings_train_once(table, tmp_path):
    for _ in range(2):
        trained_surrogate(whole(table, tmp_path), tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"surrogate": {"hidden": 17}}, {"data": {"validation": 0.2}}, {"trainer": {"max_epochs": 2}}],
    ids=["seed", "surrogate", "data", "epochs"],
)
def test_other_settings_train_again(table, tmp_path, changes):
    for config in (whole(table, tmp_path), whole(table, tmp_path, **changes)):
        trained_surrogate(config, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_labels_of_the_generative_model_do_not_train_again(table, tmp_path):
    for config in (whole(table, tmp_path), whole(table, tmp_path, data={"synthetic": {"chains": 150}})):
        trained_surrogate(config, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_other_rows_train_again(table, tmp_path):
    config = whole(table, tmp_path)
    trained_surrogate(config, tmp_path / "kept")
    table.write_text(table.read_text() + "\n0.25,0.5,0.75\n")
    trained_surrogate(config, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_missing_table(table, tmp_path):
    table.unlink()
    with pytest.raises(ValueError, match=r"table\.csv"):
        train_design(whole(table, tmp_path), tmp_path / "run")


def test_folder_keeps_the_configuration(table, tmp_path):
    config = whole(table, tmp_path)
    assert prepare_folder(config, tmp_path / "run", []) == config
    kept = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert kept == OmegaConf.create(OmegaConf.to_container(config, resolve=True))


def test_resume_takes_up_the_kept_configuration(table, tmp_path):
    prepare_folder(whole(table, tmp_path, seed=7), tmp_path / "run", [])
    again = whole(table, tmp_path, resume=str(tmp_path / "run"))
    settings = prepare_folder(again, tmp_path / "run", [f"resume={tmp_path}/run", "trainer.max_epochs=9"])
    assert (settings.seed, settings.trainer.max_epochs) == (7, 9)


def test_resume_of_nothing(table, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        prepare_folder(whole(table, tmp_path, resume="run"), tmp_path / "run", [])


def test_unknown_setting_is_named(table, tmp_path):
    from hydra.errors import InstantiationException

    with pytest.raises((ConfigError, InstantiationException, TypeError), match="widht"):
        train_design(whole(table, tmp_path, model={"widht": 3}), tmp_path / "run")


def test_build_makes_what_was_asked_for():
    data = toy_data()
    made = build(InverseModel, OmegaConf.load(CONF / "model" / "mdn.yaml"), data)
    assert (made.space, made.properties) == (data.space, data.properties)
    with pytest.raises(ConfigError, match="InverseModel"):
        build(InverseModel, OmegaConf.load(CONF / "surrogate" / "mlp.yaml"), data)


class Elsewhere(MDN):
    """A model of a package that no file of weights may name."""


def test_build_refuses_a_class_whose_weights_could_not_be_read():
    config = OmegaConf.merge(OmegaConf.load(CONF / "model" / "mdn.yaml"), {"_target_": f"{__name__}.Elsewhere"})
    with pytest.raises(ConfigError, match=r"Elsewhere.*package matdesinne"):
        build(InverseModel, config, toy_data())


def test_build_refuses_a_model_that_forgets_its_settings(monkeypatch):
    monkeypatch.setattr(MDN, "save_hyperparameters", lambda self, **settings: None)
    with pytest.raises(ConfigError, match="save_hyperparameters"):
        build(InverseModel, OmegaConf.load(CONF / "model" / "mdn.yaml"), toy_data())


def test_build_draws_the_weights_once():
    torch.manual_seed(0)
    build(InverseModel, OmegaConf.load(CONF / "model" / "mdn.yaml"), toy_data())
    after = torch.rand(1)
    torch.manual_seed(0)
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "mdn.yaml"))
    settings.pop("_target_")
    MDN(toy_data().space, toy_data().properties, **settings)
    assert torch.rand(1) == after


def test_build_gives_the_prototype_to_the_surrogate():
    space = instantiate(OmegaConf.load(CONF / "space" / "mos2.yaml"), _convert_="all")
    prototype = instantiate(OmegaConf.load(CONF / "prototype" / "mos2.yaml"), _convert_="all")
    data = SimpleNamespace(space=space, properties=(prop(),), prototype=prototype)
    made = build(Surrogate, OmegaConf.load(CONF / "surrogate" / "mlp.yaml"), data)
    assert made.prototype == prototype and isinstance(made.features, CellFeatures)


@pytest.mark.parametrize(("asked", "used"), [(None, 0.25), (3.0, 3.0)])
def test_clip_comes_from_the_module(tmp_path, monkeypatch, asked, used):
    module = surrogate()
    object.__setattr__(module.optimization, "clip", 0.25)
    seen = []
    monkeypatch.setattr(DesignModule, "on_train_start", lambda task: seen.append(task.trainer.gradient_clip_val))
    fit(module, toy_data(), trainer_config(max_epochs=1, gradient_clip_val=asked), tmp_path, None)
    assert seen == [used]


def test_device_of_a_trainer():
    assert device_of(trainer_config()) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_is_checked_before_any_work(table, tmp_path):
    with pytest.raises(DeviceError, match="gpu"):
        train_design(whole(table, tmp_path, trainer={"accelerator": "gpu"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
