"""Loggers of training runs."""

from __future__ import annotations

__all__ = ["closed_runs", "log_results", "make_loggers", "wandb_logger"]

import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger

_LOGGER = logging.getLogger(__name__)

_ANSWER_SECONDS, _START_SECONDS, _END_SECONDS = 5, 20, 30
"""To wait for the server: for any answer, for a run to be taken, for the rest of its log."""


def wandb_logger(project: str, folder: str, group: str | None = None) -> WandbLogger:
    """A Weights & Biases logger that stays offline, and says so, without a key or a server that takes it.

    Offline runs are kept in ``wandb/`` in the folder, and ``wandb sync`` sends them later; the runs of a sweep share a group.
    """
    import wandb

    Path(folder).mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        console="off", silent=True, init_timeout=_START_SECONDS, finish_timeout=_END_SECONDS, finish_timeout_raises=True
    )
    make = functools.partial(_Logger, project=project, save_dir=folder, group=group, name=Path(folder).name, settings=settings)
    mode = os.environ.get("WANDB_MODE") or "online"
    if mode != "online" or rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        return make(mode=mode)
    try:
        _check_access()
        logger = make(mode=mode)
        _ = logger.experiment  # here and not in the training, which it would end
    except (OSError, ValueError, wandb.errors.Error) as error:
        reason = " ".join(str(error).split())
        _LOGGER.warning("Weights & Biases is offline (%s): its log stays in %s/wandb; send it by: wandb sync", reason, folder)
        return make(mode="offline")
    return logger


class _Logger(WandbLogger):
    """Without a setting that Lightning gives and of which Weights & Biases warns that it has no effect."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._wandb_init.pop("anonymous", None)


def _check_access() -> None:
    """Raise a `ConnectionError` if there is no key, or the server does not answer."""
    import requests
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise ConnectionError("no key")
    address = wandb.setup().settings.base_url
    try:
        requests.head(address, timeout=_ANSWER_SECONDS)
    except requests.exceptions.SSLError:  # an answer; Weights & Biases has certificates of its own
        pass
    except (requests.ConnectionError, requests.Timeout) as error:
        raise ConnectionError(f"no answer from {address}, {type(error).__name__}") from error


@contextmanager
def closed_runs() -> Iterator[None]:
    """Close the Weights & Biases run of this job when it ends, as failed after an error: one run a job of a sweep."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if "wandb" in sys.modules:
            try:
                sys.modules["wandb"].finish(exit_code=int(failed))
            except Exception as error:  # of its service; the training is over
                _LOGGER.warning(
                    "Weights & Biases could not send all of the log (%s): send it by: wandb sync", type(error).__name__
                )


def make_loggers(configs: DictConfig | None) -> list[Logger]:
    """The loggers of a configuration group, by their names; none of ``null``."""
    return [instantiate(config, _convert_="all") for config in (configs or {}).values()]


def log_results(
    loggers: Sequence[Logger],
    *,
    metrics: Mapping[str, float] = {},
    images: Mapping[str, Path] = {},
    pages: Mapping[str, Path] = {},
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[object]]]] = {},
) -> None:
    """Log the results of a command: numbers to every logger; pictures, HTML pages and tables to Weights & Biases.

    All are given by their names: metrics as numbers; images and pages as files, which are left out if they are not there;
    tables as the names of the columns and the rows.
    """
    for logger in loggers:
        if metrics:
            logger.log_metrics(dict(metrics))
        if isinstance(logger, WandbLogger):
            import wandb

            for name, path in images.items():
                if path.is_file():
                    logger.log_image(name, [str(path)])
            for name, path in pages.items():
                if path.is_file():
                    logger.experiment.log({name: wandb.Html(path.read_text(encoding="utf-8"))})
            for name, (columns, rows) in tables.items():
                logger.log_table(name, columns=list(columns), data=[list(row) for row in rows])
        logger.save()
