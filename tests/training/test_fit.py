import csv
import functools
import json

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, TrainingError
from matdesinne.models.mdn import MDN
from matdesinne.network import load_network
from matdesinne.surrogates.base import Surrogate
from matdesinne.training.build import build_module, check_device
from matdesinne.training.fit import fit
from matdesinne.training.mdn import LightningMDN
from matdesinne.training.module import DesignModule
from matdesinne.training.runs import add_synthetic_rows, prepare_folder, train_surrogate, trained_surrogate
from matdesinne.transforms import CellFeatures
from matdesinne.trust import trusting

from ..toys import CONF, TINY, box, load_part, make_trainer, prop, tiny_module, toy_data, trainer_config

NAMES = ["x1", "x2", "y"]


def surrogate(seed: int = 0, **settings: object) -> DesignModule:
    return tiny_module(CONF / "surrogate" / "mlp.yaml", box(), [prop()], seed, **{"batch_size": 32, **settings})


@pytest.fixture
def table(tmp_path):
    """A CSV file with y = x1 + x2, too long for cross-validation."""
    x = box().sample(1200, torch.Generator().manual_seed(0))
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
        part.network.update({key: value for key, value in TINY.items() if key in part.network})
        parts[group] = part
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


def weights(path) -> dict[str, torch.Tensor]:
    """The state of the network in a checkpoint."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], value) for key, value in second.items())


@pytest.mark.slow
def test_fit_returns_the_best_epoch(tmp_path):
    trained = fit(surrogate(), toy_data(), make_trainer(max_epochs=3), tmp_path)
    assert same(weights(tmp_path / "checkpoints" / "best.ckpt"), trained.state_dict())


@pytest.mark.slow
def test_fit_needs_no_configuration():
    x = box().sample(200, torch.Generator().manual_seed(0))
    data = DesignDataModule((x, x.sum(dim=1, keepdim=True)), box(), [prop()])
    trainer = functools.partial(pl.Trainer, accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    trained = fit(LightningMDN(MDN(box(), [prop()], components=2, hidden=8, depth=1)), data, trainer)
    assert trained.sample(torch.zeros(3, 1)).shape == (3, 2)


@pytest.mark.slow
def test_a_trainer_of_lightning_will_do(tmp_path, close):
    data, module = toy_data(), surrogate()
    pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, datamodule=data)  # fmt: skip
    close(module.network.target_scale.mean, data.training_batch().y.mean(0))


@pytest.mark.slow
def test_fit_learns_the_scales(tmp_path, close):
    data = toy_data()
    trained = fit(surrogate(), data, make_trainer(), tmp_path)
    close(trained.target_scale.mean, data.training_batch().y.mean(0))


@pytest.mark.slow
def test_fit_is_reproducible(tmp_path):
    runs = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        runs.append(fit(surrogate(), toy_data(), make_trainer(), tmp_path / name).state_dict())
    assert same(*runs)


@pytest.mark.slow
def test_resumed_run_ends_as_the_whole_one(tmp_path, monkeypatch):
    whole_run = fit(surrogate(), toy_data(), make_trainer(max_epochs=4), tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(task):
        if task.current_epoch == 2:
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(DesignModule, "on_train_epoch_start", stop)
        fit(surrogate(), toy_data(), make_trainer(max_epochs=4), tmp_path / "parts")
    resumed = fit(surrogate(1), toy_data(), make_trainer(max_epochs=4), tmp_path / "parts", resume=True)
    assert same(resumed.state_dict(), whole_run.state_dict())


def test_resume_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        fit(surrogate(), toy_data(), make_trainer(), tmp_path, resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_accelerator():
    with pytest.raises(DeviceError, match="gpu"):
        check_device(trainer_config(accelerator="gpu"))


def test_loss_that_is_not_finite(tmp_path):
    module = surrogate()
    with torch.no_grad():
        module.network.network.weights[0].fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite"):
        fit(module, toy_data(), make_trainer(), tmp_path)


def epochs_seen(monkeypatch) -> list[int]:
    epochs: list[int] = []
    monkeypatch.setattr(DesignModule, "on_train_epoch_start", lambda task: epochs.append(task.current_epoch))
    return epochs


def test_early_stopping(tmp_path, monkeypatch):
    config = OmegaConf.load(CONF / "callbacks" / "default.yaml")
    config.early_stopping.patience = 2
    module = surrogate(optimizer=OmegaConf.create({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1e-30}))
    epochs = epochs_seen(monkeypatch)
    fit(module, toy_data(), make_trainer(max_epochs=50), tmp_path, callbacks=[instantiate(config.early_stopping)])
    assert len(epochs) <= 4


def test_epochs_come_from_the_module(tmp_path, monkeypatch):
    epochs = epochs_seen(monkeypatch)
    fit(surrogate(max_epochs=3), toy_data(), make_trainer(max_epochs=None), tmp_path)
    assert epochs == [0, 1, 2]


def csv_logger(folder):
    return pl.loggers.CSVLogger(folder, "logs")


def test_csv_log_has_both_losses(tmp_path):
    fit(surrogate(), toy_data(), make_trainer(log_every_n_steps=1), tmp_path, loggers=[csv_logger(tmp_path)])
    header = (tmp_path / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/loss", "val/loss", "val/mae", "val/rmse"} <= set(header.split(","))


def test_fit_writes_its_metrics(tmp_path):
    trained = fit(surrogate(), toy_data(), make_trainer(max_epochs=3), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics) >= {"val/loss", "val/mae", "epochs", "seconds", "parameters"}
    assert metrics["epochs"] == 3 and metrics["seconds"] > 0
    assert metrics["parameters"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_metrics_are_those_of_the_best_epoch(tmp_path):
    data = toy_data()
    trained = fit(surrogate(), data, make_trainer(max_epochs=3), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    error = trained.predict_many(data.split.validation.x)[0] - data.split.validation.y
    assert metrics["val/mae"] == pytest.approx(error.abs().mean().item(), rel=1e-4)
    assert metrics["val/rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)


def test_without_validation_rows_the_last_epoch_counts(tmp_path, monkeypatch):
    """With them a training whose loss rises ends with an earlier epoch."""
    data = toy_data(validation=0.0)
    module = surrogate(max_epochs=3)
    network = fit(module, data, make_trainer(max_epochs=None), tmp_path)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert all(torch.equal(value, last["state_dict"][f"network.{key}"]) for key, value in network.state_dict().items())
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["epochs"] == 3 and metrics["train/loss"] > 0
    assert not [name for name in metrics if name.startswith("val/")]


def test_early_stopping_needs_validation_rows(tmp_path):
    stop = pl.callbacks.EarlyStopping("val/loss")
    with pytest.raises(ConfigError, match=r"callbacks \['EarlyStopping'\].*callbacks=none"):
        fit(surrogate(), toy_data(validation=0.0), make_trainer(), tmp_path, callbacks=[stop])


def test_fit_returns_a_network_that_is_ready(tmp_path):
    trained = fit(surrogate(), toy_data(), make_trainer(), tmp_path)
    assert not trained.training and trained.device == torch.device("cpu")


def trained(config, folder) -> Surrogate:
    data = instantiate(config.data, _convert_="all")
    return trained_surrogate(OmegaConf.merge(config, {"surrogates_folder": str(folder)}), data)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "alone"])
def test_trained_surrogates_are_calibrated(table, tmp_path, kept):
    config = whole(table, tmp_path, data={"validation": 0.3})  # 360 validation rows
    data = instantiate(config.data, _convert_="all")
    made = trained_surrogate(config, data) if kept else train_surrogate(config, data, tmp_path / "run", config.surrogate, 0)
    assert (made.spread_offset > 0).all()


def test_kept_surrogate_stays_calibrated(table, tmp_path):
    config = whole(table, tmp_path, data={"validation": 0.3})
    first, second = (trained(config, tmp_path / "kept") for _ in range(2))
    assert torch.equal(first.spread_quantiles, second.spread_quantiles) and (second.spread_offset > 0).all()


@pytest.mark.slow
def test_surrogate_depends_on_its_seed_alone(table, tmp_path):
    """What was drawn from torch's generator before does not matter, and it is left where it was."""
    config = whole(table, tmp_path)
    torch.manual_seed(5)
    first = trained(config, tmp_path / "first")
    state = torch.get_rng_state()
    torch.rand(7)
    torch.set_rng_state(state)
    torch.rand(3)
    assert same(first.state_dict(), trained(config, tmp_path / "second").state_dict())
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_log_has_the_epochs_of_the_training(tmp_path):
    fit(surrogate(), toy_data(), make_trainer(max_epochs=2, log_every_n_steps=1), tmp_path, loggers=[csv_logger(tmp_path)])
    with (tmp_path / "logs" / "version_0" / "metrics.csv").open(newline="") as stream:
        assert {row["epoch"] for row in csv.DictReader(stream)} == {"0", "1"}


def test_surrogate_alone(table, tmp_path):
    config = whole(table, tmp_path)
    made = train_surrogate(config, instantiate(config.data, _convert_="all"), tmp_path / "run", config.surrogate, 0)
    again = load_network(Surrogate, tmp_path / "run", "surrogate")
    assert same(made.state_dict(), again.state_dict())


def test_synthetic_rows_need_a_surrogate(table, tmp_path):
    data = instantiate(whole(table, tmp_path).data, _convert_="all")
    with pytest.raises(ConfigError, match=r"data\.synthetic=null"):
        add_synthetic_rows(data, None, torch.device("cpu"))
    data.synthetic = None
    assert add_synthetic_rows(data, None, torch.device("cpu")) is data


@pytest.mark.slow
def test_equal_settings_train_once(table, tmp_path):
    for _ in range(2):
        trained(whole(table, tmp_path), tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.slow
def test_other_settings_train_again(table, tmp_path):
    changes = [
        {},
        {"seed": 1},
        {"surrogate": {"network": {"hidden": 17}}},
        {"surrogate": {"huber": 0.5}},
        {"data": {"validation": 0.2}},
        {"trainer": {"max_epochs": 2}},
    ]
    for number, change in enumerate(changes, start=1):
        trained(whole(table, tmp_path, **change), tmp_path / "kept")
        assert len(list((tmp_path / "kept").iterdir())) == number, change


def test_synthetic_designs_do_not_train_the_surrogate_again(table, tmp_path):
    for config in (whole(table, tmp_path), whole(table, tmp_path, data={"synthetic": {"chains": 150}})):
        trained(config, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.slow
def test_other_rows_train_again(table, tmp_path):
    config = whole(table, tmp_path)
    trained(config, tmp_path / "kept")
    table.write_text(table.read_text() + "\n0.25,0.5,0.75\n")
    trained(config, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_missing_table(table, tmp_path):
    table.unlink()
    with pytest.raises(ValueError, match=r"table\.csv"):
        trained(whole(table, tmp_path), tmp_path / "run")


def test_a_model_is_no_surrogate(table, tmp_path):
    config = whole(table, tmp_path, data={"synthetic": None})
    config.surrogate = config.model
    with pytest.raises(ConfigError, match="surrogate"):
        trained(config, tmp_path / "run")


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


MDN_YAML = CONF / "model" / "mdn.yaml"


@pytest.mark.parametrize("changes", [{"widht": 3}, {"network": {"widht": 3}}], ids=["module", "network"])
def test_unknown_setting_is_named(changes):
    with pytest.raises(ConfigError, match="widht"):
        build_module(OmegaConf.merge(OmegaConf.load(MDN_YAML), changes), toy_data())


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"max_epochs": 0},
        {"gradient_clip_val": 0.0},
        {"gradient_clip_val": float("nan")},
        {"network": {"hidden": 0}},
        {"network": {"depth": -1}},
        {"network": {"components": 1.5}},
    ],
    ids=str,
)
def test_settings_out_of_range(changes):
    with pytest.raises(ConfigError, match="Expected"):
        build_module(OmegaConf.merge(OmegaConf.load(MDN_YAML), changes), toy_data())


def no_module(network, **settings):
    return network


def test_build_makes_what_was_asked_for():
    data = toy_data()
    made = build_module(OmegaConf.load(MDN_YAML), data)
    assert isinstance(made, LightningMDN)
    assert (made.network.space, made.network.properties) == (data.space, data.properties)
    with trusting(["tests"]), pytest.raises(ConfigError, match="DesignModule"):
        build_module(OmegaConf.merge(OmegaConf.load(MDN_YAML), {"_target_": f"{__name__}.no_module"}), data)


class Elsewhere(MDN):
    """A network of a package that is not trusted."""


class Forgetful(MDN):
    """A network that does not keep an argument of its constructor."""

    def __init__(self, space, properties, extra=1, **settings):
        super().__init__(space, properties, **settings)


def test_build_refuses_a_class_that_is_not_trusted():
    config = OmegaConf.merge(OmegaConf.load(MDN_YAML), {"network": {"_target_": f"{__name__}.Elsewhere"}})
    with pytest.raises(ConfigError, match=r"Elsewhere.*add trusted=\[tests\]"):
        build_module(config, toy_data())


def test_build_refuses_a_network_that_forgets_its_settings():
    with pytest.raises(ConfigError, match="attribute of the same name"):
        LightningMDN(Forgetful(box(), [prop()]))


def test_build_draws_the_weights_once():
    torch.manual_seed(0)
    build_module(OmegaConf.load(MDN_YAML), toy_data())
    after = torch.rand(1)
    torch.manual_seed(0)
    settings = OmegaConf.to_container(OmegaConf.load(MDN_YAML).network)
    settings.pop("_target_")
    MDN(toy_data().space, toy_data().properties, **settings)
    assert torch.rand(1) == after


@pytest.mark.slow
def test_build_gives_the_prototype_to_the_surrogate():
    space = load_part("space")
    prototype = instantiate(OmegaConf.load(CONF / "prototype" / "mos2.yaml"), _convert_="all")
    made = tiny_module(CONF / "surrogate" / "mlp.yaml", space, [prop()], prototype=prototype).network
    assert made.prototype == prototype and isinstance(made.features, CellFeatures)


@pytest.mark.slow
@pytest.mark.parametrize(("own", "asked", "used"), [(0.25, None, 0.25), (0.25, 3.0, 3.0), (None, None, None)])
def test_clip_comes_from_the_module(tmp_path, monkeypatch, own, asked, used):
    seen = []
    monkeypatch.setattr(DesignModule, "on_train_start", lambda task: seen.append(task.trainer.gradient_clip_val))
    fit(surrogate(gradient_clip_val=own), toy_data(), make_trainer(max_epochs=1, gradient_clip_val=asked), tmp_path)
    assert seen == [used]


def test_device_of_a_trainer():
    assert check_device(trainer_config()) == torch.device("cpu")
