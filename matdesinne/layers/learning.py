"""Labels of strained layers in batches, until a surrogate is as accurate as asked."""

from __future__ import annotations

__all__ = ["Learning", "Result"]

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import ConfigError, LabellingError, MatDesINNeError
from matdesinne.labelling.points import Points
from matdesinne.labelling.run import LabelRun, label_points
from matdesinne.layers.report import Batch, write_curve
from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.reporting.accuracy import Accuracy, measure_accuracy
from matdesinne.surrogates.base import Surrogate
from matdesinne.surrogates.gp_bands import BandGPSurrogate
from matdesinne.targets import Property
from matdesinne.training.runs import trained_surrogate

_LOGGER = logging.getLogger(__name__)
_RESPONSE = 12
"""Relaxed designs from which on relaxations start where the atoms are predicted."""
_FEWEST = 3
"""Labelled designs that a surrogate needs at least."""


class _Trained(NamedTuple):
    settings: DictConfig
    data: DesignDataModule
    surrogate: BandGPSurrogate


@dataclass(frozen=True)
class Result:
    """What was learned.

    Args:
        oracle: its relaxations start where all labels predict the atoms.
        settings: of the training of `surrogate`, with the rows `data`.
        accuracy: errors of the surrogate before it on the last batch.
        batches: all of them.
        asked: the property whose error ended the labelling.
    """

    oracle: GPAWOracle
    settings: DictConfig
    data: DesignDataModule
    surrogate: Surrogate
    accuracy: Sequence[Accuracy]
    batches: Sequence[Batch]
    asked: Property


@dataclass(frozen=True)
class Learning:
    """Labels points batch by batch and trains the surrogate after each batch; what the folder has is not computed again.

    Args:
        settings: of ``train.py`` with ``data=layer``, whose rows, space, properties and prototype are filled in.
        oracle: computes the labels.
        points: designs in the order of labelling; `index` counts them from 0.
        executor: returns a new executor, which runs the calculations.
        folder: of the labels, the surrogates, and ``learning_curve.csv``, ``.png`` and ``.pdf``.
        properties: what the surrogate learns.
        asked: the property whose error ends the labelling.
        batch: number of labels in a batch.
        accuracy: largest error to end with, in the unit of that property.
    """

    settings: DictConfig
    oracle: GPAWOracle
    points: Points
    executor: Callable[[], Executor]
    folder: Path
    properties: Sequence[Property]
    asked: Property
    batch: int
    accuracy: float

    def __post_init__(self) -> None:
        """Check that there are two batches, since the first one has no error."""
        if len(self.points) < 2 * self.batch:
            raise ConfigError(
                f"Expected labels of at least two batches of {self.batch}, got {len(self.points)}: raise labels=, lower batch=."
            )

    def run(self) -> Result:
        """Label until two errors are small enough, or all points are labelled.

        One is that of the designs of a batch, predicted by the surrogate before it; the other that of all designs, each
        predicted from all others.

        Raises:
            LabellingError: if almost all calculations of the first batch failed.
        """
        batches: list[Batch] = []
        accuracy: Sequence[Accuracy] = []
        before: _Trained | None = None
        for count in (*range(self.batch, len(self.points), self.batch), len(self.points)):
            run = self._label(count, count - self.batch)
            now = self._train(count, run)
            if before is not None:
                known = before.data.split.train
                accuracy = measure_accuracy(before.surrogate, known, now.data.split.train.without(known)) or accuracy
            batches.append(self._batch(now, run, accuracy))
            write_curve(batches, self.asked, self.accuracy, self.folder)
            if batches[-1].within(self.accuracy):
                break
            before = now
        return Result(self._predicting(now.data), now.settings, now.data, now.surrogate, accuracy, batches, self.asked)

    def _label(self, count: int, before: int) -> LabelRun:
        """Label the first points, the later ones from predicted atoms where enough are relaxed before them."""
        for end in sorted({min(count, _RESPONSE), count}):
            oracle = self.oracle
            if end > _RESPONSE:
                oracle = self._predicting(self._data(self._settings_of(max(_RESPONSE, before))))
            points = Points(self.points.x[:end], self.points.index[:end])
            run = label_points(oracle, points, self.executor(), self.folder / "labels")
        return run

    def _predicting(self, data: DesignDataModule) -> GPAWOracle:
        """The oracle that starts relaxations at the atoms that these rows predict, where they are enough."""
        if self.oracle.relaxation is None or len(data.split.train) < _RESPONSE or data.prototype is None:
            return self.oracle
        return self.oracle.starting_from(data.prototype)

    def _train(self, count: int, run: LabelRun) -> _Trained:
        """Train on the first labels, and on rows of similar materials if they have the same parameters and k-points."""
        settings = self._settings_of(count)
        if count - len(run.failed) < _FEWEST:
            raise LabellingError(f"Expected labels, got {len(run.failed)} failures of {count}: {run.failed[0]['reason']}")
        data = self._data(settings)
        try:
            data.relative_rows()
        except MatDesINNeError as error:
            _LOGGER.info(f"No similar materials: {error}")
            with open_dict(settings):
                settings.data.pop("relatives", None)
            data = self._data(settings)
        surrogate = trained_surrogate(settings, data)
        if not isinstance(surrogate, BandGPSurrogate):
            raise ConfigError(f"Expected surrogate=gp_bands for a layer, got {type(surrogate).__name__}: change train=.")
        return _Trained(settings, data, surrogate)

    def _left_out_error(self, trained: _Trained) -> float:
        """Mean absolute error of the property that is asked for, each design predicted from all others."""
        column = list(self.properties).index(self.asked)
        mean, label = (values[:, column].clamp_min(self.asked.lowest) for values in trained.surrogate.leave_one_out()[::2])
        return (mean - label).abs().nanmean().item()

    def _batch(self, now: _Trained, run: LabelRun, accuracy: Sequence[Accuracy]) -> Batch:
        new = next((entry.mae for entry in accuracy if entry.name == self.asked.name), None)
        seconds = math.fsum(float(str(row["seconds"])) for row in run.rows)
        batch = Batch(len(run.rows), len(run.failed), new, self._left_out_error(now), seconds / 60)
        most = (len(self.points) - batch.labels) * batch.minutes / batch.labels
        _LOGGER.info(f"{batch.sentence(self.asked)} At most {most:.0f} min of calculations remain.")
        return batch

    def _settings_of(self, count: int) -> DictConfig:
        """Settings of train.py for the first labels."""
        prototype = {"_target_": "matdesinne.structures.Prototype", **self.oracle.prototype.to_dict()}
        changes = {
            "source": {"path": str(self.folder / "labels" / "labels.parquet"), "below": count},
            "space": {"_target_": "matdesinne.space.DesignSpace.from_dict", "plain": self.oracle.space.to_dict()},
            "properties": [{"_target_": "matdesinne.targets.Property", **asdict(prop)} for prop in self.properties],
            "prototype": prototype,
        }
        merged = OmegaConf.merge(self.settings, {"data": changes})
        assert isinstance(merged, DictConfig)
        return merged

    @staticmethod
    def _data(settings: DictConfig) -> DesignDataModule:
        return instantiate(settings.data, _convert_="all")
