"""Independent trainings side by side, each in a process of its own."""

from __future__ import annotations

__all__ = ["Trainings"]

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from typing import Self

import torch
from tqdm import tqdm

from matdesinne.processes import ProcessPool
from matdesinne.training import silence_advice

Task = tuple[Callable[..., object], tuple[object, ...]]


class Trainings:
    """Runs functions that write their results to disk, each in a process; leaving the context ends the processes.

    Small networks do not use several cores well; several trainings at once do.

    Args:
        workers: number of processes; with 1 a task runs in this process when it is started.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = max((os.cpu_count() or 1) // workers, 1)
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        """Start no process yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Drop the tasks that wait, and wait for those that run; after Ctrl-C kill these, too."""
        if self._pool is not None:
            self._pool.shutdown(kind is None or issubclass(kind, Exception), cancel_futures=True)

    def start(self, tasks: Sequence[Task]) -> list[Future[None]]:
        """Queue importable functions and their arguments, the first to be started first; each process gets a copy of both.

        Returns:
            What `finish` waits for: nothing with one worker, because the tasks are done.
        """
        if self.workers == 1:
            for function, arguments in tasks:
                function(*arguments)
            return []
        if self._pool is None:
            modules = sorted({function.__module__ for function, _ in tasks})
            self._pool = ProcessPool(self.workers, modules, _start_worker, (self._threads,))
        # by value: tensors in shared memory need a file descriptor each, of which a process can be sent few
        return [self._pool.submit(_run_pickled, content) for content in map(pickle.dumps, tasks)]

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Compute here with as few threads as one of the processes, so that all have a core; afterwards as before."""
        before = torch.get_num_threads()
        if self.workers > 1:
            torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def finish(self, started: Sequence[Future[None]], description: str) -> None:
        """Wait for what `start` returned; the first error is raised."""
        completed = as_completed(started)
        for done in tqdm(completed, desc=description, total=len(started), unit="training", leave=False, disable=not started):
            done.result()


def _run_pickled(content: bytes) -> None:
    """Drops what the function returns: it may be a network that cannot be sent."""
    function, arguments = pickle.loads(content)
    function(*arguments)


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    silence_advice()
