"""One table for the jobs of a sweep."""

from __future__ import annotations

__all__ = ["SweepTable"]

import logging
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from matdesinne.files import atomic_path, read_json

_LOGGER = logging.getLogger(__name__)


class SweepTable(Callback):
    """Write ``sweep.csv`` when a sweep has ended: what each job changed, and its ``metrics.json``, the best first.

    Args:
        metric: the jobs are sorted by it, rising.
    """

    def __init__(self, metric: str = "val_loss") -> None:
        self.metric = metric

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Collect; a job without metrics has failed and is listed with what it changed."""
        import pandas

        folder = Path(config.hydra.sweep.dir)
        records = []
        for overrides in sorted(folder.glob("*/.hydra/overrides.yaml")):
            job = overrides.parents[1]
            changes = dict(str(item).split("=", 1) for item in OmegaConf.load(overrides) if "=" in str(item))
            metrics = read_json(job / "metrics.json")
            records.append({"job": job.name, **changes, **(metrics if isinstance(metrics, dict) else {})})
        table = pandas.DataFrame(records)
        if self.metric in table:
            table = table.sort_values(self.metric)
        if len(table):
            with atomic_path(folder / "sweep.csv") as temporary:
                table.to_csv(temporary, index=False)
            _LOGGER.info("Wrote %s:\n%s", folder / "sweep.csv", table.to_string(index=False, float_format="%.4g"))
