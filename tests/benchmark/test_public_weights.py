"""The published weights: the reader on a mirror of the repository, and the numbers where the arrays are there."""

import http.server
import os
import pickle
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.benchmark.public_weights import PublicWeights, checksum, load_public, read_tensors
from matdesinne.data.datamodule import DesignDataModule
from matdesinne.errors import CheckpointError
from matdesinne.network import DesignNetwork
from matdesinne.targets import Property
from matdesinne.training.build import build_module

from ..toys import CONF, ROOT, load_part, script_config
from .published_mirror import FILES, card_arrays, random_arrays, write_mirror

NETWORKS = {"mdn": "model/paper/mdn", "cvae": "model/paper/cvae", "inn": "model/paper/inn", "cinn": "model/paper/cinn_affine"}
NETWORKS |= {"forward": "surrogate/paper/inn"}
DECLARED = OmegaConf.load(CONF / "benchmark.yaml").published.weights


def sums(arrays) -> dict[str, str]:
    return {name: checksum({k: v for k, v in part.items() if not k.startswith("tmp_var_")}) for name, part in arrays.items()}


@pytest.fixture(scope="module")
def arrays():
    return random_arrays()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory, arrays) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"), arrays)


def weights(arrays, root: Path | None, url: str = "http://localhost:9") -> PublicWeights:
    return PublicWeights(url, FILES, sums(arrays), None if root is None else str(root))


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_read(name, mirror, arrays):
    found = read_tensors(mirror / FILES[name])
    assert found.keys() == arrays[name].keys()
    assert all(torch.equal(found[key], arrays[name][key]) for key in found)


def test_reading_leaves_torchs_safe_classes_as_they_were(mirror):
    before = set(torch.serialization.get_safe_globals())
    read_tensors(mirror / FILES["mdn"])
    assert set(torch.serialization.get_safe_globals()) == before


class Attack:
    """Runs a command when an ordinary reader of pickles loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("plain", [False, True], ids=["zip", "pickle"])
def test_a_file_cannot_run_code(tmp_path, plain):
    path, mark = tmp_path / "weights.pkl", tmp_path / "mark"
    if plain:
        path.write_bytes(pickle.dumps({"weight": Attack(mark)}))
    else:
        torch.save({"weight": Attack(mark)}, path)
    with pytest.raises(CheckpointError, match="Expected a file of weights"):
        read_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"text", {"weight": "text"}, {}, [torch.zeros(1)]], ids=str)
def test_damaged_or_foreign_file(tmp_path, content):
    path = tmp_path / "weights.pkl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="Expected a file of weights"):
        read_tensors(path)


def test_other_weights_are_refused(mirror, arrays):
    other = {**arrays, "cinn": {**arrays["cinn"], "module_list.1.s1.0.bias": torch.zeros(256)}}
    with pytest.raises(CheckpointError, match=r"cINN/MoS2_cinn\.pkl, got .*changed"):
        weights(other, mirror).tensors("cinn")


def test_a_folder_without_the_file(tmp_path, arrays):
    with pytest.raises(CheckpointError, match=r"MoS2_mdn\.pkl in the folder"):
        weights(arrays, tmp_path).tensors("mdn")


def test_the_variable_names_a_folder(mirror, arrays, monkeypatch):
    monkeypatch.setenv("MATDESINNE_PUBLISHED_WEIGHTS", str(mirror))
    assert set(weights(arrays, None).tensors("mdn")) == set(arrays["mdn"])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("MATDESINNE_PUBLISHED_WEIGHTS", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    return tmp_path / "matdesinne" / "published_weights"


@pytest.mark.slow
def test_files_are_downloaded_once(mirror, arrays, cache):
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mirror))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = weights(arrays, None, f"http://127.0.0.1:{server.server_port}/")
        assert set(remote.tensors("cvae")) == set(arrays["cvae"])
        assert set(remote.tensors("cvae")) == set(arrays["cvae"])
        server.shutdown()
    assert asked == ["/cVAE/MoS2_cvae.pt"]
    assert [path.name for path in cache.iterdir()] == ["cVAE_MoS2_cvae.pt"]


def test_no_network(arrays, cache):
    with pytest.raises(CheckpointError, match=r"fetch http://localhost:9/MDN/MoS2_mdn\.pkl.*published\.weights\.root"):
        weights(arrays, None).tensors("mdn")


def networks(source: PublicWeights) -> dict[str, DesignNetwork]:
    """All published networks, made from the files of conf."""
    data = SimpleNamespace(space=load_part("space", "mos2_vasp"), properties=(Property("band_gap", "eV"),), prototype=None)
    made = {name: build_module(OmegaConf.load(CONF / f"{file}.yaml"), data).network for name, file in NETWORKS.items()}
    return {name: load_public(name, network, source) for name, network in made.items()}


@pytest.mark.slow
def test_networks_hold_the_weights(mirror, arrays, close):
    made = networks(weights(arrays, mirror))
    numbers = {name: sum(p.numel() for p in network.parameters() if p.requires_grad) for name, network in made.items()}
    sizes = {name: sum(v.numel() for k, v in part.items() if not k.startswith("tmp")) for name, part in arrays.items()}
    assert numbers == sizes
    close(made["cvae"].encoder[2].weight[3:], arrays["cvae"]["encoder.var.weight"])
    close(made["forward"].network.module_list[2].subnet2[0].weight, arrays["forward"]["module_list.3.s2.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model/mdn", "model/paper/cvae", "model/cvae"])
def test_other_settings_are_refused(mirror, arrays, file):
    data = SimpleNamespace(space=load_part("space", "mos2_vasp"), properties=(Property("band_gap", "eV"),), prototype=None)
    network = build_module(OmegaConf.load(CONF / f"{file}.yaml"), data).network
    with pytest.raises(CheckpointError, match="use the published settings"):
        load_public("cvae" if file == "model/cvae" else "mdn", network, weights(arrays, mirror))


@pytest.fixture(scope="module")
def published() -> dict[str, DesignNetwork]:
    folder = Path(os.environ.get("MATDESINNE_PUBLISHED_ARRAYS") or ROOT.parent / "shared" / "data" / "published_weights")
    if not (folder / "cinn.npz").is_file():
        pytest.skip(f"needs the published weights as arrays: set MATDESINNE_PUBLISHED_ARRAYS (nothing in {folder})")
    arrays = card_arrays(folder)
    assert sums(arrays) == dict(DECLARED.sha256)

    class FromArrays(PublicWeights):
        def tensors(self, name: str) -> dict[str, torch.Tensor]:
            return {key: value for key, value in arrays[name].items() if not key.startswith("tmp_var_")}

    return networks(FromArrays("", {}, {}))


@pytest.mark.slow
def test_forward_inn_has_the_published_error(published, published_folder, monkeypatch):
    """0.0362 eV over all rows, see docs/paper.md; 0.352 with the blocks of FrEIA 0.2."""
    monkeypatch.setenv("MATDESINNE_MOS2_VASP", str(published_folder))
    data: DesignDataModule = instantiate(script_config("benchmark", "out", "experiment=paper").data, _convert_="all")
    every = data.split.train.joined(data.split.test)
    assert (published["forward"].predict_many(every.x)[0] - every.y).abs().mean().item() == pytest.approx(0.0362, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "mae", "inside"), [(0.0, 0.043, 0.79), (0.5, 0.188, 0.92), (1.0, 0.149, 0.91)], ids=["0", "0.5", "1"]
)
def test_cinn_has_the_reported_error(published, target, mae, inside):
    model, forward = published["cinn"], published["forward"]
    designs = model.sample(torch.full((10_000, 1), target), torch.Generator().manual_seed(0))
    error = (forward.predict_many(designs)[0] - target).abs().mean().item()
    assert error == pytest.approx(mae, abs=0.01)
    assert forward.space.contains(designs).float().mean().item() == pytest.approx(inside, abs=0.03)
