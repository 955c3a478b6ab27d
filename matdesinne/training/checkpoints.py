"""Checkpoints from which a training goes on: whole files, written often, each of one moment of the training."""

from __future__ import annotations

__all__ = ["AtomicCheckpointIO", "BestCheckpoint", "LastCheckpoint", "read_checkpoint", "read_network"]

import io
import os
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from matdesinne.errors import CheckpointError, InterruptionError
from matdesinne.files import atomic_path
from matdesinne.network import DesignNetwork, network_from_config

_SECONDS = 20.0  # between two checkpoints within an epoch
_KEY = "matdesinne"  # of a checkpoint, for the random state and the place in the epoch


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are either whole or not there.

    Lightning writes its own in the folder for temporary files; a move from there to another file system is a copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | os.PathLike[str], storage_options: object | None = None
    ) -> None:
        """Write beside the path, then rename."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` of the lowest validation loss, also in a run's folder that was moved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val/loss", enable_version_counter=False)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Accept the files of the same run in the folder."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the score of the best epoch, whose file is in the folder where the run is now."""
        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {name: self._here(state_dict[name]) for name in names}
        models = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "dirpath": self.dirpath, "best_k_models": models})

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` after every epoch, every twenty seconds within one, and when SIGTERM asks the training to end.

    It holds the state of torch's generators and the place in the epoch, so that a resumed training ends with the weights of
    an uninterrupted one. Lightning's own answer to SIGTERM would leave a validation before the epoch is kept. Here all
    processes agree after a step, or after an epoch, that the training ends.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self._saved_at = time.monotonic()
        self._asked = False
        self._resumed: Mapping[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Clear away what a killed process had half written."""
        if trainer.is_global_zero:
            for leftover in self.path.parent.glob(".*.partial.ckpt"):
                leftover.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the moment of the training."""
        state: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state()
        if trainer.train_dataloader is not None:
            state["batches"] = trainer.train_dataloader.state_dict()
        checkpoint[_KEY] = state

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """Keep the moment until the training goes on."""
        self._resumed = checkpoint.get(_KEY, {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on at the kept moment, and answer SIGTERM from here on; Lightning puts the former answer back afterwards."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)
        # Lightning keeps the count of epochs without improvement, but not the decision that they were enough
        stopped = any(callback.wait_count >= callback.patience for callback in trainer.early_stopping_callbacks)
        trainer.should_stop = trainer.should_stop or stopped
        if "batches" in self._resumed and trainer.train_dataloader is not None:
            trainer.train_dataloader.load_state_dict(self._resumed["batches"])
        if "cpu" in self._resumed:
            torch.set_rng_state(self._resumed["cpu"].cpu())
        if "cuda" in self._resumed and torch.cuda.is_available():
            torch.cuda.set_rng_state(self._resumed["cuda"].cpu())
        self._resumed = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save within a long epoch, and end after SIGTERM; the last batch of an epoch waits for the validation."""
        if batch_idx + 1 >= trainer.num_training_batches:
            return
        asked = self._all_agree(trainer)
        # several processes would have to agree on the time
        late = trainer.world_size == 1 and time.monotonic() - self._saved_at > _SECONDS
        if (late or asked) and trainer.accumulate_grad_batches == 1:
            self._save(trainer)
        if asked:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after `BestCheckpoint`, whose score belongs to this moment, and end after SIGTERM."""
        self._save(trainer)
        if self._all_agree(trainer):
            self._end(trainer)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _all_agree(self, trainer: pl.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._asked, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # the state of the optimizer, too
        self._saved_at = time.monotonic()

    def _end(self, trainer: pl.Trainer) -> None:
        network = type(trainer.lightning_module.network).__name__
        raise InterruptionError(
            f"Expected the training of {network} to finish, got SIGTERM in epoch {trainer.current_epoch}: its state is kept in "
            f"{self.path}, resume the run."
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without pickle.

    Raises:
        CheckpointError: if the file is missing, damaged, or no checkpoint of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if archive.testzip() is not None:
                raise ValueError("a wrong checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"], content["hyper_parameters"]["network"]["name"]
    except Exception as error:  # torch.load raises what its parsers raise, for any damage
        raise CheckpointError(
            f"Expected a checkpoint of MatDesINNe at {path}, got {type(error).__name__}: the file is missing, damaged or "
            "foreign; train again or give another path."
        ) from error
    return content


def read_network(path: Path) -> DesignNetwork:
    """Read the network of a checkpoint, with its weights.

    Raises:
        CheckpointError: see `read_checkpoint`, or if the weights do not fit.
    """
    content = read_checkpoint(path)
    network = network_from_config(content["hyper_parameters"]["network"])
    try:
        network.load_state_dict({key.removeprefix("network."): value for key, value in content["state_dict"].items()})
    except Exception as error:  # any entry may be anything
        raise CheckpointError(f"Expected weights that fit in {path}, got others ({error}): train again.") from error
    return network
