"""One table for the jobs of a sweep."""

from __future__ import annotations

__all__ = ["SweepTable", "objective", "read_metrics"]

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from matdesinne.files import atomic_path, read_json

if TYPE_CHECKING:
    import pandas

_LOGGER = logging.getLogger(__name__)


class SweepTable(Callback):
    """Write ``sweep.csv`` as jobs of a sweep end: what each job changed, and its ``metrics.json``, the best first.

    Args:
        metric: the best job has the lowest value. Where no job has it, as in a sweep of surrogates alone, ``val/loss`` counts,
            which depends on the weights of the losses.
    """

    def __init__(self, metric: str = "val/target_mae") -> None:
        self.metric = metric

    def on_job_end(self, config: DictConfig, job_return: object, **kwargs: object) -> None:
        """Collect: where a job has failed, Hydra does not get to the end of the sweep."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self._collect(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Collect, and show the table."""
        folder = Path(config.hydra.sweep.dir)
        table = self._collect(folder)
        if len(table):
            _LOGGER.info("Wrote %s:\n%s", folder / "sweep.csv", table.to_string(index=False, float_format="%.4g"))

    def _collect(self, folder: Path) -> pandas.DataFrame:
        """One row a job; one without metrics has failed, or still runs, and is listed with what it changed."""
        import pandas

        jobs = sorted(folder.glob("*/.hydra/overrides.yaml"))
        if not jobs:
            return pandas.DataFrame()
        with FileLock(folder / ".sweep.lock"):  # jobs end at the same time
            records = []
            for overrides in jobs:
                job = overrides.parents[1]
                changes = dict(str(item).split("=", 1) for item in OmegaConf.load(overrides) if "=" in str(item))
                records.append({"job": job.name, **changes, **read_metrics(job)})
            table = pandas.DataFrame(records)
            metric = self.metric if self.metric in table else "val/loss"
            if metric in table:
                table = table.sort_values(metric)
            with atomic_path(folder / "sweep.csv") as temporary:
                table.to_csv(temporary, index=False)
        return table


def read_metrics(folder: Path) -> dict[str, float]:
    """The numbers of a run's ``metrics.json``; none where there is no such file or it is damaged."""
    metrics = read_json(folder / "metrics.json")
    return metrics if isinstance(metrics, dict) else {}


def objective(folder: Path) -> float:
    """Returns what a sweep minimises, the metric of `SweepTable` in a run's ``metrics.json``; infinity where it is missing."""
    metrics, metric = read_metrics(folder), HydraConfig.get().callbacks["sweep_table"]["metric"]
    return float(metrics.get(metric, metrics.get("val/loss", math.inf)))
