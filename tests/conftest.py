"""Fixtures of all tests, marks and hypothesis profiles.

It imports torch where it needs it only: the process that hands out the tests loads this file, too.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from . import shapes
from .warm import Warm

ROOT = Path(__file__).parents[1]

shapes.install("matdesinne")

settings.register_profile("tenth", max_examples=100, deadline=None, print_blob=True)
settings.register_profile("fuzz", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("tenth")

THIRD_PARTY_WARNINGS = [
    # Lightning 2.6 asks torch's pytree in a way that torch 2.13 wants to drop
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",
    # linear_operator 0.6, below GPyTorch, when it is imported
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning",
    # ASE 3.29 leaves connections to its databases open, which Python 3.13 tells
    "ignore:unclosed database in <sqlite3.Connection:ResourceWarning",
]


SLOW_FIXTURES = {"warm", "built", "browser", "forkserver", "learnt"}
"""They start processes or train: whatever uses one is slow."""
ONCE = {"all_levels", "built", "distilled", "forkserver", "learnt", "packaged_run", "table1", "two_processes"}
"""They take long: with `--dist loadgroup` one worker runs all tests of each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--own", help="folder of model/NAME.yaml and surrogate/NAME.yaml of your own, for the contract tests")
    parser.addoption("--trusted", help="the package of their classes")


def pytest_configure(config: pytest.Config) -> None:
    if own := config.getoption("--own"):
        os.environ["MATDESINNE_OWN"] = str(Path(own).resolve())
    if trusted := config.getoption("--trusted"):
        from matdesinne.trust import trusting

        with_trust = trusting(trusted)
        with_trust.__enter__()
        config.add_cleanup(lambda: with_trust.__exit__(None, None, None))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test; xdist reads its groups right after the collection."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & SLOW_FIXTURES:
        item.add_marker("slow")
    for name in fixtures & ONCE:
        item.add_marker(pytest.mark.xdist_group(name))
    for entry in THIRD_PARTY_WARNINGS:  # marks also win over -W error on the command line
        item.add_marker(pytest.mark.filterwarnings(entry))


@pytest.fixture
def close():
    """Compare tensors to the tolerance of the first one's dtype."""
    import numpy as np
    import torch

    from .toys import TOLERANCE

    def check(actual: object, expected: object, factor: float = 1.0) -> None:
        actual = torch.as_tensor(actual)
        expected = torch.as_tensor(np.asarray(expected) if not isinstance(expected, torch.Tensor) else expected)
        tolerance = factor * TOLERANCE[actual.dtype]
        torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture
def generator():
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def untouched_seed():
    """Library code must not draw from, or set, torch's global generator."""
    import torch

    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.fixture(scope="session")
def warm():
    """Runs scripts in forks of a process that has imported what they need."""
    made = Warm()
    yield made
    made.close()


@pytest.fixture(scope="session")
def forkserver():
    """The server of all process pools has imported what their tasks need: the first pool decides that."""
    from matdesinne.processes import ProcessPool

    ProcessPool(1, ["matdesinne.oracles.analytic", "matdesinne.benchmark.parallel"]).shutdown()


@pytest.fixture(scope="session")
def prototype():
    """The atoms of monolayer MoS2."""
    from .toys import load_part

    return load_part("prototype")


@pytest.fixture(scope="session")
def published_folder() -> Path:
    """The folder of the published MoS2 set; it is never part of the repository."""
    folder = Path(os.environ.get("MATDESINNE_MOS2_VASP") or ROOT.parent / "shared" / "data" / "mos2_vasp")
    if not (folder / "data_x.csv").is_file():
        pytest.skip(f"needs the published MoS2 set: set MATDESINNE_MOS2_VASP (nothing in {folder})")
    return folder
