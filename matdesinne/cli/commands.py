"""The installed commands: each runs the script of its name, as `python NAME.py` does.

A wheel has the scripts in `matdesinne/scripts`; a checkout has them beside the package, also if it is installed in place.
"""

__all__ = ["benchmark", "design", "explore", "generate", "label", "train"]

import runpy
from functools import partial
from pathlib import Path


def _run(name: str) -> None:
    # as __main__, so that processes which a launcher starts (joblib, submitit, Lightning's ddp) find the script again
    package = Path(__file__).parents[1]
    inside = package / "scripts" / f"{name}.py"
    script = inside if inside.is_file() else package.parent / f"{name}.py"
    runpy.run_path(str(script), run_name="__main__")


train = partial(_run, "train")
generate = partial(_run, "generate")
benchmark = partial(_run, "benchmark")
label = partial(_run, "label")
explore = partial(_run, "explore")
design = partial(_run, "design")
