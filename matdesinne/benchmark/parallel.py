"""Independent trainings side by side, each in a process of its own."""

from __future__ import annotations

__all__ = ["side_by_side"]

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.reduction import ForkingPickler

import torch
import torch.multiprocessing
from tqdm import tqdm

from matdesinne.config import silence_advice

Task = tuple[Callable[..., object], tuple[object, ...]]


def side_by_side(tasks: Sequence[Task], workers: int, description: str) -> None:
    """Run functions for what they leave behind on disk; the first error ends all.

    Small networks do not use several cores well; several trainings do. Tensors among the arguments are shared, not copied.

    Args:
        tasks: importable functions and their arguments, the longest first.
        workers: number of processes; 1 runs the tasks here, one after the other.
        description: of the progress bar.
    """
    if workers == 1 or len(tasks) < 2:
        for function, arguments in tasks:
            function(*arguments)
        return
    for task in tasks:
        ForkingPickler.dumps(task)  # a task that cannot be sent is an error here; in the pool's own thread it would be a hang
    threads = max((os.cpu_count() or 1) // workers, 1)
    context = torch.multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(threads,))
    try:
        running = [pool.submit(_run, function, arguments) for function, arguments in tasks]
        for done in tqdm(as_completed(running), desc=description, total=len(running), unit="training", leave=False):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """What it returns stays in its process: a network may not be one that can be sent."""
    function(*arguments)


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    silence_advice()
