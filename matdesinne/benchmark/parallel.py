"""Independent trainings side by side, each in a process of its own."""

from __future__ import annotations

__all__ = ["Trainings"]

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.reduction import ForkingPickler
from typing import Self

import torch
import torch.multiprocessing
from tqdm import tqdm

from matdesinne.training.advice import silence_advice

Task = tuple[Callable[..., object], tuple[object, ...]]


class Trainings:
    """A few processes for functions that are run for what they leave behind on disk; leaving the context ends all.

    Small networks do not use several cores well; several trainings do. Tensors among the arguments are shared, not copied.

    Args:
        workers: number of processes; with 1 a task runs here when it is started.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        """Start no process yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what runs, drop what waits."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, tasks: Sequence[Task]) -> list[Future[None]]:
        """Queue tasks, the first to be started first.

        Args:
            tasks: importable functions and their arguments.
        """
        if self.workers == 1:
            return [_done_here(function, arguments) for function, arguments in tasks]
        for task in tasks:
            ForkingPickler.dumps(
                task
            )  # a task that cannot be sent is an error here; in the pool's own thread it would be a hang
        if self._pool is None:
            context = torch.multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.workers, context, initializer=_start_worker, initargs=(_threads(self.workers),)
            )
        return [self._pool.submit(_run, function, arguments) for function, arguments in tasks]

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Compute here with as few threads as one of the processes, so that all find a core; afterwards as before."""
        before = torch.get_num_threads()
        if self.workers > 1:
            torch.set_num_threads(_threads(self.workers))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def finish(self, started: Sequence[Future[None]], description: str) -> None:
        """Wait for tasks; the first error is raised.

        Args:
            started: what `start` returned.
            description: of the progress bar.
        """
        waited = as_completed(started)
        for done in tqdm(waited, desc=description, total=len(started), unit="training", leave=False, disable=not started):
            done.result()


def _done_here(function: Callable[..., object], arguments: tuple[object, ...]) -> Future[None]:
    _run(function, arguments)
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _run(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """What it returns stays in its process: a network may not be one that can be sent."""
    function(*arguments)


def _threads(workers: int) -> int:
    return max((os.cpu_count() or 1) // workers, 1)


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    silence_advice()
