"""A Python that has imported what the scripts import, and forks for each of their runs: a fresh start takes seconds.

A line of JSON says what to run (script, words, folder, environment, file for both streams); lines say in which process, and
how it ended.
"""

import atexit
import contextlib
import importlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = "matdesinne"
LIMIT = 600
"""Seconds after which a run is ended."""
TESTS = ("COV_", "HYDRA", "PYTEST", "PYTHON", "WANDB_")
"""Variables that the tests are started with."""
USED = [
    "cli.arguments",
    "cli.config",
    "training.sweeps",
    "exports",
    "labelling.tasks",
    "exploration.transitions.section",
    "benchmark.suites",
]


def environment(root: Path = ROOT, **variables: str) -> dict[str, str]:
    """That of a user who has the sources of a folder, and some variables of his own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(TESTS)}
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "NETRC": "none"}
    return {**others, **fixed, **(variables or {"WANDB_MODE": "offline"})}


class Warm:
    """Runs scripts one after another, each as in a process of its own."""

    def __init__(self) -> None:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=environment(), **streams)
        self.running = 0

    def run(self, script: Path | str, words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """How a script, or a module by its name, ended in a folder, and what it said on both streams."""
        with tempfile.TemporaryDirectory() as place:
            output = Path(place) / "output"
            self.start(script, words, folder, environment, output)
            return self.wait(), output.read_text(encoding="utf-8")

    def start(
        self, script: Path | str, words: list[str], folder: Path, environment: dict[str, str], output: Path = Path(os.devnull)
    ) -> int:
        """The process of a run, which `wait` waits for; the next start ends one that a failed test has left."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.running, signal.SIGKILL)
            self.wait()
        job = {"script": str(script), "folder": str(folder), "output": str(output)}
        print(json.dumps({**job, "words": words, "environment": environment}), file=self.process.stdin, flush=True)
        self.running = int(self.process.stdout.readline())
        return self.running

    def wait(self) -> int:
        """The status with which the started run ended."""
        self.running = 0
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def run(job: dict) -> int:
    """Run a script as `python SCRIPT WORDS` does, or a module as `python -m MODULE WORDS`, in this process."""
    stream = os.open(job["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(stream, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = [job["script"], *job["words"]]
    sys.path[:1] = [str(Path(job["script"]).parent), *job["environment"]["PYTHONPATH"].split(os.pathsep)]
    try:
        run_it = runpy.run_path if job["script"].endswith(".py") else runpy.run_module
        run_it(job["script"], run_name="__main__")
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


LATE = ["ase.io", "bokeh.embed", "bokeh.models", "jinja2", "pandas", "pyarrow.csv", "pyarrow.parquet", "wandb"]
"""What the package imports only where it needs it."""


def prepare() -> None:
    """Import what runs use, find Hydra's plugins and matplotlib's fonts."""
    for name in [*(f"{OURS}.{name}" for name in USED), *LATE]:
        importlib.import_module(name)
    importlib.import_module("hydra.core.plugins").Plugins.instance()
    figure = importlib.import_module("matplotlib.figure").Figure()
    figure.add_subplot(title="a", xlabel="$b$").plot([0, 1])
    figure.savefig(io.BytesIO())


def main() -> None:
    prepare()
    # every run imports the package itself: it may be another copy
    for name in [name for name in sys.modules if name.split(".")[0] == OURS]:
        del sys.modules[name]
    sys.path.remove(os.environ["PYTHONPATH"])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(LIMIT)
            status = run(json.loads(line))
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
