"""Calculations on the nodes of a cluster by Parsl, behind the interface of `concurrent.futures`."""

from __future__ import annotations

__all__ = ["ParslExecutor"]

import logging
import sysconfig
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from matdesinne.errors import ConfigError

if TYPE_CHECKING:
    from parsl.providers.base import ExecutionProvider

P = ParamSpec("P")
T = TypeVar("T")


class ParslExecutor(Executor):
    """Runs tasks in pilot jobs: a scheduler starts the jobs, and their workers take one task after another.

    When a worker dies, only its task is lost; Parsl starts another worker.

    References:
        Babuji et al., Parsl: Pervasive Parallel Programming in Python, HPDC '19, doi 10.1145/3307681.3325400.

    Args:
        provider: starts the jobs: Parsl's ``LocalProvider``, ``SlurmProvider`` and the like.
        workers: number of workers on each node, with one task at a time each; ``None``: one for each core.
        address: address at which the nodes reach this machine; ``None``: Parsl determines it.
        run_dir: folder of Parsl's own logs.

    Raises:
        ConfigError: if Parsl is not installed.
    """

    def __init__(self, provider: ExecutionProvider, workers: int | None, address: str | None, run_dir: str) -> None:
        try:
            from parsl import Config, DataFlowKernel
            from parsl.concurrent import ParslPoolExecutor
            from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD, HighThroughputExecutor
        except ImportError as error:
            raise ConfigError(f"Expected Parsl, got {error}: pip install 'matdesinne[cluster]'.") from error

        logging.getLogger("parsl").setLevel(logging.ERROR)  # its debug messages would fill the console
        scripts = sysconfig.get_path("scripts")  # found even if the environment is not activated
        pilots = HighThroughputExecutor(
            label="labels",
            provider=provider,
            max_workers_per_node=workers,
            cores_per_worker=1,
            address=address,
            launch_cmd=f"{scripts}/{DEFAULT_LAUNCH_CMD}",
            interchange_launch_cmd=[f"{scripts}/interchange.py"],
            heartbeat_period=5,  # seconds after which a dead worker is noticed; Parsl's own 30 cost a short calculation more
        )
        self._kernel = DataFlowKernel(Config(executors=[pilots], run_dir=run_dir, initialize_logging=False))
        self._pool = ParslPoolExecutor(dfk=self._kernel)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run an importable function on a node."""
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the jobs, after the tasks have finished unless they are cancelled."""
        if self._kernel.cleanup_called:
            return
        if wait and not cancel_futures:
            self._kernel.wait_for_current_tasks()
        self._kernel.cleanup()
