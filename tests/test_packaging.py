"""The package as a stranger gets it: a wheel that was built from the sdist, its commands in an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .toys import QUICK, ROOT

FOLDERS = ["conf", "docs", "matdesinne", "tests"]
SCRIPTS = ["train", "generate", "benchmark", "label", "explore", "design"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of both archives."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """An environment with the wheel alone; what it needs is found in this one.

    Installing that, too, takes minutes.
    """
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    [wheel] = built.glob("*.whl")
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    [site] = place.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return place


def command(installed: Path, folder: Path, name: str, *words: str) -> str:
    """Run one command of the environment in a folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run = subprocess.run(
        [str(installed / "bin" / name), *words],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture(scope="module")
def trained(installed, tmp_path_factory) -> Path:
    """A run in a sweep, whose launcher sends the script's task to a process that did not start as the command."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder = tmp_path_factory.mktemp("empty")
    sweep = ["-m", "hydra/launcher=cores", "hydra.sweep.dir=runs"]
    command(installed, folder, "matdesinne-train", *sweep, *QUICK, "model=mdn", "model.network.hidden=8")
    return folder / "runs" / "0"


def files_below(folder: Path, *names: str) -> set[Path]:
    kept = (path for name in names for path in (folder / name).rglob("*") if "__pycache__" not in path.parts)
    return {path.relative_to(folder) for path in kept if path.is_file()}


def test_sdist_carries_what_its_tests_need(built, tmp_path):
    [sdist] = built.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    [unpacked] = tmp_path.iterdir()
    assert files_below(unpacked, *FOLDERS) == files_below(ROOT, *FOLDERS)
    assert {f"{name}.py" for name in SCRIPTS} <= {path.name for path in unpacked.iterdir()}


def test_wheel_carries_every_file(installed):
    """The package with its data, the configurations, the scripts."""
    [inside] = installed.glob("lib/python*/site-packages/matdesinne")
    scripts = {Path("scripts") / f"{name}.py" for name in SCRIPTS}
    expected = (
        {path.relative_to("matdesinne") for path in files_below(ROOT, "matdesinne")} | files_below(ROOT, "conf") | scripts
    )
    assert {path.relative_to(inside) for path in inside.rglob("*") if path.is_file() and path.suffix != ".pyc"} == expected


def test_wheel_is_typed(installed, tmp_path):
    """What uses the package is checked against its annotations."""
    (tmp_path / "uses.py").write_text("from matdesinne.files import read_json\n\nreveal_type(read_json)\nread_json(3)\n")
    checker = [sys.executable, "-m", "mypy", "--python-executable", str(installed / "bin" / "python"), "uses.py"]
    said = subprocess.run(checker, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert 'Revealed type is "def (path: str | pathlib.Path) -> object"' in said.replace("builtins.", ""), said
    assert "[arg-type]" in said and "Found 1 error in 1 file" in said, said


def test_installed_command_has_the_weights(installed, tmp_path):
    """Those in the wheel; a pool of processes labels."""
    words = [
        "oracle=surrogate",
        "points=sobol",
        "sobol.count=4",
        "executor.workers=1",
        "executor.preload=[matdesinne.cli.config]",
    ]
    command(installed, tmp_path, "matdesinne-label", *words, "folder=out")
    assert (tmp_path / "out" / "labels.parquet").is_file()


def test_installed_command_trains(trained):
    assert json.loads((trained / "metrics.json").read_text())["epochs"] == 1


def test_installed_command_generates(installed, trained, tmp_path):
    command(installed, tmp_path, "matdesinne-generate", f"run={trained}", "target=[null,9]", "num_samples=50", "folder=out")
    assert {"summary.json", "report.html", "candidates.extxyz"} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("name", ["benchmark", "explore"])
def test_installed_command_finds_its_configuration(installed, tmp_path, name):
    """Both take long."""
    assert command(installed, tmp_path, f"matdesinne-{name}", "--cfg", "job", "--package", "seed").split()[-1] == "0"


def test_oldest_versions_are_those_that_are_allowed():
    """`make oldest` tests them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][name] for name in ("cluster", "explore", "sweep"))
    needed = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    allowed = {canonicalize_name(one.name): one.specifier for one in needed}
    lines = [line for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")]
    oldest = {canonicalize_name(one.name): one.specifier for one in map(Requirement, lines)}
    assert oldest.keys() == allowed.keys()
    versions = {name: [Version(one.version) for one in (*allowed[name], *oldest[name])] for name in allowed}
    assert {name for name, (lowest, tried) in versions.items() if lowest != tried} == set()
