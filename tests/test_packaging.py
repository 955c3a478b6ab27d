import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("entry", ["train", "generate", "benchmark", "label", "explore"])
def test_installed_command_finds_its_configuration(unpacked, tmp_path, entry):
    command = [sys.executable, "-m", f"matdesinne.entry.{entry}", "--cfg", "job", "--package", "seed"]
    run = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(unpacked)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "0"


def test_wheel_carries_every_configuration(unpacked):
    inside = {path.relative_to(unpacked / "matdesinne" / "conf") for path in (unpacked / "matdesinne" / "conf").rglob("*.yaml")}
    outside = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert inside == outside


def test_installed_wheel_generates_from_an_empty_folder(unpacked, tmp_path):
    command = [sys.executable, "-m", "matdesinne.entry.generate", "target=1.0", "num_samples=50", "hydra.run.dir=out"]
    run = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(unpacked)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "candidates.parquet").is_file()
