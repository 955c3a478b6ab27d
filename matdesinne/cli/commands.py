"""The installed commands: each runs the script of its name, as `python NAME.py` does.

A wheel has the scripts in `matdesinne/scripts`; a checkout has them beside the package, also if it is installed in place.
"""

__all__ = ["benchmark", "explore", "generate", "label", "train"]

import runpy
from pathlib import Path


def train() -> None:
    """Runs ``train.py``, the command ``matdesinne-train``."""
    _run("train")


def generate() -> None:
    """Runs ``generate.py``, the command ``matdesinne-generate``."""
    _run("generate")


def benchmark() -> None:
    """Runs ``benchmark.py``, the command ``matdesinne-benchmark``."""
    _run("benchmark")


def label() -> None:
    """Runs ``label.py``, the command ``matdesinne-label``."""
    _run("label")


def explore() -> None:
    """Runs ``explore.py``, the command ``matdesinne-explore``."""
    _run("explore")


def _run(name: str) -> None:
    # as __main__, so that processes which a launcher starts (joblib, submitit, Lightning's ddp) find the script again
    package = Path(__file__).parents[1]
    inside = package / "scripts" / f"{name}.py"
    script = inside if inside.is_file() else package.parent / f"{name}.py"
    runpy.run_path(str(script), run_name="__main__")
