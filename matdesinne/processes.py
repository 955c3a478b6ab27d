"""A pool of processes of this machine, behind the interface of `concurrent.futures`."""

from __future__ import annotations

__all__ = ["ProcessPool", "WorkerDiedError"]

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from matdesinne.errors import ConfigError
from matdesinne.trust import trusted_packages, trusting

P = ParamSpec("P")
T = TypeVar("T")

_SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDiedError(RuntimeError):
    """The process of a task ended without a result: it crashed, or it was killed from outside."""


class ProcessPool(Executor):
    """Runs every task in a fresh process with one thread, so that a crash costs no other task.

    The processes are forks of a server that has imported the modules of `preload`, so a start takes milliseconds. All pools
    of a program share that server, which the first one starts. The processes end when the program ends, even by SIGKILL.

    Args:
        workers: number of processes at once; ``None``: one for each core.
        preload: names of the modules that the tasks need; a module that is not installed is left out.
        initializer: an importable function that each process calls, with `initargs`, before its task.
        initargs: its arguments.

    Raises:
        ConfigError: if `workers` is no positive number.
    """

    def __init__(
        self,
        workers: int | None = None,
        preload: Sequence[str] = (),
        initializer: Callable[..., None] | None = None,
        initargs: tuple[object, ...] = (),
    ) -> None:
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ConfigError(f"Expected workers of at least 1, got {workers!r}: correct executor.workers.")
        self.workers = workers or os.cpu_count() or 1
        self._start = (initializer, initargs)
        self._running: set[BaseProcess] = set()
        self._ended = False
        self._threads = ThreadPoolExecutor(self.workers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        with _environment(dict.fromkeys(_SINGLE_THREADED, "1")):
            forkserver.ensure_running()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run an importable function; the death of its process raises `WorkerDiedError` in the future."""
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, drop those that have not started (`cancel_futures`), wait for the others or kill them."""
        self._threads.shutdown(False, cancel_futures=cancel_futures)
        if not wait:
            self._ended = True
            for process in list(self._running):
                process.kill()
        self._threads.shutdown(True)

    def _run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        receiver, sender = self._context.Pipe(duplex=False)
        with receiver:
            process = self._context.Process(
                target=_work, args=(sender, trusted_packages(), *self._start, fn, args, kwargs), daemon=True
            )
            with sender:
                process.start()
            self._running.add(process)
            if self._ended:
                process.kill()
            try:
                outcome = receiver.recv()
            except EOFError:
                outcome = None
            finally:
                process.join()
                self._running.remove(process)
        if outcome is None:
            code = process.exitcode or 0
            reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise WorkerDiedError(f"The worker process {reason}.")
        succeeded, result = outcome
        if not succeeded:
            raise result
        return result


def _work(
    sender: Connection,
    trusted: Sequence[str],
    initializer: Callable[..., None] | None,
    initargs: tuple[object, ...],
    fn: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the program itself, which decides what becomes of its tasks
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with trusting(trusted):
            if initializer is not None:
                initializer(*initargs)
            outcome = (True, fn(*args, **kwargs))
    except Exception as error:
        outcome = (False, _sendable(error))
    sender.send(outcome)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    """Ends the process when the program was killed: nothing reads its result, and the next run needs the core."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)
