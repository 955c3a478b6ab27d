"""The same words, the same bytes."""

import importlib

import pytest

from .test_scripts import write_run
from .toys import script_config


def candidates(folder, *words: str) -> bytes:
    main = importlib.import_module("generate").main
    main(script_config("generate", folder, "num_samples=60", "structures=false", *words))
    return (folder / "candidates.parquet").read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run")) / "run"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["[null,9]", "0.5"])
def test_same_seed_same_candidates_bit_for_bit(run, tmp_path, target):
    words = [f"run={run}", f"target={target}", "accepted_error=9", "selection.rules=[]", "seed=7"]
    assert candidates(tmp_path / "a", *words) == candidates(tmp_path / "b", *words)


@pytest.mark.slow
def test_other_seed_other_candidates(run, tmp_path):
    words = [f"run={run}", "target=[null,9]", "accepted_error=9"]
    assert candidates(tmp_path / "a", *words, "seed=1") != candidates(tmp_path / "b", *words, "seed=2")


@pytest.mark.slow
def test_pretrained_design(tmp_path):
    """With selection and localization as they come."""
    words = ["target=1.0", "seed=3"]
    assert candidates(tmp_path / "a", *words) == candidates(tmp_path / "b", *words)
