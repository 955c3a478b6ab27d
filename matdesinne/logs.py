"""Loggers of training runs."""

from __future__ import annotations

__all__ = ["closed_runs", "wandb_logger"]

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger


def wandb_logger(project: str, folder: str, group: str | None = None) -> WandbLogger:
    """A Weights & Biases logger that is offline when the machine has no key.

    Args:
        project: name of the project there.
        folder: the run's folder; offline runs are kept in ``wandb/`` in it, and ``wandb sync`` sends them later.
        group: name that the runs of a sweep share.
    """
    import wandb

    Path(folder).mkdir(parents=True, exist_ok=True)
    mode = os.environ.get("WANDB_MODE") or (None if wandb.login(prompt=False) else "offline")
    return WandbLogger(
        project=project,
        save_dir=folder,
        group=group,
        name=Path(folder).name,
        mode=mode,
        settings=wandb.Settings(console="off", silent=True),
    )


@contextmanager
def closed_runs() -> Iterator[None]:
    """Close the Weights & Biases run of this job when it ends, as failed after an error: one run a job of a sweep."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code=int(failed))
