"""A training that ends anywhere goes on as if it had not, for every model and surrogate."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from matdesinne.bands import BandLabels
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.data.sources import PackagedSource
from matdesinne.data.table import DesignTable
from matdesinne.errors import CheckpointError, ConfigError, InterruptionError, TrainingError
from matdesinne.training import checkpoints
from matdesinne.training.checkpoints import BestCheckpoint
from matdesinne.training.fit import fit
from matdesinne.training.module import DesignModule
from matdesinne.training.surrogates import LightningMLP, SurrogateModule

from ..toys import CONF, TableSource, box, load_part, make_trainer, prop, rows, tiny_module, yaml_files

pytestmark = pytest.mark.slow

FILES = [*yaml_files("model"), *yaml_files("surrogate")]
EPOCHS, BATCHES, BATCH_SIZE = 3, 4, 8
files = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")


class Killed(BaseException):
    """Nothing of ours answers it, as nothing answers SIGKILL."""


@cache
def crystal(group: str):
    return load_part(group)


@cache
def packaged() -> DesignTable:
    return PackagedSource("mos2_gpaw").load(crystal("space"), [prop("band_gap")])


@cache
def needs_crystal(path) -> bool:
    try:
        tiny_module(path, box(), [prop()])
    except ConfigError:
        return True
    return False


def module(path, seed: int = 0, settings: Mapping[str, object] = MappingProxyType({})):
    at_home = needs_crystal(path)
    space, prototype = (crystal("space"), crystal("prototype")) if at_home else (box(), None)
    options = {"hidden": 8, "kpoints": 2, "batch_size": BATCH_SIZE, **settings}
    if path.stem in ("gp", "gp_bands"):
        options["optimizer"] = {**OmegaConf.load(path).optimizer, "max_iter": 2}
    return tiny_module(path, space, [prop("band_gap" if at_home else "y")], seed, prototype, **options)


def data(path) -> DesignDataModule:
    """Four batches of training rows and a few to validate on."""
    count = 5 * BATCHES * BATCH_SIZE // 4
    if needs_crystal(path):
        table = packaged()
        known = torch.stack([labels.energies.isfinite().all(dim=2).all(dim=1) for labels in table.bands])
        on_both, on_one = (rows.nonzero()[:, 0] for rows in (known.all(dim=0), known[0] & ~known[1]))
        table = table.take(torch.cat([on_both[: count // 4], on_one[: count - count // 4]]))
        return DesignDataModule(TableSource(table), crystal("space"), [prop("band_gap")], validation=0.2, test=0.0)
    batch = rows(box(), count)
    energies = torch.stack([-batch.x[:, :1].abs(), batch.y - batch.x[:, :1].abs()], dim=1).repeat(1, 1, 2)
    bands = BandLabels(energies, torch.tensor([[0.0, 0.0], [0.5, 0.0]]), "y")
    table = DesignTable(batch.x, batch.y, torch.arange(count), (bands,))
    return DesignDataModule(TableSource(table), box(), [prop()], validation=0.2, test=0.0)


def train(path, folder, seed: int = 0, resume: bool = False, **settings: object):
    torch.manual_seed(seed)
    patience = settings.pop("patience", None)
    callbacks = [] if patience is None else [EarlyStopping("val/loss", patience=patience, check_finite=False)]
    trainer = make_trainer(**{"max_epochs": EPOCHS, **settings})
    return fit(module(path, seed), data(path), trainer, folder, callbacks=callbacks, resume=resume)


def killed(path, folder, monkeypatch, step: int, error: type[BaseException] = Killed, **settings: object) -> None:
    """Train until so many steps are done."""

    def stop(task, *_):
        if task.global_step == step:
            raise error

    with monkeypatch.context() as patched, pytest.raises(BaseException) as caught:
        patched.setattr(DesignModule, "on_train_batch_start", stop)
        train(path, folder, **settings)
    assert caught.type in (error, InterruptionError), caught.value


def weights(path) -> dict[str, torch.Tensor]:
    """The state of the network in a checkpoint."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}


def last_weights(folder) -> dict[str, torch.Tensor]:
    return weights(folder / "checkpoints" / "last.ckpt")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], value) for key, value in second.items())


@files
def test_ends_as_the_uninterrupted_run(path, tmp_path, monkeypatch):
    """Killed within an epoch and, resumed, between two."""
    best = train(path, tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    killed(path, tmp_path / "parts", monkeypatch, BATCHES + 2)
    killed(path, tmp_path / "parts", monkeypatch, 2 * BATCHES, resume=True)
    resumed = train(path, tmp_path / "parts", seed=1, resume=True)
    assert same(best.state_dict(), resumed.state_dict())
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts"))


MDN, MLP = CONF / "model" / "mdn.yaml", CONF / "surrogate" / "mlp.yaml"


def test_within_an_epoch_it_goes_on_from_the_last_batch(tmp_path, monkeypatch):
    """Otherwise the test above would pass by starting again."""
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    killed(MDN, tmp_path, monkeypatch, step=6)
    seen = []
    monkeypatch.setattr(DesignModule, "on_train_batch_start", lambda task, *_: seen.append(task.global_step))
    train(MDN, tmp_path, resume=True)
    assert seen == list(range(6, EPOCHS * BATCHES))


def test_last_epoch_is_kept_where_it_is_not_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(BestCheckpoint, "check_monitor_top_k", lambda *_: False)
    with pytest.raises(TrainingError):
        train(MLP, tmp_path)
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == EPOCHS * BATCHES


def test_a_run_that_was_moved_keeps_its_best_epoch(tmp_path, monkeypatch):
    """The first epoch stays the best."""
    monkeypatch.setattr(SurrogateModule, "validation_step", rising)
    best = train(MLP, tmp_path / "whole")
    score = json.loads((tmp_path / "whole" / "metrics.json").read_text())["val/loss"]
    killed(MLP, tmp_path / "parts", monkeypatch, step=2 * BATCHES)
    shutil.move(tmp_path / "parts", tmp_path / "moved")
    resumed = train(MLP, tmp_path / "moved", resume=True)
    assert same(best.state_dict(), resumed.state_dict())
    assert json.loads((tmp_path / "moved" / "metrics.json").read_text())["val/loss"] == score


def rising(task, batch, batch_idx):
    task.log("val/loss", torch.tensor(1.0 + task.current_epoch), batch_size=16)


def flat(task, batch, batch_idx):
    task.log("val/loss", torch.tensor(1.0), batch_size=16)


@pytest.mark.parametrize("step", [6, 8])
def test_early_stopping_counts_on(tmp_path, monkeypatch, step):
    """With a patience that ends the run after the epoch before which it was killed."""
    settings = {"patience": 2, "max_epochs": 9}
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    monkeypatch.setattr(SurrogateModule, "validation_step", flat)
    train(MLP, tmp_path / "whole", **settings)
    killed(MLP, tmp_path / "parts", monkeypatch, step, **settings)
    train(MLP, tmp_path / "parts", resume=True, **settings)
    epochs = [json.loads((tmp_path / name / "metrics.json").read_text())["epochs"] for name in ("whole", "parts")]
    assert epochs == [3, 3]


def test_a_run_that_had_stopped_early_stays_so(tmp_path, monkeypatch):
    monkeypatch.setattr(SurrogateModule, "validation_step", flat)
    for resume in (False, True):
        train(MLP, tmp_path, resume=resume, patience=1, max_epochs=9)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2 * BATCHES


def test_sigterm_keeps_the_batch(tmp_path, monkeypatch):
    def ask(task, *_):
        if task.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(InterruptionError, match=r"MDN.*SIGTERM in epoch 1.*resume"):
        patched.setattr(DesignModule, "on_train_batch_start", ask)
        train(MDN, tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    train(MDN, tmp_path / "parts", resume=True)
    train(MDN, tmp_path / "whole")
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts"))


def test_sigterm_in_a_validation_keeps_the_epoch(tmp_path, monkeypatch):
    """Of two batches, in the first one."""
    made, step = module, DesignModule.validation_step

    def halved(*arguments):
        return made(*arguments, settings={"batch_size": BATCH_SIZE // 2})

    def ask(task, batch, batch_idx):
        if task.global_step == 2 * 2 * BATCHES and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, batch, batch_idx)

    monkeypatch.setattr(sys.modules[__name__], "module", halved)
    with monkeypatch.context() as patched, pytest.raises(InterruptionError, match="SIGTERM in epoch 1"):
        patched.setattr(DesignModule, "validation_step", ask)
        train(MDN, tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2 * 2 * BATCHES
    train(MDN, tmp_path / "parts", resume=True)
    train(MDN, tmp_path / "whole")
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts"))


def test_sigint_leaves_a_usable_checkpoint(tmp_path, monkeypatch):
    killed(MDN, tmp_path / "parts", monkeypatch, step=6, error=KeyboardInterrupt)
    train(MDN, tmp_path / "parts", resume=True)
    train(MDN, tmp_path / "whole")
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "parts"))


def test_an_interruption_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(InterruptionError, match=r"MDN.*SIGINT in epoch 0.*resume"):
        patched.setattr(DesignModule, "on_train_batch_start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(MDN, tmp_path)


def test_killed_while_it_wrote(tmp_path, monkeypatch):
    """The file of before is whole, and what was half written is cleared away."""
    train(MLP, tmp_path / "parts", max_epochs=EPOCHS)
    before = last_weights(tmp_path / "parts")
    save = torch.save

    def half(content, stream):
        save(content, stream)
        stream.truncate(stream.tell() // 2)
        (tmp_path / "parts" / "checkpoints" / ".last.1.partial.ckpt").write_bytes(stream.getvalue())
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoints.torch, "save", half)
        train(MLP, tmp_path / "parts")
    assert same(before, last_weights(tmp_path / "parts"))
    train(MLP, tmp_path / "parts", resume=True)
    assert sorted(path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("damage", ["truncated", "text", "foreign", "other"])
def test_resume_from_a_damaged_checkpoint(tmp_path, damage):
    train(MLP, tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    if damage == "foreign":
        torch.save({"state_dict": {}}, last)
    elif damage == "other":
        train(MDN, tmp_path / "other", max_epochs=1)
        shutil.copy(tmp_path / "other" / "checkpoints" / "last.ckpt", last)
    else:
        last.write_bytes({"truncated": content[: len(content) // 2], "text": b"weights"}[damage])
    with pytest.raises(CheckpointError, match=r"last\.ckpt|MDN"):
        train(MLP, tmp_path, resume=True)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(("stage", "kind"), [("train", "training"), ("val", "validation")])
def test_loss_that_is_not_finite_is_told(tmp_path, monkeypatch, value, stage, kind):
    loss = LightningMLP.loss

    def spoiled(self, outputs, batch):
        wrong = self.training is (stage == "train") and spoiled.steps == (6 if self.training else 8)
        spoiled.steps += self.training
        return loss(self, outputs, batch) * (float(value) if wrong else 1.0)

    spoiled.steps = 0
    monkeypatch.setattr(LightningMLP, "loss", spoiled)
    with pytest.raises(TrainingError, match=rf"{kind} loss of MLPSurrogate, got .*step \d+ .*last\.ckpt"):
        train(MLP, tmp_path)
