"""Wall times of sampling, selection and localization, beside the paper's algorithm and the time that the arithmetic needs."""

from __future__ import annotations

__all__ = ["Floor", "PaperTime", "Speed", "SpeedRow", "exponent"]

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from matdesinne.localization import Localizer, MeanGradientDescent, Newton
from matdesinne.pipeline import DesignRun, InverseDesign

_WARM_UP = 1000  # candidates of the untimed run that fills caches
_COUNTED = 10_000  # operations are counted for at most this many candidates, and scaled in proportion to larger sizes
_PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Size of the square matrices whose product gives the rate of a device."""


@dataclass(frozen=True)
class Floor:
    """The rate of a large float32 matrix product; it gives a lower bound for the time of arithmetic."""

    device: str  # "cpu" or "cuda"
    threads: int  # of the CPU
    rate: float  # floating-point operations per second, median over the repeats

    @classmethod
    def measure(cls, device: str, repeats: int) -> Floor:
        """Measure the rate by multiplying large matrices, after a warm-up."""
        edge = _PRODUCT[device]
        left, right = torch.randn(edge, edge, device=device), torch.randn(edge, edge, device=device)
        seconds = [_seconds(lambda: left @ right, device) for _ in range(repeats + 1)][1:]
        return cls(device, torch.get_num_threads(), 2 * edge**3 / statistics.median(seconds))


@dataclass(frozen=True)
class SpeedRow:
    """One model, localizer and number of candidates on one device; times are medians in seconds of wall time."""

    model: str
    localizer: str
    device: str  # "cpu" or "cuda"
    size: int  # designs that were sampled
    repeats: int  # runs of which the times are medians
    sample: float
    select: float  # prediction and selection
    localize: float
    kept: int  # candidates at the end
    error: float  # mean distance to the target, in the property's unit
    operations: float  # floating-point operations in matrix products, of all three stages
    floor: float  # time of these operations at the rate of a large matrix product

    @property
    def total(self) -> float:
        """Time of all three stages."""
        return self.sample + self.select + self.localize


@dataclass(frozen=True)
class PaperTime:
    """Wall time of the published localization, gradient descent on the mean squared error of the selected candidates."""

    model: str
    device: str
    size: int  # designs that were sampled
    rows: int  # localized candidates
    timed_steps: int
    steps: int  # of the algorithm
    seconds: float  # time of `steps` steps, in proportion if fewer were timed


@dataclass(frozen=True)
class Speed:
    """Times trained designs."""

    designs: Mapping[str, InverseDesign]  # by the name of their generative model
    target: float
    repeats: int  # largest number of runs of which the median is taken
    seconds: float  # after this time no further run of the same size starts
    seed: int  # of every run

    def rows(self, localizers: Mapping[str, Localizer], sizes: Sequence[int], floor: Floor) -> list[SpeedRow]:
        """Time every model with every localizer at every size, on the device of the floor."""
        rows = []
        for model, design in self.designs.items():
            design.to(floor.device).refinement.localization = Newton()
            self._run(design, _WARM_UP)
            for name, localizer in localizers.items():
                design.refinement.localization = localizer
                rows += [self._row(model, design, name, size, floor) for size in sizes]
        return rows

    def paper(self, device: str, size: int, timed_steps: int, steps: int = 2000) -> list[PaperTime]:
        """Time the published localization, or some of its steps, through the same surrogates."""
        times = []
        for model, design in self.designs.items():
            design.to(device).refinement.localization = None
            selected = self._run(design, size).candidates
            surrogate, timed = design.surrogate, min(timed_steps, steps)
            MeanGradientDescent(steps=1).localize(selected, surrogate)  # fills caches
            prediction = _seconds(partial(surrogate.predict_many, selected.designs), device)
            spent = _seconds(partial(MeanGradientDescent(steps=timed).localize, selected, surrogate), device)
            seconds = max(spent - prediction, 0.0) * steps / timed
            times.append(PaperTime(model, device, size, len(selected), timed, steps, seconds))
        return times

    def _row(self, model: str, design: InverseDesign, localizer: str, size: int, floor: Floor) -> SpeedRow:
        times: list[list[float]] = []
        start = time.perf_counter()
        while len(times) < self.repeats and (not times or time.perf_counter() - start < self.seconds):
            run = self._run(design, size)
            times.append([run.seconds[stage] for stage in ("sampled", "selected", "localized")])
        sample, select, localize = map(statistics.median, zip(*times, strict=True))
        counted = min(size, _COUNTED)
        with _Operations() as counter:
            self._run(design, counted)
        operations = counter.total * size / counted
        return SpeedRow(
            model=model,
            localizer=localizer,
            device=floor.device,
            size=size,
            repeats=len(times),
            sample=sample,
            select=select,
            localize=localize,
            kept=len(run.candidates),
            error=run.candidates.error.mean().item(),
            operations=operations,
            floor=operations / floor.rate,
        )

    def _run(self, design: InverseDesign, size: int) -> DesignRun:
        return design.run(self.target, size, torch.Generator().manual_seed(self.seed))


class _Operations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products, including those of backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Returns the slope of log time against log size by least squares; ``None`` for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(value) for value in seconds]).slope


def _seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
