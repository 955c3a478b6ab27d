"""Where calculations run: processes of this machine, behind the interface of `concurrent.futures`."""

from __future__ import annotations

__all__ = ["LocalExecutor", "WorkerDiedError"]

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import ParamSpec, TypeVar

from matdesinne.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")

_PRELOAD = [
    "hydra",
    "matdesinne.cli.config",
    "matdesinne.labelling.executors",
    "matdesinne.oracles.analytic",
    "matdesinne.oracles.gpaw",
    "gpaw",
    "gpaw.old.calculator",
]
"""What scripts and tasks import; a module that is not there does not matter."""
_SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDiedError(RuntimeError):
    """The process of a task ended without a result: a crash, or a kill from outside."""


class LocalExecutor(Executor):
    """Runs every task in a fresh process of its own with one thread, so that a crash costs no other task.

    The processes are forks of a server that has imported what the tasks need: a start takes milliseconds.

    Args:
        workers: processes at once; as many as there are cores when omitted.

    Raises:
        ConfigError: if `workers` is no positive number.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ConfigError(f"Expected workers of at least 1, got {workers!r}: correct executor.workers.")
        self.workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self.workers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        with _environment(dict.fromkeys(_SINGLE_THREADED, "1")):
            forkserver.ensure_running()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run an importable function; its process's death raises `WorkerDiedError` in the future."""
        return self._threads.submit(_in_process, self._context, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the tasks that run."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def _in_process(context: ForkServerContext, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, fn, args, kwargs), daemon=True)
    process.start()
    sender.close()
    try:
        good, result = receiver.recv()
    except EOFError:
        process.join()
        raise WorkerDiedError(_last_words(process.exitcode)) from None
    finally:
        receiver.close()
    process.join()
    if not good:
        raise result
    return result


def _work(sender: Connection, fn: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run itself, which waits for what has begun
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        outcome = (True, fn(*args, **kwargs))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
            outcome = (False, error)
        except Exception:
            outcome = (False, RuntimeError(f"{type(error).__name__}: {error}"))
    sender.send(outcome)


def _die_with_parent() -> None:
    """Nobody waits for the result of a run that was killed; its processes must not stay in the way of the next."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _last_words(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"The worker process was ended by {signal.Signals(-exitcode).name}."
    return f"The worker process ended with code {exitcode}."


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
