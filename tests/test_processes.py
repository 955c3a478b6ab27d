import os
import signal
import subprocess
import sys
import time
from concurrent.futures import as_completed
from pathlib import Path

import pytest

from matdesinne.errors import DatasetError
from matdesinne.processes import ProcessPool, WorkerDiedError

ROOT = Path(__file__).parents[1]  # the processes import this file: keep it light


def add(left: int, right: int) -> int:
    return left + right


def fail() -> None:
    raise DatasetError("Expected better, got this: mend it.")


class Odd(Exception):
    """Cannot be sent between processes."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(left + right)


def fail_oddly() -> None:
    raise Odd("strange", "ness")


def die(how: int) -> None:
    os.kill(os.getpid(), how)


def leave() -> None:
    os._exit(3)


def variables() -> list[str | None]:
    return [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]


pytestmark = pytest.mark.usefixtures("forkserver")


@pytest.fixture(scope="module")
def executor(forkserver):
    with ProcessPool(2) as executor:
        yield executor


@pytest.mark.slow
def test_results(executor):
    futures = [executor.submit(add, n, right=1) for n in range(3)]
    assert sorted(future.result() for future in as_completed(futures)) == [1, 2, 3]


@pytest.mark.slow
def test_every_task_has_its_process(executor):
    processes = [executor.submit(os.getpid).result() for _ in range(3)]
    assert len({*processes, os.getpid()}) == 4


@pytest.mark.slow
def test_one_thread(executor):
    assert executor.submit(variables).result() == ["1", "1"]


@pytest.mark.slow
def test_exception_comes_back(executor):
    with pytest.raises(DatasetError, match="mend it"):
        executor.submit(fail).result()


@pytest.mark.slow
def test_exception_that_cannot_be_sent(executor):
    with pytest.raises(RuntimeError, match="Odd: strangeness"):
        executor.submit(fail_oddly).result()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_death_costs_one_task(executor, how):
    others = [executor.submit(add, n, 0) for n in range(3)]
    with pytest.raises(WorkerDiedError, match=how.name):
        executor.submit(die, how).result()
    assert [future.result() for future in others] == [0, 1, 2]
    assert executor.submit(add, 1, 2).result() == 3


@pytest.mark.slow
def test_exit_code_is_told(executor):
    with pytest.raises(WorkerDiedError, match="code 3"):
        executor.submit(leave).result()


def test_cancel_drops_what_has_not_begun():
    executor = ProcessPool(1)
    futures = [executor.submit(time.sleep, 0.05) for _ in range(40)]
    executor.shutdown(cancel_futures=True)
    assert futures[-1].cancelled()


def test_shutdown_without_waiting_kills_what_runs():
    pool = ProcessPool(1)
    futures = [pool.submit(time.sleep, 600) for _ in range(2)]
    while not futures[0].running():
        time.sleep(0.01)
    start = time.monotonic()
    pool.shutdown(wait=False, cancel_futures=True)
    assert time.monotonic() - start < 60 and futures[1].cancelled()
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        futures[0].result()


def set_mark(value: str) -> None:
    os.environ["MARK"] = value


@pytest.mark.slow
def test_initializer_is_called_in_every_process():
    with ProcessPool(1, initializer=set_mark, initargs=("set",)) as pool:
        assert [pool.submit(os.getenv, "MARK").result() for _ in range(2)] == ["set", "set"]
    assert "MARK" not in os.environ


ORPHANS = """
import os, sys, time
from matdesinne.processes import ProcessPool
executor = ProcessPool(2)
for _ in range(2):
    executor.submit(time.sleep, 600)
while len(children := open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()) < 1:
    time.sleep(0.05)
def grandchildren():
    return [pid for child in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
            for pid in open(f"/proc/{child}/task/{child}/children").read().split()]
while len(grandchildren()) < 2:
    time.sleep(0.05)
print(*grandchildren(), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
def test_processes_end_with_a_killed_run():
    run = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    processes = [int(pid) for pid in run.stdout.readline().split()]
    run.kill()
    run.communicate()
    assert len(processes) == 2
    for pid in processes:
        while "\nState:\tZ" not in status(pid):
            time.sleep(0.05)


def status(pid: int) -> str:
    """Of a process, a dead one as of one that is waited for."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"
