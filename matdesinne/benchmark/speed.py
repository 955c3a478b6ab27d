"""How long sampling, selecting and localizing take, against the paper's algorithm and against the arithmetic they need."""

from __future__ import annotations

__all__ = ["Floor", "PaperTime", "Speed", "SpeedRow", "exponent"]

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from matdesinne.localization import Localizer, MeanGradientDescent, Newton
from matdesinne.pipeline import DesignRun, InverseDesign

_WARM_UP = 1000
"""Candidates of the run that fills caches before anything is timed."""
_COUNTED = 10_000
"""Arithmetic is counted over this many candidates at most, and taken in proportion beyond."""
_PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Edge of the square matrices whose product gives the rate of a device."""


@dataclass(frozen=True)
class Floor:
    """The rate of a large float32 matrix product, the time below which arithmetic cannot be done.

    Args:
        device: where it was measured.
        threads: of the CPU.
        rate: floating-point operations a second, median over the repeats.
    """

    device: str
    threads: int
    rate: float

    @classmethod
    def measure(cls, device: str, repeats: int) -> Floor:
        """Multiply large matrices, after a warm-up."""
        edge = _PRODUCT[device]
        left, right = torch.randn(edge, edge, device=device), torch.randn(edge, edge, device=device)
        seconds = [_seconds(lambda: left @ right, device) for _ in range(repeats + 1)][1:]
        return cls(device, torch.get_num_threads(), 2 * edge**3 / statistics.median(seconds))


@dataclass(frozen=True)
class SpeedRow:
    """One model, localizer and number of candidates on one device; times are medians in seconds of wall time.

    Args:
        model: name of the generative model.
        localizer: name of the localizer.
        device: ``"cpu"`` or ``"cuda"``.
        size: designs that were sampled.
        repeats: runs of which the times are medians.
        sample: seconds.
        select: seconds of prediction and down-selection.
        localize: seconds.
        kept: candidates at the end.
        error: mean distance to the target, in the property's unit.
        operations: floating-point operations in matrix products, of all three stages.
        floor: seconds that these take at the rate of a large matrix product.
    """

    model: str
    localizer: str
    device: str
    size: int
    repeats: int
    sample: float
    select: float
    localize: float
    kept: int
    error: float
    operations: float
    floor: float

    @property
    def total(self) -> float:
        """Seconds of all three stages."""
        return self.sample + self.select + self.localize


@dataclass(frozen=True)
class PaperTime:
    """The published localization over the candidates that the selection left: gradient descent on their mean squared error.

    Args:
        model: name of the generative model.
        device: where.
        size: designs that were sampled.
        rows: candidates that were moved.
        timed_steps: steps that were timed.
        steps: steps of the algorithm.
        seconds: for `steps` steps, in proportion where fewer were timed.
    """

    model: str
    device: str
    size: int
    rows: int
    timed_steps: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Times designs that are trained already.

    Args:
        designs: by the name of the generative model.
        target: value of the property.
        repeats: largest number of runs of which the median is taken.
        seconds: no more runs of one size are begun after this many.
        seed: of every run.
    """

    designs: Mapping[str, InverseDesign]
    target: float
    repeats: int
    seconds: float
    seed: int

    def rows(self, localizers: Mapping[str, Localizer], sizes: Sequence[int], floor: Floor) -> list[SpeedRow]:
        """Time every model with every localizer at every size, on the device of the floor."""
        found = []
        for name, design in self.designs.items():
            design.to(floor.device).refinement.localization = Newton()
            self._run(design, _WARM_UP)
            found += [
                self._row(name, design, label, localizer, size, floor)
                for label, localizer in localizers.items()
                for size in sizes
            ]
        return found

    def paper(self, device: str, size: int, timed_steps: int, steps: int = 2000) -> list[PaperTime]:
        """Time the published localization, or some of its steps, through the same surrogates."""
        return [self._paper(name, design.to(device), device, size, timed_steps, steps) for name, design in self.designs.items()]

    def _row(self, name: str, design: InverseDesign, label: str, localizer: Localizer, size: int, floor: Floor) -> SpeedRow:
        design.refinement.localization = localizer
        parts: list[list[float]] = []
        start = time.perf_counter()
        while len(parts) < self.repeats and (not parts or time.perf_counter() - start < self.seconds):
            run = self._run(design, size)
            parts.append([run.seconds[stage] for stage in ("sampled", "selected", "localized")])
        sample, select, localize = map(statistics.median, zip(*parts, strict=True))
        counted = min(size, _COUNTED)
        with _Operations() as counter:
            self._run(design, counted)
        operations = counter.total * size / counted
        error = run.candidates.error.mean().item()
        return SpeedRow(
            name,
            label,
            floor.device,
            size,
            len(parts),
            sample,
            select,
            localize,
            len(run.candidates),
            error,
            operations,
            operations / floor.rate,
        )

    def _run(self, design: InverseDesign, size: int) -> DesignRun:
        return design.run(self.target, size, torch.Generator().manual_seed(self.seed))

    def _paper(self, name: str, design: InverseDesign, device: str, size: int, timed_steps: int, steps: int) -> PaperTime:
        design.refinement.localization = None
        start = self._run(design, size).candidates
        timed = min(timed_steps, steps)
        MeanGradientDescent(steps=1).localize(start, design.surrogate)
        once = _seconds(lambda: design.surrogate.predict_many(start.designs), device)
        spent = _seconds(lambda: MeanGradientDescent(steps=timed).localize(start, design.surrogate), device)
        return PaperTime(name, device, size, len(start), timed, steps, max(spent - once, 0.0) * steps / timed)


class _Operations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products, also those in a backward pass."""

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
    """Slope of log time against log size by least squares; none of fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(value) for value in seconds]).slope


def _seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
