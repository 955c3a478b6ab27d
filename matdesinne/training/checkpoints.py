"""What a training run keeps so that it can go on: whole files, written often, that stand for one moment of the training."""

from __future__ import annotations

__all__ = ["AtomicCheckpointIO", "PatientStopping", "RunCheckpoints", "SteadyTermination", "random_state", "set_random_state"]

import io
import os
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor

from matdesinne.files import atomic_path

_SECONDS = 20.0
"""Between two checkpoints within an epoch."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are either whole or not there.

    Lightning's own are written in the folder for temporary files, from where a move to another file system is a copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | os.PathLike[str], storage_options: object | None = None
    ) -> None:
        """Write beside the path, then rename."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class RunCheckpoints(ModelCheckpoint):
    """``best.ckpt`` of the lowest validation loss, and ``last.ckpt`` of every epoch and of every twenty seconds.

    Lightning writes its last checkpoint only where it writes its best one.

    Args:
        folder: of the checkpoints; a run may be moved to another one before it is resumed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val_loss", enable_version_counter=False)
        self.last = folder / "last.ckpt"
        self._saved_at = time.monotonic()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the folder as it is: what a resumed run left there is its own."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero:
            for leftover in self.last.parent.glob(".*.partial.ckpt"):  # of a process that was killed
                leftover.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Keep this moment within a long epoch, and before a batch system's SIGTERM ends the run."""
        # several processes would have to agree on the moment
        late = trainer.world_size == 1 and time.monotonic() - self._saved_at > _SECONDS
        within = batch_idx + 1 < trainer.num_training_batches and trainer.accumulate_grad_batches == 1
        if within and (late or trainer.received_sigterm):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best epoch, then this one, which knows of the best."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_last(trainer)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take up the score of the best epoch, whose file is in the folder as it is called now."""
        best = state_dict["best_k_models"]
        assert isinstance(best, dict) and self.dirpath is not None
        moved = {str(self._here(path)): score for path, score in best.items()}
        paths = {key: self._here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        super().load_state_dict({**state_dict, **paths, "dirpath": self.dirpath, "best_k_models": moved})

    def _here(self, path: object) -> str:
        return str(Path(str(self.dirpath)) / Path(str(path)).name) if path else ""

    def _save_last(self, trainer: pl.Trainer) -> None:
        self.last_model_path = str(self.last)
        trainer.save_checkpoint(self.last, weights_only=False)  # the state of the optimiser, too
        self._saved_at = time.monotonic()


class SteadyTermination(Callback):
    """Let SIGTERM end a training after a step, or after a validation and the checkpoint of its epoch.

    Lightning's own answer leaves a validation before the epoch is kept, and tells other processes by a broadcast from wherever
    the training is, which these take for a part of a gradient. Here they agree after each step.
    """

    def __init__(self) -> None:
        self._asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer the signal from here on; Lightning puts back what was before the training."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after this step, but not between the last one of an epoch and its validation."""
        if batch_idx + 1 < trainer.num_training_batches:
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after this epoch."""
        self._agree(trainer)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _agree(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer._signal_connector.received_sigterm = True


class PatientStopping(EarlyStopping):
    """Early stopping that a resumed run takes up where it was: one that had stopped does not go on.

    Args:
        patience: epochs without a better validation loss.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("val_loss", patience=patience, check_finite=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning keeps the count but not the decision."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take up the count; the patience is that of this run."""
        super().load_state_dict({**state_dict, "patience": self.patience})


def random_state() -> dict[str, Tensor]:
    """Where torch's global generators are: the noise of a training is drawn from them."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put torch's global generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
